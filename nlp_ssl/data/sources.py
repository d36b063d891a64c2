"""What texts and labels can be read from: files, folders, data frames, Arrow tables, datasets and names of the hub."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import pyarrow as pa

from nlp_ssl.data.cleaning import clean_text, markers_of
from nlp_ssl.data.columns import (
    LABEL_COLUMNS,
    Row,
    SourcePart,
    column_named,
    matching_columns,
    memory_part,
    second_text_column,
    split_name,
    text_columns,
)
from nlp_ssl.data.label_reader import LabelReader
from nlp_ssl.data.label_sets import check_separator
from nlp_ssl.data.markers import MinusOne
from nlp_ssl.data.readers import (
    CHUNK_ROWS,
    SUFFIXES,
    Reading,
    arrow_rows,
    feature_classes,
    file_part,
    reason,
    schema_classes,
    stem_of,
    suffix_of,
)
from nlp_ssl.data.table import Table, TableBuilder
from nlp_ssl.data.values import table_columns
from nlp_ssl.errors import DataError, nearest, shown_all

if TYPE_CHECKING:
    import datasets
    import pandas
    import polars

    Source: TypeAlias = (
        str
        | Path
        | pandas.DataFrame
        | polars.DataFrame
        | polars.LazyFrame
        | pa.Table
        | pa.RecordBatch
        | datasets.Dataset
        | datasets.DatasetDict
    )

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SPLIT_FILE = re.compile(r"(train|dev|val|valid|validation|test|unlabell?ed|unsup|unsupervised)(-\d+-of-\d+)?")

TextRow = tuple[int, tuple[str, ...] | None]  # number; one text, or the two of a pair; None where one is missing


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
    or missing label, -1 in any spelling and `unlabeled_value` mean unlabeled; beside other labels of a row they are an
    error. Beside numbers -1 may be a class: `minus_one` then has to say. Words such as None and nan are classes, with a
    warning. Where `label_column` is not given, the column is one of `label_columns`. A byte-order mark outranks
    `encoding`. `split` keeps the rows of one split. With `pair_column` rows are pairs of texts, that column the second.

    With `label_separator` a cell holds several labels: "sport;politics". A "?" before a name says that it is not known
    whether that label applies to the row, the separator alone that none does. `label_lists` takes lists of labels.
    Rows of 0 and 1 (-1 not known) say of each of the `class_names` whether it applies: lists of such numbers, or the
    columns that `label_column` names with commas between them. Where classes are called "0" and "1", lists of these
    numbers are rows of that kind if all of the column have one number per class, and otherwise name the classes that
    apply. Where rows have one label, one of the numbers must be 1.

    Raises:
        ConfigError: `label_separator`, `class_names`, `unlabeled_value` or `minus_one` cannot be such.
        DataError: the source cannot be read as a table of texts; the message names the file, the row and the remedy.
    """
    reading = Reading(encoding, on_bad_lines == "skip")
    check_separator(label_separator)
    markers = markers_of(unlabeled_value, minus_one)
    with _readable(source):
        wanted = None if split is None else split_name(split)
        parts = _of_split(_parts_of(source, reading), wanted)
        labels = LabelReader(markers, separator=label_separator, lists=label_lists, class_names=class_names)
        builder = TableBuilder(reading.counts, labels, wanted)
        for part in parts:
            builder.add(
                part,
                text_column=text_column,
                label_column=label_column,
                pair_column=pair_column,
                label_columns=label_columns,
                expect_labels=expect_labels,
            )
    whole = str(source) if isinstance(source, str | Path) else "dataset"
    return builder.table(parts[0].place if len(parts) == 1 else whole)


