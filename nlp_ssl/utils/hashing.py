"""Hashes of files and folders by their contents."""

import os
from collections.abc import Iterable
from pathlib import Path

import xxhash


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
