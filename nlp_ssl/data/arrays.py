"""Texts and labels in memory: lists, arrays, tensors, pandas, Polars and Arrow columns."""

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length

from nlp_ssl.data.cleaning import label_name
from nlp_ssl.data.label_sets import UNKNOWN, bare
from nlp_ssl.data.markers import CONVENTION, READ
from nlp_ssl.data.table import Table, memory_table, table_of
from nlp_ssl.data.values import numpy_type, plain_list
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.ops.fits import without_remarks

Column = Any  # what `plain_list` reads [N]; or features [N, D], where the text says so


class InputError(DataError, ValueError):
    """A text or label that cannot be used; also the ValueError that users of scikit-learn expect."""


@dataclass(frozen=True)
class Labels:
    """Labels by number: `classes` [C] in their own type, sorted; `number` int64 [N], -1 where there is no label.

    `notes` say what looks doubtful ("warning: ...").
    """

    classes: np.ndarray
    number: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str | None]:
        """What each row's class is called [N], in tables and in a saved model."""
        classes = [label_name(value) for value in self.classes.tolist()]
        return [classes[i] if i >= 0 else None for i in self.number]

    def named(self, rows: np.ndarray, names: Sequence[str | None]) -> list[str]:
        """Of each class [C] its name in a table that kept these of the rows, with these names.

        Raises:
            InputError: a class has no row left, or two classes have one name.
        """
        name_of = {int(self.number[row]): name for row, name in zip(rows, names, strict=True) if name is not None}
        for i, value in enumerate(self.classes.tolist()):
            if i not in name_of:
                raise InputError(135, f"class {value!r} has no usable labeled row left: label more of its texts")
        if len(set(name_of.values())) < len(name_of):
            raise InputError(136, f"two of the labels {self.classes.tolist()} read alike: rename one")
        return [name_of[i] for i in range(len(self.classes))]


def column(values: Column, name: str) -> np.ndarray:
    """The values as an object array [N], None where one is missing.

    Raises:
        InputError: they are not one column.
    """
    try:
        found = np.asarray(plain_list(values, name), dtype=object)
    except ConfigError:
        raise InputError(
            190, f"{name} should be a 1d array, not a {type(values).__name__}: give one value a row"
        ) from None
    if found.ndim == 2 and found.shape[1] == 1:
        warnings.warn(f"A column-vector {name} was passed when a 1d array was expected", DataConversionWarning, 3)
        found = found[:, 0]
    if found.ndim != 1:
        raise InputError(190, f"{name} should be a 1d array, not one of shape {found.shape}: give one value a row")
    return found


def split_pairs(X: Column) -> tuple[list[Any], list[Any] | None]:
    """Texts [N], and the second texts where rows are pairs: tuples or lists of two, or an array [N, 2].

    Raises:
        InputError: they are neither.
    """
    try:
        values = plain_list(X, "X")
    except ConfigError:
        values = []
    if values and all(isinstance(value, list | tuple | np.ndarray) and len(value) == 2 for value in values):
        return [a for a, _ in values], [b for _, b in values]
    return column(X, "X").tolist(), None


def text_table(
    X: Column, y: Column | None, source: str = "texts", *, class_names: Sequence[str] | None = None
) -> Table:
    """Texts, or pairs of texts, [N] with their labels [N] as a table; the names of classes are `label_name`'s.

    Raises:
        DataError: lengths differ, or a value is no text or no label.
    """
    texts, pairs = split_pairs(X)
    labels = None if y is None else listed_sets(y)
    return memory_table(texts, labels, CONVENTION, pairs, source, lists=True, class_names=class_names)


def scored_table(part: tuple[Column, Column], role: str, class_names: Sequence[str] | None = None) -> Table:
    """As `text_table`, for texts and labels that are handed over as `dev` or `test`.

    Raises:
        InputError: they are no pair of columns.
    """
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise InputError(127, f"{role} should be two columns, texts and their labels: {role}=(texts, labels)")
    return text_table(*part, role, class_names=class_names)


