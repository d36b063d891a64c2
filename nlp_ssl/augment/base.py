"""The interface of text augmentations: values that turn rows of word ids into rows of word ids."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from nlp_ssl.utils.counter_rng import AliasTable
from nlp_ssl.utils.ragged import Ragged


@dataclass(frozen=True)
class Vocabulary:
    """The words of a token store, by word id, with the statistics of the rows it was fitted on.

    Attributes:
        pieces: token ids of each word, V rows, none of them empty.
        df: number of fitted rows that hold the word, int64 [V]; 0 for a word seen in other rows only.
        tfidf: tf-idf of the word summed over the fitted rows, float64 [V].
    """

    pieces: Ragged
    df: np.ndarray
    tfidf: np.ndarray

    def __len__(self) -> int:
        return len(self.df)

    @cached_property
    def uninformative(self) -> AliasTable | None:
        """Words with df > 0, drawn in proportion to max(tfidf) - tfidf; None if all are equal."""
        fitted = self.df > 0
        mass = np.where(fitted, self.tfidf.max(where=fitted, initial=0.0) - self.tfidf, 0.0)
        return AliasTable.of(mass) if mass.any() else None


class Augment(Protocol):
    """A text augmentation. Implementations are frozen dataclasses whose fields are the options."""

    def __call__(self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary) -> Ragged:
        """Changed rows.

        Args:
            words: word ids, n rows of T words in all; must not be written to.
            weights: replace weight of each word, float [T] (see `nlp_ssl.augment.tfidf`).
            keys: one key per row, uint64 [n]; all randomness of a row comes from its key and word positions.
            vocabulary: the words behind the ids.
        """
        ...


@dataclass(frozen=True)
class Identity:
    """The text as it is: the weak view."""

    def __call__(self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary) -> Ragged:
        return words
