"""Readers of CSV, TSV, JSON, JSON lines, Parquet and plain text, also in gzip, and of Arrow's batches, as rows."""

import codecs
import csv
import gzip
import io
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from nlp_ssl.data.columns import Row, SourcePart
from nlp_ssl.data.values import arrow_values
from nlp_ssl.errors import BadLineError, DataError, EncodingError, shown

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")
CHUNK_ROWS = 16_384

_MAX_CSV_FIELD = 64_000_000  # an unclosed quote swallows the file up to here, then is reported
_JSON_PEEK = 10_000  # records looked at to learn which keys there are
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# How files begin that are no text, whatever they are called.
_MAGIC = (
    (b"PK\x03\x04", "an Excel or zip file"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"%PDF", "a PDF file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"SQLite format 3", "a database"),
    (b"PAR1", "a Parquet file, to be called .parquet"),
    (b"\x1f\x8b", "a gzip file, to be called .gz"),
)
_CONTROL = bytes({*range(32)} - {*b"\t\n\r\f\x1b"})  # hardly ever in a text


@dataclass(frozen=True)
class Reading:
    """How to read, and the counts of what had to be dropped or changed on the way."""

    encoding: str = "utf-8"
    skip_bad_lines: bool | None = None  # None where nobody could ask for it
    counts: Counter[str] = field(default_factory=Counter)


def suffix_of(path: Path) -> str:
    """The ending of a file name that says its format, in lower case: that before .gz."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def stem_of(path: Path) -> str:
    """The name of a file without its endings."""
    return Path(path.name.removesuffix(".gz")).stem


def data_stem(path: Path) -> str | None:
    """The name of a file of rows without its ending; None for files of other kinds."""
    return stem_of(path) if suffix_of(path) in SUFFIXES else None


def _or_skip(reading: Reading) -> str:
    """The other remedy for a line that cannot be read, where there is one."""
    return "" if reading.skip_bad_lines is None else ", or use --on-bad-lines skip"


def is_text_file(path: Path) -> bool:
    """Whether this is the name of a file of texts that Python reads by itself."""
    return suffix_of(path) in SUFFIXES and suffix_of(path) != ".parquet" and not path.is_dir()


def check_regular(path: Path) -> None:
    """Refuses what is neither a file nor a folder: reading a pipe or a device could wait for ever.

    Raises:
        DataError: it is such a thing.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(153, f"{path}: a pipe, a device or a socket, not a file: write its rows to a file first")


def file_part(path: Path, reading: Reading) -> SourcePart:
    """A file by its format.

    Raises:
        DataError: it cannot be read.
    """
    check_regular(path)
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise DataError(105, f"{path}: unknown format {suffix!r}: use {', '.join(SUFFIXES)}, each also with .gz")
    if path.stat().st_size == 0:
        raise DataError(102, f"{path}: the file is empty: add some rows")
    if suffix == ".parquet":
        return _parquet_part(path)
    if suffix == ".txt":
        return SourcePart(str(path), ["text"], lambda names: _text_rows(path, reading), has_names=False)
    if suffix in (".json", ".jsonl"):
        return _json_part(path, reading)
    return _csv_part(path, "," if suffix == ".csv" else "\t", reading)


@contextmanager
def _binary(path: Path) -> Iterator[IO[bytes]]:
    with cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as raw:
        try:
            yield raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(113, f"{path}: damaged gzip file ({reason(error)}): copy it again") from None


def _lines(path: Path, reading: Reading) -> Iterator[str]:
    """Decoded lines with their line ends, which a quoted CSV field may contain."""
    with _binary(path) as raw:
        try:
            encoding = _encoding(path, raw, reading.encoding)
            yield from io.TextIOWrapper(raw, encoding=encoding, newline="")
        except UnicodeError:
            raise _undecodable(path, encoding) from None


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
        raise EncodingError(106, f"{path}: unknown encoding {asked!r}: try --encoding cp1252 or utf-16") from None
    if codecs.lookup(asked).name == "utf-8" and 3 * head.count(0) > len(head):
        raise EncodingError(106, f"{path}: looks like UTF-16 without a byte-order mark: use --encoding utf-16-le")
    return asked


def _undecodable(path: Path, encoding: str) -> DataError:
    """Reads the file once more to find the offset of the byte that does not decode."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    with _binary(path) as raw:
        for block in iter(lambda: raw.read(1 << 20), b""):
            undecoded = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                at = offset - undecoded + error.start
                if 100 * (len(block) - len(block.translate(None, _CONTROL))) > len(block):
                    return DataError(195, f"{path}: binary data, not text: save the texts as CSV (UTF-8) or txt")
                return EncodingError(
                    106,
                    f"{path}: byte 0x{error.object[error.start]:02x} at offset {at} is not {encoding}: "
                    "name the right encoding, such as --encoding cp1252",
                )
            except UnicodeError as error:
                return EncodingError(106, f"{path}: {error}: name the right encoding with --encoding")
            offset += len(block)
    return EncodingError(106, f"{path}: ends within a character of {encoding}: the file is cut off, or set --encoding")


def _text_rows(path: Path, reading: Reading) -> Iterator[Row]:
    for number, line in enumerate(_lines(path, reading), 1):
        yield number, (line.rstrip("\r\n"),)


def _csv_part(path: Path, delimiter: str, reading: Reading) -> SourcePart:
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
            f"{path}: one column {shown(columns[0])}, the delimiter looks like {others[0]!r}: "
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
                raise BadLineError(
                    111,
                    f"{path} row {number} (line {line}): {len(fields)} fields where the header has {len(columns)}: "
                    f"quote the text{_or_skip(reading)}",
                )

    return SourcePart(str(path), columns, rows)


def _csv_records(path: Path, delimiter: str, reading: Reading) -> Iterator[tuple[int, int, list[str]]]:
    """(data row, first line, fields) of every record; the header is row 0, blank lines are no record."""
    reader = csv.reader(_lines(path, reading), delimiter=delimiter, strict=True)
    number, line = 0, 1
    swallowing: list[int] = []  # rows
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            if swallowing:
                reading.counts[_swallowing_note(swallowing[0])] += len(swallowing)
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


def _swallowing_note(row: int) -> str:
    return (
        f"warning: quoted fields with a tab and a line end, the first in row {row}, as where a quote begins a text and "
        'swallows the lines after it (write such a text within quotes, and its own quotes twice: """good"" film")'
    )


