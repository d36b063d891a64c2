"""From corpora to a bank of texts with vectors and an index over them; goes on wherever it was stopped."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from nlp_ssl.data.values import refuse_one_text
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.inference.embedder import Embedder, Precision
from nlp_ssl.retrieval import ann
from nlp_ssl.retrieval.bank import Bank, open_part
from nlp_ssl.retrieval.encode import encode
from nlp_ssl.retrieval.index import FILE, Index, read_file, vouch
from nlp_ssl.retrieval.plan import (
    INDEX,
    PARTS,
    PLAN,
    TEXTS,
    BankOptions,
    files,
    identity,
    make_plan,
    read_plan,
    undone_on_failure,
)  # fmt: skip
from nlp_ssl.retrieval.texts import read_corpora
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranges import check

log = logging.getLogger("nlp_ssl")
_GROWTH = 3  # an index is trained anew once it holds that many times the vectors that it was trained for


def build(
    folder: Path,
    corpora: Sequence[str],
    options: BankOptions,
    *,
    encoder: str,
    kind: str = "auto",
    target: float = 0.95,
    append: bool = False,
    text_column: str | None = None,
    encoding: str = "utf-8",
    precision: Precision = "float32",
    ray_workers: int = 0,
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> Index:
    """Builds an index, goes on with one that was begun, or with `append` adds corpora to it.

    All texts are written down first, then encoded and written a part at a time; a kill costs the parts that were under
    way. The result is that of an unbroken build.

    Args:
        folder: of the index.
        corpora: files, folders of files, or names of Hugging Face data sets. Their dev and test rows stay out.
        options: what becomes of the texts.
        encoder: folder or hub name of the encoder.
        kind: flat, sq8, pq, rabitq, hnsw, a FAISS factory string, or auto: by the number of texts.
        target: recall of the nearest ten that searches are to reach, measured on 100 texts of the bank.
        append: add the corpora to those that are in it.
        text_column: where it is not found by itself.
        encoding: of the files.
        precision: of the encoder; bf16 is faster where the processor computes in it.
        ray_workers: actors of Ray that encode, on machines that see the same folders; 0 encodes here.
        embed: embeddings [n, D] of texts, in place of the encoder's.

    Raises:
        ConfigError: the folder holds an index of other options or corpora, another build is at work in it, or `corpora`
            is one name instead of a list.
        DataError: a corpus cannot be read, or no text is left.
        RunError: the folder cannot be written.
    """
    refuse_one_text(corpora, "corpora")
    ann.factory_of(kind, 1, 1)
    check(target, "recall", 0.0, 1.0)
    check_place(folder)
    with undone_on_failure(folder):
        tidy(folder)
        reading = {"text_column": text_column, "encoding": encoding, "precision": precision}
        plan = make_plan(folder, [identity(c) for c in files(corpora)], asdict(options) | reading, encoder, append)
        vectors_of = embed or Embedder(plan["encoder"], precision)
        if embed is None or kind not in ann.KINDS:
            ann.check_factory(kind, _dim(folder, vectors_of))
        read_corpora(folder, plan, options)
        encode(folder, vectors_of, ray_workers)
        make_index(folder, plan, kind, target)
    return Index.open(folder)


def _dim(folder: Path, vectors_of: Callable[[Sequence[str]], np.ndarray]) -> int:
    """Size of the vectors that are there, or else of one made now: an encoder that cannot be opened shows early."""
    for place in (folder / PARTS).glob("[0-9]*"):
        return int(open_part(place).vectors.shape[1])
    return int(vectors_of(["one text"]).shape[1])


def check_place(folder: Path) -> None:
    """Refuses a folder that holds something else than an index, whose files a build would replace.

    Raises:
        ConfigError: it does.
    """
    if (folder / PLAN).exists():
        read_plan(folder)
        return
    for path in folder.iterdir() if folder.is_dir() else ():
        empty = path.name in (PARTS, TEXTS) and path.is_dir() and not any(path.iterdir())
        if not (empty or path.name == ".lock" or path.name.startswith((atomic.TEMPORARY, atomic.REPLACED))):
            raise ConfigError(
                297, f"{folder} holds {path.name} but no {PLAN} of an index: name an empty folder, or restore that file"
            )


def tidy(folder: Path) -> None:
    """Removes what killed builders left half written."""
    for place in (folder, folder / PARTS, folder / TEXTS):
        with atomic.writing(place):
            place.mkdir(exist_ok=True)
        atomic.clean(place)


def make_index(folder: Path, plan: dict[str, Any], kind: str, target: float) -> None:
    """Makes the index over all parts, unless it is there; one that has not outgrown its training is only filled.

    Raises:
        ConfigError: FAISS knows no such kind, or the bank is too small for it.
        DataError: there are no texts.
        RunError: the folder cannot be written.
    """
    bank = Bank(folder / PARTS)
    if not len(bank):
        raise DataError(144, "no texts are left: look at --fewest-words and --most-words, or name other corpora")
    parts, place = [(part.name, part.mark) for part in bank.parts], folder / INDEX
    factory, trained, index = ann.factory_of(kind, len(bank), bank.dim), len(bank), None
    if place.exists():
        meta = atomic.verify(place)
        try:
            held = [(name, mark) for name, mark in meta["parts"]]
            if (held, meta["kind"], meta["target"]) == (parts, kind, target):
                log.info("the index is there already")
                return
            if (meta["kind"], held) == (kind, parts[: len(held)]) and len(bank) < _GROWTH * meta["trained"]:
                index = read_file(place / FILE, Bank(folder / PARTS, [name for name, _ in held]))
                factory, trained = str(meta["factory"]), int(meta["trained"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                143, f"{place} says something else than an index ({type(error).__name__}): delete it and build again"
            ) from error
        if index is not None:
            ann.fill(index, bank)
    began = time.monotonic()
    if index is None:
        index = ann.make(factory, bank)
    log.info("index %s of %d texts: %.1f s", factory, len(bank), time.monotonic() - began)
    reach, tried = ann.tune(index, factory, bank, target)
    if reach.recall < target:
        log.warning("recall is %.3f, not %.2f, however far a search looks: take another --kind", reach.recall, target)
    meta = {
        "kind": kind, "factory": factory, "trained": trained, "target": target, "parts": parts, "count": len(bank),
        "dim": bank.dim, "metric": "cosine", "encoder": plan["encoder"], "encoder_hash": plan["encoder_hash"],
        "faiss": faiss.__version__, "reach": asdict(reach), "tried": [asdict(one) for one in tried],
    }  # fmt: skip
    with atomic.write_dir(place, meta) as temporary:
        ann.write(index, temporary / FILE)
        vouch(temporary / FILE)
