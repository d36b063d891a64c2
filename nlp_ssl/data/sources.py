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
from typing import IO, TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlp_ssl.data.label_sets import (
    Flags,
    LabelSet,
    bare,
    check_class_names,
    check_separator,
    column_flags,
    is_list,
    label_set,
    list_flags,
    of_flags,
    one_of_flags,
)
from nlp_ssl.data.markers import Markers, MinusOne, stripped
from nlp_ssl.data.values import is_missing, plain_list, table_columns
from nlp_ssl.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    import datasets
    import pandas
    import polars

    Source: TypeAlias = (
        str | Path | pandas.DataFrame | polars.DataFrame | polars.LazyFrame | pa.Table | pa.RecordBatch
        | datasets.Dataset | datasets.DatasetDict
    )  # fmt: skip

TEXT_COLUMNS = (
    "text", "sentence", "review", "content", "tweet", "document", "body", "message", "comment", "description",
)  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")
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
        markers: what marks rows as unlabeled [N], such as "-1", None where nothing does; None as a whole without any.
        label_column: the column of the labels, where there is one.
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
    markers: list[str | None] | None = None
    label_column: str | None = None

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
            markers=None if self.markers is None else [self.markers[i] for i in positions],
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
    source: "Source",
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    pair_column: str | None = None,
    encoding: str = "utf-8",
    on_bad_lines: Literal["error", "skip"] = "error",
    unlabeled_value: str | None = None,
    minus_one: MinusOne | None = None,
    expect_labels: bool = False,
    split: str | None = None,
    label_separator: str | None = None,
    label_lists: bool = False,
    label_columns: Sequence[str] = LABEL_COLUMNS,
    class_names: Sequence[str] | None = None,
) -> Table:
    """Reads a CSV, TSV, JSONL, JSON, Parquet or text file (also with .gz), a folder, a frame, a table or a dataset.

    A folder is one saved by `datasets`, or holds `train.*`, `dev.*`, `test.*`, `unlabeled.*` files, or `<its name>.*`,
    or a single file. A string that names no path is looked up as a Hugging Face dataset.

    Labels become strings by one map: 1, "1" and 1.0 are all "1", True is "true"; white space around them goes. An empty
    or missing label, -1 and `unlabeled_value` mean unlabeled. Beside numbers -1 may be a class: `minus_one` then has to
    say. Words such as None and nan are classes, with a warning. Where `label_column` is not given, the column is one of
    `label_columns`. A byte-order mark outranks `encoding`. `split` keeps the rows of one split. With `pair_column` rows
    are pairs of texts, the second ones there.

    With `label_separator` a cell holds several labels: "sport;politics". A "?" before a name says that it is not known
    whether that label applies to the row, the separator alone that none does. `label_lists` takes lists of labels.
    Rows of 0 and 1 (-1 not known) say of each of the `class_names` whether it applies: lists of such numbers, or the
    columns that `label_column` names with commas between them. Where rows have one label, one of them must be 1.

    Raises:
        ConfigError: `label_separator`, `class_names`, `unlabeled_value` or `minus_one` cannot be such.
        DataError: the source cannot be read as a table of texts; the message names the file, the row and the remedy.
    """
    reading = _Reading(encoding, on_bad_lines == "skip")
    check_separator(label_separator)
    markers = markers_of(unlabeled_value, minus_one)
    try:
        wanted = None if split is None else _split_name(split)
        parts = _of_split(_open(source, reading), wanted)
        builder = _Builder(reading.counts, markers, wanted, label_separator, label_lists, class_names)
        for part in parts:
            builder.add(part, text_column, label_column, expect_labels, pair_column, label_columns)
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


def hidden_columns(labeled: Table | None) -> tuple[str, ...]:
    """Columns of a pool whose labels count as hidden truth: those that are called as the labels of the labeled rows."""
    return () if labeled is None or labeled.label_column is None else (labeled.label_column,)


