"""What the engine asks of a net, for any modality."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlp_ssl.method import Batch


class Edit(Protocol):
    """A change of a hidden representation: MixUp, adversarial noise, masking.

    `layer` 0 is the input (word embeddings [R, L, H] before positions are added, or pixels [R, C, H, W]);
    k > 0 is the output of the k-th transformer layer.
    """

    @property
    def layer(self) -> int: ...

    def __call__(self, h: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Edited values and the mask [R, L] that goes with them."""
        ...


class Forward(Protocol):
    """`net(batch, *views) -> logits per view`: the only modality-aware call of a method."""

    def __call__(
        self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True
    ) -> Sequence[Tensor]: ...


class Module(nn.Module):
    """A classifier that maps inputs [R, ...] to features [R, D] and features to logits [R, C]."""

    natural_start: ClassVar[Literal["none", "contrastive"]] = "none"  # warm start that suits the net

    def embed(self, inputs: dict[str, Tensor], edit: Edit | None = None) -> Tensor:
        """Pooled features [R, D]."""
        raise NotImplementedError

    def head(self, features: Tensor) -> Tensor:
        """Logits [R, C] of features [R, D]."""
        raise NotImplementedError

    def forward(self, inputs: dict[str, Tensor], edit: Edit | None = None) -> Tensor:
        """Logits [R, C]."""
        return self.head(self.embed(inputs, edit))

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
    ) -> None:
        self.module = module
        self.wrapped = wrapped if wrapped is not None else module  # carries the hooks of data-parallel training
        self.autocast = autocast
        self.real_tokens = self.computed_tokens = 0  # since the last log line; the difference is padding

    def __call__(self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True) -> list[Tensor]:
        """Logits [n, C] float32 of each view, in the order asked for."""
        spans = [batch["rows"][view] for view in views]
        index = np.concatenate([np.arange(s.start, s.stop) for s in spans])
        contiguous = len(index) > 0 and bool((np.diff(index) == 1).all())
        rows: slice | Tensor = slice(int(index[0]), int(index[-1]) + 1) if contiguous else torch.from_numpy(index)
        lengths = batch["lengths"][index]
        inputs = self.module.trim({k: v[rows] for k, v in batch["inputs"].items()}, lengths)
        self.real_tokens += int(lengths.sum())
        self.computed_tokens += self.module.cost(inputs, lengths)
        target = self.wrapped if torch.is_grad_enabled() else self.module
        with self.autocast(), _noise(self.module, dropout):
            logits = target(inputs, edit)
        return list(logits.float().split([s.stop - s.start for s in spans]))


@contextmanager
def _noise(module: nn.Module, dropout: bool) -> Iterator[None]:
    """Switches dropout off, and keeps running batch statistics still in passes without gradient."""
    was_training = module.training
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    still = was_training and not torch.is_grad_enabled()
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
