"""What an engine is: a frozen value that names what rewrites texts; opened, it does."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from nlp_ssl.utils.hashing import contents


class Rewriter(Protocol):
    """An engine at work. One thread uses it."""

    def translate(self, texts: Sequence[str], seed: int) -> Iterator[tuple[int, str]]:
        """(number, rewriting) of every text, in the order they are done; other seeds draw other rewritings."""
        ...


class ParaphraseEngine(Protocol):
    """Implementations are frozen dataclasses whose fields are the options: `name_of` names what they write."""

    def open(self) -> AbstractContextManager[Rewriter]:
        """Starts the program or loads the model.

        Raises:
            ConfigError: it is not installed or cannot be opened.
        """
        ...


def name_of(engine: ParaphraseEngine) -> str:
    """The options and the contents of the folders among them: another model in the same place has another name."""
    return f"{engine!r} {contents(vars(engine).values())}".rstrip()
