"""Labels of multi-label rows as cells hold them: names, and names behind a "?" of labels that are not known."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import cast

import numpy as np

from nlp_ssl.data.markers import stripped
from nlp_ssl.data.values import is_missing
from nlp_ssl.errors import ConfigError, DataError, nearest

UNKNOWN = "?"
LabelSet = tuple[str, ...]  # ("sport", "?politics"): sport applies, politics is not known, no other label applies
Flags = tuple[int, ...]  # of each label 1 (applies), 0 (does not) or -1 (not known)


def check_separator(separator: str | None, classes: Sequence[str] = ()) -> None:
    """Refuses what cannot separate labels.

    Raises:
        ConfigError: it is blank, holds the sign for what is not known, or occurs in the name of a class.
    """
    within = next((name for name in classes if separator and separator in name), None)
    if within is not None:
        raise ConfigError(479, f"--label-separator {separator!r} occurs in the label {within!r}: choose another")
    if separator is not None and (not separator.strip() or UNKNOWN in separator):
        raise ConfigError(479, f"--label-separator {separator!r}: give a sign such as ';' or '|', no blank and no '?'")


def is_list(value: object) -> bool:
    """Whether a cell is a list of labels."""
    return isinstance(value, list | tuple | np.ndarray)


def label_set(cells: Sequence[object], name_of: Callable[[object], str | None]) -> LabelSet:
    """The labels in a list; where it is empty none applies.

    Raises:
        TypeError, ValueError: it is no list of names, each of them once.
    """
    names = []
    for cell in cells:
        if isinstance(cell, float | np.floating) and not is_missing(cell) and not float(cell).is_integer():
            raise ValueError(f"{cell} is no label: write the names of the labels that apply, not how likely they are")
        word = stripped(cell) if isinstance(cell, str) else ""
        unknown = word.startswith(UNKNOWN)
        name = name_of(word[len(UNKNOWN) :] if unknown else cell)
        if name is None:
            raise ValueError("a label in the list has no name: name it, or leave it out")
        names.append(UNKNOWN * unknown + name)
    twice = [name for name, times in Counter(map(bare, names)).items() if times > 1]
    if twice:
        raise ValueError(f"label {twice[0]!r} is listed twice: list the names of the labels that apply, each once")
    return tuple(names)


def check_class_names(names: Sequence[str] | None, name_of: Callable[[object], str | None]) -> tuple[str, ...] | None:
    """Class names as labels are read.

    Raises:
        ConfigError: one is blank, or two are the same.
    """
    if names is None:
        return None
    cleaned = tuple(name for name in map(name_of, names) if name is not None)
    if len(set(cleaned)) < len(names):
        shown = ", ".join(map(repr, names))
        raise ConfigError(412, f"class names {shown}: give each of them once, and none that is blank")
    return cleaned


def list_flags(value: object) -> Flags | None:
    """A list of numbers 0 and 1, and -1 or missing where a label is not known; None if it holds anything else."""
    if not is_list(value):
        return None
    cells = [-1 if is_missing(cell) else cell for cell in cast("Sequence[object]", value)]
    numbers = bool | np.bool_ | int | np.integer | float | np.floating
    flags = [int(cell) for cell in cells if isinstance(cell, numbers) and cell in (0, 1, -1)]
    return tuple(flags) if len(flags) == len(cells) and flags not in ([], [-1]) else None


def column_flags(cells: Sequence[object], columns: Sequence[str], name_of: Callable[[object], str | None]) -> Flags:
    """The same of cells in a column for each label, where they may be words.

    Raises:
        ValueError: a cell holds something else.
    """
    numbers = {None: -1, "-1": -1, "0": 0, "1": 1, "false": 0, "true": 1}
    names = [name_of(cell) for cell in cells]
    for name, column in zip(names, columns, strict=True):
        if name not in numbers:
            raise ValueError(f"column {column!r} holds {name!r}: write 1 where its label applies, 0 where it does not")
    return tuple(numbers[name] for name in names)


def of_flags(flags: Flags, classes: Sequence[str]) -> LabelSet:
    """The labels that apply, and those that are not known."""
    return tuple(UNKNOWN * (flag < 0) + name for flag, name in zip(flags, classes, strict=True) if flag)


def may_be_flags(names: LabelSet) -> bool:
    """Whether words may be meant as flags: as names both would apply to the row."""
    return set(names) in ({"0", "1"}, {"false", "true"})


def one_of_flags(flags: Flags, classes: Sequence[str]) -> str:
    """The only label that applies, in a single-label task.

    Raises:
        TypeError: it is not one.
    """
    if flags.count(1) != 1 or min(flags) < 0:
        raise TypeError(f"{flags.count(1)} of the {len(flags)} numbers are 1")
    return classes[flags.index(1)]


def bare(name: str) -> str:
    """The name of a label without the sign."""
    return name.removeprefix(UNKNOWN)


def outside(sets: Sequence[LabelSet | None], classes: Collection[str]) -> tuple[int, str] | None:
    """The first row with a label that is none of the classes, and that label."""
    known = frozenset(classes)
    return next(((i, bare(n)) for i, names in enumerate(sets) for n in names or () if bare(n) not in known), None)


def encode_sets(sets: Sequence[LabelSet | None], classes: Sequence[str], place: Callable[[int], str]) -> np.ndarray:
    """Labels int8 [N, C]: 1 applies, 0 does not, -1 not known; `place` names the row of a position.

    Raises:
        DataError: a label is none of the classes.
    """
    index = {name: i for i, name in enumerate(classes)}
    if (strange := outside(sets, classes)) is not None:
        row, name = strange
        hint = nearest(name, classes)
        raise DataError(134, f"{place(row)}: label {name!r} is not a class of the labeled set.{hint}")
    encoded = np.full((len(sets), len(classes)), -1, dtype=np.int8)
    for row, names in enumerate(sets):
        if names is None:
            continue
        encoded[row] = 0
        for name in names:
            encoded[row, index[bare(name)]] = -1 if name.startswith(UNKNOWN) else 1
    return encoded
