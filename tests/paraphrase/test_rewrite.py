"""From texts to views: order, cache, gates, workers, interruption."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
from engines import Backwards

from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.paraphrase import gates
from nlp_ssl.paraphrase import rewrite as module
from nlp_ssl.paraphrase.cache import Cache
from nlp_ssl.paraphrase.checks import Checks
from nlp_ssl.paraphrase.gates import Gates, Report, View
from nlp_ssl.paraphrase.rewrite import Rewriting


def rewrite(texts, engine, cache, **options):
    with Rewriting([engine], cache, **options) as work:
        yield from work(texts)


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
    assert Gates().view(text, 0, rewriting) == View(text, 0, text if outcome else rewriting, outcome)


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


def test_each_sample_takes_the_next_engine_in_turn(tmp_path):
    one, two = Backwards(), Backwards(breaks_at=10**6)
    with Cache(tmp_path) as cache, Rewriting([one, two], cache, samples=3) as work:
        views = list(work(TEXTS[:1]))
    assert [v.view for v in views] == ["0 number row", "0 number row", "0 number row again"]
    assert one.asked == {(TEXTS[0], 0): 1, (TEXTS[0], 1): 1} and two.asked == {(TEXTS[0], 0): 1}


def test_an_engine_serves_many_texts_and_is_closed_at_the_end(tmp_path):
    engine, closed = Backwards(), []

    @dataclass(frozen=True)
    class Closing(Backwards):
        @contextmanager
        def open(self):
            self.opened.append(self)
            yield self
            closed.append(self)

    engine = Closing()
    with Cache(tmp_path) as cache, Rewriting([engine], cache) as work:
        list(work(TEXTS[:5]))
        list(work(TEXTS[5:]))
        assert len(engine.opened) == 1 and not closed
    assert len(closed) == 1


CLOSE = {"0 number row": 0.9, "1 number row": 0.2, "2 number row": 0.5}


def cosines(texts, views):
    return np.array([CLOSE[view] for view in views])


def test_meaning_and_label_must_stay(tmp_path):
    """Texts 1 (too far) and 2 (another label) give way; the third check sees only what passed the second."""
    asked = []

    def labels(texts):
        asked.append(texts)
        return ["other" if text == "2 number row" else "one" for text in texts]

    checks, bounds = Checks(cosines, labels), Gates(lowest_cosine=0.5)
    with Cache(tmp_path) as cache:
        views = list(rewrite(["too few", *TEXTS[:3]], Backwards(), cache, gates=bounds, checks=checks))
    assert views == [
        View("too few", 0, "too few", "too few words"),
        View(TEXTS[0], 0, "0 number row", "", 0.9),
        View(TEXTS[1], 0, TEXTS[1], "other meaning", 0.2),
        View(TEXTS[2], 0, TEXTS[2], "other label", 0.5),
    ]
    assert asked == [[TEXTS[0], "0 number row", TEXTS[2], "2 number row"]]


def report_of(*views):
    report = Report()
    for view in views:
        report.add(view)
    return report


def test_report():
    report = report_of(
        View("a b c d", 0, "a b x y", "", 0.71),
        View("a b c d", 0, "a b c d", ""),
        View("a b", 0, "a b", "too few words"),
        View("c d e", 0, "c d e", "other meaning", -0.3),
    )
    lines = report.lines()
    assert lines[0] == "4 views: changed 25.0 %, same 25.0 %, too few words 25.0 %, other meaning 25.0 %"
    assert lines[1].startswith("words kept in changed views: median 50 %")
    assert lines[3] == "cosine to the text: from 0.7 50.0 %, below 0 50.0 %"
    assert report.examples == [("a b c d", "a b x y")]
    assert Report().lines() == ["no views"]


def test_likeness_is_that_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    text, view = "the plot is slow and the end is warm", "the story is slow and its end is warm"
    line = report_of(View(text, 0, view, "")).lines()[2]
    chrf, bleu = sacrebleu.sentence_chrf(view, [text]).score, sacrebleu.corpus_bleu([view], [[text]], force=True).score
    assert line == f"against the texts: chrF {chrf:.0f}, BLEU {bleu:.0f} (100 is the text itself; 1 changed views)"
    assert 40 < chrf < 90


def test_the_sample_of_a_report_is_drawn_evenly(monkeypatch):
    monkeypatch.setattr(gates, "_SAMPLE", 100)
    report = report_of(*(View(str(i), 0, f"{i} x", "") for i in range(1000)))
    drawn = [int(text) for text, _ in report.sample]
    assert len(set(drawn)) == 100 and np.mean(drawn) == pytest.approx(500, abs=100)


def test_reports_of_files_add_up(monkeypatch):
    monkeypatch.setattr(gates, "_SAMPLE", 100)
    many = report_of(*(View(str(i), 0, f"{i} x", "", 0.35) for i in range(300)))
    few = report_of(*(View("few", 0, f"few {i}", "") for i in range(100)), View("a", 0, "a", "empty"))
    for first, second in ((many, few), (few, many)):
        whole = Report.of_json(first.to_json())
        whole.merge(second)
        assert whole.outcomes == {"changed": 400, "empty": 1} and whole.cosines == {3: 300}
        assert len(whole.sample) == 100 and sum(text == "few" for text, _ in whole.sample) == 25
    alone = Report()
    alone.merge(few)
    assert sorted(alone.sample) == sorted(few.sample)
