"""Progress bars, and log lines that appear above them: one console for everything on standard error."""

import io
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from nlp_ssl.utils.ranks import is_main

T = TypeVar("T")
console = Console(stderr=True)
_DELAY = 0.3  # seconds before a bar is shown: what is done sooner needs none
_PAUSE = 0.1  # seconds between two moves of a bar
_VERBOSE: ContextVar[bool] = ContextVar("_VERBOSE", default=True)
_OPEN: list[Progress] = []  # at most one, which all bars that are shown at the same time share


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, items: int = 1, /) -> None: ...


class _Mover:
    """Moves a bar on, a few times a second at most: a file may have a million rows."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task, self.done = progress, task, 0
        self.next = time.monotonic() + _DELAY

    def __call__(self, items: int = 1, /) -> None:
        self.done += items
        now = time.monotonic()
        if now >= self.next:
            self.progress.update(self.task, completed=self.done, visible=True)
            self.next = now + _PAUSE


@contextmanager
def verbosity(verbose: bool) -> Iterator[None]:
    """Whether bars are shown within the block."""
    token = _VERBOSE.set(verbose)
    try:
        yield
    finally:
        _VERBOSE.reset(token)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """The items, under a bar that moves on with each of them.

    Args:
        items: what is gone through.
        description: what is being done, e.g. "reading".
        total: how many there are, if that is known; otherwise the number that are done is shown.
    """
    with bar(description, total) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def bar(description: str, total: int | None = None) -> Iterator[Advance]:
    """A bar for the time of the block, and what moves it on. It is shown in terminals and notebooks, by one process."""
    if not (_VERBOSE.get() and (console.is_terminal or console.is_jupyter)) or not is_main():
        yield lambda items=1, /: None
        return
    with _shared() as progress:
        task = progress.add_task(description, total=total, visible=False)
        try:
            yield _Mover(progress, task)
        finally:
            progress.remove_task(task)


@contextmanager
def _shared() -> Iterator[Progress]:
    """The display of all bars, for as long as there is one."""
    if _OPEN:
        yield _OPEN[0]
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (_CellProgress if console.is_jupyter else Progress)(*columns, console=console, transient=True) as progress:
        _OPEN.append(progress)
        try:
            yield progress
        finally:
            _OPEN.clear()


class _CellProgress(Progress):
    """Bars in the output of a notebook's cell, by IPython alone: rich would need widgets, which many lack."""

    _cell: Any = None

    def start(self) -> None:
        """Nothing is shown before there is something to show: most bars are done before that."""

    def stop(self) -> None:
        self._show("")

    def refresh(self) -> None:
        page = io.StringIO()
        Console(file=page, width=80, force_jupyter=False).print(self.get_renderable())
        self._show(page.getvalue().rstrip())

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self.refresh()  # there is no thread that does it

    def _show(self, text: str) -> None:
        if self._cell is not None:
            self._cell.update({"text/plain": text}, raw=True)
        elif text:
            from IPython.display import display  # a notebook has it

            self._cell = display({"text/plain": text}, raw=True, display_id=True)


class ConsoleHandler(logging.Handler):
    """Prints log lines as they are, above the bars that are shown."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line."""
        try:
            console.print(Text(self.format(record)), soft_wrap=True)
        except Exception:
            self.handleError(record)


def log_to_console() -> None:
    """Shows what the library logs on standard error, above the bars; of several processes the first one shows it.

    For scripts: the commands do so by themselves, and a program of its own may set up logging as it likes.
    """
    logging.basicConfig(format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger("nlp_ssl").setLevel(logging.INFO if is_main() else logging.ERROR)
