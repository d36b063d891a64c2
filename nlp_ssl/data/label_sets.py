"""Several labels a row, as they stand in a cell: names, and names behind a "?" of labels that are not known."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np

from nlp_ssl.errors import ConfigError, DataError, nearest

UNKNOWN = "?"
LabelSet = tuple[str, ...]  # ("sport", "?politics"): sport applies, politics is not known, no other label applies


def check_separator(separator: str | None, classes: Sequence[str] = ()) -> None:
    """Refuses what cannot stand between labels.

    Raises:
        ConfigError: it is blank, holds the sign for what is not known, or stands in the name of a class.
    """
    within = next((name for name in classes if separator and separator in name), None)
    if within is not None:
        raise ConfigError(479, f"--label-separator {separator!r} stands in the label {within!r}: choose another")
    if separator is not None and (not separator.strip() or UNKNOWN in separator):
        raise ConfigError(479, f"--label-separator {separator!r}: give a sign such as ';' or '|', no blank and no '?'")


def is_list(value: object) -> bool:
    """Whether a cell is a list of labels."""
    return isinstance(value, list | tuple | np.ndarray)


def label_set(
    value: object, separator: str | None, markers: Collection[str | None], name_of: Callable[[object], str | None]
) -> LabelSet | None:
    """The labels of a cell; None where it is empty or a marker: nothing is known of the row.

    A separator alone, or an empty list, says that no label applies.

    Raises:
        TypeError, ValueError: it is no list of names that each stand there once.
    """
    if isinstance(value, list | tuple | np.ndarray):
        cells: Sequence[object] = list(value)
    else:
        cell = name_of(value)
        if cell is None or cell.strip() in markers:
            return None
        cells = [part for part in cell.split(separator) if part.strip()]
    found = []
    for part in cells:
        unknown = isinstance(part, str) and part.strip().startswith(UNKNOWN)
        name = name_of(str(part).strip()[len(UNKNOWN) :] if unknown else part)
        if name is None:
            raise ValueError("a label in the list has no name: name it, or leave it out")
        found.append(UNKNOWN * unknown + name.strip())
    twice = [name for name, times in Counter(map(bare, found)).items() if times > 1]
    if twice:
        raise ValueError(f"label {twice[0]!r} stands there twice: list the names of the labels that apply, each once")
    return tuple(found)


def bare(name: str) -> str:
    """The name of a label without the sign."""
    return name.removeprefix(UNKNOWN)


def outside(sets: Sequence[LabelSet | None], classes: Collection[str]) -> tuple[int, str] | None:
    """The first row with a label that is none of the classes, and that label."""
    known = frozenset(classes)
    return next(((i, bare(n)) for i, names in enumerate(sets) for n in names or () if bare(n) not in known), None)


def encode_sets(sets: Sequence[LabelSet | None], classes: Sequence[str], place: Callable[[int], str]) -> np.ndarray:
    """Labels int8 [N, C]: 1 applies, 0 does not, -1 not known; `place` says where a row stands.

    Raises:
        DataError: a label is none of the classes.
    """
    index = {name: i for i, name in enumerate(classes)}
    if (strange := outside(sets, classes)) is not None:
        row, name = strange
        hint = nearest(name, classes)
        raise DataError(134, f"{place(row)}: label {name!r} is not a class of the labeled set.{hint}")
    found = np.full((len(sets), len(classes)), -1, dtype=np.int8)
    for row, names in enumerate(sets):
        if names is None:
            continue
        found[row] = 0
        for name in names:
            found[row, index[bare(name)]] = -1 if name.startswith(UNKNOWN) else 1
    return found
