"""TF-IDF word replacement of UDA (Xie et al. 2020, arXiv:1904.12848): uninformative words are replaced by others.

Score of a word in a row of n words: s = tf * idf, with tf = count / n and idf = ln(N / df) over the fitted rows.
Position i is replaced with probability p * n * (max s - s_i) / sum_j(max s - s_j), at most 1. The new word w is drawn
with probability proportional to max(S) - S(w), S being the scores summed over the fitted rows. The factor beside p
depends on neither p nor the seed: it is computed once, per word position, when the token store is built.
"""

from dataclasses import dataclass

import numpy as np

from nlp_ssl.augment.base import Vocabulary
from nlp_ssl.errors import ConfigError
from nlp_ssl.utils.counter_rng import uniform
from nlp_ssl.utils.ragged import Ragged

# Scores this close (relative) are equal: otherwise rounding alone would decide which word of a flat row is replaced.
_TIE = 1e-9


@dataclass(frozen=True)
class TfidfReplace:
    """Replaces about a share `p` of each row's words, uninformative ones first, by uninformative words.

    Raises:
        ConfigError: `p` is outside [0, 1].
    """

    p: float = 0.4

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise ConfigError(261, f"tfidf: p is {self.p}, a share of the words: choose it between 0 and 1")

    def __call__(self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary) -> Ragged:
        table = vocabulary.uninformative
        if table is None:
            return words
        key, counter = np.repeat(keys, words.lengths), 2 * words.columns()
        chosen = np.flatnonzero(uniform(key, counter) < self.p * weights.astype(np.float32))
        values = words.values.copy()
        values[chosen] = table.draw(uniform(key[chosen], counter[chosen] + 1))
        return Ragged(values, words.offsets)


def document_frequency(words: Ragged, size: int) -> np.ndarray:
    """Number of rows that hold each of `size` words, int64 [size]."""
    pairs = np.unique(words.rows() * size + words.values)
    df: np.ndarray = np.bincount(pairs % size, minlength=size)
    return df


def inverse_document_frequency(df: np.ndarray, documents: int) -> np.ndarray:
    """ln(documents / df), float64 [V]; a word of no fitted row counts as a word of one."""
    idf: np.ndarray = np.log(max(documents, 1) / np.maximum(df, 1))
    return idf


def tfidf_scores(words: Ragged, idf: np.ndarray) -> np.ndarray:
    """Tf * idf of each word position within its row, float64 [T]."""
    size = len(idf)
    pairs, inverse, counts = np.unique(words.rows() * size + words.values, return_inverse=True, return_counts=True)
    scores: np.ndarray = (counts * idf[pairs % size] / words.lengths[pairs // size])[inverse]
    return scores


def summed_scores(words: Ragged, idf: np.ndarray) -> np.ndarray:
    """Scores tf * idf of each word, summed over the rows, float64 [V]."""
    share = idf[words.values] / np.repeat(words.lengths, words.lengths)
    return np.bincount(words.values, weights=share, minlength=len(idf))


def replace_weights(scores: Ragged) -> np.ndarray:
    """N * (max s - s_i) / sum_j(max s - s_j) of each position, float16 [T]; 0 throughout a row of equal scores."""
    lengths = scores.lengths[scores.lengths > 0]
    if not len(lengths):
        return np.zeros(0, dtype=np.float16)
    starts = np.cumsum(lengths) - lengths
    top = np.repeat(np.maximum.reduceat(scores.values, starts), lengths)
    gap = top - scores.values
    gap[gap <= _TIE * top] = 0.0
    total = np.repeat(np.add.reduceat(gap, starts), lengths)
    weight: np.ndarray = np.repeat(lengths, lengths) * gap / np.where(total > 0.0, total, 1.0)
    halves: np.ndarray = np.minimum(weight, np.finfo(np.float16).max).astype(np.float16)
    return halves
