"""From corpora to pieces of texts on disk, without vectors yet; goes on wherever it was stopped."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from nlp_ssl.data.schema import log_notes
from nlp_ssl.data.sources import stream_texts
from nlp_ssl.retrieval.bank import contiguous, open_part, part_name, read_piece, write_piece
from nlp_ssl.retrieval.plan import PARTS, TEXTS, BankOptions, note_finished
from nlp_ssl.utils import atomic
from nlp_ssl.utils.progress import track
from nlp_ssl.utils.sentences import split

_TIER = 1 << 16
_NOT_WORDS = re.compile(r"[\W\d_]+")


class Seen:
    """The keys so far, 8 bytes each: sorted arrays that are merged like the digits of a binary number."""

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._sorted: list[np.ndarray] = []

    def add(self, key: int) -> bool:
        """Whether the key is new."""
        if key in self._new or any(_contains(ordered, np.uint64(key)) for ordered in self._sorted):
            return False
        self._new.add(key)
        if len(self._new) == _TIER:
            self.add_all(np.fromiter(self._new, np.uint64, len(self._new)))
            self._new = set()
        return True

    def add_all(self, keys: np.ndarray) -> None:
        """Adds keys [n]."""
        self._sorted.append(np.sort(keys))
        while len(self._sorted) > 1 and len(self._sorted[-1]) >= len(self._sorted[-2]):
            last = self._sorted.pop()
            self._sorted[-1] = np.sort(np.concatenate([self._sorted[-1], last]))

    def contains(self, keys: np.ndarray) -> np.ndarray:
        """Which of the keys [n] were added by `add_all`."""
        known = np.zeros(len(keys), dtype=bool)
        for ordered in self._sorted:
            at = np.searchsorted(ordered, keys).clip(max=len(ordered) - 1)
            known |= ordered[at] == keys
        return known


def _contains(ordered: np.ndarray, key: np.uint64) -> bool:
    at = int(np.searchsorted(ordered, key))
    return at < len(ordered) and bool(ordered[at] == key)


def key_of(text: str, duplicates: str) -> int:
    """Equal for texts that count as duplicates."""
    words = _NOT_WORDS.sub(" ", text.casefold()) if duplicates == "drop_near" else text.casefold()
    return xxhash.xxh3_64_intdigest(" ".join(words.split()).encode())


def read_corpora(folder: Path, plan: dict[str, Any], options: BankOptions) -> None:
    """Saves the texts that are neither encoded nor saved yet, a piece for each future part.

    Raises:
        CheckpointError: a part or a piece is missing or damaged.
        DataError: a corpus cannot be read.
        RunError: the folder cannot be written.
    """
    pieces, parts = folder / TEXTS, folder / PARTS
    saved = {place.name: place for where in (pieces, parts) for place in where.glob("[0-9]*")}
    seen, place, counts = Seen(), (0, 0), Counter[str]()
    for name in contiguous(parts, saved):
        keys, meta = _keys_and_meta(saved[name])
        seen.add_all(keys)
        place = (meta["read"][0], meta["read"][1])
    finished = plan["finished"] if len(saved) >= plan["parts_then"] else 0
    texts = track(_kept_texts(plan, options, seen, max(place, (finished, 0)), counts), "reading")
    for at in itertools.count(len(saved)):
        rows = list(itertools.islice(texts, options.part_size))
        if not rows:
            break
        keys = np.array([key for _, key, _ in rows], dtype=np.uint64)
        write_piece(pieces / part_name(at), [text for text, _, _ in rows], keys, {"read": rows[-1][2]})
    log_notes(f"{what}: {count}" for what, count in sorted(counts.items()))
    note_finished(folder, plan, at)


def _keys_and_meta(place: Path) -> tuple[np.ndarray, Any]:
    """(keys, meta) of a part or a piece."""
    if place.parent.name == TEXTS:
        _, keys, meta = read_piece(place)
        return keys, meta
    atomic.verify(place)
    part = open_part(place)
    return part.keys, part.meta


def _kept_texts(
    plan: dict[str, Any], options: BankOptions, seen: Seen, place: tuple[int, int], counts: Counter[str]
) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """(text, key, (number of its corpus, texts of that read up to here)) of the texts to keep, from a place on."""
    first, skip = place
    for number, corpus in enumerate(plan["corpora"]):
        if number < first:
            continue
        lines = stream_texts(
            corpus["source"],
            text_column=plan["options"]["text_column"],
            encoding=plan["options"]["encoding"],
            counts=counts,
        )
        texts = (sentence for line in lines for sentence in split(line)) if options.sentences else lines
        for read, text in enumerate(texts, 1):
            if number == first and read <= skip:
                continue
            words = len(text.split())
            if not options.fewest_words <= words <= options.most_words:
                counts["dropped, shorter or longer than --fewest-words and --most-words"] += 1
                continue
            key = key_of(text, options.duplicates)
            if options.duplicates != "keep" and not seen.add(key):
                counts["duplicates dropped"] += 1
                continue
            yield text, key, (number, read)