def stream_texts(
    source: str | Path, *, text_column: str | None = None, encoding: str = "utf-8", counts: Counter[str]
) -> Iterator[str]:
    """The cleaned texts of a source as they are read, without those of dev and test rows; none is kept in memory.

    `counts` gathers what was dropped or changed, and the texts.

    Raises:
        DataError: the source cannot be read as texts.
    """
    for part, number, (value,), split in _streamed(source, text_column, Reading(encoding, counts=counts)):
        if split in ("dev", "test"):
            counts["dev and test rows left out"] += 1
        elif (text := clean_text(part.place, number, value, counts)) is not None:
            counts["texts read"] += 1
            yield text


def stream_rows(
    source: str | Path,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    encoding: str = "utf-8",
    counts: Counter[str],
) -> Iterator[TextRow]:
    """(row number, cleaned texts) of every row of a source as it is read; see `stream_parts`.

    Raises:
        DataError: the source cannot be read as texts, or has none.
    """
    parts = stream_parts(source, text_column=text_column, pair_column=pair_column, encoding=encoding, counts=counts)
    return (row for _, rows in parts for row in rows)


def stream_parts(
    source: str | Path,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    encoding: str = "utf-8",
    counts: Counter[str],
) -> Iterator[tuple[str, Iterator[TextRow]]]:
    """(place, rows) of every file or split of a source, one after the other; a row is its number and its cleaned texts.

    These are one text, or with `pair_column` the two of a pair; None where one of them is missing. Blank lines between
    records have a row number, too. `counts` gathers what was dropped or changed.

    Raises:
        DataError: the source cannot be read as texts, or has none.
    """
    empty = True

    def rows_of(
        part: SourcePart, streamed: Iterator[tuple[SourcePart, int, tuple[object, ...], str]]
    ) -> Iterator[TextRow]:
        nonlocal empty
        before = 0
        for _, number, values, _ in streamed:
            yield from ((blank, None) for blank in range(before + 1, number))
            before = number
            texts = tuple(t for value in values if (t := clean_text(part.place, number, value, counts)) is not None)
            whole = len(texts) == len(values)
            empty = empty and not whole
            yield number, texts if whole else None

    streamed = _streamed(source, text_column, Reading(encoding, counts=counts), pair_column)
    for part, rows in groupby(streamed, key=itemgetter(0)):
        yield part.place, rows_of(part, rows)
    if empty:
        raise DataError(102, f"{source}: no rows with a text: add some rows")


def column_values(source: str | Path, name: str, encoding: str = "utf-8") -> dict[int, object]:
    """The values of one more column of a file, by row number as in `Table.rows`; nothing where there is no such column.

    Raises:
        DataError: the source cannot be read.
    """
    with _readable(source):
        parts = [part for part in _parts_of(source, Reading(encoding)) if matching_columns(part, None, [name])]
        if len(parts) > 1:
            raise DataError(147, f"{source}: column {name!r} stands in several files: give one file")
        rows = (row for part in parts for row in part.read(matching_columns(part, None, [name])))
        return {number: value for number, (value,) in rows}


def _streamed(
    source: str | Path, text_column: str | None, reading: Reading, pair_column: str | None = None
) -> Iterator[tuple[SourcePart, int, tuple[object, ...], str]]:
    """(part, row number, values of the columns of texts, split) of every row."""
    with _readable(source):
        for part in _parts_of(source, reading):
            texts = [text_columns(part, text_column)[0]]
            texts += [] if pair_column is None else [second_text_column(part, pair_column, texts[0])]
            split = [] if part.split is not None else column_named(part, "split")
            for number, values in part.read([*texts, *split]):
                named = part.split or (split_name(values[-1]) if split else "train")
                yield part, number, values[: len(texts)], named


@contextmanager
def _readable(source: object) -> Iterator[None]:
    """Turns what the system says of a source into an error for people."""
    try:
        yield
    except OSError as error:
        raise DataError(
            104, f"{source}: {error.strerror or reason(error)}: check the path and its permissions"
        ) from None


