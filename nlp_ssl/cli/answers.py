"""Tables of answers in files and on standard output: Parquet, CSV, TSV and JSON lines."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.predictor import Answers
from nlp_ssl.types import Kind
from nlp_ssl.utils import atomic

FILE = "file"
SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")
_DIGITS = 6  # of a probability
_APPLIES = 0.5  # probability from which on a label of multi-label data applies
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how cells begin that a spreadsheet runs

Put = Callable[[pa.Table], object]


def schema(classes: Sequence[str], every_class: bool, kind: Kind = "single-label", files: bool = False) -> pa.Schema:
    """Columns row, label and probability, the latter two lists for multi-label data.

    On request there is one more for the probability of each class, and a last one for the file of the row.
    """
    more = [f"probability_{name}" for name in classes] if every_class else []
    answer = [("label", pa.string()), ("probability", pa.float64())]
    if kind == "multi-label":
        answer = [(name, pa.list_(type_)) for name, type_ in answer]
    last = [(FILE, pa.string())] if files else []
    return pa.schema([("row", pa.int64()), *answer, *((name, pa.float64()) for name in more), *last])


def table(answers: Answers, classes: Sequence[str], columns: pa.Schema, file: str | None = None) -> pa.Table:
    """Answers under the columns of `schema`, null in rows without a text; `file` is the one that the rows are of."""
    p = answers.probabilities.round(_DIGITS)
    blank = np.isnan(p).any(1)
    names = np.array(classes, dtype=object)
    files = [] if file is None else [pa.array([file] * len(p), pa.string())]
    every_class = [p[:, i] for i in range(len(classes))] if len(columns) > 3 + len(files) else []
    if pa.types.is_list(columns.field("label").type):
        given = answers.probabilities >= _APPLIES
        values: list[Any] = [_picked(np.broadcast_to(names, p.shape), given), _picked(p, given)]
    else:
        values = [names[answers.probabilities.argmax(1)], p.max(1)]
    values += every_class
    filled = [
        pa.array(v, field.type, mask=blank) for v, field in zip(values, list(columns)[1 : len(values) + 1], strict=True)
    ]
    return pa.table([pa.array(answers.rows), *filled, *files], schema=columns)


def _picked(values: np.ndarray, chosen: np.ndarray) -> list[list[Any]]:
    """Of each row of values [N, C] the chosen ones [N, C]."""
    return [row[applies].tolist() for row, applies in zip(values, chosen, strict=True)]


def check_out(out: Path, read: Sequence[str | Path], overwrite: bool) -> None:
    """Refuses a file that cannot be written, before anything is computed.

    Raises:
        ConfigError: its ending is unknown, it is there already, or it is what is read.
    """
    if out.suffix not in SUFFIXES:
        raise ConfigError(441, f"{out}: unknown format {out.suffix!r}: use {', '.join(SUFFIXES)}")
    if out.resolve() in {Path(place).resolve() for place in read}:
        raise ConfigError(295, f"{out}: the result would take the place of what is read: name another --out")
    if out.exists() and not overwrite:
        raise ConfigError(442, f"{out} exists: name another file or add --overwrite")


@dataclass(frozen=True)
class Cells:
    """How a row's labels and probabilities stand in the cells of CSV and TSV.

    Attributes:
        separator: between the labels of a row of multi-label data, and alone where no label applies.
        guard_formulas: put an apostrophe before a label that a spreadsheet would run as a formula. It is then no longer
            the name of the class: what reads the file gets another label.
    """

    separator: str = ";"
    guard_formulas: bool = False

    def label(self, label: str | list[str] | None) -> str:
        """A label or several; nothing where there is no text."""
        text = (self.separator.join(label) or self.separator) if isinstance(label, list) else label or ""
        return f"'{text}" if self.guard_formulas and text.startswith(_FORMULA) else text

    def numbers(self, p: float | list[float] | None, shown: Callable[[float], str]) -> str:
        """The probabilities of these labels."""
        return self.separator.join(map(shown, p)) if isinstance(p, list) else "" if p is None else shown(p)


@contextmanager
def writer(out: Path, columns: pa.Schema, cells: Cells) -> Iterator[Put]:
    """Takes tables for a file, in the format of its ending; the file is there, whole, when the block ends.

    Raises:
        RunError: the file cannot be written.
    """
    make: dict[str, Callable[[Path, pa.Schema], AbstractContextManager[Put]]] = {
        ".parquet": _parquet,
        ".csv": partial(_csv, delimiter=",", cells=cells),
        ".tsv": partial(_csv, delimiter="\t", cells=cells),
        ".jsonl": _jsonl,
    }
    with atomic.write_file(out) as temporary, make[out.suffix](temporary, columns) as put:

        def watched(rows: pa.Table) -> None:
            with atomic.writing(out):
                put(rows)

        yield watched


@contextmanager
def _parquet(path: Path, columns: pa.Schema) -> Iterator[Put]:
    with pq.ParquetWriter(path, columns) as file:
        yield file.write_table


@contextmanager
def _csv(path: Path, columns: pa.Schema, delimiter: str, cells: Cells) -> Iterator[Put]:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(_line(columns.names, delimiter))
        yield lambda rows: file.writelines(
            _line([str(row), cells.label(label), cells.numbers(p, str), *("" if q is None else str(q) for q in more)],
                  delimiter)
            for row, label, p, *more in _rows(rows)
        )  # fmt: skip


@contextmanager
def _jsonl(path: Path, columns: pa.Schema) -> Iterator[Put]:
    with path.open("w", encoding="utf-8") as file:
        yield partial(put_json, file)


def put_json(file: TextIO, rows: pa.Table) -> None:
    """One object for each row."""
    file.writelines(as_json(row, file) + "\n" for row in rows.to_pylist())


def as_json(value: Any, file: TextIO) -> str:
    """JSON for a file; in ASCII where its encoding may lack a character."""
    return json.dumps(value, ensure_ascii=not (file.encoding or "utf-8").lower().startswith("utf"))


def put_lines(file: TextIO, rows: pa.Table, cells: Cells) -> None:
    """Tab-separated values without row numbers or a header: line n is about row n."""
    for _, label, p, *_ in _rows(rows):
        file.write(_line([cells.label(label), cells.numbers(p, "{:.4f}".format)], "\t"))


def _line(fields: Sequence[str], delimiter: str) -> str:
    """One record. A field that holds a sign of the format stands in quotes, also where it holds a carriage return,
    which Python's csv module leaves bare.
    """
    signs = (delimiter, '"', "\n", "\r")
    quoted = ('"' + f.replace('"', '""') + '"' if any(sign in f for sign in signs) else f for f in fields)
    return delimiter.join(quoted) + "\n"


def _rows(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)
