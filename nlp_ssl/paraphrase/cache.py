"""Finished rewritings on disk: append-only, memory-mapped, shared by processes, whole after any kill.

A segment is two files: `NNN.text` holds UTF-8 texts one after the other, `NNN.index` one entry of 32 bytes for each.
A text is written before its entry, so that an entry without its text, or half an entry, is what a killed writer may
leave: both are skipped, as is a text whose checksum is wrong. A writer holds the lock of its segment.
"""

import mmap
import os
import threading
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType

import numpy as np
import xxhash
from filelock import FileLock, Timeout

from nlp_ssl.utils import atomic

ENTRY = np.dtype([("key", "<u8"), ("check", "<u8"), ("start", "<u8"), ("size", "<u4"), ("crc", "<u4")])


def key_of(engine: str, text: str, sample: int) -> tuple[int, int]:
    """Two 64-bit numbers for a text, the engine with its options, and the number of the sample."""
    digest = xxhash.xxh3_128_intdigest(f"{engine}\0{sample}\0{text}".encode(errors="surrogatepass"))
    return digest >> 64, digest & (2**64 - 1)


class Cache:
    """Rewritings by key: those that any process had written when it was opened, and its own.

    Raises:
        RunError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written = 0  # by this process
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._own: dict[tuple[int, int], tuple[int, int]] = {}  # place and size in the writer's segment
        self._writer: _Writer | None = None
        with atomic.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._texts: list[memoryview] = []
        parts, segments = [np.zeros(0, ENTRY)], [np.zeros(0, np.int32)]
        for index in sorted(folder.glob("*.index")):
            with atomic.reading(index):
                entries, text = _read(index)
            self._texts.append(text)
            parts.append(entries)
            segments.append(np.full(len(entries), len(self._texts) - 1, np.int32))
        entries = np.concatenate(parts)
        order = np.argsort(entries["key"], kind="stable")
        self._entries, self._segments = entries[order], np.concatenate(segments)[order]

    def __enter__(self) -> "Cache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __len__(self) -> int:
        """Number of rewritings; a key that was written twice counts twice."""
        return len(self._entries) + len(self._own)

    def get(self, keys: Sequence[tuple[int, int]]) -> list[str | None]:
        """The rewriting of each key, None where there is none."""
        wanted = np.array([key for key, _ in keys], dtype=np.uint64)
        place = np.searchsorted(self._entries["key"], wanted)
        with self._lock:
            return [
                self._read_own(key) if key in self._own else self._stored(key, at)
                for key, at in zip(keys, place.tolist(), strict=True)
            ]

    def put(self, key: tuple[int, int], text: str) -> None:
        """Saves a rewriting; any thread may call it."""
        with self._lock, atomic.writing(self.folder):
            if self._writer is None:
                self._writer = self._open.enter_context(_Writer(self.folder))
            self._own[key] = self._writer.append(key, text)
            self.written += 1

    def _read_own(self, key: tuple[int, int]) -> str:
        """A text that this process wrote."""
        assert self._writer is not None
        start, size = self._own[key]
        return self._writer.read(start, size).decode()

    def _stored(self, key: tuple[int, int], at: int) -> str | None:
        """The first intact text from place `at` on whose entry has this key."""
        while at < len(self._entries) and int(self._entries["key"][at]) == key[0]:
            entry = self._entries[at]
            start, size = int(entry["start"]), int(entry["size"])
            data = self._texts[self._segments[at]][start : start + size]
            if int(entry["check"]) == key[1] and len(data) == size and zlib.crc32(data) == int(entry["crc"]):
                return bytes(data).decode()
            at += 1
        return None


class _Writer:
    """Appends to the first segment that no other process writes to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> "_Writer":
        for stem in map("{:03d}".format, count()):
            self._lock = FileLock(self._folder / f"{stem}.lock")
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                continue
            break
        index = self._folder / f"{stem}.index"
        self._text = (self._folder / f"{stem}.text").open("a+b")
        self._index = index.open("ab")
        whole = index.stat().st_size // ENTRY.itemsize * ENTRY.itemsize
        self._index.truncate(whole)  # half an entry of a killed writer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._text.close()
        self._index.close()
        self._lock.release()

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self._text.fileno(), size, start)

    def append(self, key: tuple[int, int], text: str) -> tuple[int, int]:
        """Place and size of the text in the segment."""
        data = text.encode(errors="replace")
        start = self._text.seek(0, 2)
        self._text.write(data)
        self._text.flush()
        entry = np.array([(*key, start, len(data), zlib.crc32(data))], dtype=ENTRY)
        self._index.write(entry.tobytes())
        self._index.flush()
        return start, len(data)


def _read(index: Path) -> tuple[np.ndarray, memoryview]:
    """The whole entries of a segment, and its texts."""
    whole = index.stat().st_size // ENTRY.itemsize
    entries = np.fromfile(index, dtype=ENTRY, count=whole)
    path = index.with_suffix(".text")
    if not path.exists() or not path.stat().st_size:
        return entries[:0], memoryview(b"")
    with path.open("rb") as file:
        return entries, memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
