"""`nlp-ssl index`: builds and searches a bank of texts."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import click

from nlp_ssl.cli.options import parse
from nlp_ssl.data.embedded import encoder_name
from nlp_ssl.data.sources import stream_rows
from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.inference.embedder import Precision
from nlp_ssl.retrieval import BankOptions, Hit, Index, build, merge
from nlp_ssl.utils.ranges import check

_HELP = """\
Usage: nlp-ssl index COMMAND ...

  build CORPORA --out DIR   encode texts and index them; goes on where it stopped
  merge DIRS --out DIR      one index of several, without encoding again
  search DIR "QUERY"        the nearest texts (or --queries FILE)
  info DIR                  what an index is made of
  verify DIR                checksums of all files, and recall against exact search

Every command explains itself: nlp-ssl index build --help
"""
_BATCH = 1024  # queries searched at once


@dataclass(frozen=True)
class Build:
    """Flags of `index build` beside those of the bank."""

    out: Annotated[Path | None, "folder of the index"] = None
    encoder: Annotated[str, "encoder: folder, hub name or embedded"] = "embedded"
    kind: Annotated[str, "flat, sq8, pq, rabitq, hnsw or a FAISS factory string; auto goes by the number of texts"] = (
        "auto"
    )
    recall: Annotated[float, "share of the true nearest ten that searches are to find"] = 0.95
    append: Annotated[bool, "add the corpora to the index that is there"] = False
    text_column: Annotated[str | None, "column of the texts, where it is not found by itself"] = None
    encoding: Annotated[str, "of the files"] = "utf-8"
    precision: Annotated[Precision, "of the encoder; bf16 is faster where the processor computes in it"] = "float32"
    engine: Annotated[Literal["local", "ray"], "where texts are encoded; Ray's machines must see the same folders"] = (
        "local"
    )
    workers: Annotated[int, "of Ray, side by side"] = 1

    def __post_init__(self) -> None:
        check(self.workers, "workers", 1, 100_000)


@dataclass(frozen=True)
class Merge:
    """Flags of `index merge`."""

    out: Annotated[Path | None, "folder of the index"] = None
    kind: Annotated[str, "as for build"] = "auto"
    recall: Annotated[float, "share of the true nearest ten that searches are to find"] = 0.95


@dataclass(frozen=True)
class Search:
    """Flags of `index search`."""

    k: Annotated[int, "texts for each query"] = 10
    queries: Annotated[Path | None, "file of queries"] = None
    json: Annotated[bool, "a JSON list of id, score and text for each query, one a line"] = False
    encoder: Annotated[str | None, "where the encoder lies now, if it was moved"] = None


@dataclass(frozen=True)
class Look:
    """Flags of `index info` and `index verify`."""

    json: Annotated[bool, "as JSON"] = False


def main(argv: Sequence[str]) -> None:
    """`nlp-ssl index build|merge|search|info|verify`."""
    if not argv or argv[0] in ("-h", "--help"):
        click.echo(_HELP, nl=False)
    elif argv[0] not in VERBS:
        raise ConfigError(200, f"no command 'index {argv[0]}'.{nearest(argv[0], VERBS)}")
    else:
        VERBS[argv[0]](list(argv[1:]))


def _places(argv: list[str]) -> list[str]:
    """The words before the first flag."""
    return argv[: next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))]


def _build(argv: list[str]) -> None:
    places = _places(argv)
    doc = (
        "Encodes the texts of CORPORA (files, folders of files, hub data sets) and builds an index over them. An "
        "interrupted command goes on where it stopped. "
        "Example: nlp-ssl index build news.txt wiki.parquet --sentences --out bank"
    )
    flags, options = parse(argv[len(places) :], Build(), BankOptions(), name="nlp-ssl index build CORPORA", doc=doc)
    if not places or flags.out is None:
        raise ConfigError(206, "index build needs texts and --out: nlp-ssl index build news.txt --out bank")
    index = build(
        flags.out, places, options, encoder=encoder_name(flags.encoder), kind=flags.kind, target=flags.recall,
        append=flags.append, text_column=flags.text_column, encoding=flags.encoding,
        precision=flags.precision, ray_workers=flags.workers if flags.engine == "ray" else 0,
    )  # fmt: skip
    for line in _described(index):
        click.echo(line)


def _merge(argv: list[str]) -> None:
    places = _places(argv)
    doc = (
        "Makes one index of those in DIRS, as one build of all their corpora would be; nothing is encoded again. "
        "Example: nlp-ssl index merge bank-1 bank-2 --out bank"
    )
    (flags,) = parse(argv[len(places) :], Merge(), name="nlp-ssl index merge DIRS", doc=doc)
    if len(places) < 2 or flags.out is None:
        raise ConfigError(206, "index merge needs two folders or more and --out: nlp-ssl index merge a b --out bank")
    for line in _described(merge(flags.out, [Path(place) for place in places], kind=flags.kind, target=flags.recall)):
        click.echo(line)


def _search(argv: list[str]) -> None:
    end = argv.index("--") if "--" in argv else len(argv)
    places = _places(argv[:end])
    doc = (
        "The nearest texts of the index in DIR; a query that begins with a dash comes last, after --. "
        'Example: nlp-ssl index search bank "a moving film" --k 5'
    )
    (flags,) = parse(argv[len(places) : end], Search(), name="nlp-ssl index search DIR [QUERY]", doc=doc)
    places += argv[end + 1 :]
    if len(places) not in (1, 2) or (len(places) == 2) == (flags.queries is not None):
        raise ConfigError(206, 'index search needs a folder and a query: nlp-ssl index search bank "some words"')
    index = Index.open(places[0], None if flags.encoder is None else encoder_name(flags.encoder))
    queries: Iterator[str | None] = iter(places[1:])
    if flags.queries is not None:  # a row without a text has an answer without texts: line n is about row n
        queries = (None if row is None else row[0] for _, row in stream_rows(flags.queries, counts=Counter()))
    while batch := list(islice(queries, _BATCH)):
        found = iter(index.search([query for query in batch if query is not None], flags.k))
        for query in batch:
            for line in _shown(query or "", [] if query is None else next(found), flags.json):
                click.echo(line)
    sys.stdout.flush()


def _shown(query: str, hits: list[Hit], as_json: bool) -> Iterator[str]:
    if as_json:
        yield json.dumps([asdict(hit) for hit in hits], ensure_ascii=False)
        return
    yield " ".join(query.split())
    yield from (f"  {hit.score:.3f}  {' '.join(hit.text.split())}" for hit in hits)


def _info(argv: list[str]) -> None:
    index, flags = _opened(argv, "info", "What the index in DIR is made of.")
    for line in [json.dumps(index.info())] if flags.json else _described(index):
        click.echo(line)


def _verify(argv: list[str]) -> None:
    doc = "Checks every file of the index in DIR against its checksum, and measures its recall."
    index, flags = _opened(argv, "verify", doc)
    found = index.verify()
    asked = index.meta["target"]
    click.echo(
        json.dumps({"recall": found, "target": asked})
        if flags.json
        else f"all files are whole; recall of the nearest ten: {found:.3f} (asked for: {asked:g})"
    )


def _opened(argv: list[str], verb: str, doc: str) -> tuple[Index, Look]:
    places = _places(argv)
    (flags,) = parse(argv[len(places) :], Look(), name=f"nlp-ssl index {verb} DIR", doc=doc)
    if len(places) != 1:
        raise ConfigError(206, f"index {verb} needs one folder: nlp-ssl index {verb} bank")
    return Index.open(places[0]), flags


def _described(index: Index) -> Iterator[str]:
    info, reach = index.info(), index.reach
    yield f"{info['count']} texts, {info['dim']} dimensions, {info['bytes'] / 1e6:.1f} MB, encoder {info['encoder']}"
    how = f"{reach.knob} {reach.value}, the best {reach.candidates} k" if reach.knob else "all"
    yield f"{info['factory']}: {how} compared exactly for k texts, recall of the nearest ten {reach.recall:.3f}"


VERBS = {"build": _build, "merge": _merge, "search": _search, "info": _info, "verify": _verify}
