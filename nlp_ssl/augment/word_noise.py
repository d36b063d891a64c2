"""Word noise: some words of a row are removed or swapped. A row's noise is a pure function of its key, as elsewhere.

Every operation has a strength p in [0, 1]: about the share of words it touches. At least one word of a row remains,
and no operation writes to its inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nlp_ssl.augment.base import Vocabulary
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.utils.counter_rng import mix_bits, uniform
from nlp_ssl.utils.ragged import Ragged
from nlp_ssl.utils.ranges import check

# (words, replace weight of each word [T], keys [n], vocabulary, strength of each row [n]) -> the rows afterwards, with
# the replace weight of each word that is left: one operation may follow another.
WordOp = Callable[[Ragged, np.ndarray, np.ndarray, Vocabulary, np.ndarray], tuple[Ragged, np.ndarray]]

# Each operation has its own random stream: with a shared one, two in a row would choose the same words.
_CUTOFF, _DROPOUT, _SPAN, _SWAP = 1, 2, 3, 4


def stream(keys: np.ndarray, number: int) -> np.ndarray:
    """Keys [n] of another random stream of the same rows."""
    return mix_bits(keys ^ np.uint64(number))


def cut_off(
    words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary, p: np.ndarray
) -> tuple[Ragged, np.ndarray]:
    """`TokenCutoff` with a strength p [n] for each row."""
    numbers = uniform(np.repeat(stream(keys, _CUTOFF), words.lengths), words.columns())
    return _keep_above(words, weights, numbers, p)


def drop_out(
    words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary, p: np.ndarray
) -> tuple[Ragged, np.ndarray]:
    """`WordDropout` with a strength p [n] for each row."""
    numbers = uniform(np.repeat(stream(keys, _DROPOUT), words.lengths), words.values)
    return _keep_above(words, weights, numbers, p)


def delete_span(
    words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary, p: np.ndarray
) -> tuple[Ragged, np.ndarray]:
    """`SpanDeletion` with a strength p [n] for each row."""
    lengths, key = words.lengths, stream(keys, _SPAN)
    # Rounded up with the probability of the fraction: short rows would never lose a word otherwise.
    size = (p * lengths + uniform(key, np.zeros(len(words)))).astype(np.int64)
    size = np.minimum(size, np.maximum(lengths - 1, 0))
    start = (uniform(key, np.ones(len(words))) * (lengths - size + 1)).astype(np.int64)
    column = words.columns()
    return _kept(words, weights, (column < np.repeat(start, lengths)) | (column >= np.repeat(start + size, lengths)))


def swap(
    words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary, p: np.ndarray
) -> tuple[Ragged, np.ndarray]:
    """`WordSwap` with a strength p [n] for each row."""
    key, counter = np.repeat(stream(keys, _SWAP), words.lengths), 2 * words.columns()
    chosen = np.flatnonzero(uniform(key, counter) < np.repeat(p, words.lengths))
    row = words.rows()[chosen]
    chosen = chosen[np.lexsort((uniform(key[chosen], counter[chosen] + 1), row))]  # in random order within each row
    count = np.bincount(row, minlength=len(words))
    place = np.arange(len(chosen)) - (np.cumsum(count) - count)[row]
    first = np.flatnonzero((place % 2 == 0) & (place + 1 < count[row]))
    source = np.arange(len(key))
    source[chosen[first]], source[chosen[first + 1]] = chosen[first + 1], chosen[first]
    return Ragged(words.values[source], words.offsets), weights[source]


def replace(
    words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary, p: np.ndarray
) -> tuple[Ragged, np.ndarray]:
    """`TfidfReplace` with a strength p [n] for each row. A new word keeps the replace weight of its place."""
    scaled = weights.astype(np.float32) * np.repeat(p, words.lengths)
    return TfidfReplace(1.0)(words, scaled, keys, vocabulary), weights


def _keep_above(words: Ragged, weights: np.ndarray, numbers: np.ndarray, p: np.ndarray) -> tuple[Ragged, np.ndarray]:
    """The words whose random number [T] is at least p of their row, or else the largest of the row."""
    lengths, largest = words.lengths, np.ones(len(words))
    filled = lengths > 0
    if filled.any():
        largest[filled] = np.maximum.reduceat(numbers, words.offsets[:-1][filled])
    return _kept(words, weights, numbers >= np.repeat(np.minimum(p, largest), lengths))


def _kept(words: Ragged, weights: np.ndarray, keep: np.ndarray) -> tuple[Ragged, np.ndarray]:
    """The words where keep [T] holds."""
    lengths = np.bincount(words.rows()[keep], minlength=len(words))
    return Ragged.from_lengths(words.values[keep], lengths), weights[keep]


WORD_OPS: dict[str, WordOp] = {
    "cutoff": cut_off,
    "dropout": drop_out,
    "span": delete_span,
    "swap": swap,
    "tfidf": replace,
}


@dataclass(frozen=True)
class WordNoise:
    """One operation with the same strength p for every row.

    Raises:
        ConfigError: p outside [0, 1].
    """

    operation: ClassVar[str]  # of `WORD_OPS`
    p: float = 0.15

    def __post_init__(self) -> None:
        check(self.p, "p", 0.0, 1.0)

    def __call__(self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary) -> Ragged:
        return WORD_OPS[self.operation](words, weights, keys, vocabulary, np.full(len(words), self.p))[0]


@dataclass(frozen=True)
class TokenCutoff(WordNoise):
    """Removes each word with probability p (Shen et al. 2020, arXiv:2009.13818).

    Differs from the paper: whole words are removed; there, embeddings of tokens become zero.
    """

    operation = "cutoff"


@dataclass(frozen=True)
class WordDropout(WordNoise):
    """Removes each distinct word with probability p, wherever it occurs (Gal & Ghahramani 2016, arXiv:1512.05287).

    Differs from the paper: embeddings of dropped words become zero there; here the words are removed, because a
    vocabulary of the texts has no word for a missing one.
    """

    operation = "dropout"


@dataclass(frozen=True)
class SpanDeletion(WordNoise):
    """Removes one run of words, a share p of the row, from anywhere in it: span cutoff (Shen et al. 2020)."""

    operation = "span"


@dataclass(frozen=True)
class WordSwap(WordNoise):
    """Chooses each word with probability p; the chosen ones are swapped in random pairs, an odd one stays.

    Random swap of EDA (Wei & Zou 2019, arXiv:1901.11196), which draws a number of pairs instead.
    """

    operation = "swap"
