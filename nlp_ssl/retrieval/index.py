"""A finished index: opened by its checksums, searched by text or vector."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from nlp_ssl.config import cache_folder
from nlp_ssl.data.values import refuse_one_text
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.retrieval import ann, probe
from nlp_ssl.retrieval.bank import Bank
from nlp_ssl.retrieval.plan import INDEX, PARTS
from nlp_ssl.utils import atomic
from nlp_ssl.utils.atomic import CheckpointError
from nlp_ssl.utils.hashing import contents

FILE = "index.faiss"
_PATIENCE = 600.0  # seconds for the process that opens an unknown file


@dataclass(frozen=True)
class Hit:
    """A text of the bank, its place in the bank, and its cosine with the query."""

    id: int
    score: float
    text: str


class Index:
    """A searchable bank of texts. Made by `Index.open`."""

    def __init__(self, folder: Path, meta: dict[str, Any], bank: Bank, index: Any) -> None:
        self.folder = folder
        self.bank = bank
        self.meta = meta
        self._index = index
        self.reach = ann.Reach(**meta["reach"])
        ann.set_reach(index, self.reach)

    @classmethod
    def open(cls, folder: Path | str, encoder: str | None = None) -> "Index":
        """Opens the index of a folder.

        The index file must be the one that the manifest describes. One that was not built on this machine is first
        opened in a separate process: a hostile file can crash what reads it.

        Args:
            folder: of the index.
            encoder: where the encoder is now, if it was moved.

        Raises:
            DataError: there is no index, or its file cannot be opened.
            CheckpointError: a file is missing or damaged.
        """
        folder = Path(folder)
        if not (folder / INDEX).is_dir():
            begun = (folder / PARTS).is_dir()
            raise DataError(143, f"{folder} holds no {'finished ' * begun}index: `nlp-ssl index build` makes it")
        meta = atomic.verify(folder / INDEX)
        try:
            bank = Bank(folder / PARTS, [name for name, _ in meta["parts"]])
            for part, (_, fingerprint) in zip(bank.parts, meta["parts"], strict=True):
                if part.fingerprint != fingerprint:
                    raise CheckpointError(311, f"{folder}: part {part.name} is not that of the index: build again")
            opened = cls(folder, meta, bank, read_file(folder / INDEX / FILE, bank))
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[-1][:160]
            raise DataError(
                143, f"{folder} cannot be opened ({type(error).__name__}: {reason}): build it again"
            ) from error
        if encoder is not None:
            opened.encoder = encoder
        return opened

    @cached_property
    def encoder(self) -> str:
        """Folder or hub name of the encoder of the vectors."""
        return str(self.meta["encoder"])

    @cached_property
    def embed(self) -> Embedder:
        """Computes vectors as those of the bank were.

        Raises:
            ConfigError: the encoder is not that of the bank.
        """
        if self.meta["encoder_hash"] and contents([self.encoder]) != self.meta["encoder_hash"]:
            raise ConfigError(297, f"{self.encoder} is not the encoder of this index: name its folder with --encoder")
        return Embedder(self.encoder)

    def __len__(self) -> int:
        return len(self.bank)

    def search(self, queries: Sequence[str] | np.ndarray, k: int = 10) -> list[list[Hit]]:
        """The k texts nearest to each query, best first, with their true cosines.

        Args:
            queries: texts, or vectors [q, D] of any length but 0.
            k: texts for each query; fewer where the bank has fewer.

        Raises:
            ConfigError: k, or a query, makes no sense, or `queries` is one text instead of a list.
        """
        refuse_one_text(queries, "queries")
        if k < 1:
            raise ConfigError(299, f"k is {k}: ask for 1 text or more")
        if not len(queries):
            return []
        if isinstance(queries, np.ndarray):
            vectors = queries
        elif all(query.strip() for query in queries):
            vectors = self.embed([query.encode(errors="replace").decode() for query in queries])
        else:
            raise ConfigError(299, "a query is empty: give it some words")
        scores, numbers = ann.search(
            self._index, self.bank, self._unit(vectors), min(k, len(self)), self.reach.candidates
        )
        return [
            [Hit(i, s, self.bank.text(i)) for i, s in zip(row, score, strict=True) if i >= 0]
            for row, score in zip(numbers.tolist(), scores.tolist(), strict=True)
        ]

    def _unit(self, vectors: np.ndarray) -> np.ndarray:
        if vectors.ndim != 2 or vectors.shape[1] != self.bank.dim:
            raise ConfigError(299, f"queries of shape {vectors.shape}: this index takes vectors [n, {self.bank.dim}]")
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not bool((np.isfinite(length) & (length > 0)).all()):
            raise ConfigError(299, "a query vector is zero or not finite: leave it out")
        return np.ascontiguousarray(vectors / length, dtype=np.float32)

    def info(self) -> dict[str, Any]:
        """Size, encoder and kind of the index."""
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        names = ("count", "dim", "metric", "encoder", "kind", "factory", "reach", "faiss")
        return {name: self.meta[name] for name in names} | {"parts": len(self.bank.parts), "bytes": size}

    def verify(self) -> float:
        """Reads every file against its checksum, then measures recall of the nearest ten on 100 texts of the bank.

        Raises:
            CheckpointError: a file has changed.
        """
        for part in self.bank.parts:
            atomic.verify(self.folder / PARTS / part.name)
        return self.recall()

    def recall(self, reach: ann.Reach | None = None) -> float:
        """Recall of the nearest ten on 100 texts of the bank, as searches are set or at another reach."""
        measured = ann.recall(self._index, self.bank, reach or self.reach, ann.questions(self.bank))
        ann.set_reach(self._index, self.reach)
        return measured


# ---- files that are safe to open -------------------------------------------------------------------------------------


def trust(path: Path) -> None:
    """Notes that the contents of a file are safe to open."""
    known = cache_folder() / "indexes"
    with atomic.writing(known):
        known.mkdir(parents=True, exist_ok=True)
        (known / _hash(path)).touch()


def read_file(path: Path, bank: Bank) -> Any:
    """The FAISS index of a file that belongs to the texts of a bank.

    Raises:
        DataError: it does not, or cannot be read.
        CheckpointError: there is no such file.
    """
    _check_trust(path, bank)
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise DataError(143, f"{path} cannot be read ({ann.first_line(error)}): build it again") from error


def _check_trust(path: Path, bank: Bank) -> None:
    """Refuses a file whose contents are not known to be safe, and that a separate process could not open and search."""
    if (cache_folder() / "indexes" / _hash(path)).exists():
        return
    argv = [sys.executable, str(probe.__file__), str(path), str(bank.dim), str(len(bank))]
    try:
        code = subprocess.run(argv, capture_output=True, timeout=_PATIENCE, check=False).returncode
    except subprocess.TimeoutExpired:
        code = -1
    if code:
        raise DataError(143, f"{path} is no index of these texts (a trial ended with {code}): build it again")
    trust(path)


def _hash(path: Path) -> str:
    with atomic.reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
