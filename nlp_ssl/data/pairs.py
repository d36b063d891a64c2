"""Pairs of texts as one row of tokens: what stands around and between them, and how both are cut to fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from nlp_ssl.errors import ConfigError
from nlp_ssl.utils.ragged import Ragged, spans

_PIECES = 5  # of a row: before, first text, between, second text, after


@dataclass(frozen=True)
class PairFrame:
    """What the model expects around and beside the tokens of a pair.

    Attributes:
        special: special token ids before, between and after the two texts.
        types: token type of each of the five pieces of a row; None where the model takes no types.
        pad_id: token id that fills a row up to the longest of its batch.
    """

    special: tuple[list[int], list[int], list[int]]
    types: tuple[int, int, int, int, int] | None
    pad_id: int

    @classmethod
    def of(cls, encoder: Tokenizer, pad_id: int, *, token_types: bool, single: int) -> "PairFrame":
        """Read off an encoder by encoding two letters; `single` is the number of special tokens of one text.

        Raises:
            ConfigError: the tokenizer puts nothing between two texts.
        """
        probe = encoder.encode("a", "a")
        sides = probe.sequence_ids  # 0, 1 or None for special tokens
        first, second = (np.array([side == wanted for side in sides]).nonzero()[0] for wanted in (0, 1))
        cuts = [0, first[0], first[-1] + 1, second[0], second[-1] + 1, len(sides)]
        special = tuple(probe.ids[cuts[i] : cuts[i + 1]] for i in (0, 2, 4))
        if single and not special[1]:
            raise ConfigError(
                451, "this tokenizer puts nothing between two texts: take a model that was made for pairs, as BERT is"
            )
        types = [probe.type_ids[cut] if cut < len(sides) else 0 for cut in cuts[:_PIECES]]
        return cls((special[0], special[1], special[2]), _five(types) if token_types else None, pad_id)

    @property
    def size(self) -> int:
        """Number of special tokens of a row."""
        return sum(map(len, self.special))

    def pad(
        self, first: Ragged, second: Ragged, longer: np.ndarray, room: int
    ) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        """One right-padded block of pairs of at most `room` own tokens, and the length of each of its rows [R].

        Texts of more than `room` tokens may be cut already; `longer` [R] says whether the first one was the longer.
        """
        kept = longest_first(first.lengths, second.lengths, longer, room)
        texts = [_first(part, lengths) for part, lengths in zip((first, second), kept, strict=True)]
        rows = len(first)
        before, between, after = (Ragged.from_lengths(np.tile(s, rows), np.full(rows, len(s))) for s in self.special)
        pieces = [before, texts[0], between, texts[1], after]
        lengths = np.sum([piece.lengths for piece in pieces], axis=0)
        shape = (rows, int(lengths.max(initial=0)))
        ids, types = np.full(shape, self.pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        start = np.zeros(rows, dtype=np.int64)
        for number, piece in enumerate(pieces):
            at = piece.rows(), piece.columns() + np.repeat(start, piece.lengths)
            ids[at] = piece.values
            types[at] = 0 if self.types is None else self.types[number]
            start = start + piece.lengths
        mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self.types is not None:
            inputs["token_type_ids"] = torch.from_numpy(types)
        return inputs, lengths


@dataclass(frozen=True)
class Pairs:
    """Which text of a store is the second one of each row, int64 [N], whether it is the shorter, and the frame."""

    second: np.ndarray
    shorter: np.ndarray
    frame: PairFrame


def longest_first(
    first: np.ndarray, second: np.ndarray, longer: np.ndarray, room: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens kept of two texts of these lengths [n]: `room` together, cut from the longer one, then from both alike.

    Where lengths are equal `longer` [n] says whether the first text counts as the longer one, which gets the odd token.
    """
    short, long = np.minimum(first, second), np.maximum(first, second)
    half, rest = room // 2, room - room // 2
    fits = first + second <= room
    kept_short = np.where(fits | (short <= half), short, half)
    kept_long = np.where(fits, long, np.where(short <= half, room - kept_short, rest))
    swap = (first > second) | ((first == second) & longer)
    return np.where(swap, kept_long, kept_short), np.where(swap, kept_short, kept_long)


def _first(rows: Ragged, lengths: np.ndarray) -> Ragged:
    """The first `lengths` [n] values of each row."""
    positions, offsets = spans(rows.offsets[:-1], lengths)
    return Ragged(rows.values[positions], offsets)


def _five(types: Sequence[int]) -> tuple[int, int, int, int, int]:
    a, b, c, d, e = types
    return a, b, c, d, e
