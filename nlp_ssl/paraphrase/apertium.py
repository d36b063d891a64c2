"""Back-translation by the program Apertium: rule-based, offline, rough and deterministic."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.paraphrase import fresh_tagger

_SPECIAL = re.compile(r"([\[\]{}^$/\\@<>])")  # reserved in Apertium's stream format
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_END = ".[]"  # a full stop that is not printed: a text without one would be continued by the next
_BLOCK = 1 << 16
_FILLERS, _PATIENCE = 4, 1.0  # fillers at a time, and seconds until the next ones: each direction holds two back


@dataclass(frozen=True)
class Apertium:
    """Apertium (Forcada et al. 2011) there and back: `apt install apertium apertium-eng-spa`.

    Its rules know no context beyond a sentence and often keep the wording: a mild view. All seeds give the same. Where
    two readings of a word are equally likely to the last digit, the choice can depend on earlier texts: that is one
    text in several hundred. Apertium by itself, on a long file, errs more: see `fresh_tagger`.

    Attributes:
        there: mode into the other language.
        back: mode back from it.
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
        # Without a formatter, with null bytes between texts and with taggers that start afresh, no word or state passes
        # from one text to the next.
        first, second = (["apertium", "-f", "none", "-u", "-z", mode] for mode in (self.there, self.back))
        with ExitStack() as stack:
            environment = stack.enter_context(_environment())
            one = _start(first, subprocess.PIPE, environment)
            two = _start(second, one.stdout, environment)
            assert one.stdin is not None and one.stdout is not None and two.stdout is not None
            one.stdout.close()
            stack.callback(_end, one, two)
            yield ApertiumPipe(one.stdin, two.stdout)


@contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """The environment in which Apertium finds our tagger before its own."""
    programs = os.environ.get("APERTIUM_PATH", "/usr/bin")
    real = shutil.which("apertium-tagger", path=f"{programs}:{os.environ.get('PATH', '')}") or "apertium-tagger"
    words = shlex.join([sys.executable, "-S", "-E", str(fresh_tagger.__file__), real])
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "apertium-tagger"
        ours.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        ours.chmod(0o755)
        yield {**os.environ, "APERTIUM_PATH": f"{folder}:{programs}"}


def _start(command: list[str], source: IO[bytes] | int | None, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts a program in a new session, so that Ctrl-C reaches this process alone and finished texts are kept."""
    return subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, start_new_session=True, env=environment)


def _end(one: subprocess.Popen[bytes], two: subprocess.Popen[bytes]) -> None:
    """Stops both programs."""
    for process in (one, two):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGPIPE)  # about which their shells print nothing
        process.wait()
    assert one.stdin is not None and two.stdout is not None
    with suppress(OSError):
        one.stdin.close()
    two.stdout.close()


class ApertiumPipe:
    """A running pipe: a thread writes texts into it while translations come out, in the same order.

    Some of its programs hold a text back until the next ones come. Fillers follow the texts until the last one is out;
    those still in the pipe come out first the next time.
    """

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source, self._sink = source, sink
        self._rest = b""
        self._fillers = 0  # in the pipe
        self._abandoned = False  # by a caller that stopped reading before the last text

    def translate(self, texts: Sequence[str], seed: int) -> Iterator[tuple[int, str]]:
        """(number, back-translation) in the order of the texts.

        Raises:
            RunError: the program ended.
        """
        if self._abandoned:
            raise RunError(330, "the pipe still holds earlier texts: open another one")
        stale, self._fillers, self._abandoned = self._fillers, 0, True
        done = threading.Event()
        feeder = threading.Thread(target=self._feed, args=(list(texts), done), daemon=True)
        feeder.start()
        try:
            for _ in range(stale):
                self._next()
            for number in range(len(texts)):
                yield number, _ESCAPED.sub(r"\1", self._next().removesuffix(_END)).strip()
            self._abandoned = False
        finally:
            done.set()
            if not self._abandoned:  # else it may wait for a reader: it ends with the pipe
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
                raise RunError(330, "apertium ended before it was done: run it by hand to see why")
            self._rest += block
        text, self._rest = self._rest.split(b"\0", 1)
        return text.decode(errors="replace")
