"""Rows of different lengths in two flat arrays, cut and gathered without a Python loop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """`n` rows of different lengths: row `i` is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: the rows one after the other [T].
        offsets: where each row starts, and the end of the last, int64 [n + 1]. Need not start at 0.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> "Ragged":
        """Rows of the given lengths [n], cut one after the other from `values` [T]."""
        return cls(values, offsets_of(lengths))

    @classmethod
    def concat(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """The rows of all `parts` (at least one), in order."""
        values = np.concatenate([part.values[part.offsets[0] : part.offsets[-1]] for part in parts])
        return cls.from_lengths(values, np.concatenate([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, int64 [n]."""
        return np.diff(self.offsets)

    def rows(self) -> np.ndarray:
        """Row of each value, int64 [T]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def columns(self) -> np.ndarray:
        """Position of each value within its row, int64 [T]."""
        positions: np.ndarray = np.arange(self.offsets[0], self.offsets[-1])
        positions -= np.repeat(self.offsets[:-1], self.lengths)
        return positions

    def slice(self, start: int, stop: int) -> "Ragged":
        """Rows `start` to `stop` as a view, with offsets from 0."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, index: np.ndarray) -> "Ragged":
        """The rows at `index` [m], in that order."""
        positions, offsets = spans(self.offsets[index], self.lengths_at(index))
        return Ragged(self.values[positions], offsets)

    def lengths_at(self, index: np.ndarray) -> np.ndarray:
        """Lengths of the rows at `index` [m] without touching the others, int64 [m]."""
        lengths: np.ndarray = self.offsets[index + 1] - self.offsets[index]
        return lengths

    def truncate(self, max_len: int) -> "Ragged":
        """The first `max_len` values of each row."""
        lengths = self.lengths
        if lengths.max(initial=0) <= max_len:
            return self
        positions, offsets = spans(self.offsets[:-1], np.minimum(lengths, max_len))
        return Ragged(self.values[positions], offsets)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Offsets of rows of the given lengths [n], int64 [n + 1]."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def spans(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the runs `starts[i] : starts[i] + lengths[i]`, joined [T], and the offsets of the runs [n + 1]."""
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets
