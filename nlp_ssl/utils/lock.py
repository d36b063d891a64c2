"""One program at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import filelock

from nlp_ssl.errors import ConfigError
from nlp_ssl.utils import atomic
from nlp_ssl.utils.paths import check_utf8
from nlp_ssl.utils.ranks import is_main

LOCK = ".lock"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the folder's lock: two runs cannot share one. What a killed one left half written there is removed.

    Raises:
        ConfigError: another run holds it, or the folder cannot be written.
    """
    check_utf8(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK, timeout=0) if is_main() else None
        if lock is not None:
            lock.acquire()
    except filelock.Timeout as error:
        raise ConfigError(217, f"another run is using {folder}: choose another folder") from error
    except OSError as error:
        raise ConfigError(216, f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    with nullcontext() if lock is None else lock:
        try:
            if lock is not None:
                atomic.clean(folder)
            yield
        finally:
            if lock is not None:
                lock.release()
