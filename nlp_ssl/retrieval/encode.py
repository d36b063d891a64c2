"""From pieces of texts to parts with vectors, one after the other in this process or in parallel on Ray."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlp_ssl.errors import RunError
from nlp_ssl.retrieval.bank import read_piece, write_part
from nlp_ssl.retrieval.plan import PARTS, TEXTS
from nlp_ssl.utils import atomic
from nlp_ssl.utils.progress import track
from nlp_ssl.utils.ray_pool import Work, on_ray

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class Encoding:
    """How a piece becomes a part: a value, so that it can be sent to another machine."""

    embed: Callable[[Sequence[str]], np.ndarray]

    @contextmanager
    def open(self) -> Iterator[Work]:
        """A function that reads a piece, writes its part and returns the number of texts."""
        yield self._work

    def _work(self, piece: Path, part: Path) -> str:
        texts, keys, meta = read_piece(piece)
        vectors = self.embed(texts)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not bool((np.isfinite(length) & (length > 0)).all()):
            raise RunError(332, "the encoder's vectors are zero or not finite: name another --encoder")
        write_part(part, texts, vectors / length, keys, meta)
        return str(len(texts))


def encode(folder: Path, embed: Callable[[Sequence[str]], np.ndarray], ray_workers: int = 0) -> None:
    """Makes the parts of all pieces that have none yet, then removes the pieces.

    Args:
        folder: of the index.
        embed: embeddings [n, D] of texts.
        ray_workers: actors of Ray that encode; 0 encodes in this process.

    Raises:
        RunError: the vectors are zero or not finite, or a part could not be written.
        ConfigError: Ray is not installed.
    """
    pieces = sorted((folder / TEXTS).glob("[0-9]*"))
    pairs = [(piece, folder / PARTS / piece.name) for piece in pieces]
    pairs = [(piece, part) for piece, part in pairs if not part.exists()]
    job, done, errors, began = Encoding(embed), 0, [], time.monotonic()
    encoded = on_ray(job.open, pairs, ray_workers) if ray_workers else _in_process(job, pairs)
    for at, (size, error) in enumerate(track(encoded, "encoding parts", len(pairs)), 1):
        if error:
            errors.append(error)
            continue
        done += int(size)
        log.info("part %d of %d: %.0f texts per second", at, len(pairs), done / (time.monotonic() - began))
    if errors:
        raise RunError(340, f"{len(errors)} of {len(pairs)} parts were not encoded; the first: {errors[0]}")
    if (folder / TEXTS).exists():
        atomic.discard(folder / TEXTS)


def _in_process(job: Encoding, pairs: Sequence[tuple[Path, Path]]) -> Iterator[tuple[str, str]]:
    with job.open() as work:
        for piece, part in pairs:
            yield work(piece, part), ""
