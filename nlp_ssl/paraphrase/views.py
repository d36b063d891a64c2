"""Files of views: written by `nlp-ssl augment`, read by training."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nlp_ssl.data.readers import check_regular
from nlp_ssl.errors import DataError
from nlp_ssl.paraphrase.gates import View
from nlp_ssl.utils.parquet import write_parquet
from nlp_ssl.utils.ragged import Ragged

SCHEMA = pa.schema(
    [
        ("text", pa.large_string()),
        ("sample", pa.int32()),
        ("view", pa.large_string()),
        ("outcome", pa.string()),
        ("cosine", pa.float32()),
    ]
)
_MADE_OF = b"nlp_ssl.made_of"
_COLUMNS = pa.schema([SCHEMA.field("text"), SCHEMA.field("view")])


def write_views(path: Path, views: Iterable[View], made_of: str = "") -> None:
    """Writes the Parquet file in one step: absent or whole. `made_of` identifies its texts and how the views are made.

    Raises:
        RunError: the file cannot be written.
    """
    write_parquet(path, views, SCHEMA.with_metadata({_MADE_OF: made_of.encode()}))


def made_of(path: Path) -> str | None:
    """The `made_of` of a file of `write_views`; None where there is no whole file of views."""
    if not path.is_file():
        return None
    try:
        note = (pq.read_schema(path).metadata or {}).get(_MADE_OF)
    except (OSError, pa.ArrowException):
        return None
    return None if note is None else note.decode()


def read_views(path: Path) -> pa.Table:
    """Columns "text" and "view" of a Parquet file, without the views that are the text itself.

    Views of other programs are read as well: any Parquet file with these two columns of strings.

    Raises:
        DataError: the file cannot be read or lacks a column.
    """
    check_regular(path)
    try:
        table = pq.read_table(path, columns=_COLUMNS.names).cast(_COLUMNS)
    except (OSError, pa.ArrowException, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(140, f"{path}: not a Parquet file with text and view columns ({reason})") from error
    return table.filter(pc.and_kleene(pc.is_valid(table["view"]), pc.not_equal(table["text"], table["view"])))


def rewritings_of(texts: pa.ChunkedArray, views: pa.Table) -> tuple[pa.ChunkedArray, Ragged]:
    """The views that belong to the texts [N], and which of them each text has, counted on from N.

    Raises:
        DataError: none belongs to any text.
    """
    views = views.cast(_COLUMNS)
    row = pc.index_in(views["text"], value_set=texts.combine_chunks().cast(pa.large_string()))
    known = views.filter(pc.is_valid(row))
    if not len(known):
        raise DataError(141, "none of the views belongs to a text of this run: make them from the same files")
    owner = pc.drop_null(row).to_numpy()
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=len(texts))
    return known["view"], Ragged.from_lengths(len(texts) + order, counts)
