"""Noise on the inputs that hurts a prediction most: its direction, its size and the edit that adds it.

Sizes are relative: 0.1 is noise a tenth as large as the row's own inputs, whether these are word embeddings of any
scale or pixels however normalised. Of a row with n values where noise may act and standard deviation s, "l2" noise has
the Euclidean length size * s * sqrt(n), shared out as the gradient is, and "linf" noise moves each value by size * s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nlp_ssl.ops.functional import per_row, wide
from nlp_ssl.types import Batch, Forward

Norm = Literal["l2", "linf"]


class Measure:
    """Edit that changes nothing and notes how the inputs of each row lie around their mean.

    `values` [R, ...] are the distances from the row's mean, zero where noise may not act; `length` [R] is their
    Euclidean length and `deviation` [R] their root mean square over the places where it may.
    """

    layer = 0

    def __init__(self) -> None:
        self.values = self.length = self.deviation = torch.empty(0)
        self.rounded = False  # whether the pass ran in half precision

    def __call__(self, h: Tensor, mask: Tensor | None, content: Tensor | None) -> tuple[Tensor, None]:
        self.rounded = torch.is_autocast_enabled(h.device.type)
        values = wide(h.detach())
        free = torch.ones_like(values) if content is None else content.to(values.dtype)[:, :, None].expand_as(values)
        n = free.flatten(1).sum(1).clamp(min=1)
        self.values = free * (values - per_row((free * values).flatten(1).sum(1) / n, values))
        square = self.values.square().flatten(1).sum(1)
        self.length, self.deviation = square.sqrt(), (square / n).sqrt()
        return h, None


@dataclass(frozen=True)
class AddNoise:
    """Edit: h + noise, in the shape of the inputs."""

    noise: Tensor
    layer: int = 0

    def __call__(self, h: Tensor, mask: Tensor | None, content: Tensor | None) -> tuple[Tensor, None]:
        return h + self.noise.to(h.dtype), None


def unit_rows(d: Tensor) -> Tensor:
    """The rows of d [R, ...], each scaled to length 1 over all its other dimensions; rows of zeros stay zeros.

    The largest entry becomes 1 first, so that squares neither overflow nor vanish.
    """
    flat = wide(d).flatten(1)
    top = flat.abs().amax(1, keepdim=True)
    flat = torch.where(top > 0, flat / top, 0.0)
    length = flat.square().sum(1, keepdim=True).sqrt()
    return (flat / length.clamp(min=1.0)).view(d.shape)


def sized(g: Tensor, inputs: Measure, size: float, norm: Norm) -> Tensor:
    """Noise along the gradient g [R, ...] of a size relative to the inputs; zero where g is zero."""
    if norm == "linf":
        return per_row(size * inputs.deviation, g) * wide(g).sign()
    return per_row(size * inputs.length, g) * unit_rows(g)


def power_direction(gradient: Callable[[Tensor], Tensor], start: Tensor, reach: Tensor, steps: int) -> Tensor:
    """Direction [R, ...] in which a loss with its minimum at zero noise grows fastest, by power iteration.

    The gradient close to the minimum is the Hessian times the noise: each step turns the noise towards the Hessian's
    top eigenvector (Miyato et al. 2018, arXiv:1704.03976).

    Args:
        gradient: of the loss with respect to the noise, at this noise.
        start: random directions; their length does not matter.
        reach: length [R] of the noise at which gradients are taken.
        steps: gradients taken.
    """
    d = start
    for _ in range(steps):
        d = gradient(per_row(reach, d) * unit_rows(d))
    return unit_rows(d)


def exact_logits(net: Forward, batch: Batch, *views: str) -> Tensor:
    """Logits [R, C] of all rows of the views in the arithmetic of `net.gradient`: float32, without dropout."""
    kept: list[Tensor] = []

    def keep(logits: Sequence[Tensor]) -> Tensor:
        kept.append(torch.cat(list(logits)))
        return kept[0].sum()

    net.gradient(batch, *views, loss=keep)
    return kept[0].detach()
