"""Tables of texts and labels from files, folders, data frames and datasets, checked and cleaned while they stream."""

import codecs
import csv
import gzip
import io
import itertools
import json
import math
import re
import sys
import unicodedata
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlp_ssl.data.label_sets import LabelSet, check_separator, is_list, label_set
from nlp_ssl.errors import DataError, nearest

if TYPE_CHECKING:
    import datasets
    import pandas

TEXT_COLUMNS = (
    "text", "sentence", "review", "content", "tweet", "document", "body", "message", "comment", "description",
)  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")
UNLABELED_MARKERS = frozenset({"-1", "nan", "NaN", "null", "NULL", "None"})
SPLIT_NAMES = {
    "training": "train", "val": "dev", "valid": "dev", "validation": "dev", "testing": "test",
    "unlabelled": "unlabeled", "unsup": "unlabeled", "unsupervised": "unlabeled",
}  # fmt: skip

_MAX_CHARS = 1_000_000  # a longer text is cut: no encoder reads further, and tokenizing it would stall a run
_MAX_CSV_FIELD = 64_000_000  # an unclosed quote swallows the file up to here, then is reported
_CHUNK_ROWS = 16_384
_JSON_PEEK = 10_000  # records looked at to learn which keys there are
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# How files begin that are no text, whatever they are called.
_MAGIC = (
    (b"PK\x03\x04", "an Excel or zip file"), (b"\xd0\xcf\x11\xe0", "an old Office file"), (b"%PDF", "a PDF file"),
    (b"\x89PNG", "a PNG image"), (b"\xff\xd8\xff", "a JPEG image"), (b"SQLite format 3", "a database"),
    (b"PAR1", "a Parquet file, to be called .parquet"), (b"\x1f\x8b", "a gzip file, to be called .gz"),
)  # fmt: skip
_CONTROL = bytes({*range(32)} - {*b"\t\n\r\f\x1b"})  # hardly ever in a text
_SURROGATE = re.compile("[\ud800-\udfff]")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SPLIT_FILE = re.compile(r"(train|dev|val|valid|validation|test|unlabell?ed|unsup|unsupervised)(-\d+-of-\d+)?")

Row = tuple[int, tuple[object, ...]]


@dataclass(frozen=True)
class Table:
    """Cleaned texts with the labels, row numbers and splits that go with them.

    Attributes:
        texts: large_string [N], in NFC, never blank.
        labels: class names [N], None where a row has no label; None as a whole where the source has no label column.
        rows: int64 [N], the data row (or line) of each text in its file, from 1.
        source: where the texts came from, for messages.
        splits: split names [N] if the source has any.
        notes: what was dropped or mended, in words, with counts.
        pairs: large_string [N], the second text of each row, where rows are pairs.
        label_sets: labels [N] where rows have several, None where nothing is known of one; `labels` is None then.
        classes: class names in the order that the source declares (a ClassLabel), also those that no row has; None
            where it declares none.
    """

    texts: pa.ChunkedArray
    labels: list[str | None] | None
    rows: np.ndarray
    source: str
    splits: list[str] | None
    notes: tuple[str, ...]
    pairs: pa.ChunkedArray | None = None
    label_sets: list[LabelSet | None] | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray) -> "Table":
        """The rows at `positions` (int64 [M]), in that order."""
        return replace(
            self,
            texts=self.texts.take(pa.array(positions, pa.int64())),
            pairs=None if self.pairs is None else self.pairs.take(pa.array(positions, pa.int64())),
            labels=None if self.labels is None else [self.labels[i] for i in positions],
            label_sets=None if self.label_sets is None else [self.label_sets[i] for i in positions],
            rows=self.rows[positions],
            splits=None if self.splits is None else [self.splits[i] for i in positions],
        )

    def of_split(self, name: str) -> "Table":
        """The rows of one split, none where the source has no such split."""
        return self.take(np.flatnonzero(np.array(self.splits or []) == name))


@dataclass(frozen=True)
class _Part:
    """One readable piece of a source: its columns, and a stream of (row number, values of the named columns)."""

    place: str
    columns: Sequence[str]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    split: str | None = None
    named: bool = True  # lines of plain text have no column name that one could ask for
    classes: Mapping[str, list[str]] = field(default_factory=dict)  # class names of columns that hold their numbers

    def read(self, names: Sequence[str]) -> Iterator[Row]:
        """The values of the named columns, row by row.

        Raises:
            DataError: there are two columns of one of these names.
        """
        for name in names:
            if self.columns.count(name) > 1:
                raise DataError(109, f"{self.place}: column {name!r} occurs more than once: rename one of them")
        return self.rows(names)


@dataclass(frozen=True)
class _Reading:
    """How to read, and the counts of what had to be dropped or mended on the way."""

    encoding: str = "utf-8"
    skip_bad_lines: bool = False
    counts: Counter[str] = field(default_factory=Counter)


