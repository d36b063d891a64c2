"""From corpora to a bank of texts with vectors and an index over them; goes on wherever it was stopped."""

import itertools
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import faiss
import numpy as np
import xxhash

from nlp_ssl import atomic
from nlp_ssl.data.sources import data_stem, stream_texts
from nlp_ssl.embed import Embedder
from nlp_ssl.errors import ConfigError, DataError, RunError
from nlp_ssl.method import check
from nlp_ssl.paraphrase.engine import contents
from nlp_ssl.paraphrase.sentences import split
from nlp_ssl.process import exclusive
from nlp_ssl.retrieval import ann
from nlp_ssl.retrieval.bank import Bank, part_name, write_part
from nlp_ssl.retrieval.index import INDEX, PARTS, Index, vouch

log = logging.getLogger("nlp_ssl")
_PLAN = "build.json"
_GROWTH = 3  # an index is trained anew once it holds that many times the vectors that it was trained for
_TIER = 1 << 16
_NOT_WORDS = re.compile(r"[\W\d_]+")


@dataclass(frozen=True)
class BankOptions:
    """What becomes of the texts of a corpus."""

    sentences: Annotated[bool, "cut the texts into sentences"] = False
    fewest_words: Annotated[int, "of a text that is taken"] = 3
    most_words: Annotated[int, "of a text that is taken"] = 100
    duplicates: Annotated[
        Literal["drop", "drop_near", "keep"],
        "texts equal but for case and spaces; drop_near: but for punctuation and numbers, too",
    ] = "drop"
    part_size: Annotated[int, "texts encoded and written at once; what a kill can cost"] = 16_384

    def __post_init__(self) -> None:
        check(self.fewest_words, "fewest_words", 1, 1e6)
        check(self.most_words, "most_words", self.fewest_words, 1e9)
        check(self.part_size, "part_size", 1, 1e8)


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
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> Index:
    """Builds an index, goes on with one that was begun, or with `append` adds corpora to it.

    Texts are encoded and written a part at a time; a kill costs the part that was under way. The result is that of an
    unbroken build.

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
        embed: embeddings [n, D] of texts, in place of the encoder's.

    Raises:
        ConfigError: the folder holds an index of other options or corpora, or another build is at work in it.
        DataError: a corpus cannot be read, or no text is left.
        RunError: the folder cannot be written.
    """
    ann.factory_of(kind, 1, 1)
    check(target, "recall", 0.0, 1.0)
    with exclusive(folder):
        atomic.clean(folder)
        (folder / PARTS).mkdir(exist_ok=True)
        atomic.clean(folder / PARTS)
        reading = {"text_column": text_column, "encoding": encoding}
        plan = _plan(folder, [_identity(c) for c in _files(corpora)], asdict(options) | reading, encoder, append)
        _encode(folder / PARTS, plan, options, embed or Embedder(encoder))
        _index(folder, plan, kind, target)
    return Index.open(folder)


# ---- what is to be built ---------------------------------------------------------------------------------------------


def _files(corpora: Sequence[str]) -> Iterator[str]:
    """The corpora, a folder as each of its files of texts."""
    for corpus in corpora:
        path = Path(corpus)
        names = sorted(path.iterdir()) if path.is_dir() else []
        files = [p for p in names if p.is_file() and p.name[0] not in "._" and data_stem(p) is not None]
        if path.is_dir() and not files:
            raise DataError(142, f"{path}: no files of texts in this folder: name files of texts, or a folder of them")
        yield from map(str, files) if files else [corpus]


def _identity(source: str) -> dict[str, Any]:
    """A corpus by its contents, so that one that has changed is noticed."""
    path = Path(source)
    if not path.is_file():
        return {"source": source}
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise DataError(101, f"{path}: cannot be read ({error.strerror}): check the path") from error
    return {"source": str(path.absolute()), "hash": digest.hexdigest()}


def _plan(
    folder: Path, corpora: list[dict[str, Any]], options: dict[str, Any], encoder: str, append: bool
) -> dict[str, Any]:
    """What the folder holds or is to hold; written down before anything else is.

    Raises:
        ConfigError: the folder holds something else.
    """
    path = folder / _PLAN
    name = str(Path(encoder).absolute()) if Path(encoder).is_dir() else encoder
    wanted = {"format": 1, "options": options, "encoder": name, "encoder_hash": contents([encoder]), "corpora": corpora}
    empty = not any((folder / PARTS).iterdir())
    if not path.exists() and not empty:
        raise ConfigError(297, f"{path} is missing beside its parts: restore it, or name another folder")
    if empty:
        if append:
            raise ConfigError(297, f"{folder} holds no index to add to: leave out --append")
        atomic.write_text(path, json.dumps(wanted, indent=1))
        return wanted
    known = _read_plan(path)
    same = {"encoder_hash"} if known["encoder_hash"] else {"encoder"}  # the same folder may lie elsewhere
    unlike = [k for k in sorted(same) if known[k] != wanted[k]]
    unlike += [k for k, v in options.items() if known["options"].get(k) != v]
    if unlike:
        raise ConfigError(297, f"{folder} was begun with another {', '.join(unlike)}: give the same, or another folder")
    known["encoder"] = name
    if append:
        hashes = [c.get("hash", c["source"]) for c in known["corpora"]]
        known["corpora"] += [c for c in corpora if c.get("hash", c["source"]) not in hashes]
        atomic.write_text(path, json.dumps(known, indent=1))
    elif [c.get("hash", c["source"]) for c in known["corpora"]] != [c.get("hash", c["source"]) for c in corpora]:
        raise ConfigError(
            297,
            f"{folder} holds other corpora, or these as they were before: --append adds them, or name another folder",
        )
    return known


