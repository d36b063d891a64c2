"""One step of a method on given logits, without any network: for method authors and tests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.method import Method
from nlp_ssl.ops.functional import softmax
from nlp_ssl.ops.multilabel import binary_batch, binary_logits, binary_targets
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Edit, Head, Kind


@dataclass(frozen=True)
class StubNet:
    """A net that answers every view with fixed logits; asking for an undeclared view raises KeyError.

    Seen from a method that changes inputs, the logits are the inputs and the net is the identity: noise adds to them,
    MixUp mixes them. Heads without fixed outputs give a fixed linear map of the centred logits.
    """

    logits: Mapping[str, Tensor]
    heads: Mapping[str, Head] = field(default_factory=dict)
    fixed: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)  # head -> view -> output
    kind: Kind = "single-label"
    depth: int = 1

    def __call__(self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True) -> Sequence[Tensor]:
        """The stored logits of each view, edited."""
        z = torch.cat([self.logits[view] for view in views])
        if edit is not None:
            z, _ = edit(z, None, None)
        return self._views(z, views)

    def _views(self, z: Tensor, views: Sequence[str]) -> list[Tensor]:
        """Logits of all views as those of each, in the way that methods see them."""
        parts = torch.split(z, [len(self.logits[view]) for view in views])
        return [binary_logits(part) for part in parts] if self.kind == "multi-label" else list(parts)

    def outputs(
        self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True
    ) -> Sequence[Mapping[str, Tensor]]:
        """Logits and head outputs of each view."""
        logits = self(batch, *views, edit=edit, dropout=dropout)
        return [
            {"logits": z, **{name: self._head(name, view, z) for name in self.heads}}
            for view, z in zip(views, logits, strict=True)
        ]

    def _head(self, name: str, view: str, z: Tensor) -> Tensor:
        if name in self.fixed:
            return self.fixed[name][view]
        width, salt = self.heads[name].width or z.shape[1], float(list(self.heads).index(name))
        table = torch.cos(torch.arange(z.shape[1] * width, dtype=torch.float64) + salt).view(z.shape[1], width)
        return (z - z.mean(1, keepdim=True)) @ table.to(z.dtype)

    def room(self, batch: Batch, *views: str) -> Tensor:
        """Ones in the shape of the logits."""
        return torch.ones_like(torch.cat([self.logits[view] for view in views]))

    def gradient(
        self,
        batch: Batch,
        *views: str,
        loss: Callable[[Sequence[Tensor]], Tensor],
        noise: Tensor | None = None,
    ) -> Tensor:
        """Gradient of the loss with respect to the logits, at logits + noise."""
        with torch.enable_grad():
            z = torch.cat([self.logits[view] for view in views]).detach()
            z = (z if noise is None else z + noise.detach()).requires_grad_()
            (gradient,) = torch.autograd.grad(loss(self._views(z, views)), [z])
        return gradient

    def slope(
        self, batch: Batch, *views: str, of: Sequence[str], loss: Callable[[Sequence[Tensor]], Tensor]
    ) -> Sequence[Tensor]:
        """As if the net had one parameter for each class, which adds to all its logits."""
        with torch.enable_grad():
            bias = torch.zeros_like(self.logits[of[0]][0]).requires_grad_()
            (way,) = torch.autograd.grad(loss([self.logits[view].detach() + bias for view in of]), [bias])
        return [way - (softmax(self.logits[view].detach()) * way).sum(-1, keepdim=True) for view in views]

    def masked_tokens(self, batch: Batch, *views: str) -> tuple[Tensor, Tensor]:
        """The first logit is the loss of a row's one hidden token."""
        z = torch.cat([self.logits[view] for view in views])
        return (z - z.mean(1, keepdim=True))[:, 0], torch.ones_like(z[:, 0])


