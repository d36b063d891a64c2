"""Flags of the strong view, for every command that trains on texts."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from filelock import FileLock

from nlp_ssl.augment.base import Augment
from nlp_ssl.augment.policy import Rewritten, parse_policy
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.config import cache_folder
from nlp_ssl.data.table import Table
from nlp_ssl.errors import ConfigError
from nlp_ssl.paraphrase.apertium import Apertium
from nlp_ssl.paraphrase.cache import Cache
from nlp_ssl.paraphrase.engine import ParaphraseEngine
from nlp_ssl.paraphrase.gates import Report, View
from nlp_ssl.paraphrase.marian import CTranslate2, Marian
from nlp_ssl.paraphrase.rewrite import Rewriting
from nlp_ssl.paraphrase.views import read_views
from nlp_ssl.utils import atomic
from nlp_ssl.utils.progress import bar

log = logging.getLogger("nlp_ssl")
EngineName = Literal["apertium", "marian", "ctranslate2"]
_ROWS = 4096  # texts taken from a table at once
_SECONDS = 10.0  # between two lines of progress


@dataclass(frozen=True, kw_only=True)
class StrongView:
    """Flags of the strong view: words replaced by default, rewritings where there are some."""

    replace_words: Annotated[float | None, "share of words the strong view replaces (TF-IDF); chosen if not given"] = (
        None
    )
    strong: Annotated[str | None, "strong view, e.g. tfidf(p=0.2) or back_translation+swap; chosen if not given"] = None
    views: Annotated[Path | None, "rewritings made by `nlp-ssl augment`, used as the strong view"] = None
    back_translation: Annotated[EngineName | None, "make the rewritings now, with this engine; they are kept"] = None

    def policy(self) -> Augment | None:
        """The strong view that the flags name; None leaves the choice to the task.

        Raises:
            ConfigError: two flags name one, or it needs rewritings and there are none.
        """
        if self.replace_words is not None and self.strong is not None:
            raise ConfigError(284, "--replace-words and --strong both name the strong view: drop one")
        if self.views is not None and self.back_translation is not None:
            raise ConfigError(284, "--views and --back-translation both bring rewritings: drop one")
        policy: Augment | None = None if self.replace_words is None else TfidfReplace(self.replace_words)
        if self.strong is not None:
            policy = parse_policy(self.strong)
        there = self.views is not None or self.back_translation is not None
        if isinstance(policy, Rewritten) and not there:
            raise ConfigError(284, "back_translation needs rewritings: add --back-translation apertium or --views FILE")
        if there and policy is not None and not isinstance(policy, Rewritten):
            raise ConfigError(284, "the strong view takes no rewritings: begin --strong with back_translation+")
        return policy

    def rewritings(self, tables: Sequence[Table]) -> pa.Table | None:
        """Rewritings of the texts of the tables, read or made now; None where the flags ask for none.

        Raises:
            DataError: the file of views cannot be read.
            ConfigError: the engine cannot be started.
        """
        if self.back_translation is None:
            return None if self.views is None else read_views(self.views)
        folder, report = rewritings_folder(), Report()
        with atomic.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        columns = [c for table in tables for c in (table.texts, table.pairs) if c is not None]
        texts = (text for column in columns for text in texts_of(column))
        # Of several processes one translates; the others wait, and find all of it done.
        with FileLock(folder / "training.lock"), Cache(folder) as cache:
            with Rewriting(engines_of(self.back_translation), cache) as rewriting:
                made = list(watched(rewriting(texts), sum(map(len, columns)), report, lambda: cache.written))
        log.info("back-translation: %s", report.lines()[0])
        return pa.table({"text": [v.text for v in made if v.changed], "view": [v.view for v in made if v.changed]})


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
