"""What the engine asks of a net, for any modality."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlp_ssl.errors import ConfigError
from nlp_ssl.ops.distributed import total, world_size
from nlp_ssl.ops.multilabel import binary_logits
from nlp_ssl.types import Batch, Edit, Head, Kind

_SLOPE_REACH = 1e-2  # length of the step of the parameters that a slope is measured over


class Module(nn.Module):
    """A classifier that maps inputs [R, ...] to features [R, D] and features to logits [R, C]."""

    natural_start: ClassVar[Literal["none", "contrastive"]] = "none"  # warm start that suits the net
    classifier: nn.Linear  # the last layer, from features to logits

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.ModuleDict()  # heads of the method, left out of the saved model

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the logits, where the net knows them."""
        return None

    def embed(self, inputs: dict[str, Tensor], edit: Edit | None = None) -> Tensor:
        """Pooled features [R, D]."""
        raise NotImplementedError

    def head(self, features: Tensor) -> Tensor:
        """Logits [R, C] of features [R, D]."""
        raise NotImplementedError

    def forward(self, inputs: dict[str, Tensor], edit: Edit | None = None) -> Tensor:
        """Logits [R, C], and beside them in the same tensor what attached heads give [R, C + widths]."""
        features = self.embed(inputs, edit)
        logits = self.head(features)
        return torch.cat([logits, *(h(features) for h in self.extra.values())], -1) if self.extra else logits

    def attach(self, heads: Mapping[str, Head]) -> None:
        """Adds fresh heads on the features; the random generator decides their weights."""
        for name, head in heads.items():
            self.extra[name] = _fresh(head, self.classifier)

    def masked(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs with some tokens hidden, which make `forward` give (loss, number of hidden tokens) per row [R, 2].

        Raises:
            ConfigError: the inputs have no tokens.
        """
        raise ConfigError(272, "masked tokens need texts: set the weight of their loss to 0")

    def depth(self) -> int:
        """The last layer that an edit can change."""
        raise NotImplementedError

    def room(self, inputs: dict[str, Tensor]) -> Tensor:
        """1 where noise may act on the inputs: [R, L, H], or pixels."""
        raise NotImplementedError

    def trim(self, inputs: dict[str, Tensor], lengths: np.ndarray) -> dict[str, Tensor]:
        """The inputs without padding that rows of these lengths do not need."""
        return inputs

    def cost(self, inputs: dict[str, Tensor], lengths: np.ndarray) -> int:
        """Tokens, padding included, that a pass over rows of these lengths computes."""
        return int(lengths.sum())

    def save(self, folder: Path) -> None:
        """Writes the trained classifier into an existing folder."""
        raise NotImplementedError

    def layers(self) -> list[str]:
        """Prefixes of parameter names from the input to the head, for layer-wise learning rates."""
        return []

    def head_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the names of parameters that start untrained and take the head's learning rate."""
        return ()


class Net:
    """A module as methods call it: picks the rows of the views, trims, runs ONE forward pass, splits."""

    def __init__(
        self,
        module: Module,
        wrapped: nn.Module | None = None,
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        shift: Tensor | None = None,
        classifiers: Sequence[str] = (),
        kind: Kind = "single-label",
    ) -> None:
        """Adds `shift` [C] to logits, and to what the heads named in `classifiers` give; shows `kind` of labels."""
        self._seen = binary_logits if kind == "multi-label" else _as_it_is
        self.module = module
        self.shift = None if shift is None else shift.to(module.classifier.weight.device)
        self._shifts = None if self.shift is None else _of_outputs(self.shift, module, classifiers)
        self.wrapped = wrapped if wrapped is not None else module  # carries the hooks of data-parallel training
        self.autocast = autocast
        self.real_tokens = self.computed_tokens = 0  # since the last log line; the difference is padding

    @property
    def depth(self) -> int:
        """The last layer that an edit can change."""
        return self.module.depth()

    def __call__(self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True) -> list[Tensor]:
        """Logits [n, C] float32 of each view, in the order asked for."""
        classes = self.module.classifier.out_features
        return [self._seen(out[:, :classes]) for out in self._forward(batch, views, edit, dropout)]

    def outputs(
        self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True
    ) -> list[dict[str, Tensor]]:
        """Logits and head outputs of each view, float32."""
        names = ["logits", *self.module.extra]
        widths = [self.module.classifier.out_features, *(_width(head) for head in self.module.extra.values())]
        parts = self._forward(batch, views, edit, dropout)
        return [dict(zip(names, torch.split(out, widths, -1), strict=True)) for out in parts]

    def room(self, batch: Batch, *views: str) -> Tensor:
        """1 where noise may act on the inputs of the views."""
        return self.module.room(self.inputs_of(batch, views)[0])

    def gradient(
        self,
        batch: Batch,
        *views: str,
        loss: Callable[[Sequence[Tensor]], Tensor],
        noise: Tensor | None = None,
    ) -> Tensor:
        """Gradient of a loss with respect to the inputs, at inputs + noise."""
        inputs, _, sizes = self.inputs_of(batch, views)
        probe = _Probe(noise)
        # The bare module: hooks of data-parallel training must not see this pass, its backward never reaches them.
        with torch.enable_grad(), _noise(self.module, False):
            logits = self.logits_of(inputs, probe)
            of_views = [self._seen(part) for part in torch.split(logits, sizes)]
            (gradient,) = torch.autograd.grad(loss(of_views), [probe.delta])
        return gradient.float()

    def slope(
        self, batch: Batch, *views: str, of: Sequence[str], loss: Callable[[Sequence[Tensor]], Tensor]
    ) -> list[Tensor]:
        """Derivative of log-probabilities along the parameters' gradient of a loss: a central difference."""
        weights = [p for p in self.module.parameters() if p.requires_grad]
        seen, _, sizes = self.inputs_of(batch, views)
        with _noise(self.module, False):
            with torch.enable_grad():
                inputs, _, rows = self.inputs_of(batch, of)
                logits = self.logits_of(inputs)
                gradients = torch.autograd.grad(loss(torch.split(logits, rows)), weights, allow_unused=True)
            way = [total(g) / world_size() if g is not None else None for g in gradients]
            length = torch.stack([g.square().sum() for g in way if g is not None]).sum().sqrt()
            ends = []
            with torch.no_grad():
                before = [w.clone() for w in weights]
                for side in (1.0, -1.0):
                    for w, old, g in zip(weights, before, way, strict=True):
                        if g is not None:
                            w.copy_(old + side * _SLOPE_REACH / length.clamp(min=1e-12) * g)
                    ends.append(self.logits_of(seen).log_softmax(-1))
                for w, old in zip(weights, before, strict=True):
                    w.copy_(old)
        return list(torch.split((ends[0] - ends[1]) * length / (2 * _SLOPE_REACH), sizes))

    def masked_tokens(self, batch: Batch, *views: str) -> tuple[Tensor, Tensor]:
        """Loss of masked tokens per row, and their number."""
        inputs, _, _ = self.inputs_of(batch, views)
        target = self.wrapped if torch.is_grad_enabled() else self.module
        with self.autocast():
            out = target(self.module.masked(inputs))
        return out[:, 0].float(), out[:, 1].detach().float()

    def logits_of(self, inputs: dict[str, Tensor], edit: Edit | None = None) -> Tensor:
        """Logits [R, C] of the bare module, float32."""
        logits: Tensor = self.module(inputs, edit)[:, : self.module.classifier.out_features].float()
        return logits if self.shift is None else logits + self.shift

    def inputs_of(self, batch: Batch, views: Sequence[str]) -> tuple[dict[str, Tensor], np.ndarray, list[int]]:
        """Trimmed inputs of the views, their lengths, and the number of rows of each view."""
        spans = [batch["rows"][view] for view in views]
        index = np.concatenate([np.arange(s.start, s.stop) for s in spans])
        contiguous = len(index) > 0 and bool((np.diff(index) == 1).all())
        rows: slice | Tensor = slice(int(index[0]), int(index[-1]) + 1) if contiguous else torch.from_numpy(index)
        lengths = batch["lengths"][index]
        inputs = self.module.trim({k: v[rows] for k, v in batch["inputs"].items()}, lengths)
        return inputs, lengths, [s.stop - s.start for s in spans]

    def _forward(self, batch: Batch, views: Sequence[str], edit: Edit | None, dropout: bool) -> list[Tensor]:
        inputs, lengths, sizes = self.inputs_of(batch, views)
        self.real_tokens += int(lengths.sum())
        self.computed_tokens += self.module.cost(inputs, lengths)
        target = self.wrapped if torch.is_grad_enabled() else self.module
        with self.autocast(), _noise(self.module, dropout):
            out = target(inputs, edit).float()
        return list((out if self._shifts is None else out + self._shifts).split(sizes))


class Recorded:
    """A frozen net of which only its logits [U, C] for the plain rows of the pool are known."""

    depth = 0

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.float()

    def __call__(self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True) -> list[Tensor]:
        """Logits [n, C] of views of pool rows, the same for every view.

        Raises:
            ConfigError: a view of labeled rows, or a change inside the net, is asked for.
        """
        if edit is not None or any(view[0] != "u" for view in views):
            raise ConfigError(236, "of this net only its answers for the pool are known: give the net itself")
        return [self.logits[batch["id"]["u"]] for _ in views]


class _Probe:
    """Adds noise to the inputs that a gradient can be taken for."""

    layer = 0

    def __init__(self, noise: Tensor | None) -> None:
        self.noise = noise
        self.delta = torch.empty(0)

    def __call__(self, h: Tensor, mask: Tensor | None, content: Tensor | None) -> tuple[Tensor, None]:
        start = torch.zeros_like(h) if self.noise is None else self.noise.to(h.dtype)
        self.delta = start.detach().clone().requires_grad_()
        free = self.delta if content is None else self.delta * content.to(h.dtype)[:, :, None]
        return h.detach() + free, None


def _fresh(head: Head, classifier: nn.Linear) -> nn.Module:
    wide = classifier.in_features
    if head.kind == "classifier":
        twin = nn.Linear(wide, classifier.out_features)
        with torch.no_grad():
            spread = classifier.weight.std()
            noise = torch.randn(twin.weight.shape).to(classifier.weight.device)
            twin.weight.copy_(classifier.weight + spread * noise)
            twin.bias.copy_(classifier.bias)
        return nn.Sequential(nn.Dropout(0.1), twin).to(classifier.weight.device)
    last = nn.Linear(wide, head.width or wide)
    layers = [nn.Linear(wide, wide), nn.ReLU(), last] if head.kind == "mlp" else [last]
    return nn.Sequential(*layers).to(classifier.weight.device)


def _of_outputs(shift: Tensor, module: Module, classifiers: Sequence[str]) -> Tensor:
    """A shift [C] of logits as one of all that the module gives [C + widths of its heads]."""
    heads = module.extra.items()
    return torch.cat([shift, *(shift if k in classifiers else shift.new_zeros(_width(head)) for k, head in heads)])


def _as_it_is(logits: Tensor) -> Tensor:
    return logits


def _width(head: nn.Module) -> int:
    last = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
    return last.out_features


@contextmanager
def _noise(module: nn.Module, dropout: bool) -> Iterator[None]:
    """Switches dropout off. Running batch statistics move only in passes that train: with gradient and dropout."""
    was_training = module.training
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    still = was_training and not (torch.is_grad_enabled() and dropout)
    momenta = [m.momentum for m in norms]
    if not dropout:
        module.eval()
        for m in norms:
            m.train(was_training)
    if still:
        for m in norms:
            m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        if not dropout:
            module.train(was_training)
