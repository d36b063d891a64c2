"""Pseudo-labels as Parquet files that people can open, correct and give back, and those of other files."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlp_ssl.data.markers import MINUS_ONE, MinusOne, minus_one_error
from nlp_ssl.data.readers import is_parquet, parquet_schema
from nlp_ssl.data.schema import log_notes
from nlp_ssl.data.sources import column_values, read_table
from nlp_ssl.data.splits import text_keys
from nlp_ssl.data.table import by_split
from nlp_ssl.errors import DataError, RunError, listed, nearest
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils.parquet import write_parquet

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),  # place in the pool
        ("text", pa.large_string()),
        ("label", pa.string()),
        ("probabilities", pa.list_(pa.float64())),  # in the order of `named`
        ("weight", pa.float64()),  # of each copy; 0 where there is none
        ("copies", pa.int64()),  # how often a student learned from the row
        ("learn", pa.string()),  # "label" or "probabilities"
        ("agreement", pa.float64()),  # share of the rounds so far that gave this label
        ("round", pa.int64()),
        ("margins", pa.list_(pa.float64())),  # lead of the best class over the second, round by round
    ]
)
log = logging.getLogger("nlp_ssl")
_LARGEST_WEIGHT = 1e6
_CLASSES = b"nlp_ssl.classes"  # in the metadata of a file: the class names that its probabilities go by


def named(schema: pa.Schema, classes: Sequence[str]) -> pa.Schema:
    """A schema that says of which class each probability is."""
    return schema.with_metadata({_CLASSES: json.dumps(list(classes)).encode()})


def write_pseudo_labels(
    path: Path, labels: PseudoLabels, earlier: Sequence[PseudoLabels], classes: Sequence[str], texts: pa.Array | None
) -> None:
    """Writes a row for every row of the pool, in its order; those that no student learns from have the weight 0.

    The label of such a row stands there too, and a reader may know of no column but text, label and weight.

    Args:
        path: the file.
        labels: of this round.
        earlier: of the rounds before, the first one first.
        classes: class names of the task, in its order.
        texts: of the pool [U]; None for images.

    Raises:
        RunError: the file cannot be written.
    """
    rounds = [*earlier, labels]
    agreement = np.mean([one.label == labels.label for one in rounds], axis=0)
    margins = np.stack([_margins(one.p) for one in rounds], 1)
    weights = np.where(labels.copies > 0, labels.weights, 0.0)
    learn, number = "label" if labels.hard else "probabilities", len(rounds)

    def rows() -> Iterator[tuple[Any, ...]]:
        for i, label in enumerate(labels.label.tolist()):
            text = None if texts is None else texts[i].as_py()
            name = classes[label] if label >= 0 else None
            yield (i, text, name, labels.p[i], weights[i], labels.copies[i], learn, agreement[i], number,
                   margins[i])  # fmt: skip

    write_parquet(path, rows(), named(SCHEMA, classes))


def read_pseudo_labels(path: Path, size: int, classes: Sequence[str]) -> PseudoLabels:
    """What `write_labels` wrote for a pool of this size: what a student learns from it is the same.

    Probabilities go by the class names that the file notes, by their places where it notes none.

    Raises:
        RunError: the file is not of this run.
    """
    try:
        table = pq.read_table(path, columns=["probabilities", "copies", "weight", "learn"])
        p = np.array(table["probabilities"].to_pylist(), dtype=np.float64).reshape(len(table), -1)
        copies, weights = (table[name].to_numpy() for name in ("copies", "weight"))
        hard = table["learn"].to_pylist()[:1] != ["probabilities"]
        order = _order(table.schema, classes)
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise RunError(321, f"{path} is damaged ({type(error).__name__}): delete it and resume again") from error
    if order is None or p.shape != (size, len(classes)):
        raise RunError(321, f"{path} is of another run: use --overwrite or another folder")
    return PseudoLabels(p[:, order], copies.astype(np.int64), weights.astype(np.float64), hard)


def _order(schema: pa.Schema, classes: Sequence[str]) -> list[int] | None:
    """The place among the probabilities of each of the classes; None where they are of other classes.

    Raises:
        ValueError, TypeError: what the file notes is damaged.
    """
    note = (schema.metadata or {}).get(_CLASSES)
    if note is None:
        return list(range(len(classes)))
    names = list(json.loads(note))
    return [names.index(name) for name in classes] if sorted(names) == sorted(classes) else None


def labels_from_file(
    source: str | Path,
    pool: pa.ChunkedArray | pa.Array,
    classes: Sequence[str],
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8",
    unlabeled_value: str | None = None,
    minus_one: MinusOne | None = None,
) -> PseudoLabels:
    """Labels for a pool out of a file of noisy ones: an earlier round's, a language model's, a rule's.

    Columns: the text and the label; where there are, "weight" (0 leaves a row out), "probabilities" (a list, in
    CSV as "[0.9, 0.1]"; in the order of the class names that a Parquet file of `write_labels` notes, elsewhere in that
    of `classes`), "copies", and "learn": with "label" classes are learned, otherwise probabilities. Rows of a split
    called dev or test are left out.
    A label that is not the most probable class is a correction and counts alone. Texts are matched as those of the pool
    are compared, without regard to case and white space; rows of other texts do not count. Where a text stands in the
    pool several times, its rows there go with those of the file in order; of more rows in the file the last ones count,
    and of fewer the first one counts for all that are left. `unlabeled_value`
    and `minus_one` say which labels are none, as for `read_table`.

    Raises:
        DataError: the file cannot be read, a label, weight or probability makes no sense, or no row counts.
    """
    table, _, _ = by_split(
        read_table(
            source,
            text_column=text_column,
            label_column=label_column,
            encoding=encoding,
            unlabeled_value=unlabeled_value,
            minus_one=minus_one,
            expect_labels=True,
        )
    )
    if MINUS_ONE in classes and MINUS_ONE in (table.markers or ()):
        raise minus_one_error(f"{source}: label '-1', a class of the labeled rows,")
    log_notes(note for note in table.notes if note.startswith("warning: "))
    index = {name: i for i, name in enumerate(classes)}
    p, weights = np.zeros((len(table), len(classes))), np.ones(len(table))
    copies, hard, corrected = np.zeros(len(table), dtype=np.int64), True, 0
    columns = {name: column_values(source, name, encoding) for name in ("weight", "probabilities", "copies", "learn")}
    order = _order_in(source, classes) if columns["probabilities"] else []
    for i, (row, label) in enumerate(zip(table.rows.tolist(), table.labels or [], strict=True)):
        place = f"{source} row {row}"
        if label is None:
            continue
        if label not in index:
            raise DataError(134, f"{place}: label {label!r} is not a class of the labeled set.{nearest(label, index)}")
        cells = {name: values.get(row) for name, values in columns.items()}
        p[i] = np.eye(len(classes))[index[label]]
        if cells["probabilities"] not in (None, ""):
            probabilities = _probabilities(cells["probabilities"], len(classes), place)[order]
            if probabilities.argmax() == index[label]:
                p[i], hard = probabilities, hard and cells["learn"] == "label"
            else:
                corrected += 1
        weights[i] = _number(cells["weight"], "weight", place)
        times = _number(cells["copies"], "copies", place)
        if times != round(times):
            raise DataError(145, f"{place}: copies {cells['copies']!r} is not a whole number: fix it")
        copies[i] = round(times) * (weights[i] > 0)
    if corrected:
        log.info("%s: %d labels are not the most probable class of their row and count alone", source, corrected)
    if not copies.any():
        raise DataError(185, f"{source}: no row has a label that counts: look at its labels, weights and copies")
    return _matched(PseudoLabels(p, copies, weights, hard), text_keys(table.texts), text_keys(pa.chunked_array(pool)))


def _order_in(source: str | Path, classes: Sequence[str]) -> list[int]:
    """The place of each class among the probabilities of a file.

    Raises:
        DataError: they are of other classes, or what the file notes is damaged.
    """
    try:
        order = _order(parquet_schema(Path(source)), classes) if is_parquet(source) else list(range(len(classes)))
    except (ValueError, TypeError) as error:
        raise DataError(
            146, f"{source}: its note on class names is damaged ({type(error).__name__}): drop the probabilities"
        ) from None
    if order is None:
        raise DataError(
            146,
            f"{source}: its probabilities are of other classes than {listed(classes)}: drop that column, or name "
            "the file of this task",
        )
    return order


def _matched(labels: PseudoLabels, keys: np.ndarray, pool: np.ndarray) -> PseudoLabels:
    """Labels [M] of texts with these keys as those of a pool with its keys [U]: equal texts in order, from the last."""
    order = np.argsort(keys, kind="stable")
    ends = np.searchsorted(keys[order], pool, side="right")
    starts = np.searchsorted(keys[order], pool, side="left")
    rows = order[np.maximum(ends - 1 - _from_last(pool), starts).clip(0, len(keys) - 1)]
    labeled = ends > starts
    return PseudoLabels(
        p=labels.p[rows] * labeled[:, None],
        copies=labels.copies[rows] * labeled,
        weights=np.where(labeled, labels.weights[rows], 1.0),
        hard=labels.hard,
    )


def _from_last(keys: np.ndarray) -> np.ndarray:
    """How many equal keys come after each of the keys [U]."""
    order = np.argsort(keys, kind="stable")
    ends = np.searchsorted(keys[order], keys[order], side="right")
    after = np.empty(len(keys), dtype=np.int64)
    after[order] = ends - 1 - np.arange(len(keys))
    return after


def _margins(p: np.ndarray) -> np.ndarray:
    top = np.sort(p, axis=1)[:, -2:]
    margins: np.ndarray = top[:, -1] - top[:, 0]
    return margins


def _number(value: object, name: str, place: str) -> float:
    """A number from 0 on; 1 where there is none.

    Raises:
        DataError: it is something else.
    """
    if value is None or value == "":
        return 1.0
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number <= _LARGEST_WEIGHT:
        raise DataError(145, f"{place}: {name} {value!r} is not a number from 0 to {_LARGEST_WEIGHT:g}: fix it")
    return number


def _probabilities(value: object, classes: int, place: str) -> np.ndarray:
    """Probabilities [C].

    Raises:
        DataError: they are not.
    """
    try:
        p = np.asarray(json.loads(value) if isinstance(value, str) else value, dtype=np.float64)
    except (ValueError, TypeError):
        p = np.zeros(0)
    if p.shape != (classes,) or not bool((p >= 0).all()) or abs(float(p.sum()) - 1) > 1e-3:
        raise DataError(146, f"{place}: probabilities must be {classes} numbers that sum to 1: fix or drop them")
    shares: np.ndarray = p / p.sum()
    return shares
