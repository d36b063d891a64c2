"""What a run needs of its process and its folder: signals at a safe moment, one run per folder, whole files."""

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import filelock

from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.base import Module
from nlp_ssl.utils import atomic
from nlp_ssl.utils.paths import check_utf8

_RUN_FILES = (
    ".lock",
    "identity.json",
    "metrics.jsonl",
    "result.json",
    "start.json",
    "out_of_scope.parquet",
    "rounds.jsonl",
    "tuning.jsonl",
    "report.html",
    "saved.json",
)  # what is of the run, not of its model
_RUN_FOLDERS = ("checkpoints", "baseline", "seed-[0-9]*", "round-[0-9]*", "tuning")
_SIGNS = ("identity.json", "result.json", "start.json", "tuning.jsonl")  # a folder with one of them is of a run
_PREDICTIONS = "predictions.parquet"
_MODEL_FILES = (  # by the names under which libraries save them: a folder may hold other people's files
    "config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "image_net.json", _PREDICTIONS,
)  # fmt: skip
SAVED = "saved.json"  # whose model is in the folder, where several were trained
CARD = "README.md"
CARD_MARK = "<!-- nlp-ssl model card: take this line out to keep a text of your own -->"
_STAGING = ".model-"  # begins the name of a folder of model files that are not all there yet
_MARK = "config.json"  # moved last: a folder without it holds no whole model


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
    """Holds the folder's lock: two runs cannot share one. What a killed one left half written there is removed."""
    check_utf8(folder)
    lock: AbstractContextManager[Any] = nullcontext()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            lock = filelock.FileLock(folder / ".lock", timeout=0)
            lock.acquire()
    except filelock.Timeout as error:
        raise ConfigError(217, f"another run is using {folder}: choose another folder") from error
    except OSError as error:
        raise ConfigError(216, f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    try:
        if isinstance(lock, filelock.BaseFileLock):
            atomic.clean(folder)
        yield
    finally:
        if isinstance(lock, filelock.BaseFileLock):
            lock.release()


def check_output(folder: Path, resume: bool, overwrite: bool, models: Iterable[str | Path | None] = ()) -> None:
    """Refuses a folder that holds something, unless an earlier run in it is to be resumed or replaced.

    Raises:
        ConfigError: the folder is not empty, not a folder or cannot be looked into, or replacing what is in it would
            remove other things than a run, or one of the `models` that the new run begins from.
    """
    if resume and overwrite:
        raise ConfigError(208, "--resume goes on with a run, --overwrite replaces it: give one of the two")
    try:
        held = [path for path in folder.iterdir() if path.name != ".lock"] if folder.exists() else []
    except NotADirectoryError as error:
        raise ConfigError(218, f"{folder} is not a folder: choose another --output-dir") from error
    except OSError as error:
        raise ConfigError(216, f"cannot use {folder}: {error.strerror}; choose another --output-dir") from error
    if held and not (resume or overwrite):
        raise ConfigError(219, f"{folder} is not empty: use --resume, --overwrite or another --output-dir")
    if held and overwrite:
        _check_lost(folder, models)


def _check_lost(folder: Path, models: Iterable[str | Path | None]) -> None:
    lost = _of_run(folder)
    if lost and not _is_run(folder):
        raise ConfigError(
            219, f"{folder} holds no run, but a {lost[0].name}, which would be lost: choose another --output-dir"
        )
    for model in models:
        place = None if model is None else Path(model).resolve()
        if place and (place == folder.resolve() or any(place.is_relative_to(path.resolve()) for path in lost)):
            raise ConfigError(219, f"{model} lies in what --overwrite removes: choose another --output-dir")


def _is_run(folder: Path) -> bool:
    """Whether a run left something in the folder."""
    places = ("", "baseline/", "round-0/", "seed-*/", "seed-*/*/")  # a seed's run, or a stage of it
    return any(found.is_file() for place in places for name in _SIGNS for found in folder.glob(place + name))


def _of_run(folder: Path) -> list[Path]:
    """The files and folders of a run, and of its model, that are in a folder."""
    names = (*(name for name in _RUN_FILES if name != ".lock"), *_MODEL_FILES, f"{_STAGING}*", *_RUN_FOLDERS)
    return [found for name in names for found in folder.glob(name)]


def clear_run(folder: Path) -> None:
    """Removes an earlier run from a folder, and nothing else in it.

    Raises:
        ConfigError: a run in the folder is still going on, or its files cannot be removed.
    """
    if not folder.is_dir() or int(os.environ.get("RANK", "0")):
        return
    for lock in sorted(folder.glob("**/.lock")):
        with exclusive(lock.parent):
            pass
    if not _is_run(folder):
        return
    try:
        for path in _of_run(folder):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if is_our_card(folder / CARD):
            (folder / CARD).unlink()
    except OSError as error:
        raise ConfigError(216, f"cannot empty {folder}: {error.strerror}; choose another --output-dir") from error


def is_our_card(path: Path) -> bool:
    """Whether the file is a model card that a run wrote."""
    return path.is_file() and CARD_MARK in path.read_text(encoding="utf-8", errors="replace")


def save_model(module: Module, folder: Path) -> None:
    """Writes the model's files into a folder that may hold other things; each file appears whole or not at all.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    place_files(folder, module.save)


def place_files(folder: Path, write: Callable[[Path], object]) -> None:
    """Puts the files that `write` leaves in an empty folder into another one, once all of them are there.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    with _staging(folder) as staging:
        write(staging)
        (folder / _MARK).unlink(missing_ok=True)
        for path in sorted(staging.iterdir(), key=_mark_last):
            os.chmod(path, 0o666 & ~_umask())
            os.replace(path, folder / path.name)


def copy_model(source: Path, folder: Path, *, predictions: bool = True) -> None:
    """Puts a finished run's model files, and its predictions, into another folder, each whole or not at all.

    Weights take no further space where the disk can give a file two names: they are written anew, never changed. The
    first process does it.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    if int(os.environ.get("RANK", "0")):
        return
    with _staging(folder) as staging:
        for path in sorted(_model_files(source), key=_mark_last):
            if path.name == _PREDICTIONS and not predictions:
                continue
            (_link if path.suffix == ".safetensors" else shutil.copyfile)(path, staging / path.name)
            os.replace(staging / path.name, folder / path.name)


def has_model(folder: Path) -> bool:
    """Whether there is a whole model in a folder."""
    return any(path.suffix == ".safetensors" for path in _model_files(folder)) and any(
        (folder / name).is_file() for name in (_MARK, "image_net.json")
    )


def remove_model(folder: Path) -> None:
    """Removes the weights of a run's model and what goes with them; results and predictions stay.

    Raises:
        RunError: a file cannot be removed.
    """
    with atomic.writing(folder):
        for path in sorted(_model_files(folder), key=_mark_last, reverse=True):
            if path.name != _PREDICTIONS:
                path.unlink()


def _model_files(folder: Path) -> set[Path]:
    return {path for pattern in _MODEL_FILES for path in folder.glob(pattern)}


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a disk that gives no file a second name
        shutil.copyfile(path, other)


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """An empty folder within a folder, gone when the block ends; what a killed writer left goes, too."""
    staging = folder / f"{_STAGING}{os.getpid()}"
    with atomic.writing(folder):
        for left in folder.glob(f"{_STAGING}*"):
            atomic.remove(left)
        staging.mkdir(parents=True)
        try:
            yield staging
        finally:
            atomic.remove(staging)


def _mark_last(path: Path) -> tuple[bool, str]:
    return path.name == _MARK, path.name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
