"""`nlp-ssl predict`: label and probability per text, streaming."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import click
import pyarrow as pa

from nlp_ssl.cli import answers
from nlp_ssl.cli.command import Argument, Spec
from nlp_ssl.config import MixedPrecision
from nlp_ssl.data.label_sets import check_separator
from nlp_ssl.data.schema import log_notes
from nlp_ssl.data.sources import TextRow, stream_parts
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.predictor import Predictor, answer, open_predictor
from nlp_ssl.utils.progress import bar
from nlp_ssl.utils.ranges import check


@dataclass(frozen=True)
class PredictOptions:
    """Flags of `predict`."""

    text_column: Annotated[str | None, "column of the texts"] = None
    pair_column: Annotated[str | None, "column of the second texts, for a model of pairs"] = None
    encoding: Annotated[str, "of the file"] = "utf-8"
    label_separator: Annotated[str, "multi-label: what separates the labels of a text"] = ";"
    max_length: Annotated[int | None, "tokens; longer texts are cut; by default as in training"] = None
    mixed_precision: Annotated[MixedPrecision, "format of the model's arithmetic; auto: bf16 where measured faster"] = (
        "auto"
    )
    out: Annotated[Path | None, "file to write instead: .parquet, .csv, .tsv or .jsonl"] = None
    overwrite: Annotated[bool, "replace that file"] = False
    guard_formulas: Annotated[
        bool, "for spreadsheets: put ' before labels that begin with =, +, - or @; they are then other labels"
    ] = False
    all: Annotated[bool, "the probabilities of all classes; with --out or --json"] = False
    json: Annotated[bool, "print JSON lines instead; with --out, what was done"] = False

    def __post_init__(self) -> None:
        if self.max_length is not None:
            check(self.max_length, "max_length", 3, 1e6)
        if self.all and not self.json and self.out is None:
            raise ConfigError(443, "--all needs columns with names: add --json, or --out FILE")
        if self.guard_formulas and (self.out.suffix not in (".csv", ".tsv") if self.out else self.json):
            raise ConfigError(444, "--guard-formulas is for printed lines, .csv and .tsv: leave it out")

    def cells(self) -> answers.Cells:
        """How labels are written into CSV and TSV."""
        return answers.Cells(self.label_separator, self.guard_formulas)


def main(model: str, file: str, options: PredictOptions) -> None:
    """Prints one line `label<TAB>probability` per text, or writes a table of them."""
    if options.out is not None:
        answers.check_out(options.out, [file], options.overwrite)
    predictor = open_predictor(
        Path(model), max_length=options.max_length, precision=options.mixed_precision,
        pairs=options.pair_column is not None,
    )  # fmt: skip
    counts: Counter[str] = Counter()
    parts = stream_parts(
        file, text_column=options.text_column, pair_column=options.pair_column, encoding=options.encoding,
        counts=counts,
    )  # fmt: skip
    if predictor.kind == "multi-label":
        check_separator(options.label_separator, predictor.classes)
    columns = answers.schema(predictor.classes, options.all, predictor.kind, Path(file).is_dir())
    if options.out is not None:
        _to_file(options, _tables(predictor, parts, columns), columns)
    else:
        lines = partial(answers.put_lines, cells=options.cells())
        put = partial(answers.put_json if options.json else lines, sys.stdout)
        for rows in _tables(predictor, parts, columns):
            put(rows)
        sys.stdout.flush()
    log_notes(f"{what}: {count}" for what, count in sorted(counts.items()))


def _tables(
    predictor: Predictor, parts: Iterator[tuple[str, Iterator[TextRow]]], columns: pa.Schema
) -> Iterator[pa.Table]:
    for place, rows in parts:
        file = Path(place).name if answers.FILE in columns.names else None
        for block in answer(predictor, rows):
            yield answers.table(block, predictor.classes, columns, file)


def _to_file(options: PredictOptions, tables: Iterator[pa.Table], columns: pa.Schema) -> None:
    """Writes the file and says how fast."""
    out, start, texts = options.out, time.perf_counter(), 0
    assert out is not None
    with answers.writer(out, columns, options.cells()) as put, bar("texts") as advance:
        for rows in tables:
            put(rows)
            texts += len(rows) - rows["label"].null_count
            advance(len(rows))
    seconds = time.perf_counter() - start
    if options.json:
        click.echo(json.dumps({"out": str(out), "texts": texts, "seconds": seconds, "per_second": texts / seconds}))
    else:
        click.echo(f"{out}: {texts:,} texts in {seconds:.1f} s, {texts / seconds:,.0f} per second")


COMMANDS = {
    "predict": Spec(
        main,
        "label and probability of every text of a file",
        "Writes label and probability of every text of FILE, in order, one tab-separated line each. Labels are written "
        "as they are; one with a tab, a quote or a line end stands in quotes. MODEL is a folder that train or export "
        "wrote. FILE may be a folder of files; tables then say in a column `file` which one a row is of.",
        "nlp-ssl predict out texts.csv --out predicted.parquet --all",
        flags=(PredictOptions(),),
        arguments=(Argument("model"), Argument("file")),
    )
}
