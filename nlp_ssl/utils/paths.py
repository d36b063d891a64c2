"""Names of files and folders that are not UTF-8: how they are shown, and where they are refused."""

import os
from pathlib import Path

from nlp_ssl.errors import ConfigError


def is_utf8(name: str | Path) -> bool:
    """Whether a name, as Python has it from the operating system, is UTF-8."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def shown_path(name: str | Path) -> str:
    """A name as text that can be written anywhere, with a backslash and two digits for a byte that is not UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def check_utf8(name: str | Path) -> None:
    """Refuses a place whose name is not UTF-8: safetensors, tokenizers, Arrow and FAISS cannot open it.

    Raises:
        ConfigError: it is not.
    """
    if not is_utf8(name):
        raise ConfigError(
            257,
            f"{shown_path(name)} is not UTF-8: no model, Parquet file or index can be saved under such a name: "
            "rename it, or make a link to it with another name",
        )


def absolute(name: str | Path) -> str:
    """A place from the root on, where libraries can open it.

    Raises:
        ConfigError: that is not UTF-8.
    """
    path = str(Path(name).absolute())
    check_utf8(path)
    return path
