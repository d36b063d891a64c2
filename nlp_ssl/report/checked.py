"""What a report reads of a run's folder, checked against what a run writes there: anybody may have changed it since."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nlp_ssl.training.predictions import FACTS, SCHEMA
from nlp_ssl.utils.atomic import is_count, is_number

_FORMER_NAME = "told"  # of pseudo-labeled rows, in version 0.1.0
_MOST_ROWS, _MOST_BYTES = 1_000_000, 2**30  # of a predictions file: a run keeps some 20,000 rows
_PARTS = ("test", "dev", "pool", "labeled")


def metrics_line(raw: Mapping[str, Any], clock: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl or rounds.jsonl with what can be drawn of it; None where a run has not written it.

    Numbers that are not finite are left out: a diverging run writes them.

    Args:
        raw: the line.
        clock: what it counts, "step" or "round".
    """
    shares, state, scores = raw.get("pseudo_hist", []), raw.get("state", {}), raw.get("scores", {})
    whole = (
        is_count(raw.get(clock))
        and isinstance(shares, list)
        and all(isinstance(share, int | float) for share in shares)
        and isinstance(state, dict)
        and isinstance(scores, dict)
        and all(isinstance(values, dict) for values in scores.values())
    )
    if not whole:
        return None
    line: dict[str, Any] = {name: value for name, value in raw.items() if is_number(value)}
    if shares and all(is_number(share) and 0 <= share <= 1.001 for share in shares):
        line["pseudo_hist"] = shares
    if state:
        line["state"] = {name: value for name, value in state.items() if _is_state(value)}
    if scores:
        line["scores"] = {
            split: {name: value for name, value in values.items() if is_number(value)}
            for split, values in scores.items()
        }
    return line


def read_predictions(path: Path) -> tuple[dict[str, Any], pa.Table] | None:
    """The facts and the table of a predictions file; None where there is none, or one of another version.

    Raises:
        ValueError: it is not what a run writes.
        OSError, pa.ArrowException: it cannot be read.
    """
    if not path.is_file():
        return None
    with pq.ParquetFile(path) as file:
        schema, size = file.schema_arrow, file.metadata
        facts = json.loads((schema.metadata or {}).get(FACTS, b"null"))
        if not isinstance(facts, dict):
            raise ValueError("it has no facts of a run")
        if facts.get("format") != 1:
            return None
        _check_facts(facts)
        # Before any of it is read: what is not a flat column or a list of numbers may crash the library.
        if schema.names != SCHEMA.names or not all(map(_like, schema.types, SCHEMA.types)):
            raise ValueError("its columns are of another kind")
        groups = range(size.num_row_groups)
        if size.num_rows > _MOST_ROWS or sum(size.row_group(i).total_byte_size for i in groups) > _MOST_BYTES:
            raise ValueError("it is larger than any run writes it")
        table = file.read()
    if not len(table):
        return None
    _check_rows(table, len(facts["classes"]))
    if _FORMER_NAME in facts["rows"]:
        facts["rows"]["pseudo_labeled"] = facts["rows"].pop(_FORMER_NAME)
    return facts, table


def _is_state(value: Any) -> bool:
    return is_number(value) or (isinstance(value, list) and bool(value) and all(map(is_number, value)))


def _like(actual: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column is of the wanted type; what a list calls its items does not matter."""
    if pa.types.is_list(wanted):
        return bool(pa.types.is_list(actual) and actual.value_type == wanted.value_type)
    return bool(actual == wanted)


def _check_facts(facts: Mapping[str, Any]) -> None:
    classes, rows, labels = (facts.get(name) for name in ("classes", "rows", "labels"))
    temperature = facts.get("temperature", 1.0)
    fits = {
        "classes": isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes),
        "kind": facts.get("kind") in ("text", "image"),
        "rows": isinstance(rows, dict)
        and rows.keys() >= {"labeled", "unlabeled", "dev", "test"}
        and all(map(is_count, rows.values())),
        "labels": labels is None or (isinstance(labels, list) and all(map(is_count, labels))),
        "notes": isinstance(facts.get("notes"), list) and all(isinstance(note, str) for note in facts["notes"]),
        "strong": isinstance(facts.get("strong", 0), str | None),
        "temperature": is_number(temperature) and 1e-6 < temperature < 1e6,
    }
    for name, fit in fits.items():
        if not fit:
            raise ValueError(f"its {name} are of another kind")


def _check_rows(table: pa.Table, classes: int) -> None:
    """Every value within what figures are drawn of.

    Raises:
        ValueError: one is not.
    """
    part, label = table["part"], table["label"]
    for name in ("part", "row", "label", "logits"):
        if table[name].null_count:
            raise ValueError(f"values of {name} are missing")
    scored = pc.is_in(part, pa.array(["test", "dev"]))
    low, high = pc.min(label).as_py(), pc.max(label).as_py()
    if not pc.all(pc.is_in(part, pa.array(_PARTS))).as_py():
        raise ValueError("it has parts that no run has")
    if low < -1 or high >= classes or pc.any(pc.and_(scored, pc.less(label, 0))).as_py():
        raise ValueError("it has labels that are no classes")
    _check_lists(table["logits"], classes)
    _check_lists(table["pseudo"].drop_null(), classes)
    for name in ("before", "after"):
        _check_lists(table[name].filter(pc.invert(scored)), None)
    shares = pc.list_flatten(table["pseudo"])
    if not pc.all(pc.and_(pc.greater_equal(shares, 0.0), pc.less_equal(shares, 1.001)), min_count=0).as_py():
        raise ValueError("it has pseudo-labels that are no probabilities")


def _check_lists(column: pa.ChunkedArray, width: int | None) -> None:
    """Lists of numbers, all of this width or, without one, of the same from 1 on."""
    if not len(column):
        return
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1 or lengths[0] is None or lengths[0] < 1 or lengths[0] != (width or lengths[0]):
        raise ValueError("it has lists of several lengths")
    if pc.list_flatten(column).null_count:
        raise ValueError("numbers are missing in its lists")