def read_table(
    source: "str | Path | pandas.DataFrame | datasets.Dataset | datasets.DatasetDict",
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    pair_column: str | None = None,
    encoding: str = "utf-8",
    on_bad_lines: Literal["error", "skip"] = "error",
    unlabeled_value: str | None = None,
    expect_labels: bool = False,
    split: str | None = None,
    label_separator: str | None = None,
    label_lists: bool = False,
) -> Table:
    """Reads a CSV, TSV, JSONL, JSON, Parquet or text file (also with .gz), a folder, a frame or a dataset.

    A folder is one saved by `datasets`, or holds `train.*`, `dev.*`, `test.*`, `unlabeled.*` files, or `<its name>.*`,
    or a single file. A string that names no path is looked up as a Hugging Face dataset.

    Labels become strings by one map: 1, "1" and 1.0 are all "1", True is "true". Missing labels and the markers -1,
    NaN, null and None mean unlabeled; with `unlabeled_value` that marker alone does. A byte-order mark outranks
    `encoding`. `split` keeps the rows of one split. With `pair_column` rows are pairs of texts, the second ones there.

    With `label_separator` a cell holds several labels: "sport;politics". A "?" before a name says that it is not known
    whether that label applies to the row, the separator alone that none does. `label_lists` takes lists of labels.

    Raises:
        ConfigError: `label_separator` cannot separate.
        DataError: the source cannot be read as a table of texts; the message names the file, the row and the remedy.
    """
    reading = _Reading(encoding, on_bad_lines == "skip")
    check_separator(label_separator)
    try:
        wanted = None if split is None else _split_name(split)
        parts = _of_split(_open(source, reading), wanted)
        builder = _Builder(reading.counts, unlabeled_value, wanted, label_separator, label_lists)
        for part in parts:
            builder.add(part, text_column, label_column, expect_labels, pair_column)
    except OSError as error:
        raise DataError(
            104, f"{source}: {error.strerror or _reason(error)}: check the path and its permissions"
        ) from None
    whole = str(source) if isinstance(source, str | Path) else "dataset"
    return builder.table(parts[0].place if len(parts) == 1 else whole)


def by_split(table: Table) -> tuple[Table, Table | None, Table | None]:
    """(train, dev, test) rows of a table; train holds the rows of every other split, too.

    A split of any other name counts as training text. Rows of an "unlabeled" split lose their labels, so that they
    cannot pass for labeled ones.

    Raises:
        DataError: there are dev and test rows alone.
    """
    if table.splits is None:
        return table, None, None
    splits = np.array(table.splits)
    train = table.take(np.flatnonzero((splits != "dev") & (splits != "test")))
    if not len(train):
        raise DataError(118, f"{table.source}: only dev and test rows: add a train split")
    if train.labels is not None and train.splits is not None:
        pairs = zip(train.labels, train.splits, strict=True)
        train = replace(train, labels=[None if split == "unlabeled" else label for label, split in pairs])
    if train.label_sets is not None and train.splits is not None:
        rows = zip(train.label_sets, train.splits, strict=True)
        train = replace(train, label_sets=[None if split == "unlabeled" else names for names, split in rows])
    dev, test = table.of_split("dev"), table.of_split("test")
    return train, dev if len(dev) else None, test if len(test) else None


def stream_texts(
    source: str | Path, *, text_column: str | None = None, encoding: str = "utf-8", counts: Counter[str]
) -> Iterator[str]:
    """The cleaned texts of a source as they are read, without those of dev and test rows; none is kept in memory.

    `counts` gathers what was dropped or mended, and the texts.

    Raises:
        DataError: the source cannot be read as texts.
    """
    for part, number, (value,), split in _streamed(source, text_column, _Reading(encoding, counts=counts)):
        if split in ("dev", "test"):
            counts["dev and test rows left out"] += 1
        elif (text := _text(part.place, number, value, counts)) is not None:
            counts["texts read"] += 1
            yield text


def stream_rows(
    source: str | Path,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    encoding: str = "utf-8",
    counts: Counter[str],
) -> Iterator[tuple[int, tuple[str, ...] | None]]:
    """(row number, cleaned texts) of every row of a source as it is read.

    These are one text, or with `pair_column` the two of a pair; None where one of them is missing. Blank lines between
    records have a row number, too. `counts` gathers what was dropped or mended.

    Raises:
        DataError: the source cannot be read as texts, or has none.
    """
    before: tuple[_Part | None, int] = (None, 0)
    empty = True
    for part, number, values, _ in _streamed(source, text_column, _Reading(encoding, counts=counts), pair_column):
        start = before[1] + 1 if before[0] is part else 1
        yield from ((blank, None) for blank in range(start, number))
        before = part, number
        texts = tuple(text for value in values if (text := _text(part.place, number, value, counts)) is not None)
        whole = len(texts) == len(values)
        empty = empty and not whole
        yield number, texts if whole else None
    if empty:
        raise DataError(102, f"{source}: no rows with a text: add some rows")


