"""Errors a user can fix: one line each, with a number, the place, what is wrong and what to do."""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlp_ssl.nets.base import Module


class SSLError(Exception):
    """Base of every expected failure; `exit_code` is what the console command returns."""

    exit_code = 1

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"SSL{code:03d}: {message}")
        self.code = code


class RunError(SSLError):
    """Training or prediction failed (codes 300-399)."""

    exit_code = 1


class ConfigError(SSLError):
    """An option is unknown, out of range or contradicts another (codes 200-299 and 400-499)."""

    exit_code = 2


class DataError(SSLError):
    """A file, text or label cannot be used as it is (codes 100-199)."""

    exit_code = 3


class BadLineError(DataError):
    """A row of a file is no row; the others can be read without it."""


class EncodingError(DataError):
    """A file is in another encoding than it is read in."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run after a complete step.

    `exit_code` is 128 + signal number, `module` the net as far as it was trained.
    """

    def __init__(self, number: int, module: "Module | None" = None) -> None:
        super().__init__(f"stopped by signal {number}")
        self.exit_code, self.module = 128 + number, module


def nearest(word: str, known: Iterable[str]) -> str:
    """A ` Did you mean 'x'?` hint (leading space) for a misspelt word, or the list of known words."""
    choices = sorted(known)
    of_lower = {choice.lower(): choice for choice in choices}
    match = difflib.get_close_matches(word.lower(), of_lower, n=1, cutoff=0.5)
    return f" Did you mean {of_lower[match[0]]!r}?" if match else f" Known: {', '.join(choices)}."


def listed(parts: Sequence[str], most: int = 8) -> str:
    """The first parts, and how many are left out."""
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def shown(value: object) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def shown_all(values: Sequence[object]) -> str:
    """The first values for a message."""
    return ", ".join(shown(value) for value in values[:12]) + (", ..." if len(values) > 12 else "")
