"""The table of cleaned texts and labels that everything else works on, built from rows as they stream in."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pyarrow as pa

from nlp_ssl.data.cleaning import clean_name, clean_text, markers_of
from nlp_ssl.data.columns import (
    LABEL_COLUMNS,
    TEXT_COLUMNS,
    Part,
    candidate_label_columns,
    column_named,
    declared_classes,
    matching_columns,
    memory_part,
    second_text_column,
    split_name,
    text_columns,
)
from nlp_ssl.data.label_sets import (
    Flags,
    LabelSet,
    bare,
    check_class_names,
    column_flags,
    is_list,
    label_set,
    list_flags,
    of_flags,
    one_of_flags,
)
from nlp_ssl.data.markers import Markers, MinusOne, stripped
from nlp_ssl.data.values import plain_list
from nlp_ssl.errors import DataError, nearest, shown_all
from nlp_ssl.utils.progress import track

_CHUNK_ROWS = 16_384


@dataclass(frozen=True)
class Table:
    """Cleaned texts with the labels, row numbers and splits that go with them.

    Attributes:
        texts: large_string [N], in NFC, never blank.
        labels: class names [N], None where a row has no label; None as a whole where the source has no label column.
        rows: int64 [N], the data row (or line) of each text in its file, from 1.
        source: where the texts came from, for messages.
        splits: split names [N] if the source has any.
        notes: what was dropped or changed, in words, with counts.
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


def in_roles(sources: dict[str, Table | None]) -> dict[str, Table | None]:
    """Sorts the rows of labeled, unlabeled, dev and test sources that say which split a row belongs to.

    Test rows are never trained on. Dev and test rows of the labeled source take that role where no other source was
    named for it; those of the pool are left out. Of a source named for dev or test only the rows of that split count,
    if it has any.

    Raises:
        DataError: a labeled source or a pool has no other rows than those of dev and test.
    """
    roles = dict(sources)
    for role in ("labeled", "unlabeled"):
        table = sources[role]
        if table is not None:
            roles[role], dev, test = by_split(table)
            if role == "labeled":
                roles["dev"], roles["test"] = roles["dev"] or dev, roles["test"] or test
    for role in ("dev", "test"):
        table = sources[role]
        if table is not None and role in (table.splits or ()):
            roles[role] = table.of_split(role)
    return roles


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
    named = {"text": texts, "label": labels, "pair": pairs}
    columns = {name: values for name, values in named.items() if values is not None}
    builder = TableBuilder(Counter(), markers, None, lists=lists, class_names=class_names)
    builder.add(memory_part(columns, source), "text", None, False, None if pairs is None else "pair")
    return builder.table(source)