def _streamed(
    source: str | Path, text_column: str | None, reading: _Reading, pair_column: str | None = None
) -> Iterator[tuple[_Part, int, tuple[object, ...], str]]:
    """(part, row number, values of the columns of texts, split) of every row."""
    try:
        for part in _open(source, reading):
            texts = [_text_columns(part, text_column)[0]]
            texts += [] if pair_column is None else [_pair_column(part, pair_column, texts[0])]
            split = ["split"] if part.split is None and "split" in part.columns else []
            for number, values in part.read([*texts, *split]):
                named = part.split or (_split_name(values[-1]) if split else "train")
                yield part, number, values[: len(texts)], named
    except OSError as error:
        raise DataError(
            104, f"{source}: {error.strerror or _reason(error)}: check the path and its permissions"
        ) from None


def column_values(source: str | Path, name: str, encoding: str = "utf-8") -> dict[int, object]:
    """The values of one more column of a file, by row number as in `Table.rows`; nothing where there is no such column.

    Raises:
        DataError: the source cannot be read.
    """
    try:
        parts = [part for part in _open(source, _Reading(encoding)) if name in part.columns]
        if len(parts) > 1:
            raise DataError(147, f"{source}: column {name!r} stands in several files: give one file")
        return {number: values[0] for part in parts for number, values in part.read([name])}
    except OSError as error:
        raise DataError(
            104, f"{source}: {error.strerror or _reason(error)}: check the path and its permissions"
        ) from None


def table_of(
    texts: Sequence[object],
    labels: Sequence[object] | None = None,
    *,
    pairs: Sequence[object] | None = None,
    source: str = "texts",
) -> Table:
    """A table from texts [N] and labels [N] in memory, cleaned and checked as a file would be.

    With `pairs` [N] rows are pairs of texts, and these the second ones. Labels may be lists of names, [] where none
    applies and None where nothing is known: rows then have several labels, as `read_table` says.

    Raises:
        DataError: the lengths differ, a text is not a string, or a label is not a single value or a list of them.
    """
    if labels is not None and len(labels) != len(texts):
        raise DataError(121, f"{source}: {len(texts)} texts but {len(labels)} labels: give one label for each text")
    if pairs is not None and len(pairs) != len(texts):
        raise DataError(121, f"{source}: {len(texts)} texts but {len(pairs)} second texts: give one for each text")
    given = {"text": texts, "label": labels, "pair": pairs}
    columns = {name: values for name, values in given.items() if values is not None}
    builder = _Builder(Counter(), None, None, lists=True)
    builder.add(_memory_part(columns, source), "text", None, False, None if pairs is None else "pair")
    return builder.table(source)


def label_name(value: object) -> str | None:
    """The one name of a label: 1, "1", 1.0 -> "1", True -> "true", missing or blank -> None.

    Raises:
        TypeError: the value is not a single label (a list, a mapping, bytes, infinity).
    """
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return None
        if not math.isinf(number):
            return str(int(number)) if number.is_integer() else str(number)
    if isinstance(value, str) and not (value.startswith("[") and value.endswith("]")):
        return _label_word(value)
    raise TypeError(f"label {_short(value)} of type {type(value).__name__} is not a single class")


def _clean_name(value: object) -> str | None:
    """As `label_name`, in NFC and without what no text may hold."""
    name = label_name(value)
    return None if name is None else sys.intern(_clean(name, Counter()))


def _label_word(word: str) -> str | None:
    if not word.strip():
        return None
    if word.lower() in ("true", "false"):
        return word.lower()
    # A column of whole numbers with gaps is often written as 1.0, 0.0.
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(word))


