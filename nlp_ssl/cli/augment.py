"""`nlp-ssl augment`: strong views of the texts of a file, made once and kept."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import click
import pyarrow as pa
import pyarrow.parquet as pq

from nlp_ssl import atomic
from nlp_ssl.cli.options import parse
from nlp_ssl.config import cache_folder
from nlp_ssl.data.sources import Table, read_table
from nlp_ssl.errors import ConfigError
from nlp_ssl.method import check
from nlp_ssl.paraphrase.apertium import Apertium
from nlp_ssl.paraphrase.cache import Cache
from nlp_ssl.paraphrase.engine import Engine
from nlp_ssl.paraphrase.gates import Gates, Report
from nlp_ssl.paraphrase.marian import CTranslate2, Marian
from nlp_ssl.paraphrase.rewrite import View, rewrite
from nlp_ssl.paraphrase.views import SCHEMA

log = logging.getLogger("nlp_ssl")
_ROWS = 4096  # views written at once
_SECONDS = 10.0  # between two lines of progress


@dataclass(frozen=True)
class Options:
    """Flags of `augment` beside those of the gates."""

    how: Annotated[Literal["back_translation"], "what is done to the texts"] = "back_translation"
    engine: Annotated[Literal["apertium", "marian", "ctranslate2"], "what translates"] = "apertium"
    there: Annotated[str | None, "mode (Apertium) or model into the other language, if not the engine's own"] = None
    back: Annotated[str | None, "mode or model back"] = None
    temperature: Annotated[float, "of the sampling by models; 0 takes the likeliest token"] = 0.9
    samples: Annotated[int, "views of each text"] = 1
    workers: Annotated[int, "engines side by side"] = 1
    text_column: Annotated[str | None, "column of the texts, where it is not found by itself"] = None
    encoding: Annotated[str, "of the file"] = "utf-8"
    cache_dir: Annotated[Path | None, "where finished rewritings are kept"] = None
    out: Annotated[Path | None, "Parquet file of the views: text, sample, view, outcome"] = None
    overwrite: Annotated[bool, "replace that file"] = False

    def __post_init__(self) -> None:
        check(self.samples, "samples", 1, 1000)
        check(self.workers, "workers", 1, 1000)


def main(argv: Sequence[str]) -> None:
    """`nlp-ssl augment INPUT --out VIEWS.parquet`: writes the views and says what became of the texts."""
    places = [a for a in argv[:1] if not a.startswith("-")]
    doc = (
        "Rewrites every text of INPUT and writes the views to a Parquet file that `nlp-ssl train --views` takes. "
        "What is finished is kept: an interrupted command goes on where it stopped, a changed text is done alone. "
        "Example: nlp-ssl augment pool.txt --out views.parquet --workers 2"
    )
    options, gates = parse(list(argv)[len(places) :], Options(), Gates(), name="nlp-ssl augment INPUT", doc=doc)
    if not places or options.out is None:
        raise ConfigError(206, "augment needs a file of texts and --out: nlp-ssl augment pool.txt --out views.parquet")
    if options.out.exists() and not options.overwrite:
        raise ConfigError(224, f"{options.out} exists: name another file or add --overwrite")
    table = read_table(places[0], text_column=options.text_column, encoding=options.encoding)
    for note in table.notes:
        log.info("%s", note)
    engine, report = _engine(options), Report()
    with Cache(options.cache_dir or cache_folder() / "rewritings") as cache:
        views = rewrite(_texts(table), engine, cache, samples=options.samples, workers=options.workers, gates=gates)
        _write(options.out, _watched(views, len(table) * options.samples, report))
        log.info("%d rewritings are new, the others came from the cache", cache.written)
    for line in report.lines():
        click.echo(line)
    for text, view in report.examples:
        click.echo(f"  {_short(text)}\n    -> {_short(view)}")


def _engine(options: Options) -> Engine:
    engine: Apertium | Marian | CTranslate2
    if options.engine == "apertium":
        engine = Apertium()
    elif options.engine == "marian":
        engine = Marian(temperature=options.temperature)
    else:
        engine = CTranslate2(temperature=options.temperature)
    return replace(engine, there=options.there or engine.there, back=options.back or engine.back)


def _texts(table: Table) -> Iterator[str]:
    for chunk in table.texts.chunks:
        for start in range(0, len(chunk), _ROWS):
            yield from chunk.slice(start, _ROWS).to_pylist()


def _watched(views: Iterator[View], total: int, report: Report) -> Iterator[View]:
    """The views as they come, counted in the report, with a line of progress now and then."""
    start = said = time.monotonic()
    for number, view in enumerate(views, 1):
        report.add(view.text, view.view, view.outcome)
        yield view
        now = time.monotonic()
        if now - said >= _SECONDS:
            said, rate = now, number / (now - start)
            log.info("%d of %d views, %.0f a second, about %.0f s left", number, total, rate, (total - number) / rate)


def _write(path: Path, views: Iterator[View]) -> None:
    """The Parquet file, in one step: absent or whole."""
    with atomic.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.partial")
        with pq.ParquetWriter(temporary, SCHEMA) as writer:
            rows: list[View] = []
            for view in views:
                rows.append(view)
                if len(rows) == _ROWS:
                    writer.write_table(_arrow(rows))
                    rows = []
            writer.write_table(_arrow(rows))
        temporary.replace(path)


def _arrow(rows: list[View]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def _short(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:157]}..."