class TableBuilder:
    """Gathers the cleaned rows of one or more parts into a Table."""

    def __init__(
        self,
        counts: Counter[str],
        markers: Markers,
        split: str | None,
        separator: str | None = None,
        lists: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.counts = counts
        self.separator, self.lists = separator, lists
        self.class_names = check_class_names(class_names, clean_name)
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
        self,
        part: Part,
        text_column: str | None,
        label_column: str | None,
        expect_labels: bool,
        pair_column: str | None = None,
        label_columns: Sequence[str] = LABEL_COLUMNS,
    ) -> None:
        """Streams the rows of one part in.

        Raises:
            DataError: a column is missing, or a row holds no usable text or label.
        """
        text, labels = self._choose_columns(part, text_column, label_column, expect_labels, label_columns)
        pairs = [] if pair_column is None else [second_text_column(part, pair_column, text)]
        split = [] if part.split is not None else column_named(part, "split")
        if labels and self.label_column is None:
            self.label_column = ",".join(map(stripped, labels))
        self.has_labels |= bool(labels)
        self.declared |= dict.fromkeys(name for label in labels for name in declared_classes(part, label))
        self.has_splits |= part.split is not None or bool(split)
        if len(labels) > 1:
            labels = self._align_flag_columns(part.place, labels)
        self.flag_columns = labels if len(labels) > 1 else []
        end = 1 + len(pairs)
        for number, values in track(part.read([text, *pairs, *labels, *split]), "reading"):
            row_split = part.split or (split_name(values[-1]) if split else "train")
            self.seen_splits.add(row_split)
            if self.split is None or row_split == self.split:
                cells = values[end : end + len(labels)]
                label = None if not labels or row_split == "unlabeled" else cells[0] if len(labels) == 1 else cells
                self._add_row(part.place, number, values[:end], label, row_split)

    def _align_flag_columns(self, place: str, columns: list[str]) -> list[str]:
        """Columns that each hold 0 and 1 for a label of their own, in the order of the class names, perhaps their own.

        Raises:
            DataError: some of them are called as other classes are, so that their places tell nothing.
        """
        names = check_class_names(columns, clean_name) or ()
        if self.class_names is None:
            self.class_names = names
        if set(names) == set(self.class_names):
            return [columns[names.index(name)] for name in self.class_names]
        if set(names) & set(self.class_names) or len(names) != len(self.class_names):
            raise DataError(
                126,
                f"{place}: columns {shown_all(columns)} for the labels {shown_all(self.class_names)}: "
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
        multilabel = self.separator is not None or bool(self.sets)
        return Table(
            texts=pa.chunked_array(self.chunks, pa.large_string()),
            labels=self.labels if self.has_labels and not multilabel else None,
            label_sets=self._pad_sets() if self.has_labels and multilabel else None,
            rows=np.array(self.rows, dtype=np.int64),
            source=source,
            splits=self.splits if self.has_splits else None,
            notes=(*self.notes, *self._count_notes(), *self.rule.notes(marked, self.names, known)),
            pairs=pa.chunked_array(self.pair_chunks, pa.large_string()) if self.pair_chunks else None,
            markers=[self.marked.get(i) for i in range(len(self.rows))] if self.marked else None,
            label_column=self.label_column,
            classes=self.class_names or tuple(self.declared) or None,
        )

    def _choose_columns(
        self,
        part: Part,
        text_column: str | None,
        label_column: str | None,
        expect_labels: bool,
        label_columns: Sequence[str],
    ) -> tuple[str, list[str]]:
        """The column of the texts, and those of the labels: several where each holds 0 and 1 for a label of its own."""
        if part.split == "unlabeled":
            label_column, expect_labels, label_columns = None, False, ()
        labels = candidate_label_columns(part, label_column, label_columns)
        if expect_labels and not labels and text_column is None and not matching_columns(part, None, TEXT_COLUMNS):
            raise DataError(
                108,
                f"{part.place}: no text and no label column among {shown_all(part.columns)}: name them with "
                "--text-column and --label-column",
            )
        texts = text_columns(part, text_column)
        if expect_labels and not labels:
            raise DataError(
                108, f"{part.place}: no label column among {shown_all(part.columns)}: name it with --label-column"
            )
        for candidates, what in ((texts, "text"), ([",".join(names) for names in labels], "label")):
            if len(candidates) > 1:
                others = shown_all(candidates[1:])
                self.notes.append(f"{what} column {candidates[0]!r} taken (also there: {others})")
        return texts[0], labels[0] if labels else []

    def _add_row(self, place: str, number: int, values: tuple[object, ...], label: object, split: str) -> None:
        """Adds a row of one text, or of two; where one of them is blank there is none."""
        text, *second = (clean_text(place, number, value, self.counts) for value in values)
        if text is None or None in second:
            return
        try:
            self._keep_label(self._label_of(label))
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

    def _label_of(self, value: object) -> str | LabelSet | None:
        """The label, or the labels, of a row; None where nothing is known of it."""
        multilabel, flags = self.lists or self.separator is not None, self._flags_of(value)
        if flags is not None and self.class_names is not None:
            if max(flags) < 0:
                return None
            return of_flags(flags, self.class_names) if multilabel else one_of_flags(flags, self.class_names)
        if multilabel and is_list(value):
            return self._label_set_of(list(cast("Sequence[object]", value)), flags)
        name = clean_name(value)
        if name is None or self._is_marker(name):
            return None
        if self.separator is None:
            return name
        return label_set([part for part in name.split(self.separator) if stripped(part)], clean_name)

    def _flags_of(self, value: object) -> Flags | None:
        """The numbers 0 and 1 of a row that is made of them, one for each class name where there are some."""
        if self.flag_columns:
            return column_flags(cast("Sequence[object]", value), self.flag_columns, clean_name)
        flags = list_flags(value)
        if flags is None or self.class_names is None or len(flags) == len(self.class_names):
            return flags
        if {"0", "1"} <= set(self.class_names):
            return None  # they are names of classes
        raise ValueError(f"{len(flags)} numbers 0 and 1, where there are {len(self.class_names)} class names")

    def _label_set_of(self, cells: list[object], flags: Flags | None) -> LabelSet | None:
        """A list of names. Without class names 0 and 1 may be names, too: the whole column tells."""
        if flags is None:
            self.has_name_lists = True
        else:
            self.flag_widths.add(len(flags))
            if len(set(flags)) < len(flags) or min(flags) < 0:
                self.has_flags = True
                return ()
        names = label_set(cells, clean_name)
        if len(names) == 1 and self._is_marker(names[0]):
            return None
        marker = next((name for name in map(bare, names) if name in self.markers - self.declared.keys()), None)
        if marker is not None:
            raise ValueError(f"{marker!r} marks an unlabeled row and stands beside labels: take it or them out")
        return names

    def _is_marker(self, name: str) -> bool:
        """Whether the row to come is marked as unlabeled, which is noted."""
        sure = name not in self.declared or name == self.rule.other or self.rule.minus_one_decided
        marked = name in self.markers and sure
        if marked:
            self.marked[len(self.rows)] = name
        return marked

    def _keep_label(self, label: str | LabelSet | None) -> None:
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