def labeled_table(X: Column, y: Column, class_names: Sequence[str] | None = None) -> tuple[Table, np.ndarray]:
    """As `text_table`, and the classes [C] in their own type, in the order that the model of this table has them.

    Raises:
        InputError: a class has no text left, or as `read_labels`.
    """
    if is_multilabel(y) or class_names is not None:
        table = text_table(X, y, class_names=class_names)
        names = sorted({bare(name) for row in table.label_sets or () for name in row or ()})
        ordered = tuple(table.classes or class_names or names)
        return replace(table, classes=ordered), _in_their_type(ordered, y)
    labels = read_labels(y)
    texts, pairs = split_pairs(X)
    if len(texts) != len(labels.number):
        raise InputError(121, f"{len(texts)} texts but {len(labels.number)} labels: give one label for each text")
    table = memory_table(texts, labels.names, READ, pairs)
    names = labels.named(table.rows - 1, table.labels or ())
    return replace(table, classes=tuple(names), notes=(*labels.notes, *table.notes)), labels.classes


def is_multilabel(y: Column) -> bool:
    """Whether rows have several labels: lists or sets of them, or rows of 0 and 1."""
    if _columns(y) == 1:
        return False
    try:
        values = plain_list(y, "y")
    except ConfigError:
        return False
    return any(isinstance(value, list | tuple | set | frozenset) for value in values)


def _columns(y: Column) -> int | None:
    """The columns of an array or a table; None of a list, or of one column of values."""
    if isinstance(y, list | tuple):
        return None
    try:
        shape = np.asarray(y).shape
    except (TypeError, ValueError, RuntimeError):  # NumPy has no type for it
        return None
    return shape[1] if len(shape) == 2 else None


def listed_sets(y: Column) -> list[Any]:
    """The labels of the rows, those of a set as a list in a fixed order."""
    return [sorted(value, key=str) if isinstance(value, set | frozenset) else value for value in plain_list(y, "y")]


def sets_right(
    y: Column,
    predicted: Sequence[Sequence[Any]],
    names: Sequence[str],
    class_names: Sequence[str] | None = None,
    sample_weight: Column | None = None,
) -> float:
    """The share of the labeled rows with all labels right, as far as they are known.

    Args:
        y: lists or sets of labels [N], or rows of 0 and 1.
        predicted: the labels of each row [N].
        names: names of the classes.
        class_names: what the places of rows of 0 and 1 stand for; `names` in an array or a table.
        sample_weight: weights [N] of the rows.

    Raises:
        InputError: no row has labels.
    """  # fmt: skip
    rows = listed_sets(y)
    check_consistent_length(rows, predicted, sample_weight)
    if class_names is None and _columns(y) is not None:
        class_names = names
    truth = text_table([f"row {i}" for i in range(len(rows))], rows, class_names=class_names).label_sets or []
    known = np.array([labels is not None for labels in truth], dtype=bool)
    if not known.any():
        raise InputError(132, "no row has a label: label a few rows of each class")
    right = [
        _same_sets(labels, {str(label_name(value)) for value in found}, names)
        for labels, found in zip(truth, predicted, strict=True)
        if labels is not None
    ]
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)[known]
    return float(np.average(right, weights=weights))


def _same_sets(labels: Collection[str], predicted: Collection[str], names: Sequence[str]) -> bool:
    """Whether a row's labels are predicted, leaving out those that are not known."""
    return all((name in labels) == (name in predicted) for name in names if UNKNOWN + name not in labels)


def read_texts(X: Column) -> list[str]:
    """Texts cleaned as those of training are; blank ones stay, as "", so that every row has an answer.

    Raises:
        InputError: a text is missing.
        DataError: a value is no text.
    """
    return _cleaned(column(X, "X").tolist())