class _Builder:
    """Gathers the cleaned rows of one or more parts into a Table."""

    def __init__(
        self, counts: Counter[str], unlabeled_value: str | None, split: str | None,
        separator: str | None = None, lists: bool = False,
    ) -> None:  # fmt: skip
        self.counts = counts
        self.separator, self.lists = separator, lists
        self.unlabeled_value = unlabeled_value
        self.markers = UNLABELED_MARKERS if unlabeled_value is None else frozenset({label_name(unlabeled_value)})
        self.split = split
        self.marked: Counter[str] = Counter()
        self.chunks: list[pa.Array] = []
        self.pending: list[str] = []
        self.pair_chunks: list[pa.Array] = []
        self.pending_pairs: list[str] = []  # empty, or one for each pending text
        self.labels: list[str | None] = []
        self.sets: list[LabelSet | None] = []  # empty, or one for each row
        self.rows = array("q")
        self.splits: list[str] = []
        self.names: set[str] = set()
        self.seen_splits: set[str] = set()
        self.declared: dict[str, None] = {}  # class names of the parts
        self.has_labels = False
        self.has_splits = False
        self.notes: list[str] = []

    def add(
        self, part: _Part, text_column: str | None, label_column: str | None, expect_labels: bool,
        pair_column: str | None = None,
    ) -> None:  # fmt: skip
        """Streams the rows of one part in.

        Raises:
            DataError: a column is missing, or a row holds no usable text or label.
        """
        text, label = self._columns(part, text_column, label_column, expect_labels)
        pair = None if pair_column is None else _pair_column(part, pair_column, text)
        split = "split" if part.split is None and "split" in part.columns else None
        self.has_labels |= label is not None
        self.declared |= dict.fromkeys(_declared(part, label))
        self.has_splits |= part.split is not None or split is not None
        names = [name for name in (text, label, split, pair) if name is not None]
        at_split = 2 if label else 1
        for number, values in part.read(names):
            row_split = part.split or (_split_name(values[at_split]) if split else "train")
            self.seen_splits.add(row_split)
            if self.split is None or row_split == self.split:
                texts = values[:1] if pair is None else (values[0], values[-1])
                self._row(part.place, number, texts, values[1] if label else None, row_split)

    def table(self, source: str) -> Table:
        """The finished table.

        Raises:
            DataError: there is no usable row, or -1 may be a class.
        """
        if not self.rows:
            self._refuse_nothing(source)
        if self.unlabeled_value is None and self.marked["-1"] and len(self.names) == 1:
            (other,) = self.names
            raise DataError(
                116,
                f"{source}: label '-1' stands beside the single class {other!r}: if -1 is a class, name another marker "
                "with --unlabeled-value none; if it means unlabeled, use --unlabeled-value=-1",
            )
        self._flush()
        many = self.separator is not None or bool(self.sets)
        return Table(
            texts=pa.chunked_array(self.chunks, pa.large_string()),
            labels=self.labels if self.has_labels and not many else None,
            label_sets=self._pad_sets() if self.has_labels and many else None,
            rows=np.array(self.rows, dtype=np.int64),
            source=source,
            splits=self.splits if self.has_splits else None,
            notes=(*self.notes, *self._count_notes()),
            pairs=pa.chunked_array(self.pair_chunks, pa.large_string()) if self.pair_chunks else None,
            classes=tuple(self.declared) or None,
        )

    def _columns(
        self, part: _Part, text_column: str | None, label_column: str | None, expect_labels: bool
    ) -> tuple[str, str | None]:
        if part.split == "unlabeled" and label_column not in part.columns:
            label_column, expect_labels = None, False
        labels = _matching(part, label_column, LABEL_COLUMNS)
        if expect_labels and not labels and text_column is None and not _matching(part, None, TEXT_COLUMNS):
            raise DataError(
                108,
                f"{part.place}: no text and no label column among {_list(part.columns)}: name them with "
                "--text-column and --label-column",
            )
        texts = _text_columns(part, text_column)
        if expect_labels and not labels:
            raise DataError(
                108, f"{part.place}: no label column among {_list(part.columns)}: name it with --label-column"
            )
        for found, what in ((texts, "text"), (labels, "label")):
            if len(found) > 1:
                self.notes.append(f"{what} column {found[0]!r} taken (also there: {_list(found[1:])})")
        return texts[0], labels[0] if labels else None

    def _row(self, place: str, number: int, values: tuple[object, ...], label: object, split: str) -> None:
        """Adds a row of one text, or of two; where one of them is blank there is none."""
        text, *second = (_text(place, number, value, self.counts) for value in values)
        if text is None or None in second:
            return
        try:
            name = self._label(label)
        except TypeError as error:
            raise DataError(115, f"{place} row {number}: {error}: give each text one label") from None
        except ValueError as error:
            raise DataError(197, f"{place} row {number}: {error}") from None
        self.pending.append(text)
        self.pending_pairs += [pair for pair in second if pair is not None]
        self.labels.append(name)
        self.rows.append(number)
        self.splits.append(split)
        if len(self.pending) == _CHUNK_ROWS:
            self._flush()

    def _label(self, value: object) -> str | None:
        if self.separator is not None or (self.lists and is_list(value)):
            self._add_set(label_set(value, self.separator, self.markers, _clean_name))
            return None
        name = _clean_name(value)
        if name is None:
            return None
        if self.sets and name not in self.markers:
            raise ValueError(f"the single label {name!r}, where rows before have lists: make all of them lists")
        if name in self.markers:
            self.marked[name] += 1
            return None
        self.names.add(name)
        return name

    def _add_set(self, names: LabelSet | None) -> None:
        if self.names:
            raise ValueError("a list of labels, where rows before have a single one: make all of them lists")
        self._pad_sets()
        self.sets.append(names)

    def _pad_sets(self) -> list[LabelSet | None]:
        """The label sets, None for the rows since the last one that had some."""
        self.sets += [None] * (len(self.rows) - len(self.sets))
        return self.sets

    def _flush(self) -> None:
        self.chunks.append(pa.array(self.pending, pa.large_string()))
        if self.pending_pairs:
            self.pair_chunks.append(pa.array(self.pending_pairs, pa.large_string()))
        self.pending, self.pending_pairs = [], []

    def _refuse_nothing(self, source: str) -> None:
        if self.split is not None and self.split not in self.seen_splits and self.seen_splits:
            raise DataError(118, f"{source}: no split {self.split!r}.{nearest(self.split, self.seen_splits)}")
        dropped = "; ".join(self._count_notes())
        raise DataError(102, f"{source}: no rows with a text{f' ({dropped})' if dropped else ''}: add some rows")

    def _count_notes(self) -> list[str]:
        notes = [f"{what}: {count}" for what, count in sorted(self.counts.items())]
        return notes + [f"rows labeled {name!r} taken as unlabeled: {n}" for name, n in sorted(self.marked.items())]


