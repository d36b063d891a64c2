"""What a run needs of its process and its folder: signals at a safe moment, one run per folder, whole files."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import filelock

from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.base import Module

_RUN_FILES = (".lock", "metrics.jsonl", "result.json", "start.json")  # what is of the run, not of its model


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run after a complete step; `exit_code` is 128 + signal number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.exit_code = 128 + number


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


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the folder's lock: two runs cannot share one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(216, f"cannot write to {folder}: {error.strerror}; choose another --output-dir") from error
    lock: AbstractContextManager[Any] = nullcontext()
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        with lock:
            yield
    except filelock.Timeout as error:
        raise ConfigError(217, f"another run is using {folder}: choose another --output-dir") from error


def save_model(module: Module, folder: Path) -> None:
    """Writes the model's files into a folder that may hold other things; each file appears whole or not at all."""
    staging = folder / f".model-{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    module.save(staging)
    for path in sorted(staging.iterdir()):
        os.chmod(path, 0o666 & ~_umask())
        os.replace(path, folder / path.name)
    staging.rmdir()


def copy_model(source: Path, folder: Path) -> None:
    """Puts a finished run's model files into another folder, each whole or not at all; the first process does it."""
    if int(os.environ.get("RANK", "0")):
        return
    for path in sorted(p for p in source.iterdir() if p.is_file() and p.name not in _RUN_FILES):
        staged = folder / f".model-{os.getpid()}"
        shutil.copyfile(path, staged)
        os.replace(staged, folder / path.name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
