"""Cross-validation: tasks that each lack a part of the labels, which then score a model on held-out rows."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedKFold

from nlp_ssl.data.dataset import Data
from nlp_ssl.errors import listed


def least_labels(data: Data) -> int:
    """Labels of the class that has the fewest, leaving out classes without any; 0 where labels are probabilities."""
    if data.targets is not None:
        return 0
    return int(np.unique(data.labels[data.labeled], return_counts=True)[1].min())


def why_not_held_out(data: Data) -> str | None:
    """Why labels cannot be held out, naming the classes that have too few; None where they can."""
    if least_labels(data) >= 2:
        return None
    if data.targets is not None:
        return "labels from a file or a teacher cannot be held out"
    sizes = np.bincount(data.labels[data.labeled], minlength=len(data.classes))
    few = [f"{name!r} has {size}" for name, size in zip(data.classes, sizes.tolist(), strict=True) if size == 1]
    return f"held-out labels take two labels of every class, {listed(few)}"


def parts_of(data: Data, number: int) -> int:
    """How many parts the labels are cut into where `number` are asked for: no more than the rarest class has labels."""
    return min(number, least_labels(data))


def folds(data: Data, number: int, seed: int) -> Iterator[tuple[Data, np.ndarray]]:
    """Tasks without dev and test rows that each lack another part of the labels, and that part.

    There are `parts_of` parts with all classes in each; two at least. A part is the positions [n] among the labeled
    rows, whose texts are in no other role.
    """
    labels = data.labels[data.labeled]
    split = StratifiedKFold(parts_of(data, number), shuffle=True, random_state=seed)
    for kept, out in split.split(labels, labels):
        part = replace(
            data,
            labeled=data.labeled[kept],
            weights=None if data.weights is None else data.weights[kept],
            dev=data.dev[:0],
            test=data.test[:0],
        )
        yield part, out
