"""What an engine is: a frozen value that names what rewrites texts; opened, it does."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import xxhash


class Rewriter(Protocol):
    """An engine at work. One thread uses it."""

    def translate(self, texts: Sequence[str], seed: int) -> Iterator[tuple[int, str]]:
        """(number, rewriting) of every text, in the order they are done; other seeds draw other rewritings."""
        ...


class Engine(Protocol):
    """Implementations are frozen dataclasses whose fields are the options: `name_of` names what they write."""

    def open(self) -> AbstractContextManager[Rewriter]:
        """Starts the program or loads the model.

        Raises:
            ConfigError: it is not installed or cannot be opened.
        """
        ...


def name_of(engine: Engine) -> str:
    """The options and the contents of the folders among them: another model in the same place has another name."""
    return f"{engine!r} {contents(vars(engine).values())}".rstrip()


def contents(options: Iterable[object]) -> str:
    """A hash of the files in those of the options that are folders; empty where none is."""
    digest, some = xxhash.xxh3_128(), False
    for option in options:
        if not isinstance(option, str | Path) or not Path(option).is_dir():
            continue
        some = True
        for path in sorted(p for p in Path(option).iterdir() if p.is_file()):
            digest.update(os.fsencode(path.name))
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest() if some else ""
