"""SIGINT and SIGTERM at a safe moment."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals(processes: int) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of stopping in the middle of a step. Ranks of a group are left alone."""
    caught: list[int] = []
    try:
        if processes > 1:
            raise ValueError

        def note(number: int, frame: FrameType | None) -> None:
            if caught:  # a second Ctrl-C means now
                raise KeyboardInterrupt
            caught.append(number)

        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # signals can be set in the main thread only
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