def _of_split(parts: list[SourcePart], wanted: str | None) -> list[SourcePart]:
    """The parts that are, or may hold rows of, the wanted split, so that the others are not even read."""
    chosen = [part for part in parts if wanted is None or part.split in (None, wanted)]
    if not chosen:
        raise DataError(
            118, f"{parts[0].place}: no split {wanted!r}.{nearest(str(wanted), {str(p.split) for p in parts})}"
        )
    return chosen


def _parts_of(source: object, reading: Reading) -> list[SourcePart]:
    """The pieces that a source consists of."""
    if not isinstance(source, str | Path):
        return _object_parts(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder_parts(path, reading)
    if path.exists():
        return [file_part(path, reading)]
    if suffix_of(path) in SUFFIXES or not _HUB_NAME.fullmatch(str(source)):
        raise DataError(101, f"{source}: no such file or folder: check the path")
    return _hub_parts(str(source))


def _folder_parts(path: Path, reading: Reading) -> list[SourcePart]:
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        import datasets

        try:
            return _dataset_parts(datasets.load_from_disk(path), str(path))
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(113, f"{path}: not a readable saved dataset ({reason(error)}): save it again") from None
    files = sorted(file for file in path.iterdir() if file.is_file() and suffix_of(file) in SUFFIXES)
    own = [file for file in files if stem_of(file) == path.resolve().name]
    if len(own) == 1 or len(files) == 1:
        return [file_part((own or files)[0], reading)]
    named = [(match[1], file) for file in files if (match := _SPLIT_FILE.fullmatch(stem_of(file)))]
    if not named:
        contents = f"several files ({shown_all([file.name for file in files])})" if files else "no data file"
        raise DataError(
            103, f"{path}: the folder holds {contents}: name one file, or call them train, dev, test, unlabeled"
        )
    return [replace(file_part(file, reading), split=split_name(name)) for name, file in named]


def _hub_parts(name: str) -> list[SourcePart]:
    import datasets

    try:
        data = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            119,
            f"{name}: neither a file nor a reachable Hugging Face dataset ({reason(error)}): check the path or the "
            "name; without a network set HF_HUB_OFFLINE=1 and use what is in the cache",
        ) from None
    return _dataset_parts(data, name)


def _object_parts(source: object) -> list[SourcePart]:
    if isinstance(source, pa.Table | pa.RecordBatch):
        return [_arrow_part(pa.Table.from_batches([source]) if isinstance(source, pa.RecordBatch) else source)]
    if (columns := table_columns(source)) is not None:
        return [replace(memory_part(dict(columns), "data frame"), columns=[name for name, _ in columns])]
    import datasets

    if isinstance(source, datasets.Dataset | datasets.DatasetDict):
        return _dataset_parts(source, "dataset")
    raise DataError(
        105,
        f"a {type(source).__name__} is not a table: give a path, a pandas or Polars DataFrame, an Arrow table, or "
        "a datasets.Dataset",
    )


def _dataset_parts(data: object, place: str) -> list[SourcePart]:
    import datasets

    if isinstance(data, datasets.DatasetDict):
        return [
            replace(_dataset_part(part, f"{place} [{name}]"), split=split_name(name)) for name, part in data.items()
        ]
    return [_dataset_part(cast("datasets.Dataset", data), place)]


def _dataset_part(data: "datasets.Dataset", place: str) -> SourcePart:
    names = feature_classes(data.features.to_dict())

    def rows(columns: Sequence[str]) -> Iterator[Row]:
        batches = data.select_columns(list(columns)).with_format("arrow").iter(batch_size=CHUNK_ROWS)
        return arrow_rows(batches, columns, names, place)

    return SourcePart(place, data.column_names, rows, classes=names)


def _arrow_part(table: pa.Table) -> SourcePart:
    classes = schema_classes(table.schema, "Arrow table")

    def rows(names: Sequence[str]) -> Iterator[Row]:
        return arrow_rows(table.select(list(names)).to_batches(CHUNK_ROWS), names, classes, "Arrow table")

    return SourcePart("Arrow table", table.column_names, rows, classes=classes)
