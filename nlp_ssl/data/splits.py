"""Seeded, class-balanced draws of labeled rows."""

from collections.abc import Sequence

import numpy as np

from nlp_ssl.errors import DataError


def draw_per_class(labels: Sequence[object], per_class: int, seed: int) -> np.ndarray:
    """Positions of `per_class` rows of every class, drawn without replacement and returned sorted.

    Rows whose label is None are never drawn. The draw depends on (labels, per_class, seed) alone.

    Raises:
        DataError: a class has fewer than `per_class` rows.
    """
    rng = np.random.default_rng(seed)
    by_class: dict[str, list[int]] = {}
    for position, label in enumerate(labels):
        if label is not None:
            by_class.setdefault(str(label), []).append(position)
    drawn: list[int] = []
    for name in sorted(by_class):
        rows = by_class[name]
        if len(rows) < per_class:
            raise DataError(
                131, f"class {name!r} has {len(rows)} labeled rows, {per_class} were asked for: lower labels-per-class"
            )
        drawn.extend(rng.choice(rows, size=per_class, replace=False).tolist())
    return np.sort(np.asarray(drawn, dtype=np.int64))
