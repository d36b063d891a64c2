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
from nlp_ssl.inference.embedder import Embedder, EncoderPrecision
from nlp_ssl.retrieval import ann
from nlp_ssl.retrieval.bank import Bank, open_part
from nlp_ssl.retrieval.encode import encode
from nlp_ssl.retrieval.index import FILE, Index, read_file, trust
from nlp_ssl.retrieval.plan import (
    INDEX,
    PARTS,
    PLAN,
    TEXTS,
    BankOptions,
    corpus_files,
    corpus_identity,
    make_plan,
    read_plan,
    undone_on_failure,
)
from nlp_ssl.retrieval.texts import read_corpora
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranges import check

log = logging.getLogger("nlp_ssl")
_GROWTH = 3  # an index is trained again at this many times the vectors that it was trained for


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
    precision: EncoderPrecision = "float32",
    ray_workers: int = 0,
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> Index:
    """Builds an index, goes on with one that was started, or with `append` adds corpora to it.

    All texts are saved first, then encoded and saved a part at a time; a kill costs the unfinished parts. The result
    is that of an unbroken build. Corpora are added all or none: where one cannot be read, the index stays as it was.

    Args:
        folder: of the index.
        corpora: files, folders of files, or names of Hugging Face data sets. Their dev and test rows stay out.
        options: which texts are kept.
        encoder: folder or hub name of the encoder.
        kind: flat, sq8, pq, rabitq, hnsw, a FAISS factory string, or auto: by the number of texts.
        target: recall of the nearest ten that searches are to reach, measured on 100 texts of the bank.
        append: add the corpora to those of the index.
        text_column: where it has another name than usual.
        encoding: of the files.
        precision: of the encoder; bf16 is faster where the processor supports it.
        ray_workers: actors of Ray that encode, on machines with the same folders; 0 encodes in this process.
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
    check_folder(folder)
    with undone_on_failure(folder):
        remove_leftovers(folder)
        reading = {"text_column": text_column, "encoding": encoding, "precision": precision}
        sources = [corpus_identity(source) for source in corpus_files(corpora)]
        plan = make_plan(folder, sources, asdict(options) | reading, encoder, append)
        vectors_of = embed or Embedder(plan["encoder"], precision)
        if embed is None or kind not in ann.KINDS:
            ann.check_factory(kind, _dim(folder, vectors_of))
        read_corpora(folder, plan, options)
        encode(folder, vectors_of, ray_workers)
        make_index(folder, plan, kind, target)
    return Index.open(folder)


def _dim(folder: Path, vectors_of: Callable[[Sequence[str]], np.ndarray]) -> int:
    """Size of the saved vectors, or else of a new one: an encoder that cannot be opened shows early."""
    for place in (folder / PARTS).glob("[0-9]*"):
        return int(open_part(place).vectors.shape[1])
    return int(vectors_of(["one text"]).shape[1])


def check_folder(folder: Path) -> None:
    """Refuses a folder with anything but an index, whose files a build would replace.

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


def remove_leftovers(folder: Path) -> None:
    """Removes what killed builds left incomplete."""
    for place in (folder, folder / PARTS, folder / TEXTS):
        with atomic.writing(place):
            place.mkdir(exist_ok=True)
        atomic.clean(place)


def make_index(folder: Path, plan: dict[str, Any], kind: str, target: float) -> None:
    """Makes the index over all parts, unless it exists; one that has not outgrown its training is only filled.

    Raises:
        ConfigError: FAISS knows no such kind, or the bank is too small for it.
        DataError: there are no texts.
        RunError: the folder cannot be written.
    """
    bank = Bank(folder / PARTS)
    if not len(bank):
        raise DataError(144, "no texts are left: look at --fewest-words and --most-words, or name other corpora")
    parts, place = [(part.name, part.fingerprint) for part in bank.parts], folder / INDEX
    factory, trained, index = ann.factory_of(kind, len(bank), bank.dim), len(bank), None
    if place.exists():
        meta = atomic.verify(place)
        try:
            indexed = [(name, fingerprint) for name, fingerprint in meta["parts"]]
            if (indexed, meta["kind"], meta["target"]) == (parts, kind, target):
                log.info("the index is up to date")
                return
            if (meta["kind"], indexed) == (kind, parts[: len(indexed)]) and len(bank) < _GROWTH * meta["trained"]:
                index = read_file(place / FILE, Bank(folder / PARTS, [name for name, _ in indexed]))
                factory, trained = str(meta["factory"]), int(meta["trained"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                143, f"{place} does not describe an index ({type(error).__name__}): delete it and build again"
            ) from error
        if index is not None:
            ann.fill(index, bank)
    began = time.monotonic()
    if index is None:
        index = ann.make_index(factory, bank)
    log.info("index %s of %d texts: %.1f s", factory, len(bank), time.monotonic() - began)
    reach, tried = ann.tune_search(index, factory, bank, target)
    if reach.recall < target:
        log.warning("recall is %.3f, not %.2f, even for the widest search: use another --kind", reach.recall, target)
    meta = {
        "kind": kind,
        "factory": factory,
        "trained": trained,
        "target": target,
        "parts": parts,
        "count": len(bank),
        "dim": bank.dim,
        "metric": "cosine",
        "encoder": plan["encoder"],
        "encoder_hash": plan["encoder_hash"],
        "faiss": faiss.__version__,
        "reach": asdict(reach),
        "tried": [asdict(one) for one in tried],
    }
    with atomic.write_dir(place, meta) as temporary:
        ann.write(index, temporary / FILE)
        trust(temporary / FILE)
