"""Run as a program in place of `apertium-tagger`: feeds the texts on its input to one tagger after the other.

A tagger multiplies the probabilities of all words so far and never starts again. After some 140 texts the product
underflows, and from then on the tag of an ambiguous word depends on earlier texts. Texts are
separated by null bytes, as between the programs of Apertium's pipe. Takes the tagger to run and its arguments.
"""

import os
import signal
import subprocess
import sys
import threading

_TEXTS, _WORDS = 32, 300  # per tagger, at most; a longer text has a tagger to itself


class Tagger:
    """A running tagger; its output is passed on at once."""

    def __init__(self, argv: list[str]) -> None:
        self.texts = self.words = 0
        # Unbuffered: a short text must reach the tagger at once, too.
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._copier = threading.Thread(target=self._copy)
        self._copier.start()

    def feed(self, text: bytes, words: int) -> None:
        """Writes a text with the null byte at its end to it."""
        self.texts, self.words = self.texts + 1, self.words + words
        assert self._process.stdin is not None
        self._process.stdin.write(text)

    def end(self) -> None:
        """Waits until all of its output is passed on."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._copier.join()
        self._process.wait()

    def _copy(self) -> None:
        """Passes on as many texts as came in: at its end the tagger adds a null byte that ends none."""
        assert self._process.stdout is not None
        source, left = self._process.stdout.fileno(), 0
        while block := os.read(source, 1 << 16):
            left += block.count(b"\0")
            surplus = left - self.texts
            _write(block if surplus <= 0 else block.rsplit(b"\0", surplus)[0])


def main(argv: list[str]) -> None:
    """Reads texts to the end of the input."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ends silently when the pipe is closed
    if "-z" not in argv:
        os.execvp(argv[0], argv)
    tagger, rest = Tagger(argv), b""
    while block := os.read(0, 1 << 16):
        *texts, rest = (rest + block).split(b"\0")
        for text in texts:
            words = text.count(b"^")
            if tagger.texts and (tagger.texts == _TEXTS or tagger.words + words > _WORDS):
                tagger.end()
                tagger = Tagger(argv)
            tagger.feed(text + b"\0", words)
    tagger.end()


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main(sys.argv[1:])