def in_roles(whole: dict[str, Table | None]) -> dict[str, Table | None]:
    """Sorts the rows of labeled, unlabeled, dev and test sources that say which split a row belongs to.

    Test rows are never trained on. Dev and test rows of the labeled source take that role where no other source was
    named for it; those of the pool are left out. Of a source named for dev or test only the rows of that split count,
    if it has any.

    Raises:
        DataError: a labeled source or a pool has no other rows than those of dev and test.
    """
    found = dict(whole)
    for role in ("labeled", "unlabeled"):
        table = whole[role]
        if table is not None:
            found[role], dev, test = by_split(table)
            if role == "labeled":
                found["dev"], found["test"] = found["dev"] or dev, found["test"] or test
    for role in ("dev", "test"):
        table = whole[role]
        if table is not None and role in (table.splits or ()):
            found[role] = table.of_split(role)
    return found


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
            split = [] if part.split is not None else _found(part, "split")
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
        parts = [part for part in _open(source, _Reading(encoding)) if _matching(part, None, [name])]
        if len(parts) > 1:
            raise DataError(147, f"{source}: column {name!r} stands in several files: give one file")
        return {number: values[0] for part in parts for number, values in part.read(_matching(part, None, [name]))}
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
    unlabeled_value: str | None = None,
    minus_one: MinusOne | None = None,
    label_lists: bool = True,
    class_names: Sequence[str] | None = None,
) -> Table:
    """A table from texts [N] and labels [N] in memory, cleaned and checked as a file would be.

    These are lists, arrays, tensors, or columns of pandas, Polars, Arrow or `datasets`; None, NaN, NaT and NA are
    missing ones. With `pairs` [N] rows are pairs of texts, and these the second ones. Labels may be lists of names, []
    where none applies and None where nothing is known: rows then have several labels, as `read_table` says, which also
    tells the other arguments.

    Raises:
        ConfigError: one of them is no column of values, or `class_names`, `unlabeled_value` or `minus_one` cannot be
            such.
        DataError: the lengths differ, a text is not a string, or a label is not a single value or a list of them.
    """
    markers = markers_of(unlabeled_value, minus_one)
    return memory_table(texts, labels, markers, pairs, source, lists=label_lists, class_names=class_names)


def memory_table(
    texts: Sequence[object],
    labels: Sequence[object] | None,
    markers: Markers,
    pairs: Sequence[object] | None = None,
    source: str = "texts",
    *,
    lists: bool = False,
    class_names: Sequence[str] | None = None,
) -> Table:
    """As `table_of`, for callers with a rule of their own for what marks unlabeled rows."""
    texts = plain_list(texts, f"{source}: texts")
    labels = None if labels is None else plain_list(labels, f"{source}: labels")
    pairs = None if pairs is None else plain_list(pairs, f"{source}: second texts")
    if labels is not None and len(labels) != len(texts):
        raise DataError(121, f"{source}: {len(texts)} texts but {len(labels)} labels: give one label for each text")
    if pairs is not None and len(pairs) != len(texts):
        raise DataError(121, f"{source}: {len(texts)} texts but {len(pairs)} second texts: give one for each text")
    given = {"text": texts, "label": labels, "pair": pairs}
    columns = {name: values for name, values in given.items() if values is not None}
    builder = _Builder(Counter(), markers, None, lists=lists, class_names=class_names)
    builder.add(_memory_part(columns, source), "text", None, False, None if pairs is None else "pair")
    return builder.table(source)


def label_name(value: object) -> str | None:
    """The one name of a label: 1, "1", 1.0 -> "1", True -> "true", " pos" -> "pos", missing or blank -> None.

    Raises:
        TypeError: the value is not a single label (a list, a mapping, bytes, infinity).
    """
    if is_missing(value):
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isinf(number):
            return str(int(number)) if number.is_integer() else str(number)
    if isinstance(value, str):
        word = stripped(value)
        if not (word.startswith("[") and word.endswith("]")):
            return _label_word(word)
    raise TypeError(f"label {_short(value)} of type {type(value).__name__} is not a single class")


def _clean_name(value: object) -> str | None:
    """As `label_name`, in NFC and without what no text may hold."""
    name = label_name(value)
    return None if name is None else sys.intern(stripped(_clean(name, Counter()))) or None


def _label_word(word: str) -> str | None:
    if not word:
        return None
    if word.lower() in ("true", "false"):
        return word.lower()
    # A column of whole numbers with gaps is often written as 1.0, 0.0.
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(word))


def markers_of(unlabeled_value: str | None, minus_one: MinusOne | None) -> Markers:
    """The rule for unlabeled rows that these arguments make.

    Raises:
        ConfigError: there is no such label, or they contradict each other.
    """
    if minus_one not in (None, "class", "unlabeled"):
        raise ConfigError(411, f"minus_one cannot be {minus_one!r}: give 'class' or 'unlabeled'")
    try:
        return Markers(_clean_name(unlabeled_value), minus_one)
    except TypeError as error:
        raise ConfigError(411, f"--unlabeled-value: {error}: give a label as it stands in the file") from None


