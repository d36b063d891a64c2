"""Engines of rewriting: one that costs nothing, and whether the real Apertium is here."""

import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from nlp_ssl.errors import RunError


def apertium_installed() -> bool:
    found = shutil.which("apertium")
    if not found:
        return False
    return "eng-spa" in subprocess.run([found, "-l"], capture_output=True, text=True, check=False).stdout


needs_apertium = pytest.mark.skipif(not apertium_installed(), reason="apertium with eng-spa is not installed")


@dataclass(frozen=True)
class Backwards:
    """Turns the words around, last text first, and counts what it was asked for."""

    asked: Counter = field(default_factory=Counter, repr=False, compare=False)
    opened: list = field(default_factory=list, repr=False, compare=False)
    breaks_at: int = -1

    @contextmanager
    def open(self):
        self.opened.append(self)
        yield self

    def translate(self, texts, seed):
        for number in reversed(range(len(texts))):
            if sum(self.asked.values()) == self.breaks_at:
                raise RunError(330, "broken")
            self.asked[texts[number], seed] += 1
            yield number, " ".join(reversed(texts[number].split())) + " again" * seed
