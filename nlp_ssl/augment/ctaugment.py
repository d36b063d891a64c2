"""CTAugment (Berthelot et al. 2020, arXiv:1911.09785): augmentation strengths that follow the model's performance.

The strength of every operation is cut into bins, each with a rate: how well the model recently classified labeled rows
changed that strongly (probes), 1 at the start. Unlabeled rows draw `depth` operations evenly, and for each a bin among
those whose rate is close to the operation's best. Rates are a tensor [ops, bins] that the caller keeps; views and
updates are pure functions of row keys and rates.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlp_ssl.augment.base import Augment, Vocabulary
from nlp_ssl.augment.image import GRADED, OPS, Cutout, FlipShift, ImageAugment, apply_ops
from nlp_ssl.augment.word_noise import WORD_OPS, stream
from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.utils.counter_rng import uniform
from nlp_ssl.utils.ragged import Ragged
from nlp_ssl.utils.ranges import check

_FLOOR = 0.01  # added to every rate: an operation whose probes always fail keeps all of its bins; 1 - the paper's decay
_CHOICE, _SIGN, _TURN = 32, 33, 64  # random streams of a row: what is drawn, and the operations' own

Rates = Callable[[], np.ndarray]  # the current rates [ops, bins]


@dataclass(frozen=True)
class _Policy:
    """What the policies share: the arithmetic of bins.

    Raises:
        ConfigError: no or unknown operations, or a number out of range.
    """

    known: ClassVar[tuple[str, ...]] = ()
    ops: tuple[str, ...]
    bins: int
    depth: int = 2
    decay: float = 0.9
    threshold: float = 0.8

    def __post_init__(self) -> None:
        if not self.ops:
            raise ConfigError(265, f"ops is empty: name at least one of {', '.join(self.known)}")
        for op in self.ops:
            if op not in self.known:
                raise ConfigError(266, f"unknown operation {op!r}.{nearest(op, self.known)}")
        check(self.bins, "bins", 1, 1000)
        check(self.depth, "depth", 1, 100)
        check(self.decay, "decay", 0.0, 1.0)
        check(self.threshold, "threshold", 0.0, 1.0)

    def initial_rates(self) -> Tensor:
        """Rates [ops, bins] before any probe."""
        return torch.ones(len(self.ops), self.bins)

    def shares(self, rates: np.ndarray) -> np.ndarray:
        """Probability of every bin [ops, bins]: as rate + 0.01, but 0 below `threshold` x the operation's best."""
        p = rates.astype(np.float64) + _FLOOR
        p = np.where(p < self.threshold * p.max(1, keepdims=True), 0.0, p)
        shares: np.ndarray = p / p.sum(1, keepdims=True)
        return shares

    def drawn(self, keys: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Operations, bins and strengths of the full range, each [n, depth], of rows with these keys [n]."""
        numbers = np.tile(np.arange(3 * self.depth), len(keys))
        u = uniform(np.repeat(stream(keys, _CHOICE), 3 * self.depth), numbers).reshape(len(keys), self.depth, 3)
        ops = (u[..., 0] * len(self.ops)).astype(np.int64)
        edges = self.shares(rates).cumsum(1)
        edges /= edges[:, -1:]  # the last one becomes 1 to the bit, above every draw
        bins = (u[..., 1, None] >= edges[ops]).sum(-1)
        return ops, bins, (bins + u[..., 2]) / self.bins

    def choices(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Operations and bins, each [n, depth], of probes with these keys [n]."""
        ops, bins, _ = self.drawn(keys, self._even())
        return ops, bins

    def updated(self, rates: Tensor, keys: np.ndarray, match: Tensor) -> Tensor:
        """New rates [ops, bins]: decay * rate + (1 - decay) * match for every bin that a probe used.

        Args:
            rates: the rates so far [ops, bins].
            keys: keys of the probes [n]; they are taken in the order of their keys, not of the rows.
            match: how well each was classified [n], 0 to 1.
        """
        values = match.detach().double().cpu().numpy()
        order = np.lexsort((values, keys))  # a row may come twice in a batch, with the same key
        ops, bins = self.choices(keys[order])
        new = rates.detach().double().cpu().numpy().copy()
        for op, used, value in zip(ops, bins, values[order], strict=True):
            for at in zip(op, used, strict=True):
                new[at] = self.decay * new[at] + (1 - self.decay) * value
        return torch.from_numpy(new).to(rates)

    def _even(self) -> np.ndarray:
        return np.ones((len(self.ops), self.bins))


@dataclass(frozen=True)
class TextPolicy(_Policy):
    """CTAugment for text: word noise of `nlp_ssl.augment.word_noise`, each bin a part of strengths 0 to `strongest`.

    Differs from the paper: rates follow the last 10 probes of a bin instead of the last 100 (`decay` 0.9 instead of
    0.99), so that a run of 200 steps learns them: 8 labeled rows per step probe each of 32 bins every other step. What
    is added to every rate stays 0.01, as with the paper's decay, where the authors' code adds 1 - decay. Strengths are
    drawn bin by bin, in that code between the middles of two bins.
    """

    known = tuple(WORD_OPS)
    ops: tuple[str, ...] = ("tfidf", "cutoff", "span", "swap")
    bins: int = 8
    strongest: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.strongest, "strongest", 0.0, 1.0)

    def bound(self, read: Rates) -> Augment:
        """The controlled view: strengths follow the rates that `read` gives for each batch."""
        return _TextView(self, read)

    def probe(self) -> Augment:
        """The view of probes: all operations and strengths are equally likely."""
        return _TextView(self, self._even)