def step_losses(
    method: Method,
    logits: Mapping[str, Tensor],
    labels: Tensor,
    *,
    ids: Tensor | None = None,
    progress: float = 1.0,
    state: dict[str, Tensor] | None = None,
    logits_by_net: Mapping[str, Mapping[str, Tensor]] | None = None,
    heads: Mapping[str, Mapping[str, Tensor]] | None = None,
    w: Tensor | None = None,
    prior: tuple[float, ...] | None = None,
    kind: Kind = "single-label",
) -> dict[str, Tensor]:
    """Named losses of one `step` on logits per view, e.g. {"x": [B, C], "u_w": [N, C], "u_s": [N, C]}.

    Args:
        method: the method with its hyper-parameters.
        logits: logits per view, answered by every net that `logits_by_net` does not name.
        labels: classes [B] or probabilities [B, C] of the labeled rows.
        progress: share of the training already done, 0 to 1. Ramps and schedules are complete at 1.
        ids: numbers of the unlabeled rows in the pool [N], and keys of their augmentation; 0..N-1 if not given.
        state: the method's named tensors (changed in place); those of a first step, after `begin_epoch`, if not given.
        logits_by_net: logits per view of single nets, by role.
        w: weights of the labeled rows [B]; ones if not given.
        prior: shares of the classes in the pool that pseudo-labels are aligned to; not aligned if not given.
        heads: outputs per view of the method's heads, by name, e.g. {"projection": {"u_w": [N, D]}}.
        kind: "single-label", or "multi-label" with labels [B, C] of 1, 0 and -1 (not known).

    A generator method's updates are run to the end; a loss it yields twice is summed.
    """
    by_net = logits_by_net or {}
    num_classes = logits["x"].shape[-1]
    unlabeled = [v for v in logits if v.startswith("u")]
    n = logits[unlabeled[0]].shape[0] if unlabeled else 0
    ids = torch.arange(n) if ids is None else ids
    pool = max(n, int(ids.max()) + 1) if n else 0
    spec = DataSpec(num_classes=num_classes, pool_size=pool, labeled_size=len(labels), prior=prior)
    if kind == "multi-label":
        spec = DataSpec(2, pool * num_classes, labels.numel(), kind=kind)
    nets = {
        role: StubNet({**logits, **by_net.get(role, {})}, method.wanted_heads(), heads or {}, kind)
        for role in method.nets
    }
    steps = 10**12

    def seen(z: Tensor) -> Tensor:
        return binary_logits(z) if kind == "multi-label" else z

    def of_block(role: str, block: str) -> Tensor:
        if block == "x" or not unlabeled:
            return seen(nets[role].logits["x"].detach())
        z = nets[role].logits[unlabeled[0]].detach()
        return seen(z.new_zeros(pool, num_classes).index_copy(0, ids, z))

    run = StepContext(
        method,
        nets,
        spec,
        max_steps=steps,
        step=round(progress * steps),
        predict=lambda role, block: softmax(of_block(role, block)),
        features=of_block,
        labels=labels if kind == "single-label" else binary_targets(labels),
    )
    run.state = method.init_state(spec) if state is None else state
    if prior is not None and state is None:
        run.state["pool_mean"] = torch.full((num_classes,), 1 / num_classes, dtype=logits["x"].dtype)
    if state is None:
        method.begin_epoch(run)
    rows: dict[str, slice] = {}
    start = 0
    for view in logits:
        rows[view] = slice(start, start + logits[view].shape[0])
        start = rows[view].stop
    batch = Batch(
        inputs={},
        lengths=np.ones(start, dtype=np.int32),
        rows=rows,
        y=labels,
        w=torch.ones(len(labels), dtype=logits["x"].dtype) if w is None else w,
        id={"x": torch.arange(len(labels)), "u": ids},
        keys={v: (np.arange(len(labels)) if v[0] == "x" else ids.numpy()).astype(np.uint64) for v in logits},
        true_labels=torch.full((n,) if kind == "single-label" else (n, num_classes), -1),
    )
    out = method.step(run, batch if kind == "single-label" else binary_batch(batch))
    losses: dict[str, Tensor] = {}
    for part in out if isinstance(out, Iterator) else [out]:
        for name, value in part.items():
            losses[name] = losses[name] + value if name in losses else value
    return losses
