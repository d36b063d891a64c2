"""Seeded draws of rows, and the keys by which two texts count as the same."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.utils.ranges import check


def check_draw(seed: int, labels_per_class: int | None) -> None:
    """Refuses a seed or a number of labels that cannot be.

    Raises:
        ConfigError: one of them is no whole number, negative, or no label.
    """
    check(labels_per_class if labels_per_class is not None else 1, "labels_per_class", 1, 1e9)
    check(seed, "seed", 0, 2**31)
    for name, value in (("labels_per_class", labels_per_class), ("seed", seed)):
        if value is not None and not isinstance(value, Integral):
            raise ConfigError(204, f"{name} must be a whole number, not {value!r}")


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
    for name in sorted(by_class):  # whatever order the classes have: the same rows are drawn
        rows = by_class[name]
        if len(rows) < per_class:
            raise DataError(
                131, f"class {name!r} has {len(rows)} labeled rows, {per_class} were asked for: lower labels-per-class"
            )
        drawn.extend(rng.choice(rows, size=per_class, replace=False).tolist())
    return np.sort(np.asarray(drawn, dtype=np.int64))


def draw_groups(groups: Sequence[object], fraction: float, seed: int) -> np.ndarray:
    """A bool mask [N] over rows that is True for all rows of about `fraction` of the groups, at least one of them."""
    names, of_row = np.unique(np.asarray(groups), return_inverse=True)
    drawn = np.zeros(len(names), dtype=bool)
    drawn[np.random.default_rng(seed).permutation(len(names))[: max(1, round(fraction * len(names)))]] = True
    return np.asarray(drawn[of_row], dtype=bool)


def text_keys(texts: pa.ChunkedArray) -> np.ndarray:
    """A 64-bit key for every text [N]: equal for texts that differ only in case or white space."""
    keys = np.empty(len(texts), dtype=np.uint64)
    position = 0
    for chunk in texts.iterchunks():
        for text in chunk.to_pylist():
            keys[position] = xxhash.xxh3_64_intdigest(" ".join(text.casefold().split()).encode())
            position += 1
    return keys


def whole(texts: pa.ChunkedArray, pairs: pa.ChunkedArray | None, between: str = "\n") -> pa.ChunkedArray:
    """Each text with its second one behind it, where there are pairs."""
    if pairs is None:
        return texts
    both = pc.binary_join_element_wise(texts.combine_chunks(), pairs.combine_chunks(), pa.scalar(between, texts.type))
    return pa.chunked_array([both], texts.type)


def pair_keys(texts: pa.ChunkedArray, pairs: pa.ChunkedArray | None) -> np.ndarray:
    """As `text_keys`, for pairs of which both texts count: no text holds NUL."""
    return text_keys(whole(texts, pairs, " \0 "))


def draw_rows(total: int, wanted: int, seed: int) -> np.ndarray:
    """`wanted` of `total` positions, drawn without replacement by the seed and returned sorted."""
    return np.sort(np.random.default_rng(seed).choice(total, size=wanted, replace=False))