def _read_plan(path: Path) -> dict[str, Any]:
    with atomic.reading(path):
        try:
            plan: dict[str, Any] = json.loads(path.read_text())
            named = all(isinstance(corpus["source"], str) for corpus in plan["corpora"])
            if plan["format"] == 1 and {"encoder", "encoder_hash"} <= plan.keys() and dict(plan["options"]) and named:
                return plan
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
    raise DataError(143, f"{path} is damaged: restore it, or build in another folder")


# ---- texts to vectors ------------------------------------------------------------------------------------------------


class _Seen:
    """Keys met so far, 8 bytes each: sorted arrays that are merged like the digits of a binary number."""

    def __init__(self, known: Iterable[np.ndarray]) -> None:
        self._new: set[int] = set()
        self._sorted: list[np.ndarray] = []
        for keys in known:
            self._settle(keys)

    def add(self, key: int) -> bool:
        """Whether the key is new."""
        if key in self._new or any(_holds(keys, np.uint64(key)) for keys in self._sorted):
            return False
        self._new.add(key)
        if len(self._new) == _TIER:
            self._settle(np.fromiter(self._new, np.uint64, len(self._new)))
            self._new = set()
        return True

    def _settle(self, keys: np.ndarray) -> None:
        self._sorted.append(np.sort(keys))
        while len(self._sorted) > 1 and len(self._sorted[-1]) >= len(self._sorted[-2]):
            last = self._sorted.pop()
            self._sorted[-1] = np.sort(np.concatenate([self._sorted[-1], last]))


def _holds(ordered: np.ndarray, key: np.uint64) -> bool:
    at = int(np.searchsorted(ordered, key))
    return at < len(ordered) and bool(ordered[at] == key)


def key_of(text: str, duplicates: str) -> int:
    """Equal for texts that count as duplicates."""
    words = _NOT_WORDS.sub(" ", text.casefold()) if duplicates == "drop_near" else text.casefold()
    return xxhash.xxh3_64_intdigest(" ".join(words.split()).encode())


def _encode(
    folder: Path, plan: dict[str, Any], options: BankOptions, embed: Callable[[Sequence[str]], np.ndarray]
) -> None:
    """Writes the parts that are still missing."""
    bank, counts, began, done = Bank(folder), Counter[str](), time.monotonic(), 0
    if bank.parts:
        for part in bank.parts:
            atomic.verify(folder / part.name)
        log.info("%d texts are there already", len(bank))
    number, read = bank.parts[-1].meta["read"] if bank.parts else (0, 0)
    texts = _wanted(plan, options, _Seen(part.keys for part in bank.parts), (number, read), counts)
    for at in itertools.count(len(bank.parts)):
        rows = list(itertools.islice(texts, options.part_size))
        if not rows:
            break
        vectors = embed([text for text, _, _ in rows])
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not bool((np.isfinite(length) & (length > 0)).all()):
            raise RunError(332, "the encoder's vectors are zero or not finite: name another --encoder")
        keys = np.array([key for _, key, _ in rows], dtype=np.uint64)
        write_part(folder / part_name(at), [text for text, _, _ in rows], vectors / length, keys, {"read": rows[-1][2]})
        done += len(rows)
        log.info("%d texts more, %.0f a second", done, done / (time.monotonic() - began))
    for what, count in sorted(counts.items()):
        log.info("%s: %d", what, count)


def _wanted(
    plan: dict[str, Any], options: BankOptions, seen: _Seen, place: tuple[int, int], counts: Counter[str]
) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """(text, key, (number of its corpus, texts of that read up to here)) of the texts to take, from a place on."""
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
                counts["dropped, shorter or longer than wanted"] += 1
                continue
            key = key_of(text, options.duplicates)
            if options.duplicates != "keep" and not seen.add(key):
                counts["duplicates dropped"] += 1
                continue
            yield text, key, (number, read)


# ---- vectors to an index ---------------------------------------------------------------------------------------------


def _index(folder: Path, plan: dict[str, Any], kind: str, target: float) -> None:
    """Makes the index over all parts, unless it is there; one that has not outgrown its training is only filled."""
    bank = Bank(folder / PARTS)
    if not len(bank):
        raise DataError(144, "no texts are left: look at --fewest-words and --most-words, or name other corpora")
    parts, place = [(part.name, part.mark) for part in bank.parts], folder / INDEX
    factory, trained, index = ann.factory_of(kind, len(bank), bank.dim), len(bank), None
    if place.exists():
        meta = atomic.verify(place)
        held = [(name, mark) for name, mark in meta["parts"]]
        if (held, meta["kind"], meta["target"]) == (parts, kind, target):
            log.info("the index is there already")
            return
        if (meta["kind"], held) == (kind, parts[: len(held)]) and len(bank) < _GROWTH * meta["trained"]:
            index, factory, trained = faiss.read_index(str(place / "index.faiss")), meta["factory"], meta["trained"]
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
        ann.write(index, temporary / "index.faiss")
        vouch(temporary / "index.faiss")
