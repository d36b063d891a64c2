"""What an examination says: things to fix, and facts."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """Something to fix.

    Attributes:
        level: an error stops training, a warning may spoil it.
        text: one line that says what is wrong, where, and what to do.
        code: the number of an error.
    """

    level: Literal["error", "warning"]
    text: str
    code: int | None = None


@dataclass(frozen=True)
class Fact:
    """Something worth knowing: a name, one line for people, and a JSON value for programs."""

    name: str
    text: str
    value: object


def warning(text: str) -> Finding:
    """A finding that does not stop training."""
    return Finding("warning", text)


def counted(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
