"""Texts and their vectors on disk, in parts that are whole or absent, read by memory mapping."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import xxhash

from nlp_ssl.utils import atomic
from nlp_ssl.utils.atomic import CheckpointError

_BLOCK = 16_384  # vectors turned into float32 at once


@dataclass(frozen=True)
class Part:
    """A run of texts.

    Attributes:
        name: of its folder.
        texts: uint8, UTF-8, one text after the other.
        offsets: uint64 [n + 1], where each text begins and the last one ends.
        vectors: float16 [n, D] of length 1.
        keys: uint64 [n], equal for texts that count as duplicates.
        meta: what the builder saved about it.
        fingerprint: a hash of its contents.
    """

    name: str
    texts: np.ndarray
    offsets: np.ndarray
    vectors: np.ndarray
    keys: np.ndarray
    meta: Mapping[str, Any]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.vectors)

    def text(self, row: int) -> str:
        """One text."""
        return bytes(self.texts[int(self.offsets[row]) : int(self.offsets[row + 1])]).decode(errors="replace")


def part_name(number: int) -> str:
    """Folder of a part."""
    return f"{number:08d}"


def write_piece(folder: Path, texts: Sequence[str], keys: np.ndarray, meta: Mapping[str, Any]) -> None:
    """Writes a part that has no vectors yet, whole or not at all.

    Raises:
        RunError: the place cannot be written.
    """
    with atomic.write_dir(folder, meta) as place:
        _write_texts(place, texts, keys)


def read_piece(folder: Path) -> tuple[list[str], np.ndarray, Mapping[str, Any]]:
    """(texts, keys, meta) of a part that has no vectors yet.

    Raises:
        CheckpointError: a file is missing or has changed.
    """
    meta = atomic.verify(folder)
    with atomic.reading(folder):
        ends = np.load(folder / "offsets.npy", allow_pickle=False).tolist()
        data = (folder / "texts.bin").read_bytes()
        keys = np.load(folder / "keys.npy", allow_pickle=False)
    return [data[start:end].decode() for start, end in itertools.pairwise(ends)], keys, meta


def write_part(
    folder: Path, texts: Sequence[str], vectors: np.ndarray, keys: np.ndarray, meta: Mapping[str, Any]
) -> None:
    """Writes a part, whole or not at all.

    Raises:
        RunError: the place cannot be written.
    """
    with atomic.write_dir(folder, meta) as place:
        _write_texts(place, texts, keys)
        np.save(place / "vectors.npy", vectors.astype(np.float16))


def _write_texts(place: Path, texts: Sequence[str], keys: np.ndarray) -> None:
    encoded = [text.encode() for text in texts]
    (place / "texts.bin").write_bytes(b"".join(encoded))
    np.save(place / "offsets.npy", np.cumsum([0, *map(len, encoded)], dtype=np.uint64))
    np.save(place / "keys.npy", keys)


def contiguous(folder: Path, names: Iterable[str]) -> list[str]:
    """Names of parts, sorted, from the first on without a gap.

    Raises:
        CheckpointError: one is missing among them.
    """
    ordered = sorted(names)
    for at, name in enumerate(ordered):
        if name != part_name(at):
            raise CheckpointError(
                312, f"{folder / part_name(at)} is missing: restore it, or delete those after it to encode them again"
            )
    return ordered


def open_part(folder: Path) -> Part:
    """A part whose files have the sizes, and whose offsets the contents, that they were written with.

    Raises:
        CheckpointError: a file is missing, cut off, changed or no array.
    """
    meta = atomic.verify(folder, contents=("offsets.npy",))  # small beside the vectors
    with atomic.reading(folder):
        try:
            texts, arrays = folder / "texts.bin", {}
            for name in ("offsets", "vectors", "keys"):
                arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            checksums = (folder / atomic.MANIFEST).read_bytes()
            part = Part(
                name=folder.name,
                texts=np.memmap(texts, np.uint8, mode="r"),
                **arrays,
                meta=meta,
                fingerprint=xxhash.xxh3_128_hexdigest(checksums),
            )
            fits = part.vectors.ndim == 2 and len(part.offsets) == len(part) + 1 == len(part.keys) + 1
        except (ValueError, SyntaxError, TokenError, OverflowError, MemoryError):  # as NumPy greets a damaged header
            fits = False
    if not fits:
        raise CheckpointError(311, f"{folder} is damaged: delete it and build again")
    return part


class Bank:
    """The parts of a folder, one after the other; a text's id is its place among all texts.

    Args:
        folder: holds a folder for each part.
        names: the parts to open, in order; all of them if not given.

    Raises:
        CheckpointError: a part is missing or damaged.
    """

    def __init__(self, folder: Path, names: Sequence[str] | None = None) -> None:
        everything = (path.name for path in folder.glob("[0-9]*"))
        self.parts = [open_part(folder / name) for name in contiguous(folder, everything if names is None else names)]
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def dim(self) -> int:
        """Size of a vector; 0 without parts."""
        return int(self.parts[0].vectors.shape[1]) if self.parts else 0

    def text(self, number: int) -> str:
        """The text of an id."""
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self.parts[part].text(number - int(self._starts[part]))

    def vectors(self, numbers: np.ndarray) -> np.ndarray:
        """Vectors [m, D] float32 of ids [m]."""
        vectors = np.empty((len(numbers), self.dim), dtype=np.float32)
        owner = np.searchsorted(self._starts, numbers, side="right") - 1
        for part in np.unique(owner):
            mine = owner == part
            vectors[mine] = self.parts[part].vectors[numbers[mine] - self._starts[part]]
        return vectors

    def blocks(self, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """(first id, vectors [n, D] float32) from an id on, in order."""
        for first, part in zip(self._starts.tolist(), self.parts, strict=False):
            for at in range(max(start - first, 0), len(part), _BLOCK):
                yield first + at, part.vectors[at : at + _BLOCK].astype(np.float32)
