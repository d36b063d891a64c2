"""Columns and tables in memory, as users bring them, as lists of plain Python values.

Lists, NumPy, torch, pandas, Polars, Arrow and `datasets` each have values of their own, and missing values of their
own. What reads texts and labels knows only Python's, and None for a missing one.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Set
from typing import Any, cast

import numpy as np
import pyarrow as pa

from nlp_ssl.errors import ConfigError

_DATES = "mM"  # NumPy would turn dates into whole numbers


def refuse_one_text(texts: object, name: str) -> None:
    """Refuses a text where a list of texts is wanted: each of its characters would pass for one.

    Raises:
        ConfigError: it is one.
    """
    if isinstance(texts, str | bytes):
        raise ConfigError(
            255, f"{name}: {texts[:40]!r} is one text, where a list of them is wanted: put it into a list"
        )


def plain_list(values: Any, name: str = "values") -> list[Any]:
    """One column as a list [N]; of a table, or an array of more dimensions, a list for each row.

    Raises:
        ConfigError: they have no order, or they are one text.
    """
    refuse_one_text(values, name)
    if (columns := table_columns(values)) is not None:
        return [list(row) for row in zip(*(column for _, column in columns), strict=True)]
    cells = _unpacked(values)
    if isinstance(cells, str | bytes | Mapping | Set) or not isinstance(cells, Iterable):
        raise ConfigError(256, f"{name}: a {type(values).__name__} is no column of values: give a list or an array")
    return [plain(cell) for cell in cells]


def plain(value: Any) -> Any:
    """A value as Python has it; None where it is missing."""
    if type(value) in (str, int, bool):
        return value
    if is_missing(value):
        return None
    if isinstance(value, pa.Scalar):
        return plain(value.as_py())
    if isinstance(value, np.generic) and value.dtype.kind not in _DATES:
        return _as_written(value.item(), value.dtype.type)
    unpacked = _unpacked(value)
    if isinstance(unpacked, list | tuple):
        return [plain(one) for one in unpacked]
    return None if is_missing(unpacked) else unpacked


def _as_written(values: Any, kind: object) -> Any:
    """Numbers of few digits as people write them: float32 0.1 is 0.1, not 0.10000000149011612."""
    if kind not in (np.float16, np.float32):
        return values
    if isinstance(values, list):
        return [_as_written(value, kind) for value in values]
    return float(str(cast("type[np.floating]", kind)(values))) if isinstance(values, float) else values


def arrow_values(column: "pa.Array | pa.ChunkedArray") -> list[Any]:
    """The values of an Arrow column."""
    leaf = column.type
    while pa.types.is_list(leaf) or pa.types.is_large_list(leaf) or pa.types.is_fixed_size_list(leaf):
        leaf = leaf.value_type
    short = leaf in (pa.float16(), pa.float32())
    return cast("list[Any]", _as_written(column.to_pylist(), leaf.to_pandas_dtype() if short else None))


def table_columns(source: Any) -> list[tuple[str, list[Any]]] | None:
    """Names, which may repeat, and values of the columns of a table; None where it is none."""
    pandas, polars = (sys.modules.get(name) for name in ("pandas", "polars"))  # loaded if in use
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return [(str(name), plain_list(source.iloc[:, i])) for i, name in enumerate(source.columns)]
    if polars is not None and isinstance(source, polars.LazyFrame):
        source = source.collect()
    if polars is not None and isinstance(source, polars.DataFrame):
        return [(column.name, plain_list(column)) for column in source.get_columns()]
    if isinstance(source, pa.Table | pa.RecordBatch):
        return [(name, plain_list(source.column(i))) for i, name in enumerate(source.schema.names)]
    return None


def _unpacked(value: Any) -> Any:
    """The list, or the number, that an array or tensor holds; other values as they are."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind in _DATES:
            return list(value) if value.ndim else value[()]
        return _as_written(value.tolist(), value.dtype.type)
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return arrow_values(value)
    torch, pandas, polars = (sys.modules.get(name) for name in ("torch", "pandas", "polars"))
    if torch is not None and isinstance(value, torch.Tensor):
        kinds = {torch.float16: np.float16, torch.float32: np.float32}
        return _as_written(value.detach().cpu().tolist(), kinds.get(value.dtype))
    if pandas is not None and isinstance(value, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray):
        return _as_written(value.tolist(), value.dtype.type)
    if polars is not None and isinstance(value, polars.Series):
        return _as_written(value.to_list(), np.float32 if value.dtype == polars.Float32 else None)
    return _unpacked(np.asarray(value)) if hasattr(value, "__array__") else value


def numpy_type(values: Any) -> "np.dtype[Any] | None":
    """The type that NumPy gives to a column; None where it has none for it, such as bfloat16."""
    try:
        return np.asarray(values).dtype
    except (TypeError, ValueError, RuntimeError):
        return None


def is_missing(value: object) -> bool:
    """Whether NumPy, pandas or Arrow say of a value that there is none."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    if isinstance(value, pa.Scalar):
        return not value.is_valid
    pandas = sys.modules.get("pandas")  # whoever has such a value has loaded it
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)