class _Builder:
    """Gathers the cleaned rows of one or more parts into a Table."""

    def __init__(
        self, counts: Counter[str], markers: Markers, split: str | None,
        separator: str | None = None, lists: bool = False, class_names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.counts = counts
        self.separator, self.lists = separator, lists
        self.class_names = check_class_names(class_names, _clean_name)
        self.rule, self.markers = markers, markers.names
        self.split = split
        self.marked: dict[int, str] = {}  # by position
        self.chunks: list[pa.Array] = []
        self.pending: list[str] = []
        self.pair_chunks: list[pa.Array] = []
        self.pending_pairs: list[str] = []  # empty, or one for each pending text
        self.labels: list[str | None] = []
        self.sets: list[LabelSet | None] = []  # empty, or one for each row
        self.rows = array("q")
        self.splits: list[str] = []
        self.names: Counter[str] = Counter()
        self.flag_columns: list[str] = []  # where each label has a column of its own
        self.flag_widths: set[int] = set()  # lengths of lists of 0 and 1
        self.has_flags = False  # some of these cannot be names
        self.has_name_lists = False  # there are lists that must be names
        self.has_singles = False
        self.label_column: str | None = None
        self.seen_splits: set[str] = set()
        self.declared: dict[str, None] = {}  # class names of the parts
        self.has_labels = False
        self.has_splits = False
        self.notes: list[str] = []

    def add(
        self, part: _Part, text_column: str | None, label_column: str | None, expect_labels: bool,
        pair_column: str | None = None, label_columns: Sequence[str] = LABEL_COLUMNS,
    ) -> None:  # fmt: skip
        """Streams the rows of one part in.

        Raises:
            DataError: a column is missing, or a row holds no usable text or label.
        """
        text, labels = self._columns(part, text_column, label_column, expect_labels, label_columns)
        pairs = [] if pair_column is None else [_pair_column(part, pair_column, text)]
        split = [] if part.split is not None else _found(part, "split")
        if labels and self.label_column is None:
            self.label_column = ",".join(map(stripped, labels))
        self.has_labels |= bool(labels)
        self.declared |= dict.fromkeys(name for label in labels for name in _declared(part, label))
        self.has_splits |= part.split is not None or bool(split)
        if len(labels) > 1:
            labels = self._in_order(part.place, labels)
        self.flag_columns = labels if len(labels) > 1 else []
        end = 1 + len(pairs)
        for number, values in part.read([text, *pairs, *labels, *split]):
            row_split = part.split or (_split_name(values[-1]) if split else "train")
            self.seen_splits.add(row_split)
            if self.split is None or row_split == self.split:
                cells = values[end : end + len(labels)]
                label = None if not labels or row_split == "unlabeled" else cells[0] if len(labels) == 1 else cells
                self._row(part.place, number, values[:end], label, row_split)

    def _in_order(self, place: str, columns: list[str]) -> list[str]:
        """Columns that each hold 0 and 1 for a label of their own, in the order of the class names, perhaps their own.

        Raises:
            DataError: some of them are called as other classes are, so that their places tell nothing.
        """
        names = check_class_names(columns, _clean_name) or ()
        if self.class_names is None:
            self.class_names = names
        if set(names) == set(self.class_names):
            return [columns[names.index(name)] for name in self.class_names]
        if set(names) & set(self.class_names) or len(names) != len(self.class_names):
            raise DataError(
                126,
                f"{place}: columns {_list(columns)} for the labels {_list(self.class_names)}: "
                "name a column for each label",
            )
        return columns

    def table(self, source: str) -> Table:
        """The finished table.

        Raises:
            DataError: there is no usable row, -1 may be a class, or labels are rows of 0 and 1 whose names are unknown.
        """
        if not self.rows:
            self._refuse_nothing(source)
        if self.has_flags or (len(self.flag_widths) == 1 and not self.has_name_lists):
            raise DataError(
                125,
                f"{source}: labels are rows of 0 and 1 that do not say of what: give --class-names (in Python "
                "class_names=), or write the names of the labels that apply",
            )
        self.rule.check(source, self.marked.values(), self.names)
        self._flush()
        known = {*self.declared, *(self.class_names or ())}
        marked = Counter(self.marked.values())
        many = self.separator is not None or bool(self.sets)
        return Table(
            texts=pa.chunked_array(self.chunks, pa.large_string()),
            labels=self.labels if self.has_labels and not many else None,
            label_sets=self._pad_sets() if self.has_labels and many else None,
            rows=np.array(self.rows, dtype=np.int64),
            source=source,
            splits=self.splits if self.has_splits else None,
            notes=(*self.notes, *self._count_notes(), *self.rule.notes(marked, self.names, known)),
            pairs=pa.chunked_array(self.pair_chunks, pa.large_string()) if self.pair_chunks else None,
            markers=[self.marked.get(i) for i in range(len(self.rows))] if self.marked else None,
            label_column=self.label_column,
            classes=self.class_names or tuple(self.declared) or None,
        )

    def _columns(
        self, part: _Part, text_column: str | None, label_column: str | None, expect_labels: bool,
        label_columns: Sequence[str],
    ) -> tuple[str, list[str]]:  # fmt: skip
        """The column of the texts, and those of the labels: several where each holds 0 and 1 for a label of its own."""
        if part.split == "unlabeled":
            label_column, expect_labels, label_columns = None, False, ()
        labels = _label_columns(part, label_column, label_columns)
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
        for found, what in ((texts, "text"), ([",".join(names) for names in labels], "label")):
            if len(found) > 1:
                self.notes.append(f"{what} column {found[0]!r} taken (also there: {_list(found[1:])})")
        return texts[0], labels[0] if labels else []

    def _row(self, place: str, number: int, values: tuple[object, ...], label: object, split: str) -> None:
        """Adds a row of one text, or of two; where one of them is blank there is none."""
        text, *second = (_text(place, number, value, self.counts) for value in values)
        if text is None or None in second:
            return
        try:
            self._keep(self._label(label))
        except TypeError as error:
            raise DataError(115, f"{place} row {number}: {error}: give each text one label") from None
        except ValueError as error:
            raise DataError(197, f"{place} row {number}: {error}") from None
        self.pending.append(text)
        self.pending_pairs += [pair for pair in second if pair is not None]
        self.rows.append(number)
        self.splits.append(split)
        if len(self.pending) == _CHUNK_ROWS:
            self._flush()

    def _label(self, value: object) -> str | LabelSet | None:
        """The label, or the labels, of a row; None where nothing is known of it."""
        several, flags = self.lists or self.separator is not None, self._flags(value)
        if flags is not None and self.class_names is not None:
            if max(flags) < 0:
                return None
            return of_flags(flags, self.class_names) if several else one_of_flags(flags, self.class_names)
        if several and is_list(value):
            return self._list(list(cast("Sequence[object]", value)), flags)
        name = _clean_name(value)
        if name is None or self._is_marker(name):
            return None
        if self.separator is None:
            return name
        return label_set([part for part in name.split(self.separator) if stripped(part)], _clean_name)

    def _flags(self, value: object) -> Flags | None:
        """The numbers 0 and 1 of a row that is made of them, one for each class name where there are some."""
        if self.flag_columns:
            return column_flags(cast("Sequence[object]", value), self.flag_columns, _clean_name)
        flags = list_flags(value)
        if flags is None or self.class_names is None or len(flags) == len(self.class_names):
            return flags
        if {"0", "1"} <= set(self.class_names):
            return None  # they are names of classes
        raise ValueError(f"{len(flags)} numbers 0 and 1, where there are {len(self.class_names)} class names")

    def _list(self, cells: list[object], flags: Flags | None) -> LabelSet | None:
        """A list of names. Without class names 0 and 1 may be names, too: the whole column tells."""
        if flags is None:
            self.has_name_lists = True
        else:
            self.flag_widths.add(len(flags))
            if len(set(flags)) < len(flags) or min(flags) < 0:
                self.has_flags = True
                return ()
        names = label_set(cells, _clean_name)
        if len(names) == 1 and self._is_marker(names[0]):
            return None
        marker = next((name for name in map(bare, names) if name in self.markers - self.declared.keys()), None)
        if marker is not None:
            raise ValueError(f"{marker!r} marks an unlabeled row and stands beside labels: take it or them out")
        return names

    def _is_marker(self, name: str) -> bool:
        """Whether the row to come is marked as unlabeled, which is noted."""
        found = name in self.markers and (name not in self.declared or name == self.rule.other or self.rule.told)
        if found:
            self.marked[len(self.rows)] = name
        return found

    def _keep(self, label: str | LabelSet | None) -> None:
        if isinstance(label, tuple):
            if self.has_singles:
                raise ValueError("a list of labels, where rows before have a single one: make all of them lists")
            self.names.update(map(bare, label))
            self._pad_sets().append(label)
        elif label is not None:
            if self.sets:
                raise ValueError(f"the single label {label!r}, where rows before have lists: make all of them lists")
            self.has_singles = True
            self.names[label] += 1
        self.labels.append(label if isinstance(label, str) else None)

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
        return [f"{what}: {count}" for what, count in sorted(self.counts.items())]


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
        by_name: dict[str, str] = {}
        for column in part.columns:  # of several that differ in case or spaces the exact one, else the first
            name = stripped(column).lower()
            by_name[name] = column if column == name else by_name.get(name, column)
        return [by_name[name] for name in usual if name in by_name]
    if not (found := _found(part, asked)):
        raise DataError(
            108, f"{part.place}: no column {asked!r} among {_list(part.columns)}.{nearest(asked, part.columns)}"
        )
    return found


def _found(part: _Part, name: str) -> list[str]:
    """The column of this name, whatever surrounds it; nothing where there is none."""
    same = [column for column in part.columns if stripped(column) == stripped(name)]
    return [name] if name in part.columns else same[:1]


def _label_columns(part: _Part, asked: str | None, usual: Sequence[str]) -> list[list[str]]:
    """The columns that may hold the labels, best first; names with commas between them are a column for each label."""
    if asked is None:
        wanted = [stripped(name).lower() for name in usual]
        found = [_matching(part, None, [name]) or _matching(part, None, name.split(",")) for name in wanted]
        return [names for names, name in zip(found, wanted, strict=True) if len(names) in (1, len(name.split(",")))]
    several = [] if _found(part, asked) else [_found(part, name) for name in asked.split(",")]
    if len(several) > 1 and all(several):
        return [[column for found in several for column in found]]
    return [_matching(part, asked, ())]


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
    if isinstance(source, pa.Table | pa.RecordBatch):
        return [_arrow_part(pa.Table.from_batches([source]) if isinstance(source, pa.RecordBatch) else source)]
    if (columns := table_columns(source)) is not None:
        return [replace(_memory_part(dict(columns), "data frame"), columns=[name for name, _ in columns])]
    import datasets

    if isinstance(source, datasets.Dataset | datasets.DatasetDict):
        return _dataset_parts(source, "dataset")
    raise DataError(
        105, f"a {type(source).__name__} is not a table: give a path, a pandas or Polars DataFrame, an Arrow table, or "
        "a datasets.Dataset"
    )  # fmt: skip


def _memory_part(columns: Mapping[str, Sequence[object]], place: str) -> _Part:
    def rows(names: Sequence[str]) -> Iterator[Row]:
        yield from enumerate(zip(*(columns[name] for name in names), strict=True), 1)

    return _Part(place, list(columns), rows)


def _arrow_part(table: pa.Table) -> _Part:
    classes = _noted_classes(table.schema, "Arrow table")

    def rows(names: Sequence[str]) -> Iterator[Row]:
        return _arrow_rows(table.select(list(names)).to_batches(_CHUNK_ROWS), names, classes, "Arrow table")

    return _Part("Arrow table", table.column_names, rows, classes=classes)


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
    swallowing: list[int] = []  # rows
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            if swallowing:
                reading.counts[_swallowed(swallowing[0])] += len(swallowing)
            return
        except csv.Error as error:
            raise DataError(
                110, f"{path} row {number} (line {line}): {error}: close the quote, or double quotes within a text"
            ) from None
        if fields:
            if delimiter == "\t" and reader.line_num > line and any({"\t", "\n"} <= set(f) for f in fields):
                swallowing.append(number)
            yield number, line, fields
            number += 1
        line = reader.line_num + 1


def _swallowed(row: int) -> str:
    return (
        f"warning: quoted fields with a tab and a line end, the first in row {row}, as where a quote begins a text and "
        'swallows the lines after it (write such a text within quotes, and its own quotes twice: """good"" film")'
    )


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
