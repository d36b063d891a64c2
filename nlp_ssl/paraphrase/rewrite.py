"""Views of texts: from the cache where they are finished, else from an engine."""

import queue
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from types import TracebackType
from typing import TypeVar

from nlp_ssl.paraphrase.cache import Cache, key_of
from nlp_ssl.paraphrase.checks import Checks
from nlp_ssl.paraphrase.engine import ParaphraseEngine, Rewriter, name_of
from nlp_ssl.paraphrase.gates import Gates, View

T = TypeVar("T")
_BLOCK = 4096  # texts in memory at a time
_PART = 256  # texts per call of an engine: enough to sort by length, or to keep a pipe filled


class Rewriting:
    """Running engines for as long as the context is open; called with texts, it gives their views.

    Every rewriting is saved to the cache as soon as it is finished; an engine starts at the first missing one.

    Args:
        engines: one or more; of several, each sample takes the next one in turn.
        cache: finished rewritings; new ones are added.
        samples: views of each text.
        workers: parallel copies of each engine.
        gates: which rewritings are good enough; `Gates()` if not given.
        checks: checks by models.
    """

    def __init__(
        self,
        engines: Sequence[ParaphraseEngine],
        cache: Cache,
        *,
        samples: int = 1,
        workers: int = 1,
        gates: Gates | None = None,
        checks: Checks | None = None,
    ) -> None:
        self._open = ExitStack()
        self._gates, self._checks = gates or Gates(), checks or Checks()
        workers_of = [_Workers(engine, cache, workers, self._open) for engine in engines]
        self._turns = [(workers_of[sample % len(workers_of)], sample // len(workers_of)) for sample in range(samples)]

    def __enter__(self) -> "Rewriting":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __call__(self, texts: Iterable[str]) -> Iterator[View]:
        """Views of any number of texts in their order, all samples of one after the other.

        A few thousand texts are in memory at a time.

        Raises:
            ConfigError: an engine cannot be started.
            RunError: it ended, or the cache cannot be written.
        """
        for block in _parts(texts, _BLOCK):
            wanted = [text for text in dict.fromkeys(block) if self._gates.wanted(text)]
            rewritings = [dict(zip(wanted, group.work(wanted, seed), strict=True)) for group, seed in self._turns]
            yield from _checked(block, rewritings, self._gates, self._checks)


def _parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def _checked(block: Sequence[str], rewritings: Sequence[dict[str, str]], gates: Gates, checks: Checks) -> list[View]:
    """The views of a block, from the rewritings of its texts for each sample."""
    views = [gates.view(text, sample, done.get(text, "")) for text in block for sample, done in enumerate(rewritings)]
    return checks(views, gates)


class _Workers:
    """Copies of an engine that share the work, started when something is missing in the cache."""

    def __init__(self, engine: ParaphraseEngine, cache: Cache, workers: int, stack: ExitStack) -> None:
        self._engine, self._cache, self._workers, self._stack = engine, cache, workers, stack
        self._name = name_of(engine)
        self._idle: queue.Queue[Rewriter] = queue.Queue()
        self._pool: ThreadPoolExecutor | None = None

    def work(self, texts: Sequence[str], seed: int) -> list[str]:
        """The rewriting of each text; those that are missing in the cache are made and added to it."""
        keys = [key_of(self._name, text, seed) for text in texts]
        rewritings = self._cache.get(keys)
        missing = [i for i, rewriting in enumerate(rewritings) if rewriting is None]
        if missing and self._pool is None:
            for _ in range(self._workers):
                self._idle.put(self._stack.enter_context(self._engine.open()))
            self._pool = ThreadPoolExecutor(self._workers)
            self._stack.callback(self._pool.shutdown, wait=True, cancel_futures=True)
        if self._pool is not None:
            jobs: list[Future[None]] = [
                self._pool.submit(self._part, [texts[i] for i in part], [keys[i] for i in part], seed)
                for part in _parts(missing, _PART)
            ]
            for job in jobs:
                job.result()
        for i, rewriting in zip(missing, self._cache.get([keys[i] for i in missing]), strict=True):
            rewritings[i] = rewriting
        return [rewriting or "" for rewriting in rewritings]

    def _part(self, texts: list[str], keys: list[tuple[int, int]], seed: int) -> None:
        rewriter = self._idle.get()
        try:
            for number, rewriting in rewriter.translate(texts, seed):
                self._cache.put(keys[number], rewriting)
        finally:
            self._idle.put(rewriter)