@dataclass(frozen=True)
class _TextView:
    policy: TextPolicy
    read: Rates

    def __call__(self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary) -> Ragged:
        ops, _, strength = self.policy.drawn(keys, self.read())
        for turn in range(self.policy.depth):
            chosen, p = ops[:, turn], self.policy.strongest * strength[:, turn]
            places, changed, rest = [], [], []
            by_row = Ragged(weights, words.offsets)
            for number in np.unique(chosen):
                at = np.flatnonzero(chosen == number)
                op = WORD_OPS[self.policy.ops[number]]
                new, left = op(
                    words.take(at), by_row.take(at).values, stream(keys[at], _TURN + turn), vocabulary, p[at]
                )
                places.append(at)
                changed.append(new)
                rest.append(Ragged(left, new.offsets))
            if places:
                back = np.argsort(np.concatenate(places))
                words, weights = Ragged.concat(changed).take(back), Ragged.concat(rest).take(back).values
        return words


@dataclass(frozen=True)
class ImagePolicy(_Policy):
    """CTAugment for images: the weak view, then operations of RandAugment at drawn strengths, then Cutout.

    Probes have no Cutout, so that they measure the operations alone. Autocontrast and equalize blend with the
    image, so that they have a strength as well. The direction of a shift or turn is drawn, not learned.

    Differs from the paper: `decay` 0.9 instead of 0.99 and 0.01 added to every rate, as for text, strengths drawn bin
    by bin; the operations are those of FixMatch's RandAugment, and Cutout keeps its size.
    """

    known = OPS
    ops: tuple[str, ...] = OPS
    bins: int = 17
    flip_shift: FlipShift = FlipShift()
    cutout: Cutout = Cutout()

    def bound(self, read: Rates) -> ImageAugment:
        """The controlled view: strengths follow the rates that `read` gives for each batch."""
        return _ImageView(self, read)

    def probe(self) -> ImageAugment:
        """The view of probes: all operations and strengths are equally likely, without Cutout."""
        return _ImageView(replace(self, cutout=Cutout(size=0.0)), self._even)


@dataclass(frozen=True)
class _ImageView:
    policy: ImagePolicy
    read: Rates

    def __call__(self, images: Tensor, keys: NDArray[np.uint64]) -> Tensor:
        ops, _, strength = self.policy.drawn(keys, self.read())
        images = self.policy.flip_shift(images, keys)
        table = [GRADED[op] for op in self.policy.ops]
        for turn in range(self.policy.depth):
            sign = np.where(uniform(stream(keys, _SIGN), np.full(len(keys), turn)) < 0.5, -1.0, 1.0)
            signed = torch.from_numpy(sign * strength[:, turn]).float().view(-1, 1, 1, 1)
            images = apply_ops(images, table, torch.from_numpy(ops[:, turn]), signed)
        return self.policy.cutout(images, keys)
