"""Parquet files that are whole or absent."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nlp_ssl.utils import atomic

_ROWS = 4096  # written at once


def write_parquet(path: Path, rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> None:
    """Writes rows, as they come, in one step: a reader sees the old file or the new one, never a part.

    Raises:
        RunError: the file cannot be written.
    """
    left = iter(rows)
    with atomic.write_file(path) as temporary:
        with atomic.writing(path):
            writer = pq.ParquetWriter(temporary, schema)
        try:
            while part := list(islice(left, _ROWS)):
                arrays = [pa.array(c, f.type) for c, f in zip(zip(*part, strict=True), schema, strict=True)]
                with atomic.writing(path):
                    writer.write_table(pa.table(arrays, schema=schema))
        finally:
            with atomic.writing(path):
                writer.close()
