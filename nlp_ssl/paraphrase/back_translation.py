"""Texts translated to another language and back, made when they are needed and kept."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
from filelock import FileLock

from nlp_ssl.config import cache_folder
from nlp_ssl.errors import ConfigError
from nlp_ssl.paraphrase.apertium import Apertium
from nlp_ssl.paraphrase.cache import Cache
from nlp_ssl.paraphrase.engine import ParaphraseEngine
from nlp_ssl.paraphrase.gates import Report, View
from nlp_ssl.paraphrase.marian import CTranslate2, Marian
from nlp_ssl.paraphrase.rewrite import Rewriting
from nlp_ssl.utils import atomic
from nlp_ssl.utils.progress import bar

log = logging.getLogger("nlp_ssl")
EngineName = Literal["apertium", "marian", "ctranslate2"]
_ROWS = 4096  # texts taken from a column at once
_SECONDS = 10.0  # between two lines of progress


def back_translate(*columns: pa.ChunkedArray, engine: EngineName = "apertium") -> pa.Table:
    """Rewritings of texts, columns "text" and "view": what `Task.from_files` takes as `rewritings`.

    Finished ones are kept in `~/.cache/nlp_ssl/rewritings`. Of several processes one translates; the others wait, and
    find all of it done.

    Args:
        columns: of texts, such as `table.texts`.
        engine: what translates, with its default languages (English to Spanish or French, and back).

    Raises:
        ConfigError: the engine cannot be started.
        RunError: it ended, or the cache cannot be written.

    Example:
        import pyarrow as pa
        from nlp_ssl.paraphrase.back_translation import back_translate

        rewritings = back_translate(pa.chunked_array([["a joy from start to end"]]))  # doctest: +SKIP
    """
    folder, report = rewritings_folder(), Report()
    with atomic.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    texts = (text for column in columns for text in texts_of(column))
    with FileLock(folder / "training.lock"), Cache(folder) as cache:
        with Rewriting(engines_of(engine), cache) as rewriting:
            views = list(watched(rewriting(texts), sum(map(len, columns)), report, lambda: cache.written))
    log.info("back-translation: %s", report.lines()[0])
    return pa.table({"text": [v.text for v in views if v.changed], "view": [v.view for v in views if v.changed]})


def engines_of(
    name: EngineName, there: str | None = None, back: str | None = None, temperature: float = 0.9
) -> list[ParaphraseEngine]:
    """Engines that translate there and back, one for each language of the comma-separated names.

    Raises:
        ConfigError: not as many ways back as there.
    """
    engine: Apertium | Marian | CTranslate2
    if name == "apertium":
        engine = Apertium()
    elif name == "marian":
        engine = Marian(temperature=temperature)
    else:
        engine = CTranslate2(temperature=temperature)
    ways, returns = (there or engine.there).split(","), (back or engine.back).split(",")
    if len(ways) != len(returns):
        raise ConfigError(289, f"--there names {len(ways)}, --back {len(returns)}: each way there needs one back")
    return [replace(engine, there=one, back=other) for one, other in zip(ways, returns, strict=True)]


def rewritings_folder() -> Path:
    """Where finished rewritings are kept."""
    return cache_folder() / "rewritings"


def texts_of(column: pa.ChunkedArray) -> Iterator[str]:
    """The texts of a column, one by one."""
    for chunk in column.chunks:
        for start in range(0, len(chunk), _ROWS):
            yield from chunk.slice(start, _ROWS).to_pylist()


def watched(views: Iterable[View], total: int, report: Report, made: Callable[[], int]) -> Iterator[View]:
    """The views as they come, counted in the report, with a line of progress now and then.

    Args:
        views: what is watched; many come at once, when the last of them is made.
        total: how many there will be.
        report: counts them.
        made: how many rewritings were made until now.
    """
    start, number, before, ended = time.monotonic(), 0, made(), threading.Event()

    def tell() -> None:
        while not ended.wait(_SECONDS):
            done = min(number + made() - before, total)
            rate = done / (time.monotonic() - start)
            left = f"about {(total - done) / rate:.0f} s left" if done else "no rate yet"
            log.info("%d of %d views, %.0f per second, %s", done, total, rate, left)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        with bar("rewriting", total) as advance:
            for view in views:
                report.add(view)
                number, before = number + 1, made()
                yield view
                advance()
    finally:
        ended.set()
        thread.join()
