"""The interface of engines: a frozen value that describes what rewrites texts, and a running one once it is opened."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from nlp_ssl.utils.hashing import contents


class Rewriter(Protocol):
    """A running engine, for one thread."""

    def translate(self, texts: Sequence[str], seed: int) -> Iterator[tuple[int, str]]:
        """(number, rewriting) of every text, in the order they are finished; other seeds draw other rewritings."""
        ...


class ParaphraseEngine(Protocol):
    """Implementations are frozen dataclasses whose fields are the options that `name_of` names."""

    def open(self) -> AbstractContextManager[Rewriter]:
        """Starts the program or loads the model.

        Raises:
            ConfigError: it is not installed or cannot be opened.
        """
        ...


def name_of(engine: ParaphraseEngine) -> str:
    """The options and the contents of the folders among them: another model in the same folder has another name."""
    return f"{engine!r} {contents(vars(engine).values())}".rstrip()
