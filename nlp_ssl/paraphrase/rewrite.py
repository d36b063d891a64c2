"""Texts in, views out: from the cache where they are done, from the engine where they are not."""

import queue
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from typing import NamedTuple

from nlp_ssl.paraphrase.cache import Cache, key_of
from nlp_ssl.paraphrase.engine import Engine, Rewriter
from nlp_ssl.paraphrase.gates import ACCEPTED, Gates

_BLOCK = 4096  # texts in hand at a time
_PART = 256  # texts an engine is given at once: enough to sort by length, or to keep a pipe filled


class View(NamedTuple):
    """A text, the number of its sample, what the text became, and why it is the text itself where it had to be."""

    text: str
    sample: int
    view: str
    outcome: str


def rewrite(
    texts: Iterable[str],
    engine: Engine,
    cache: Cache,
    *,
    samples: int = 1,
    workers: int = 1,
    gates: Gates | None = None,
) -> Iterator[View]:
    """Views of the texts in their order, all samples of one after the other.

    Every rewriting lies in the cache as soon as the engine has it; the engine starts when the first one is missing.

    Args:
        texts: any number of texts; a few thousand are in memory at a time.
        engine: what rewrites.
        cache: what is done, and will be.
        samples: views of each text.
        workers: engines side by side.
        gates: which rewritings are good enough; `Gates()` if not given.

    Raises:
        ConfigError: the engine cannot be started.
        RunError: it ended, or the cache cannot be written.
    """
    gates, name = gates or Gates(), repr(engine)
    with ExitStack() as stack:
        crew = _Crew(engine, cache, name, workers, stack)
        for block in _parts(texts, _BLOCK):
            wanted = [text for text in dict.fromkeys(block) if gates.wanted(text)]
            for sample in range(samples):
                done = cache.get([key_of(name, text, sample) for text in wanted])
                crew.work([text for text, found in zip(wanted, done, strict=True) if found is None], sample)
            yield from _views(block, samples, name, cache, gates)


def _parts(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    left = iter(texts)
    while part := list(islice(left, size)):
        yield part


def _views(block: Sequence[str], samples: int, name: str, cache: Cache, gates: Gates) -> Iterator[View]:
    pairs = [(text, sample) for text in block for sample in range(samples)]
    found = cache.get([key_of(name, text, sample) for text, sample in pairs])
    for (text, sample), rewriting in zip(pairs, found, strict=True):
        outcome = "too few words" if rewriting is None else gates.judge(text, rewriting)
        yield View(text, sample, text if outcome != ACCEPTED or rewriting is None else rewriting, outcome)


class _Crew:
    """Engines that share the work, started when there is some."""

    def __init__(self, engine: Engine, cache: Cache, name: str, workers: int, stack: ExitStack) -> None:
        self._engine, self._cache, self._name, self._workers, self._stack = engine, cache, name, workers, stack
        self._idle: queue.Queue[Rewriter] = queue.Queue()
        self._pool: ThreadPoolExecutor | None = None

    def work(self, texts: list[str], sample: int) -> None:
        """Rewrites the texts into the cache."""
        if not texts:
            return
        if self._pool is None:
            for _ in range(self._workers):
                self._idle.put(self._stack.enter_context(self._engine.open()))
            self._pool = ThreadPoolExecutor(self._workers)
            self._stack.callback(self._pool.shutdown, wait=True, cancel_futures=True)
        jobs: list[Future[None]] = [self._pool.submit(self._part, part, sample) for part in _parts(texts, _PART)]
        for job in jobs:
            job.result()

    def _part(self, texts: list[str], sample: int) -> None:
        rewriter = self._idle.get()
        try:
            for number, rewriting in rewriter.translate(texts, sample):
                self._cache.put(key_of(self._name, texts[number], sample), rewriting)
        finally:
            self._idle.put(rewriter)