def _text(place: str, number: int, value: object, counts: Counter[str]) -> str | None:
    """A cleaned text; None where there is nothing.

    Raises:
        DataError: the value is no text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        counts["null texts dropped"] += 1
        return None
    if not isinstance(value, str):
        raise DataError(
            114, f"{place} row {number}: the text is {_short(value)} of type {type(value).__name__}: make it a string"
        )
    text = _clean(str(value), counts)
    if text.strip():
        return text
    counts["empty texts dropped"] += 1
    return None


def _clean(text: str, counts: Counter[str]) -> str:
    if "\0" in text:
        counts["texts with NUL characters removed"] += 1
        text = text.replace("\0", "")
    if len(text) > _MAX_CHARS:
        counts[f"warning: texts cut to {_MAX_CHARS:,} characters"] += 1
        text = text[:_MAX_CHARS]
    if text.isascii():
        return text
    if _SURROGATE.search(text):
        counts["texts with lone surrogates replaced"] += 1
        text = _SURROGATE.sub("\ufffd", text)
    if not unicodedata.is_normalized("NFC", text):
        counts["texts brought to Unicode NFC"] += 1
        text = unicodedata.normalize("NFC", text)
    return text


def _matching(part: _Part, asked: str | None, usual: Sequence[str]) -> list[str]:
    """The columns that may hold what is wanted, best first; a column asked for by name must be there."""
    if asked is None:
        by_name = {name.strip().lower(): name for name in part.columns}
        return [by_name[name] for name in usual if name in by_name]
    if asked not in part.columns:
        raise DataError(
            108, f"{part.place}: no column {asked!r} among {_list(part.columns)}.{nearest(asked, part.columns)}"
        )
    return [asked]


def _text_columns(part: _Part, asked: str | None) -> list[str]:
    """The columns that may hold the texts, best first.

    Raises:
        DataError: there is none.
    """
    columns = _matching(part, asked if part.named else None, TEXT_COLUMNS)
    if not columns:
        raise DataError(108, f"{part.place}: no text column among {_list(part.columns)}: name it with --text-column")
    return columns


def _declared(part: _Part, label: str | None) -> list[str]:
    """The class names of a label column as its rows will have them, in the order of their numbers.

    Raises:
        DataError: two of them would be one.
    """
    names = [_clean_name(name) or name for name in part.classes.get(label or "", ())]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(136, f"{part.place}: two of its class names read {twice[0]!r}: rename one")
    return names


def _pair_column(part: _Part, asked: str, text: str) -> str:
    """The column of the second texts.

    Raises:
        DataError: it is missing, or that of the first texts.
    """
    (found,) = _matching(part, asked, ())
    if found == text:
        raise DataError(149, f"{part.place}: {text!r} holds both texts of a pair: name two columns, --text-column too")
    return found


def _split_name(value: object) -> str:
    name = "train" if value is None else str(value).strip().lower()
    return SPLIT_NAMES.get(name, name)


def _of_split(parts: list[_Part], wanted: str | None) -> list[_Part]:
    """The parts that are, or may hold rows of, the wanted split, so that the others are not even read."""
    found = [part for part in parts if wanted is None or part.split in (None, wanted)]
    if not found:
        raise DataError(
            118, f"{parts[0].place}: no split {wanted!r}.{nearest(str(wanted), {str(p.split) for p in parts})}"
        )
    return found


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _list(names: Sequence[str]) -> str:
    return ", ".join(_short(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")


# ---- what a source is made of ----------------------------------------------------------------------------------------


def _open(source: object, reading: _Reading) -> list[_Part]:
    if not isinstance(source, str | Path):
        return _object_parts(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder_parts(path, reading)
    if path.exists():
        return [_file_part(path, reading)]
    if _suffix(path) in SUFFIXES or not _HUB_NAME.fullmatch(str(source)):
        raise DataError(101, f"{source}: no such file or folder: check the path")
    return _hub_parts(str(source))


def _object_parts(source: object) -> list[_Part]:
    import datasets

    if isinstance(source, datasets.Dataset | datasets.DatasetDict):
        return _dataset_parts(source, "dataset")
    import pandas

    if not isinstance(source, pandas.DataFrame):
        raise DataError(
            105, f"a {type(source).__name__} is not a table: give a path, a pandas DataFrame or a datasets.Dataset"
        )
    names = [str(name) for name in source.columns]
    columns = {
        name: source.iloc[:, i].astype(object).where(source.iloc[:, i].notna(), None).tolist()
        for i, name in enumerate(names)
    }
    return [replace(_memory_part(columns, "data frame"), columns=names)]


def _memory_part(columns: Mapping[str, Sequence[object]], place: str) -> _Part:
    def rows(names: Sequence[str]) -> Iterator[Row]:
        yield from enumerate(zip(*(columns[name] for name in names), strict=True), 1)

    return _Part(place, list(columns), rows)


def _folder_parts(path: Path, reading: _Reading) -> list[_Part]:
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        import datasets

        try:
            return _dataset_parts(datasets.load_from_disk(path), str(path))
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(113, f"{path}: not a readable saved dataset ({_reason(error)}): save it again") from None
    files = sorted(file for file in path.iterdir() if file.is_file() and _suffix(file) in SUFFIXES)
    own = [file for file in files if _stem(file) == path.resolve().name]
    if len(own) == 1 or len(files) == 1:
        return [_file_part((own or files)[0], reading)]
    named = [(match[1], file) for file in files if (match := _SPLIT_FILE.fullmatch(_stem(file)))]
    if not named:
        found = f"several files ({_list([file.name for file in files])})" if files else "no data file"
        raise DataError(
            103, f"{path}: the folder holds {found}: name one file, or call them train, dev, test, unlabeled"
        )
    return [replace(_file_part(file, reading), split=_split_name(name)) for name, file in named]


def _dataset_parts(data: object, place: str) -> list[_Part]:
    import datasets

    if isinstance(data, datasets.DatasetDict):
        return [
            replace(_dataset_part(part, f"{place} [{name}]"), split=_split_name(name)) for name, part in data.items()
        ]
    return [_dataset_part(cast("datasets.Dataset", data), place)]


def _dataset_part(data: "datasets.Dataset", place: str) -> _Part:
    names = _class_names(data.features.to_dict())

    def rows(columns: Sequence[str]) -> Iterator[Row]:
        batches = data.select_columns(list(columns)).with_format("arrow").iter(batch_size=_CHUNK_ROWS)
        return _arrow_rows(batches, columns, names, place)

    return _Part(place, data.column_names, rows, classes=names)


def _class_names(features: Mapping[str, object]) -> dict[str, list[str]]:
    """The class names of the columns that hold numbers of classes or lists of them, from what `datasets` notes."""

    def names(feature: object) -> list[str]:
        if isinstance(feature, list):
            return names(feature[0]) if feature else []
        if not isinstance(feature, Mapping):
            return []
        if feature.get("_type") == "ClassLabel":
            return list(feature["names"])
        return names(feature["feature"]) if feature.get("_type") in ("List", "LargeList", "Sequence") else []

    return {column: found for column, feature in features.items() if (found := names(feature))}


def _hub_parts(name: str) -> list[_Part]:
    import datasets

    try:
        data = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            119,
            f"{name}: neither a file nor a reachable Hugging Face dataset ({_reason(error)}): check the path or the "
            "name; without a network set HF_HUB_OFFLINE=1 and use what is in the cache",
        ) from None
    return _dataset_parts(data, name)


def _reason(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:120]}" if first else type(error).__name__


# ---- file formats ----------------------------------------------------------------------------------------------------


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def data_stem(path: Path) -> str | None:
    """The name of a file of rows without its ending; None for files of other kinds."""
    return _stem(path) if _suffix(path) in SUFFIXES else None


def is_text_file(path: Path) -> bool:
    """Whether this is the name of a file of texts that Python reads by itself."""
    return _suffix(path) in SUFFIXES and _suffix(path) != ".parquet" and not path.is_dir()


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem


def check_regular(path: Path) -> None:
    """Refuses what is neither a file nor a folder: reading a pipe or a device could wait for ever.

    Raises:
        DataError: it is such a thing.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(153, f"{path}: a pipe, a device or a socket, not a file: write its rows to a file first")


