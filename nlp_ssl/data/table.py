"""The table of cleaned texts and labels that everything else works on, built from rows as they stream in."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from nlp_ssl.data.cleaning import clean_text, markers_of
from nlp_ssl.data.columns import (
    LABEL_COLUMNS,
    TEXT_COLUMNS,
    SourcePart,
    candidate_label_columns,
    column_named,
    matching_columns,
    memory_part,
    second_text_column,
    split_name,
    text_columns,
)
from nlp_ssl.data.label_reader import LabelReader
from nlp_ssl.data.label_sets import LabelSet
from nlp_ssl.data.markers import Markers, MinusOne
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
    builder = TableBuilder(Counter(), LabelReader(markers, lists=lists, class_names=class_names))
    builder.add(memory_part(columns, source), text_column="text", pair_column=None if pairs is None else "pair")
    return builder.table(source)


class TableBuilder:
    """Gathers the cleaned rows of one or more parts into a Table.

    Args:
        counts: what was dropped or changed; cleaning adds to it.
        labels: reads the labels of the rows.
        split: rows of other splits are left out.
    """

    def __init__(self, counts: Counter[str], labels: LabelReader, split: str | None = None) -> None:
        self.counts, self.labels, self.split = counts, labels, split
        self.chunks: list[pa.Array] = []
        self.pending: list[str] = []
        self.pair_chunks: list[pa.Array] = []
        self.pending_pairs: list[str] = []  # empty, or one for each pending text
        self.rows = array("q")
        self.splits: list[str] = []
        self.seen_splits: set[str] = set()
        self.has_splits = False
        self.notes: list[str] = []

    def add(
        self,
        part: SourcePart,
        *,
        text_column: str | None = None,
        label_column: str | None = None,
        pair_column: str | None = None,
        label_columns: Sequence[str] = LABEL_COLUMNS,
        expect_labels: bool = False,
    ) -> None:
        """Streams the rows of one part in.

        Raises:
            DataError: a column is missing, or a row holds no usable text or label.
        """
        text, labels = self._choose_columns(part, text_column, label_column, expect_labels, label_columns)
        pairs = [] if pair_column is None else [second_text_column(part, pair_column, text)]
        split = [] if part.split is not None else column_named(part, "split")
        labels = self.labels.begin(part, labels)
        self.has_splits |= part.split is not None or bool(split)
        end = 1 + len(pairs)
        for number, values in track(part.read([text, *pairs, *labels, *split]), "reading"):
            row_split = part.split or (split_name(values[-1]) if split else "train")
            self.seen_splits.add(row_split)
            if self.split is None or row_split == self.split:
                cells = values[end : end + len(labels)]
                label = None if not labels or row_split == "unlabeled" else cells[0] if len(labels) == 1 else cells
                self._add_row(part.place, number, values[:end], label, row_split)

    def table(self, source: str) -> Table:
        """The finished table.

        Raises:
            DataError: there is no usable row, -1 may be a class, or labels are rows of 0 and 1 whose names are unknown.
        """
        if not self.rows:
            self._refuse_nothing(source)
        labels = self.labels.finish(source)
        self._flush()
        return Table(
            texts=pa.chunked_array(self.chunks, pa.large_string()),
            labels=labels.single,
            label_sets=labels.sets,
            rows=np.array(self.rows, dtype=np.int64),
            source=source,
            splits=self.splits if self.has_splits else None,
            notes=(*self.notes, *self._count_notes(), *labels.notes),
            pairs=pa.chunked_array(self.pair_chunks, pa.large_string()) if self.pair_chunks else None,
            markers=labels.markers,
            label_column=labels.column,
            classes=labels.classes,
        )

    def _choose_columns(
        self,
        part: SourcePart,
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
        self.labels.add(label, f"{place} row {number}")
        self.pending.append(text)
        self.pending_pairs += [pair for pair in second if pair is not None]
        self.rows.append(number)
        self.splits.append(split)
        if len(self.pending) == _CHUNK_ROWS:
            self._flush()

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
