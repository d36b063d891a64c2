"""The files of a model in a folder that may hold other things: each appears whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nlp_ssl.nets.base import Module
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranks import is_main

PREDICTIONS = "predictions.parquet"
CLASSIFIER = "nlp_ssl_classifier.json"  # classes and parameters of the classifier whose model it is
MODEL_FILES = (  # by the names under which libraries save them: a folder may hold other people's files
    "config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "image_net.json", PREDICTIONS, CLASSIFIER,
)  # fmt: skip
STAGING = ".model-"  # begins the name of a folder of model files that are not all there yet
_LAST = "config.json"  # moved last: a folder without it holds no whole model


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
        (folder / _LAST).unlink(missing_ok=True)
        for path in sorted(staging.iterdir(), key=_order):
            os.chmod(path, 0o666 & ~_umask())
            os.replace(path, folder / path.name)


def copy_model(source: Path, folder: Path, *, predictions: bool = True) -> None:
    """Puts a finished run's model files, and its predictions, into another folder, each whole or not at all.

    Weights take no further space where the disk can give a file two names: they are written anew, never changed. The
    first process does it.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    if not is_main():
        return
    with _staging(folder) as staging:
        for path in sorted(_present(source), key=_order):
            if path.name == PREDICTIONS and not predictions:
                continue
            (_link if path.suffix == ".safetensors" else shutil.copyfile)(path, staging / path.name)
            os.replace(staging / path.name, folder / path.name)


def has_model(folder: Path) -> bool:
    """Whether there is a whole model in a folder."""
    return any(path.suffix == ".safetensors" for path in _present(folder)) and any(
        (folder / name).is_file() for name in (_LAST, "image_net.json")
    )


def remove_model(folder: Path) -> None:
    """Removes the weights of a run's model and what goes with them; results and predictions stay.

    Raises:
        RunError: a file cannot be removed.
    """
    with atomic.writing(folder):
        for path in sorted(_present(folder), key=_order, reverse=True):
            if path.name != PREDICTIONS:
                path.unlink()


def _present(folder: Path) -> set[Path]:
    return {path for pattern in MODEL_FILES for path in folder.glob(pattern)}


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a disk that gives no file a second name
        shutil.copyfile(path, other)


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """An empty folder within a folder, gone when the block ends; what a killed writer left goes, too."""
    staging = folder / f"{STAGING}{os.getpid()}"
    with atomic.writing(folder):
        for left in folder.glob(f"{STAGING}*"):
            atomic.remove(left)
        staging.mkdir(parents=True)
        try:
            yield staging
        finally:
            atomic.remove(staging)


def _order(path: Path) -> tuple[bool, str]:
    return path.name == _LAST, path.name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