def _file_part(path: Path, reading: _Reading) -> _Part:
    check_regular(path)
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise DataError(105, f"{path}: unknown format {suffix!r}: use {', '.join(SUFFIXES)}, each also with .gz")
    if path.stat().st_size == 0:
        raise DataError(102, f"{path}: the file is empty: add some rows")
    if suffix == ".parquet":
        return _parquet_part(path)
    if suffix == ".txt":
        return _Part(str(path), ["text"], lambda names: _text_rows(path, reading), named=False)
    if suffix in (".json", ".jsonl"):
        return _json_part(path, reading)
    return _csv_part(path, "," if suffix == ".csv" else "\t", reading)


@contextmanager
def _binary(path: Path) -> Iterator[IO[bytes]]:
    with cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as raw:
        try:
            yield raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(113, f"{path}: damaged gzip file ({_reason(error)}): copy it again") from None


def _lines(path: Path, reading: _Reading) -> Iterator[str]:
    """Decoded lines with their line ends, which a quoted CSV field may contain."""
    with _binary(path) as raw:
        try:
            encoding = _encoding(path, raw, reading.encoding)
            yield from io.TextIOWrapper(raw, encoding=encoding, newline="")
        except UnicodeError:
            raise _bad_byte(path, encoding) from None


def _encoding(path: Path, raw: IO[bytes], asked: str) -> str:
    head = raw.read(64)
    raw.seek(0)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            raise DataError(195, f"{path}: this is {kind}, not text: save its texts as CSV (UTF-8), JSON lines or txt")
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding
    try:
        "".encode(asked)  # refuses codecs that are not for text, too
    except LookupError:
        raise DataError(106, f"{path}: unknown encoding {asked!r}: try --encoding cp1252 or utf-16") from None
    if codecs.lookup(asked).name == "utf-8" and 3 * head.count(0) > len(head):
        raise DataError(106, f"{path}: looks like UTF-16 without a byte-order mark: use --encoding utf-16-le")
    return asked


