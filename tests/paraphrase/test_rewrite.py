"""From texts to views: order, cache, gates, workers, interruption."""

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.paraphrase import rewrite as module
from nlp_ssl.paraphrase.cache import Cache
from nlp_ssl.paraphrase.gates import Gates, Report
from nlp_ssl.paraphrase.rewrite import View, rewrite


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


TEXTS = [f"row number {i}" for i in range(20)]


def test_views_in_order_and_all_samples_of_a_text_together(tmp_path):
    with Cache(tmp_path) as cache:
        views = list(rewrite(iter(TEXTS), Backwards(), cache, samples=2))
    assert views[:3] == [
        View("row number 0", 0, "0 number row", ""),
        View("row number 0", 1, "0 number row again", ""),
        View("row number 1", 0, "1 number row", ""),
    ]
    assert [v.text for v in views] == [text for text in TEXTS for _ in range(2)]


def test_second_run_takes_all_from_the_cache_and_a_changed_text_is_done_alone(tmp_path):
    first, second = Backwards(), Backwards()
    with Cache(tmp_path) as cache:
        before = list(rewrite(TEXTS, first, cache))
    with Cache(tmp_path) as cache:
        assert list(rewrite(TEXTS, second, cache)) == before
        assert not second.opened, "an engine was started for nothing"
        assert cache.written == 0
        list(rewrite([*TEXTS[:7], "another row here", *TEXTS[8:]], second, cache))
    assert second.asked == {("another row here", 0): 1}


def test_a_text_that_is_there_twice_is_done_once(tmp_path):
    engine = Backwards()
    with Cache(tmp_path) as cache:
        views = list(rewrite([TEXTS[0], TEXTS[1], TEXTS[0]], engine, cache))
    assert [v.view for v in views] == ["0 number row", "1 number row", "0 number row"]
    assert set(engine.asked.values()) == {1} and len(engine.asked) == 2


def test_options_of_the_engine_are_part_of_the_key(tmp_path):
    other = Backwards(breaks_at=10**6)
    with Cache(tmp_path) as cache:
        list(rewrite(TEXTS, Backwards(), cache))
        list(rewrite(TEXTS, other, cache))
    assert len(other.asked) == 20


def test_what_was_done_before_a_failure_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PART", 4)
    with Cache(tmp_path) as cache, pytest.raises(RunError, match="broken"):
        list(rewrite(TEXTS, Backwards(breaks_at=10), cache))
    engine = Backwards()
    object.__setattr__(engine, "breaks_at", 10)  # the same name in the cache
    engine.asked["warm", 0] = 11  # past the place where it breaks
    with Cache(tmp_path) as cache:
        views = list(rewrite(TEXTS, engine, cache))
    assert [v.view for v in views] == [f"{i} number row" for i in range(20)]
    assert len(engine.asked) - 1 == 10, "ten were done before"


def test_workers_share_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PART", 5)
    seen, barrier = set(), threading.Barrier(2, timeout=10)

    @dataclass(frozen=True)
    class Meeting(Backwards):
        def translate(self, texts, seed):
            seen.add(threading.get_ident())
            barrier.wait()  # passes only where two are at work
            return super().translate(texts, seed)

    engine = Meeting()
    with Cache(tmp_path) as cache:
        views = list(rewrite(TEXTS, engine, cache, workers=2))
    assert len(engine.opened) == 2 and len(seen) == 2
    assert [v.view for v in views] == [f"{i} number row" for i in range(20)]


def test_blocks_do_not_show(tmp_path, monkeypatch):
    with Cache(tmp_path / "a") as cache:
        whole = list(rewrite(TEXTS, Backwards(), cache))
    monkeypatch.setattr(module, "_BLOCK", 3)
    with Cache(tmp_path / "b") as cache:
        assert list(rewrite(TEXTS, Backwards(), cache)) == whole


@pytest.mark.parametrize(
    ("text", "rewriting", "outcome"),
    [
        ("a good film here", "a fine film here", ""),
        ("a good film here", "  ", "empty"),
        ("a good film here", "a film", "too short"),
        ("a good film", "a good a good a good film", "too long"),
    ],
)
def test_gates(text, rewriting, outcome):
    assert Gates().judge(text, rewriting) == outcome


def test_rejected_rewritings_give_way_to_the_text(tmp_path):
    with Cache(tmp_path) as cache:
        views = list(rewrite(["two words", "three words here"], Backwards(), cache, gates=Gates(longest=1.0)))
        long = list(rewrite(["three words here"], Backwards(), cache, samples=2, gates=Gates(longest=1.1)))
    assert views[0] == View("two words", 0, "two words", "too few words")
    assert views[1].view == "here words three"
    assert long[1] == View("three words here", 1, "three words here", "too long")


def test_gates_that_exclude_everything():
    with pytest.raises(ConfigError, match="SSL282: gates: shortest is 1.5"):
        Gates(shortest=1.5)


def test_report():
    report = Report()
    report.add("a b c d", "a b x y", "")
    report.add("a b c d", "a b c d", "")
    report.add("a b", "a b", "too few words")
    assert report.lines()[0] == "3 views: changed 33.3 %, same 33.3 %, too few words 33.3 %"
    assert report.lines()[1].startswith("words kept in changed views: median 50 %")
    assert report.examples == [("a b c d", "a b x y")]
    assert Report().lines() == ["no views"]
