"""One step of a method on given logits, without any network: for method authors and tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.method import Batch, DataSpec, Method
from nlp_ssl.nets.base import Edit
from nlp_ssl.run import Run


@dataclass(frozen=True)
class StubNet:
    """A net that answers every view with fixed logits; asking for an undeclared view raises KeyError."""

    logits: Mapping[str, Tensor]

    def __call__(self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True) -> Sequence[Tensor]:
        """The stored logits of each view."""
        return [self.logits[view] for view in views]


def step_losses(
    method: Method,
    logits: Mapping[str, Tensor],
    labels: Tensor,
    *,
    ids: Tensor | None = None,
    progress: float = 1.0,
    state: dict[str, Tensor] | None = None,
    logits_by_net: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Named losses of one `step` on logits per view, e.g. {"x": [B, C], "u_w": [N, C], "u_s": [N, C]}.

    Args:
        method: the method with its hyper-parameters.
        logits: logits per view, answered by every net that `logits_by_net` does not name.
        labels: classes [B] or probabilities [B, C] of the labeled rows.
        ids: data positions of the unlabeled rows [N]; 0..N-1 if not given.
        progress: share of the training already done, 0 to 1. Ramps and schedules are complete at 1.
        state: the method's named tensors (changed in place); fresh ones if not given.
        logits_by_net: logits per view of single nets, by role.

    A generator method's updates are run to the end; a loss it yields twice is summed.
    """
    by_net = logits_by_net or {}
    num_classes = logits["x"].shape[-1]
    unlabeled = [v for v in logits if v != "x"]
    n = logits[unlabeled[0]].shape[0] if unlabeled else 0
    spec = DataSpec(num_classes=num_classes, pool_size=n, labeled_size=len(labels))
    nets = {role: StubNet({**logits, **by_net.get(role, {})}) for role in method.nets}
    steps = 10**12
    run = Run(method, nets, spec, max_steps=steps, step=round(progress * steps))
    run.state = method.init_state(spec) if state is None else state
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
        w=torch.ones(len(labels), dtype=logits["x"].dtype),
        id={"x": torch.arange(len(labels)), "u": torch.arange(n) if ids is None else ids},
        hidden=torch.full((n,), -1),
    )
    out = method.step(run, batch)
    losses: dict[str, Tensor] = {}
    for part in out if isinstance(out, Iterator) else [out]:
        for name, value in part.items():
            losses[name] = losses[name] + value if name in losses else value
    return losses
