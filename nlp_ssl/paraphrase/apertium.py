"""Back-translation by the program Apertium: rule-based, offline, rough, and the same answer every time."""

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from nlp_ssl.errors import ConfigError, RunError

_SPECIAL = re.compile(r"([\[\]{}^$/\\@<>])")  # what means something in Apertium's stream
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_END = ".[]"  # a full stop that is not written: else a text without one would wait for its end in the next
_BLOCK = 1 << 16
_FILLERS, _PATIENCE = 4, 1.0  # fillers at a time, and seconds until the next ones: two a direction are held back


@dataclass(frozen=True)
class Apertium:
    """Apertium (Forcada et al. 2011) there and back: `apt install apertium apertium-eng-spa`.

    Its rules know no context beyond a sentence and often keep the wording: a mild view. All seeds write the same.

    Attributes:
        there: mode that leaves the language of the texts.
        back: mode that returns to it.
    """

    there: str = "eng-spa"
    back: str = "spa-eng"

    @contextmanager
    def open(self) -> Iterator["ApertiumPipe"]:
        """One long-lived pipe of both directions."""
        if shutil.which("apertium") is None:
            raise ConfigError(280, "apertium is not installed: apt install apertium apertium-eng-spa")
        known = subprocess.run(["apertium", "-l"], capture_output=True, text=True, check=False).stdout.split()
        for mode in (self.there, self.back):
            if mode not in known:
                raise ConfigError(
                    281, f"apertium has no mode {mode!r}: install its language pair; known: {', '.join(known)}"
                )
        # Without a formatter and with null bytes between texts no word or state passes from one text to the next.
        first, second = (["apertium", "-f", "none", "-u", "-z", mode] for mode in (self.there, self.back))
        # Sessions of their own, so that Ctrl-C reaches this process alone and what is finished is kept.
        one = subprocess.Popen(first, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        two = subprocess.Popen(second, stdin=one.stdout, stdout=subprocess.PIPE, start_new_session=True)
        assert one.stdin is not None and one.stdout is not None and two.stdout is not None
        one.stdout.close()
        try:
            yield ApertiumPipe(one.stdin, two.stdout)
        finally:
            for process in (one, two):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGPIPE)  # of which its shells say nothing
                process.wait()
            with suppress(OSError):
                one.stdin.close()
            two.stdout.close()


class ApertiumPipe:
    """The pipe at work: texts go in by a thread of their own while translations come out, in the same order.

    Some of the programs in it hold a text back until the next ones come. Fillers follow the texts until the last one is
    out; those still in the pipe come out first the next time.
    """

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source, self._sink = source, sink
        self._rest = b""
        self._fillers = 0  # in the pipe

    def translate(self, texts: Sequence[str], seed: int) -> Iterator[tuple[int, str]]:
        """(number, back-translation) in the order of the texts.

        Raises:
            RunError: the program ended.
        """
        stale, self._fillers = self._fillers, 0
        done = threading.Event()
        feeder = threading.Thread(target=self._feed, args=(list(texts), done), daemon=True)
        feeder.start()
        try:
            for _ in range(stale):
                self._next()
            for number in range(len(texts)):
                yield number, _ESCAPED.sub(r"\1", self._next().removesuffix(_END)).strip()
        finally:
            done.set()
            feeder.join()

    def _feed(self, texts: list[str], done: threading.Event) -> None:
        with suppress(OSError):  # the reader notices that the program has ended
            for text in texts:
                plain = _SPECIAL.sub(r"\\\1", " ".join(text.replace("\0", " ").split()))
                self._source.write(f"{plain}{_END}\0".encode(errors="replace"))
            while not done.is_set():
                self._source.write(f"{_END}\0".encode() * _FILLERS)
                self._source.flush()
                self._fillers += _FILLERS
                done.wait(_PATIENCE)

    def _next(self) -> str:
        while b"\0" not in self._rest:
            block = os.read(self._sink.fileno(), _BLOCK)
            if not block:
                raise RunError(330, "apertium ended in the middle of its work: run it by hand to see why")
            self._rest += block
        text, self._rest = self._rest.split(b"\0", 1)
        return text.decode(errors="replace")