def _bad_byte(path: Path, encoding: str) -> DataError:
    """Reads the file once more to find the offset of the byte that does not decode."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    with _binary(path) as raw:
        for block in iter(lambda: raw.read(1 << 20), b""):
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                at = offset - held + error.start
                if 100 * (len(block) - len(block.translate(None, _CONTROL))) > len(block):
                    return DataError(195, f"{path}: binary data, not text: save the texts as CSV (UTF-8) or txt")
                return DataError(
                    106,
                    f"{path}: byte 0x{error.object[error.start]:02x} at offset {at} is not {encoding}: "
                    "name the right encoding, such as --encoding cp1252",
                )
            except UnicodeError as error:
                return DataError(106, f"{path}: {error}: name the right encoding with --encoding")
            offset += len(block)
    return DataError(106, f"{path}: ends within a character of {encoding}: the file is cut off, or set --encoding")


def _text_rows(path: Path, reading: _Reading) -> Iterator[Row]:
    for number, line in enumerate(_lines(path, reading), 1):
        yield number, (line.rstrip("\r\n"),)


def _csv_part(path: Path, delimiter: str, reading: _Reading) -> _Part:
    csv.field_size_limit(_MAX_CSV_FIELD)  # process-wide: the csv module has no per-reader limit
    records = _csv_records(path, delimiter, reading)
    header = next(records, None)
    if header is None:
        raise DataError(102, f"{path}: the file is empty: add a header and some rows")
    columns = header[2]
    others = [mark for mark in ",;\t|" if mark != delimiter and mark in columns[0]]
    if len(columns) == 1 and others:
        raise DataError(
            107,
            f"{path}: one column {_short(columns[0])}, the delimiter looks like {others[0]!r}: "
            f"write the file with {delimiter!r} between fields{', or call it .tsv' if others[0] == chr(9) else ''}",
        )

    def rows(names: Sequence[str]) -> Iterator[Row]:
        indices = [columns.index(name) for name in names]
        for number, line, fields in records:
            if len(fields) == len(columns):
                yield number, tuple(fields[i] for i in indices)
            elif reading.skip_bad_lines:
                reading.counts["bad lines skipped"] += 1
            else:
                raise DataError(
                    111,
                    f"{path} row {number} (line {line}): {len(fields)} fields where the header has {len(columns)}: "
                    "quote the text, or use --on-bad-lines skip",
                )

    return _Part(str(path), columns, rows)


def _csv_records(path: Path, delimiter: str, reading: _Reading) -> Iterator[tuple[int, int, list[str]]]:
    """(data row, first line, fields) of every record; the header is row 0, blank lines are no record."""
    reader = csv.reader(_lines(path, reading), delimiter=delimiter, strict=True)
    number, line = 0, 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                110, f"{path} row {number} (line {line}): {error}: close the quote, or double quotes within a text"
            ) from None
        if fields:
            yield number, line, fields
            number += 1
        line = reader.line_num + 1


def _json_part(path: Path, reading: _Reading) -> _Part:
    records = _json_records(path, reading)
    head = list(itertools.islice(records, _JSON_PEEK))
    if not head:
        raise DataError(102, f"{path}: the file holds no records: add some rows")

    def rows(names: Sequence[str]) -> Iterator[Row]:
        for number, record in itertools.chain(head, records):
            yield number, tuple(record.get(name) for name in names)

    return _Part(str(path), list(dict.fromkeys(key for _, record in head for key in record)), rows)


def _json_records(path: Path, reading: _Reading) -> Iterator[tuple[int, dict[str, object]]]:
    lines = enumerate(_lines(path, reading), 1)
    filled = ((number, line) for number, line in lines if line.strip())
    first = next(filled, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        whole = first[1] + "".join(line for _, line in filled)
        yield from _array_records(path, whole)
        return
    for number, line in itertools.chain([first], filled):
        try:
            yield number, _record(json.loads(line))
        except (ValueError, RecursionError) as error:
            if not reading.skip_bad_lines:
                raise DataError(
                    112, f"{path} line {number}: not a whole JSON object ({error}): mend it, or use --on-bad-lines skip"
                ) from None
            reading.counts["bad lines skipped"] += 1


def _array_records(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    try:
        for number, item in enumerate(json.loads(text), 1):
            yield number, _record(item)
    except (ValueError, RecursionError) as error:
        raise DataError(112, f"{path}: not a JSON array of objects ({error}): mend or rewrite the file") from None


def _record(item: object) -> dict[str, object]:
    if not isinstance(item, dict):
        raise ValueError(f"found {_short(item)}")
    return item


def _parquet_part(path: Path) -> _Part:
    with _binary(path) as raw:
        try:
            file = pq.ParquetFile(pa.BufferReader(raw.read()) if path.suffix == ".gz" else path)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise DataError(113, f"{path}: not a readable Parquet file ({_reason(error)}): write it again") from None

    classes = _noted_classes(file.schema_arrow, str(path))

    def rows(names: Sequence[str]) -> Iterator[Row]:
        return _arrow_rows(file.iter_batches(_CHUNK_ROWS, columns=list(names)), names, classes, str(path))

    return _Part(str(path), file.schema_arrow.names, rows, classes=classes)


def _noted_classes(schema: pa.Schema, place: str) -> dict[str, list[str]]:
    """The class names that `datasets` notes in the files it writes, of columns that still hold numbers."""
    noted = (schema.metadata or {}).get(b"huggingface")
    if noted is None:
        return {}
    try:
        found = _class_names(json.loads(noted)["info"]["features"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            113, f"{place}: its note on class names is damaged ({_reason(error)}): write it again"
        ) from None
    types = {name: schema.field(name).type for name in found if schema.names.count(name) == 1}
    return {name: found[name] for name, type_ in types.items() if _of_numbers(type_)}


def _of_numbers(type_: pa.DataType) -> bool:
    """Whether a column holds whole numbers or lists of them."""
    return _of_numbers(type_.value_type) if _is_list(type_) else bool(pa.types.is_integer(type_))


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _arrow_rows(
    batches: Iterable[pa.RecordBatch], columns: Sequence[str], names: Mapping[str, list[str]], place: str
) -> Iterator[Row]:
    """Rows of Arrow batches; `names` turns the integers of a class column into class names, in lists too."""
    number = 0
    try:
        for batch in batches:
            values = [_named(_plain(batch, name, f"{place} after row {number}"), names.get(name), place)
                      for name in columns]  # fmt: skip
            yield from enumerate(zip(*values, strict=True), number + 1)
            number += batch.num_rows
    except (pa.ArrowException, UnicodeError, OSError) as error:
        raise DataError(113, f"{place} after row {number}: damaged data ({_reason(error)}): write it again") from None


def _plain(batch: pa.RecordBatch, name: str, place: str) -> list[object]:
    """The values of a column."""
    column = batch.column(name)
    try:
        return cast("list[object]", column.to_pylist())
    except (OverflowError, ValueError) as error:  # dates, times and durations of Python are narrower than Arrow's
        if isinstance(error, pa.ArrowException | UnicodeError):
            raise
        message = f"{place}: column {name!r} of type {column.type} cannot be read ({error}): write it as text"
        raise DataError(154, message) from None


def _named(values: list[object], names: list[str] | None, place: str) -> list[object]:
    if names is None:
        return values
    of_number = dict(enumerate(names)) | {-1: None, None: None}  # datasets writes -1 where the class is not known

    def name(value: object) -> object:
        if isinstance(value, list):
            return [name(one) for one in value]
        if value not in of_number:
            raise DataError(152, f"{place}: label {value} is none of its {len(names)} class names: mend the column")
        return of_number[value]

    return [name(value) for value in values]
