"""Approximate nearest neighbors: which FAISS index, how it is filled, and how far a search must look."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nlp_ssl.errors import ConfigError, RunError, nearest
from nlp_ssl.retrieval.bank import Bank
from nlp_ssl.utils.progress import track

KINDS = ("auto", "flat", "sq8", "pq", "rabitq", "hnsw")
SAMPLES = 100  # queries that measure recall
NEIGHBORS = 10  # counted in recall
_ROUNDING = 1e-5  # of a cosine
_SMALL, _LARGE = 20_000, 5_000_000  # texts from which `auto` takes lists, and codes
_PER_LIST = 39  # vectors that a list needs to be trained
_TRAINING = 64  # vectors that a list is trained on
_MOST_TRAINING = 1_000_000
# The largest number at each place of a factory string: more would take all memory, some of it before any vector.
_SIZES = (
    (r"IVF(\d+)", 1 << 22),
    (r"(?:HNSW|NSG)(\d+)", 512),
    (r"IMI2x(\d+)", 11),
    (r"(?<!IMI2)x(\d+)", 16),
    (r"(?<!IVF)(?<!\d)(\d+)", 1 << 16),
)
_WIDEST = 4096  # candidates of a search, where the index has no lists


@dataclass(frozen=True)
class Reach:
    """How much of the index a search visits, and its recall.

    Attributes:
        knob: the FAISS parameter; empty where the index visits everything.
        value: of the setting.
        candidates: vectors compared exactly, per result.
        recall: share of the true nearest ten that is found.
    """

    knob: str
    value: int
    candidates: int
    recall: float


def factory_of(kind: str, count: int, dim: int) -> str:
    """The FAISS factory string of a kind, or the kind itself where it is one already.

    Raises:
        ConfigError: the kind is unknown, or a size in it is out of range.
    """
    if kind == "auto":
        kind = "flat" if count < _SMALL else "sq8" if count < _LARGE else "pq"
    lists = max(min(int(4 * math.sqrt(count)), count // _PER_LIST), 1)
    known = {
        "flat": "Flat",
        "sq8": f"IVF{lists},SQ8",
        "pq": f"IVF{lists},PQ{_code_bytes(dim)}",
        "rabitq": f"IVF{lists},RaBitQ",
        "hnsw": "HNSW32,SQ8",
    }
    if kind in known:
        return known[kind]
    if re.search(r"[A-Za-z_]0+(?!\d)", kind):  # FAISS ends the process, or divides by it
        raise ConfigError(298, f"index {kind!r} has a size of 0: give it 1 or more")
    for place, most in _SIZES:
        for size in re.findall(place, kind):
            if int(size) > most:
                raise ConfigError(298, f"index {kind!r} has a size of {size}: give it {most} or less")
    if not re.search(r"[A-Z]", kind):
        raise ConfigError(298, f"no kind of index {kind!r}.{nearest(kind, KINDS)}")
    return kind


def check_factory(kind: str, dim: int) -> None:
    """Refuses a FAISS factory string that does not fit vectors of this size, before any are computed.

    Raises:
        ConfigError: it does not.
    """
    import faiss

    if kind in KINDS:
        return
    try:
        index = faiss.index_factory(dim, factory_of(kind, 1, dim), faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, AssertionError, TypeError, MemoryError) as error:
        raise _no_index(kind, f"vectors of {dim} numbers", error) from error
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        raise ConfigError(298, f"index {kind!r} keeps ids of its own: leave out IDMap")


def _no_index(factory: str, of: str, error: Exception) -> ConfigError:
    return ConfigError(298, f"no index {factory!r} of {of} ({first_line(error)}): try --kind flat")


def _code_bytes(dim: int) -> int:
    """Bytes of a vector's code: one for eight numbers, or for as few more as divide the vector."""
    return next(dim // size for size in range(min(8, dim), 0, -1) if dim % size == 0)


def make_index(factory: str, bank: Bank) -> Any:
    """A trained index with all vectors of the bank.

    Raises:
        ConfigError: FAISS knows no such index, or the bank is too small for it.
    """
    import faiss

    try:
        index = faiss.index_factory(bank.dim, factory, faiss.METRIC_INNER_PRODUCT)
        _configure_training(index)
        if not index.is_trained:
            lists = int((re.findall(r"IVF(\d+)", factory) or ["1024"])[0])
            wanted = min(len(bank), max(_TRAINING * lists, 65_536), _MOST_TRAINING)
            chosen = np.random.default_rng(0).choice(len(bank), wanted, replace=False)
            index.train(bank.vectors(np.sort(chosen)))
        fill(index, bank)
    except (RuntimeError, AssertionError, MemoryError) as error:
        raise _no_index(factory, f"{len(bank)} texts", error) from error
    return index


def _configure_training(index: Any) -> None:
    """Turns off parts of the training that are not needed here, and warnings on small banks.

    Polysemous codes serve a kind of search that is not used, and take a minute. In a small bank lists and codes have
    few texts to be trained on.
    """
    import faiss

    if isinstance(index, faiss.IndexPreTransform):
        _configure_training(faiss.downcast_index(index.index))
    if isinstance(index, faiss.IndexHNSW):
        _configure_training(faiss.downcast_index(index.storage))
    if isinstance(index, faiss.IndexRefine):
        _configure_training(faiss.downcast_index(index.base_index))
    if isinstance(index, faiss.IndexIVF):
        index.cp.min_points_per_centroid = 1
    if isinstance(index, faiss.IndexPQ | faiss.IndexIVFPQ):
        codes: Any = index  # FAISS's types lack the field
        codes.do_polysemous_training = False
    if isinstance(index, faiss.IndexPQ | faiss.IndexIVFPQ | faiss.IndexPQFastScan | faiss.IndexIVFPQFastScan):
        index.pq.cp.min_points_per_centroid = 1


def fill(index: Any, bank: Bank) -> None:
    """Adds the vectors that the index lacks."""
    for _, block in track(bank.blocks(index.ntotal), "indexing"):
        index.add(block)


def write(index: Any, path: Path) -> None:
    """Writes the file of an index.

    Raises:
        RunError: it cannot be written.
    """
    import faiss

    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise RunError(316, f"cannot write {path} ({first_line(error)}): free space or choose another place") from error


def first_line(error: Exception) -> str:
    """The message of FAISS, without the place in its source."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].rpartition("Error: ")[2].rpartition("failed: ")[2].strip()[:160]


def set_reach(index: Any, reach: Reach) -> None:
    """Sets how much of the index searches visit."""
    import faiss

    if reach.knob:
        faiss.ParameterSpace().set_index_parameter(index, reach.knob, reach.value)


def search(index: Any, bank: Bank, queries: np.ndarray, k: int, candidates: int) -> tuple[np.ndarray, np.ndarray]:
    """(true cosines [q, k], ids [q, k]) of the texts nearest to queries [q, D] of length 1; id -1 for none."""
    _, ids = index.search(queries, min(k * candidates, len(bank)))
    rows, places = np.nonzero(ids >= 0)
    scores = np.full(ids.shape, -np.inf, dtype=np.float32)
    for at in range(0, len(rows), 1 << 18):
        row, place = rows[at : at + (1 << 18)], places[at : at + (1 << 18)]
        scores[row, place] = cosines(queries[row], bank.vectors(ids[row, place]))
    return best(scores, ids, k)


def cosines(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Cosine [n] of each query [n, D] of length 1 and its vector [n, D], whose length is 1 but for rounding.

    None is beyond 1, whatever the rounding.
    """
    cosines: np.ndarray = np.einsum("nd,nd->n", queries, vectors) / np.linalg.norm(vectors, axis=1).clip(1e-12)
    return cosines.clip(-1, 1)


def best(scores: np.ndarray, numbers: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest scores of each row and their ids, ties by id."""
    order = np.lexsort((numbers, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)


def exact(bank: Bank, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(true cosines [q, k], ids [q, k]), by comparing all vectors, a block at a time."""
    scores = np.full((len(queries), 0), -np.inf, dtype=np.float32)
    numbers = np.zeros((len(queries), 0), dtype=np.int64)
    for first, block in track(bank.blocks(), "searching"):
        length = np.linalg.norm(block, axis=1).clip(1e-12)
        of_block = (queries @ block.T / length).clip(-1, 1)
        top = np.argpartition(-of_block, k - 1, axis=1)[:, :k] if k < len(block) else np.argsort(-of_block, axis=1)
        both = np.concatenate([scores, np.take_along_axis(of_block, top, 1)], 1)
        scores, numbers = best(both, np.concatenate([numbers, first + top], 1), k)
    return scores, numbers


def tune_search(index: Any, factory: str, bank: Bank, target: float) -> tuple[Reach, list[Reach]]:
    """The shortest reach whose recall meets the target, or the furthest one; and all that were tried."""
    asked = questions(bank)
    tried = []
    for candidates in (1,) if factory == "Flat" else (2, 8, 32):
        for knob, value in _steps(factory, len(bank)):
            reach = Reach(knob, value, candidates, 0.0)
            measured = replace(reach, recall=recall(index, bank, reach, asked))
            tried.append(measured)
            if measured.recall >= target:
                return measured, tried
            if len(tried) > 1 and value > 8 and measured.recall <= tried[-2].recall:
                break  # visiting more does not help: the codes are too coarse, more candidates must be compared exactly
    return max(tried, key=lambda reach: reach.recall), tried


def _steps(factory: str, count: int) -> Sequence[tuple[str, int]]:
    lists = re.findall(r"IVF(\d+)", factory)
    knob, most = ("nprobe", int(lists[0])) if lists else ("efSearch", _WIDEST) if "HNSW" in factory else ("", 1)
    least = 1 if lists else 16
    powers = [least << i for i in range(20) if least << i < min(most, count)]
    return [(knob, value) for value in ([*powers, most] if knob else [0])]


class Questions(NamedTuple):
    """Texts of the bank, drawn once: their vectors [q, D], their ids [q], how many neighbors count (the same for all),
    and the cosine [q] of the last of them.
    """

    queries: np.ndarray
    own: np.ndarray
    near: int
    last: np.ndarray


def questions(bank: Bank) -> Questions:
    """What recall is measured on."""
    own = np.sort(np.random.default_rng(1).choice(len(bank), min(SAMPLES, len(bank)), replace=False))
    queries = bank.vectors(own)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True).clip(1e-12)
    scores, numbers = exact(bank, queries, NEIGHBORS + 1)
    near = min(NEIGHBORS, len(bank) - 1)
    others = np.where(numbers == own[:, None], -np.inf, scores)
    return Questions(queries, own, near, np.sort(others, 1)[:, ::-1][:, max(near - 1, 0)])


def recall(index: Any, bank: Bank, reach: Reach, asked: Questions) -> float:
    """Share of the true neighbors among the results; a text as near as the last of them is one of them."""
    if not asked.near:
        return 1.0
    set_reach(index, reach)
    scores, ids = search(index, bank, asked.queries, NEIGHBORS + 1, reach.candidates)
    hits = (ids >= 0) & (ids != asked.own[:, None]) & (scores >= asked.last[:, None] - _ROUNDING)
    return float(hits.sum(1).clip(max=asked.near).mean() / asked.near)
