"""What a finished run writes for its report."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax
from tiny import FAST, tiny_task

from nlp_ssl import FixMatch, Supervised, fit
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.report.collect import collect
from nlp_ssl.training import predictions
from nlp_ssl.training.model_files import PREDICTIONS


def left_by(method, task, folder, **more):
    fit(method, task, replace(FAST, **more), folder=folder)
    return collect(folder).first.predictions


def test_rows_views_and_features(tmp_path):
    task = tiny_task(tmp_path, strong=TfidfReplace(0.5))
    found = left_by(FixMatch(), task, tmp_path / "run")
    data, texts = task.data, task.data.texts.to_pylist()
    assert len(found.part("pool")) == 96 and len(found.part("labeled")) == 16 and len(found.part("test")) == 40
    pool, test = found.part("pool"), found.part("test")
    for part in (pool, test, found.part("labeled")):
        rows = part.table["row"].to_numpy()
        assert [c.decode() for c in part.contents()] == [texts[i] for i in rows]
        assert part.labels.tolist() == data.labels[rows].tolist()
    weak, strong = pool.contents("weak")[:8], pool.contents("strong")[:8]
    assert weak == pool.contents()[:8], "these words are tokens: the plain text comes back"
    assert all(strong) and sum(a != b for a, b in zip(weak, strong, strict=True)) >= 6
    assert not any(pool.contents("strong")[8:]) and found.facts["strong"] == "TfidfReplace(p=0.5)"
    before, after = pool.numbers("before"), pool.numbers("after")
    assert before.shape == after.shape == (96, 32) and not np.allclose(before, after)
    assert found.facts["rows"] == {"labeled": 16, "pseudo_labeled": 0, "unlabeled": 96, "dev": 0, "test": 40}
    assert found.facts["labels"] == [8, 8] and found.facts["classes"] == ["neg", "pos"]


def test_pseudo_labels_are_aligned_where_the_run_aligns(tmp_path):
    task = tiny_task(tmp_path)
    task = replace(task, data=replace(task.data, prior=(0.9, 0.1)))
    found = {}
    for align in (True, False):
        fit(FixMatch(), task, replace(FAST, align=align), folder=tmp_path / f"{align}")  # fmt: skip
        pool = collect(tmp_path / f"{align}").first.predictions.part("pool")
        found[align] = pool.numbers("pseudo")[:, 0] - softmax(pool.logits, axis=1)[:, 0]
    assert np.allclose(found[False], 0, atol=1e-6)
    assert (found[True] > 0.1).all(), "nine of ten are to be of the first class"


def test_the_same_test_rows_are_kept_with_and_without_the_pool(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "_ROWS", 15)
    task = tiny_task(tmp_path)
    ours = left_by(FixMatch(), task, tmp_path / "ours")
    theirs = left_by(Supervised(), replace(task, data=task.data.without_pool()), tmp_path / "theirs", seed=5)
    rows = [found.part("test").table["row"].to_pylist() for found in (ours, theirs)]
    assert rows[0] == rows[1] and len(rows[0]) == 15 and rows[0] == sorted(rows[0])
    assert len(theirs.part("pool")) == 0


def test_only_beginnings_of_long_texts_are_kept(tmp_path):
    task = tiny_task(tmp_path)
    texts = task.data.texts.to_pylist()
    texts[task.data.test[0]] = "\u20ac" * 3_000_000
    long = pa.chunked_array([pa.array(texts, pa.large_string())])
    found = left_by(FixMatch(), replace(task, data=replace(task.data, texts=long)), tmp_path / "run")
    assert found.part("test").contents()[0].decode() == "\u20ac" * 400 + "\u2026"


def test_a_run_without_texts_of_its_own_keeps_none(tmp_path):
    task = tiny_task(tmp_path)
    found = left_by(FixMatch(), replace(task, data=replace(task.data, texts=None)), tmp_path / "run")
    assert set(found.part("test").contents()) == {None}


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    task = tiny_task(tmp_path)

    def full(self, *more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(Exception, match="space"):
        left_by(FixMatch(), task, tmp_path / "run")
    assert not (tmp_path / "run" / PREDICTIONS).exists() and not (tmp_path / "run/result.json").exists()
    assert not list((tmp_path / "run").glob(".tmp*"))
