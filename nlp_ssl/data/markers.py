"""What marks a row without a label, and how names are compared: one rule wherever labels are read.

A row is unlabeled where its label is empty, missing (None, NaN, NaT, pandas' NA, Arrow's null) or -1, however it is
written. A word such as None or nan is a class, with a warning, unless it is named as a marker.
"""

import re
import shlex
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from nlp_ssl.errors import ConfigError, DataError

MINUS_ONE = "-1"
MinusOne = Literal["unlabeled", "class"]
_WORDS = frozenset({"none", "nan", "null", "na", "n/a", "#n/a", "<na>", "nat"})  # what libraries write for missing
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_DECIMAL = re.compile(r"([+-]?)(?=\.?[0-9])0*([0-9]*)(\.[0-9]*)?(e[+-]?0+)?")
_AROUND = r"[\s\u200b-\u200f\u2060\ufeff]+"  # white space, signs of no width, byte-order marks
_ENDS = re.compile(f"^{_AROUND}|{_AROUND}$")


def stripped(name: str) -> str:
    """A name of a class or column without white space and signs of no width at its ends."""
    return _ENDS.sub("", name)


def spelling(name: str) -> str:
    """The same for names of classes that are nearly alike: Pos and pos, or 1, 01, +1 and 1.0 with any minus sign."""
    word = unicodedata.normalize("NFKC", stripped(name)).casefold().replace("\u2212", "-")
    match = _DECIMAL.fullmatch(word)
    if match is None:
        return word
    number = (match[2] or "0") + (match[3] or "").rstrip("0").rstrip(".")
    return number if match[1] != "-" or number == "0" else f"-{number}"


@dataclass(frozen=True)
class Markers:
    """What marks an unlabeled row, beside an empty or missing label.

    Attributes:
        other: a label that does so beside -1.
        minus_one: what -1 means. None: it is a marker, and an error where it may be a class (`in_doubt`).
        convention: -1 is a marker without doubt, as in scikit-learn and PyTorch; where it may be a class, a warning.
        words: whether there are warnings about words such as None.
    """

    other: str | None = None
    minus_one: MinusOne | None = None
    convention: bool = False
    words: bool = True

    def __post_init__(self) -> None:
        if self.other == MINUS_ONE and self.minus_one == "class":
            raise ConfigError(411, "--unlabeled-value=-1 and --minus-one class contradict each other: choose one")

    @property
    def names(self) -> frozenset[str]:
        """The labels that are markers."""
        minus_one = () if self.minus_one == "class" else (MINUS_ONE,)
        return frozenset(minus_one if self.other is None else (*minus_one, self.other))

    @property
    def minus_one_decided(self) -> bool:
        """Whether the user decided what -1 means."""
        return self.minus_one is not None or self.other == MINUS_ONE

    def check(self, source: str, marked: Collection[str], classes: Collection[str]) -> None:
        """Refuses -1 as a marker where nobody decided what it means and it may be a class beside the others.

        Raises:
            DataError: it may be a class.
        """
        if MINUS_ONE in marked and not self.minus_one_decided and not self.convention and in_doubt(classes):
            raise minus_one_error(f"{source}: label '-1' beside {_some(classes)}")

    def notes(self, marked: Mapping[str, int], classes: Mapping[str, int], known: Collection[str] = ()) -> list[str]:
        """Notes on markers and on words that look like them; both with the number of their rows.

        Names `known` beforehand are classes without a warning.
        """
        notes = []
        for name, rows in sorted(marked.items()):
            note = f"rows labeled {name!r} taken as unlabeled: {rows}"
            doubtful = self.convention and name == MINUS_ONE and in_doubt(classes)
            notes.append(f"warning: {note} (if it is a class, give it another name or number)" if doubtful else note)
        for name, rows in sorted(classes.items()):
            if self.words and name.casefold() in _WORDS and name not in known:
                remedy = (
                    "put None in its place; NumPy makes words of None and NaN among strings" if self.convention
                    else f"--unlabeled-value {shlex.quote(name)}, in Python unlabeled_value={name!r}"
                )  # fmt: skip
                notes.append(f"warning: rows labeled {name!r}, a class: {rows} (if it means unlabeled: {remedy})")
        return notes


CONVENTION = Markers(convention=True)
READ = Markers(minus_one="class", words=False)  # labels that were read already: None alone marks unlabeled rows


def in_doubt(classes: Collection[str]) -> bool:
    """Whether -1 may be a class beside these: one of them is a number, or -1 itself, or there is only one."""
    return len(classes) == 1 or any(_NUMBER.fullmatch(name) for name in classes)


def minus_one_error(what: str) -> DataError:
    """The error that asks what -1 means."""
    return DataError(
        116,
        f"{what} may be a class or mean unlabeled: say --minus-one class or --minus-one unlabeled (in Python "
        'minus_one="class" or "unlabeled")',
    )


def _some(classes: Collection[str]) -> str:
    names = sorted(classes)
    return ", ".join(repr(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
