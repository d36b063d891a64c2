"""Parquet files that are whole or absent."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nlp_ssl import atomic

_ROWS = 4096  # written at once


def write_parquet(path: Path, rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> None:
    """Writes rows, as they come, in one step: a reader sees the old file or the new one, never a part.

    Raises:
        RunError: the file cannot be written.
    """
    left = iter(rows)
    with atomic.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with pq.ParquetWriter(temporary, schema) as writer:
                while part := list(islice(left, _ROWS)):
                    columns = zip(*part, strict=True)
                    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
                    writer.write_table(pa.table(arrays, schema=schema))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
