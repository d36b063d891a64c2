"""`nlp-ssl index`: builds and searches a bank of texts."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import click

from nlp_ssl.cli.answers import as_json
from nlp_ssl.cli.command import Argument, Spec
from nlp_ssl.config import DEFAULT_MODEL
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.sources import stream_rows
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.embedder import EncoderPrecision
from nlp_ssl.retrieval import BankOptions, Hit, Index, build, merge
from nlp_ssl.utils.ranges import check

_BATCH = 1024  # queries searched at once


@dataclass(frozen=True)
class Build:
    """Flags of `index build` beside those of the bank."""

    out: Annotated[Path | None, "folder of the index"] = None
    encoder: Annotated[str, "encoder: folder, hub name or bundled"] = DEFAULT_MODEL
    kind: Annotated[str, "flat, sq8, pq, rabitq, hnsw or a FAISS factory string; auto goes by the number of texts"] = (
        "auto"
    )
    recall: Annotated[float, "share of the true nearest ten that searches are to find"] = 0.95
    append: Annotated[bool, "add the corpora to the index that is there"] = False
    text_column: Annotated[str | None, "column of the texts, where it is not found by itself"] = None
    encoding: Annotated[str, "of the files"] = "utf-8"
    precision: Annotated[EncoderPrecision, "of the encoder; bf16 is faster where the processor computes in it"] = (
        "float32"
    )
    scheduler: Annotated[
        Literal["local", "ray"], "where texts are encoded; Ray's machines must see the same folders"
    ] = "local"
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
    encoder: Annotated[str | None, "where the encoder is now, if it was moved"] = None


@dataclass(frozen=True)
class InspectOptions:
    """Flags of `index info` and `index verify`."""

    json: Annotated[bool, "as JSON"] = False


def _build(corpora: tuple[str, ...], flags: Build, options: BankOptions) -> None:
    if flags.out is None:
        raise ConfigError(206, "index build needs --out DIR: nlp-ssl index build news.txt --out bank")
    index = build(
        flags.out, corpora, options, encoder=encoder_name(flags.encoder), kind=flags.kind, target=flags.recall,
        append=flags.append, text_column=flags.text_column, encoding=flags.encoding,
        precision=flags.precision, ray_workers=flags.workers if flags.scheduler == "ray" else 0,
    )  # fmt: skip
    for line in _described(index):
        click.echo(line)


def _merge(indexes: tuple[str, ...], flags: Merge) -> None:
    if len(indexes) < 2 or flags.out is None:
        raise ConfigError(206, "index merge needs two folders and --out DIR: nlp-ssl index merge a b --out bank")
    for line in _described(merge(flags.out, [Path(place) for place in indexes], kind=flags.kind, target=flags.recall)):
        click.echo(line)


def _search(index: str, query: str | None, flags: Search) -> None:
    if (query is None) == (flags.queries is None):
        raise ConfigError(206, 'index search needs a query or --queries FILE: nlp-ssl index search bank "some words"')
    opened = Index.open(index, None if flags.encoder is None else encoder_name(flags.encoder))
    queries: Iterator[str | None] = iter([query])
    if flags.queries is not None:  # a row without a text has an answer without texts: line n is about row n
        queries = (None if row is None else row[0] for _, row in stream_rows(flags.queries, counts=Counter()))
    while batch := list(islice(queries, _BATCH)):
        hits = iter(opened.search([query for query in batch if query is not None], flags.k))
        for each in batch:
            for line in _shown(each or "", [] if each is None else next(hits), flags.json):
                click.echo(line)
    sys.stdout.flush()


def _shown(query: str, hits: list[Hit], json_wanted: bool) -> Iterator[str]:
    if json_wanted:
        yield as_json([asdict(hit) for hit in hits], sys.stdout)
        return
    yield " ".join(query.split())
    yield from (f"  {hit.score:.3f}  {' '.join(hit.text.split())}" for hit in hits)


def _info(index: str, flags: InspectOptions) -> None:
    opened = Index.open(index)
    for line in [json.dumps(opened.info())] if flags.json else _described(opened):
        click.echo(line)


def _verify(index: str, flags: InspectOptions) -> None:
    opened = Index.open(index)
    recall, target = opened.verify(), opened.meta["target"]
    click.echo(
        json.dumps({"recall": recall, "target": target})
        if flags.json
        else f"all files are whole; recall of the nearest ten: {recall:.3f} (asked for: {target:g})"
    )


def _described(index: Index) -> Iterator[str]:
    info, reach = index.info(), index.reach
    yield f"{info['count']} texts, {info['dim']} dimensions, {info['bytes'] / 1e6:.1f} MB, encoder {info['encoder']}"
    how = f"{reach.knob} {reach.value}, the best {reach.candidates} k" if reach.knob else "all"
    yield f"{info['factory']}: {how} compared exactly for k texts, recall of the nearest ten {reach.recall:.3f}"


COMMANDS = {
    "index build": Spec(
        _build,
        "encode texts and index them",
        "Encodes the texts of CORPORA (files, folders of files, hub data sets) and builds an index over them. An "
        "interrupted command goes on where it stopped.",
        "nlp-ssl index build news.txt wiki.parquet --sentences --out bank",
        flags=(Build(), BankOptions()),
        arguments=(Argument("corpora", -1),),
        first=("out", "append", "text_column", "encoder", "kind", "recall", "sentences", "scheduler"),
    ),
    "index merge": Spec(
        _merge,
        "one index of several, without encoding again",
        "Makes one index of those in the folders INDEXES, as one build of all their corpora would be; nothing is "
        "encoded again.",
        "nlp-ssl index merge bank-1 bank-2 --out bank",
        flags=(Merge(),),
        arguments=(Argument("indexes", -1),),
    ),
    "index search": Spec(
        _search,
        "the nearest texts to a query",
        "Prints the nearest texts of an index to a query; a query that begins with a dash comes last, after --.",
        'nlp-ssl index search bank "a moving film" -k 5',
        flags=(Search(),),
        arguments=(Argument("index"), Argument("query", required=False)),
    ),
    "index info": Spec(
        _info,
        "what an index is made of",
        "Prints what an index is made of.",
        "nlp-ssl index info bank --json",
        flags=(InspectOptions(),),
        arguments=(Argument("index"),),
    ),
    "index verify": Spec(
        _verify,
        "checksums of all files, and recall against exact search",
        "Checks every file of an index against its checksum, and measures its recall.",
        "nlp-ssl index verify bank",
        flags=(InspectOptions(),),
        arguments=(Argument("index"),),
    ),
}