def read_pairs(X: Column) -> tuple[list[str], list[str] | None]:
    """As `read_texts`, and the second texts where rows are pairs.

    Raises:
        InputError: a text is missing.
        DataError: a value is no text.
    """
    texts, pairs = split_pairs(X)
    return _cleaned(texts), None if pairs is None else _cleaned(pairs)


def _cleaned(values: list[Any]) -> list[str]:
    if not values:
        raise InputError(102, "no rows with a text: add some rows")
    if None in values:
        raise InputError(194, f"texts row {values.index(None) + 1} is missing: leave the row out, or fill it")
    texts = [""] * len(values)
    if any(not isinstance(value, str) or value.strip() for value in values):
        table = table_of(values)
        for row, text in zip(table.rows, table.texts.to_pylist(), strict=True):
            texts[row - 1] = text
    return texts


def read_labels(y: Column) -> Labels:
    """Labels of the rows. Missing ones, blank ones and -1 mean unlabeled.

    Raises:
        InputError: no row has a label, all have the same, two read alike, or labels are not of one type.
    """
    values = column(y, "y")
    names = _names(values)
    known = _labeled(names)
    given = values[known].tolist()
    if not known.all() and all(isinstance(v, float) and v.is_integer() for v in given):
        given = [int(v) for v in given]  # whole numbers with gaps are often written as 1.0, 0.0
    if len(kinds := {"number" if isinstance(v, int | float) else type(v).__name__ for v in given}) > 1:
        raise InputError(191, f"labels mix {' and '.join(sorted(kinds))}: make them all of one type")
    with without_remarks():
        check_classification_targets(given)
    found, own = np.array(given), numpy_type(y)
    if own is not None and found.dtype.kind == own.kind:
        found = found.astype(own)  # int8 stays int8
    classes, number = np.unique(found, return_inverse=True)
    if len(classes) < 2:
        only = classes.tolist()[0]
        raise InputError(133, f"there is only one class, {only!r} (-1 is none): label rows of a second class")
    if len({label_name(value) for value in classes.tolist()}) < len(classes):
        raise InputError(136, f"two of the labels {classes.tolist()} read alike: rename one")
    whole = np.full(len(values), -1, dtype=np.int64)
    whole[known] = number
    counts = Counter(name for name in names if name is not None)
    marked = {name: counts.pop(name) for name in CONVENTION.names & counts.keys()}
    return Labels(classes, whole, tuple(CONVENTION.notes(marked, counts)))


def labeled_accuracy(truth: Column, predicted: np.ndarray, sample_weight: Column | None = None) -> float:
    """Accuracy on the rows that have a label: the others can be neither right nor wrong.

    Raises:
        InputError: no row has a label.
    """
    names = _names(column(truth, "y"))
    check_consistent_length(names, predicted, sample_weight)
    known = _labeled(names)
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)[known]
    right = np.array([name == label_name(value) for name, value in zip(names, predicted, strict=True)])[known]
    return float(np.average(right, weights=weights))


def _in_their_type(names: Sequence[str], y: Column) -> np.ndarray:
    """Classes by these names [C] as they stand in rows that list them; otherwise the names themselves."""
    values = {label_name(v): v for row in plain_list(y) if isinstance(row, list | tuple | set | frozenset) for v in row}
    numbers = all(isinstance(values.get(name), int) and not isinstance(values[name], bool) for name in names)
    return np.array([values[name] for name in names]) if numbers else np.array(names, dtype=object)


def _names(values: np.ndarray) -> list[str | None]:
    """What the labels are called [N], None where one is missing."""
    try:
        return [label_name(value) for value in values]
    except TypeError as error:
        raise InputError(115, f"{error}: give each text one label") from None


def _labeled(names: Sequence[str | None]) -> np.ndarray:
    """A bool mask [N] of the rows that have a label."""
    known = np.array([name is not None and name not in CONVENTION.names for name in names], dtype=bool)
    if not known.any():
        raise InputError(132, "no row has a label: label a few rows of each class")
    return known