def _json_part(path: Path, reading: Reading) -> SourcePart:
    records = _json_records(path, reading)
    head = list(itertools.islice(records, _JSON_PEEK))
    if not head:
        raise DataError(102, f"{path}: the file holds no records: add some rows")

    def rows(names: Sequence[str]) -> Iterator[Row]:
        for number, record in itertools.chain(head, records):
            yield number, tuple(record.get(name) for name in names)

    return SourcePart(str(path), list(dict.fromkeys(key for _, record in head for key in record)), rows)


def _json_records(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, object]]]:
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
                raise BadLineError(
                    112, f"{path} line {number}: not a whole JSON object ({error}): fix it{_or_skip(reading)}"
                ) from None
            reading.counts["bad lines skipped"] += 1


def _array_records(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    try:
        for number, item in enumerate(json.loads(text), 1):
            yield number, _record(item)
    except (ValueError, RecursionError) as error:
        raise DataError(112, f"{path}: not a JSON array of objects ({error}): fix or rewrite the file") from None


def _record(item: object) -> dict[str, object]:
    if not isinstance(item, dict):
        raise ValueError(f"it is {shown(item)}")
    return item


def is_parquet(source: str | Path) -> bool:
    """Whether this is a Parquet file."""
    return suffix_of(Path(source)) == ".parquet" and Path(source).expanduser().is_file()


def parquet_schema(path: Path) -> pa.Schema:
    """The columns of a Parquet file and what else its writer noted.

    Raises:
        DataError: it cannot be read.
    """
    return _parquet_file(path.expanduser()).schema_arrow


def _parquet_file(path: Path) -> pq.ParquetFile:
    with _binary(path) as raw:
        try:
            return pq.ParquetFile(pa.BufferReader(raw.read()) if path.suffix == ".gz" else path)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise DataError(113, f"{path}: not a readable Parquet file ({reason(error)}): write it again") from None


def _parquet_part(path: Path) -> SourcePart:
    file = _parquet_file(path)
    classes = schema_classes(file.schema_arrow, str(path))

    def rows(names: Sequence[str]) -> Iterator[Row]:
        return arrow_rows(file.iter_batches(CHUNK_ROWS, columns=list(names)), names, classes, str(path))

    return SourcePart(str(path), file.schema_arrow.names, rows, classes=classes)


def arrow_rows(
    batches: Iterable[pa.RecordBatch], columns: Sequence[str], names: Mapping[str, list[str]], place: str
) -> Iterator[Row]:
    """Rows of Arrow batches; `names` turns the integers of a class column into class names, in lists too."""
    number = 0
    try:
        for batch in batches:
            here = f"{place} after row {number}"
            values = [_class_names(_column_values(batch, name, here), names.get(name), place) for name in columns]
            yield from enumerate(zip(*values, strict=True), number + 1)
            number += batch.num_rows
    except (pa.ArrowException, UnicodeError, OSError) as error:
        raise DataError(113, f"{place} after row {number}: damaged data ({reason(error)}): write it again") from None


def _column_values(batch: pa.RecordBatch, name: str, place: str) -> list[object]:
    """The values of a column."""
    column = batch.column(name)
    try:
        return arrow_values(column)
    except (OverflowError, ValueError) as error:  # dates, times and durations of Python are narrower than Arrow's
        if isinstance(error, pa.ArrowException | UnicodeError):
            raise
        message = f"{place}: column {name!r} of type {column.type} cannot be read ({error}): write it as text"
        raise DataError(154, message) from None


def _class_names(values: list[object], names: list[str] | None, place: str) -> list[object]:
    if names is None:
        return values
    of_number = dict(enumerate(names)) | {-1: None, None: None}  # datasets writes -1 where the class is not known

    def name(value: object) -> object:
        if isinstance(value, list):
            return [name(one) for one in value]
        if value not in of_number:
            raise DataError(152, f"{place}: label {value} is none of its {len(names)} class names: fix the column")
        return of_number[value]

    return [name(value) for value in values]


def schema_classes(schema: pa.Schema, place: str) -> dict[str, list[str]]:
    """The class names that `datasets` notes in the files it writes, of columns that still hold numbers."""
    noted = (schema.metadata or {}).get(b"huggingface")
    if noted is None:
        return {}
    try:
        classes = feature_classes(json.loads(noted)["info"]["features"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(113, f"{place}: its note on class names is damaged ({reason(error)}): write it again") from None
    types = {name: schema.field(name).type for name in classes if schema.names.count(name) == 1}
    return {name: classes[name] for name, type_ in types.items() if _holds_numbers(type_)}


def feature_classes(features: Mapping[str, object]) -> dict[str, list[str]]:
    """The class names of the columns that hold numbers of classes or lists of them, from what `datasets` notes."""

    def names(feature: object) -> list[str]:
        if isinstance(feature, list):
            return names(feature[0]) if feature else []
        if not isinstance(feature, Mapping):
            return []
        if feature.get("_type") == "ClassLabel":
            return list(feature["names"])
        return names(feature["feature"]) if feature.get("_type") in ("List", "LargeList", "Sequence") else []

    return {column: classes for column, feature in features.items() if (classes := names(feature))}


def _holds_numbers(type_: pa.DataType) -> bool:
    """Whether a column holds whole numbers or lists of them."""
    return _holds_numbers(type_.value_type) if _is_list(type_) else bool(pa.types.is_integer(type_))


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def reason(error: Exception) -> str:
    """What an error of a library says, in one line."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:120]}" if first else type(error).__name__
