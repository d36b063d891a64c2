"""Mixing rows with partner rows: at the inputs, at a hidden layer, or by swapping spans of tokens (SSMix)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from nlp_ssl.errors import ConfigError
from nlp_ssl.ops import random
from nlp_ssl.ops.functional import ce, per_row
from nlp_ssl.types import Batch, Edit, Forward

Mixer = Annotated[
    Literal["embedding", "hidden", "ssmix"],
    "where rows are mixed: at word embeddings or pixels, at a hidden layer, or by swapping spans (ssmix, texts alone)",
]
_HIDDEN = (7 / 12, 9 / 12, 1.0)  # depths at which MixText mixes: layers 7, 9 and 12 of BERT
_WINDOW = 0.1  # share of a text's tokens that SSMix swaps


@dataclass(frozen=True)
class Blend:
    """Edit: lam * h + (1 - lam) * h[partner], row by row.

    lam [R], partner [R]. The mask is the union of both texts, so that neither loses tokens; a text with no share in the
    mix does not count.
    """

    lam: Tensor
    partner: Tensor
    layer: int = 0

    def __call__(self, h: Tensor, mask: Tensor | None, content: Tensor | None) -> tuple[Tensor, Tensor | None]:
        lam = per_row(self.lam.to(h.dtype), h)
        mixed = lam * h + (1 - lam) * h[self.partner]
        if mask is None:
            return mixed, None
        own, theirs = mask * (self.lam > 0)[:, None], mask[self.partner] * (self.lam < 1)[:, None]
        return mixed, torch.maximum(own, theirs)


@dataclass(frozen=True)
class Swap:
    """Edit: where `replaced` [R, L], the word embedding of the partner's token at `source` [R, L]; the mask stays."""

    replaced: Tensor
    source: Tensor
    partner: Tensor
    layer: int = 0

    def __call__(self, h: Tensor, mask: Tensor | None, content: Tensor | None) -> tuple[Tensor, None]:
        foreign = h[self.partner[:, None], self.source]  # [R, L, H]
        return torch.where(self.replaced[:, :, None], foreign, h), None


@dataclass(frozen=True)
class Mix:
    """A mixing of R rows: the edit for the net, and lam [R] and partner [R] for the targets."""

    edit: Edit
    lam: Tensor
    partner: Tensor

    def of(self, targets: Tensor) -> Tensor:
        """Targets [R, C] mixed as the rows are."""
        lam = self.lam.to(targets.dtype)[:, None]
        return lam * targets + (1 - lam) * targets[self.partner]


def mix(
    mixer: Mixer,
    net: Forward,
    batch: Batch,
    views: Sequence[str],
    targets: Tensor,
    alpha: float,
    *,
    partner: Tensor,
    per_row: bool = False,
    larger: bool = True,
) -> Mix:
    """Mixes the rows of `views` with partner rows, all counted in the order of the views.

    Args:
        mixer: "embedding" blends word embeddings or pixels (Zhang et al. 2018, arXiv:1710.09412; Guo et al. 2019,
            arXiv:1905.08941), "hidden" blends the output of a layer drawn from the upper half (Verma et al. 2019,
            arXiv:1806.05236; Chen et al. 2020, arXiv:2004.12239), "ssmix" puts the most salient span of the partner in
            place of the least salient one (Yoon et al. 2021, arXiv:2106.08062).
        net: the net that will see the mix; "ssmix" asks it for a gradient.
        batch: the batch.
        views: views whose rows take part [R in all].
        targets: probabilities [R, C]; only "ssmix" looks at them, for the saliency.
        alpha: lam ~ Beta(alpha, alpha); 0 leaves the rows as they are. "ssmix" knows only 0 or not 0.
        partner: number of each row's partner [R].
        per_row: a lam for each row instead of one for all.
        larger: max(lam, 1 - lam): the row itself outweighs its partner.

    Raises:
        ConfigError: "ssmix" on images.
    """
    rows = len(targets)
    if mixer == "ssmix" and alpha > 0:
        return _ssmix(net, batch, views, targets, partner)
    lam = random.beta(alpha, rows if per_row else 1, targets).expand(rows)
    lam = torch.maximum(lam, 1 - lam) if larger else lam
    layer = 0
    if mixer == "hidden":
        layer = max(math.ceil(_HIDDEN[random.integer(len(_HIDDEN))] * net.depth), 1)
    return Mix(Blend(lam, partner, layer), lam, partner)


def _ssmix(net: Forward, batch: Batch, views: Sequence[str], targets: Tensor, partner: Tensor) -> Mix:
    room = net.room(batch, *views)
    if room.dim() != 3:
        raise ConfigError(270, "ssmix swaps tokens: use the mixer embedding or hidden for images")
    content = room[..., 0] > 0  # [R, L]
    saliency = net.gradient(batch, *views, loss=lambda z: ce(torch.cat(list(z)), targets).sum()).square().sum(-1).sqrt()
    return Mix(*span_swap(saliency, content, partner))


def span_swap(saliency: Tensor, content: Tensor, partner: Tensor) -> tuple[Swap, Tensor, Tensor]:
    """SSMix's swap for saliencies [R, L] and content masks [R, L]: (edit, lam [R], partner [R]).

    A row of n content tokens gives up its least salient window of max(int(0.1 n), 1) tokens to the partner's most
    salient window of that size; lam = 1 - size / n. Rows whose partner is shorter than the window stay: lam = 1.
    """
    rows, length = saliency.shape
    count = content.sum(1)  # [R]
    size = (count * _WINDOW).long().clamp(min=1)
    fits = (count >= size) & (count[partner] >= size) & (count > 0)
    low = _window_start(saliency, content, size, least=True)
    high = _window_start(saliency[partner], content[partner], size, least=False)
    at = torch.arange(length, device=saliency.device)[None]
    replaced = (at >= low[:, None]) & (at < (low + size)[:, None]) & fits[:, None]
    source = (at - low[:, None] + high[:, None]).clamp(0, length - 1)
    lam = torch.where(fits, 1 - size / count.clamp(min=1), 1.0).to(saliency.dtype)
    return Swap(replaced, source, partner), lam, partner


def _window_start(saliency: Tensor, content: Tensor, size: Tensor, *, least: bool) -> Tensor:
    """Start [R] of the window of size[r] content tokens with the least or the largest sum of saliency."""
    rows, length = saliency.shape
    zero = saliency.new_zeros(rows, 1)
    sums = torch.cat([zero, (saliency * content).cumsum(1)], 1)  # [R, L + 1]
    counts = torch.cat([zero, content.to(saliency.dtype).cumsum(1)], 1)
    start = torch.arange(length, device=saliency.device)[None].expand(rows, -1)
    stop = start + size[:, None]
    inside = stop <= length
    stop = stop.clamp(max=length)
    total = sums.gather(1, stop) - sums.gather(1, start)
    full = inside & (counts.gather(1, stop) - counts.gather(1, start) == size[:, None])
    worst = torch.inf if least else -torch.inf
    total = total.masked_fill(~full, worst)
    return total.argmin(1) if least else total.argmax(1)
