"""Texts that belong to none of the classes: likeness by hand, groups told apart, and half a pool of another domain."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny import FAST, tiny_task

from nlp_ssl import Supervised, compare
from nlp_ssl.cli import run as cli
from nlp_ssl.data.bundled import bundled_encoder, load_bundled
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.table import table_of
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.experiments.out_of_scope import foreign, in_scope, likeness, share_of, without
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.methods import FixMatch
from nlp_ssl.task import text_task
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import PseudoLabels

STARTED = replace(FAST, warm_start="contrastive", warm_steps=2)


def test_likeness_by_hand() -> None:
    # Rows that sum to zero, so that nothing is shared: class 0 points to (1, -1, 0), class 1 to (0, 1, -1).
    known, y = np.array([[1.0, -1, 0], [2, -2, 0], [0, 1, -1]]), np.array([0, 0, 1])
    pool = np.array([[3.0, -3, 0], [0, -1, 1], [1, 0, -1], [6.0, 2, 4]])
    # (0, -1, 1) has cosine 1/2 with class 0 and -1 with class 1; (1, 0, -1) 1/2 with both; the last, less its mean 4,
    # is (2, -2, 0).
    assert likeness(known, y, pool) == pytest.approx([1.0, 0.5, 0.5, 1.0])


def test_a_share_takes_the_least_like() -> None:
    assert foreign(np.array([0.9, 0.1, 0.5, 0.2]), 0.5).tolist() == [False, True, False, True]
    assert foreign(np.array([0.9, 0.1, 0.5, 0.2]), 0.1).sum() == 0  # less than half a row


@pytest.mark.parametrize("seed", range(5))
def test_auto_takes_the_lower_of_two_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    near, far = rng.normal(0.7, 0.08, 300), rng.normal(0.3, 0.1, 100)
    out = foreign(np.concatenate([near, far]), "auto")
    assert out[300:].mean() > 0.9 and out[:300].mean() < 0.05
    assert not foreign(near, "auto").any()
    assert not foreign(1 - rng.gamma(2.0, 0.1, 400), "auto").any()  # a tail is no second group
    assert not foreign(rng.uniform(0.1, 0.5, 40), "auto").any()  # nor is half of a broad one
    wide = foreign(np.concatenate([rng.normal(0.7, 0.01, 200), [0.78], rng.normal(0.4, 0.15, 100)]), "auto")
    assert wide[201:].mean() > 0.9 and not wide[200]  # what is more like a class than most is not left out
    assert not foreign(np.full(100, 0.5), "auto").any() and not foreign(np.array([0.1, 0.9]), "auto").any()


def test_all_that_goes_with_the_pool_is_cut(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, unlabeled=6)
    p = np.eye(2)[[0, 1, 0, 1, 0, 1]]
    full = replace(
        task,
        teacher=torch.arange(12.0).view(6, 2),
        student=task,
        pseudo_labels=PseudoLabels(p, np.arange(6), np.arange(6.0)),
    )
    out = np.array([True, False, True, False, False, False])
    found = without(full, out, "why")
    assert found.data.unlabeled.tolist() == task.data.unlabeled[[1, 3, 4, 5]].tolist()
    assert found.pseudo_labels.copies.tolist() == [1, 3, 4, 5] and found.pseudo_labels.weights.tolist() == [1, 3, 4, 5]
    assert found.pseudo_labels.p.tolist() == p[[1, 3, 4, 5]].tolist()
    assert found.data.notes[-1] == "out of scope: 2 of 6 pool rows left out"
    assert found.teacher[:, 0].tolist() == [2, 6, 8, 10]
    assert found.student.data.unlabeled.tolist() == found.data.unlabeled.tolist()
    assert found.data.content_hash != without(full, ~out, "why").data.content_hash != full.data.content_hash


def test_half_a_pool_of_another_domain(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reviews, news = load_bundled("reviews")[0], load_bundled("bbc")[0]
    labels = np.array(reviews.labels)
    few = np.concatenate([np.flatnonzero(labels == name)[:10] for name in np.unique(labels)])
    rest = np.setdiff1d(np.arange(200), few)[:60]
    foreign_texts = [text[:160] for text in news.texts.slice(0, 60).to_pylist()]
    text = build_data(reviews.take(few), table_of([*reviews.take(rest).texts.to_pylist(), *foreign_texts]))
    task = text_task(text, str(bundled_encoder()), max_length=24, cache_dir=tmp_path)
    config = replace(STARTED, warm_steps=8)
    with caplog.at_level("INFO", "nlp_ssl"):
        found = in_scope(task, SharedStart(task, config), config, "auto", folder=RunFolder(tmp_path))
    stay = np.isin(task.data.unlabeled, found.data.unlabeled)
    assert stay[60:].mean() < 0.2 and stay[:60].mean() > 0.8
    assert f"{(~stay).sum()} of 120 pool rows are left out" in caplog.text
    table = pq.read_table(tmp_path / "out_of_scope.parquet").to_pylist()
    assert [row["left_out"] for row in table] == (~stay).tolist()
    assert table[0]["text"] == task.data.texts[int(task.data.unlabeled[0])].as_py()


def test_a_run_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(tmp_path, unlabeled=40)

    def run(share, resume=False, **options) -> None:
        folder = RunFolder(tmp_path / "out", resume=resume)
        compare(FixMatch(), task, STARTED, seeds=[0], out_of_scope=share, folder=folder, **options)

    run(0.25)
    assert pq.read_table(tmp_path / "out" / "out_of_scope.parquet")["left_out"].to_pylist().count(True) == 10
    monkeypatch.setattr("nlp_ssl.experiments.start.warm_up", lambda *given: pytest.fail("started again"))
    run(0.25, resume=True)  # finished: what the file says is enough
    with pytest.raises(ConfigError, match="214"):
        run(None, resume=True)
    monkeypatch.undo()
    run(None, overwrite=True)
    assert not (tmp_path / "out" / "out_of_scope.parquet").exists()


def test_the_started_net_looks(tmp_path: Path) -> None:
    def other(module, number: int) -> None:
        assert number == 0
        with torch.no_grad():
            words = module.model.get_input_embeddings().weight
            words.copy_(words.flip(0))

    task, seen = tiny_task(tmp_path, unlabeled=40), []
    for name, start in (("as_it_was", lambda module, number: None), ("changed", other)):
        in_scope(task, start, STARTED, 0.5, folder=RunFolder(tmp_path / name))
        seen.append(np.array(pq.read_table(tmp_path / name / "out_of_scope.parquet")["likeness"]))
    assert np.abs(seen[0] - seen[1]).max() > 0.01


def test_what_is_refused(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, unlabeled=40)
    with pytest.raises(ConfigError, match="456"):
        in_scope(task, SharedStart(task, FAST), FAST, 0.5)
    for word in ("all", "1", "0", "nan", "-0.1"):
        with pytest.raises(ConfigError, match="455"):
            share_of(word)
    assert share_of("auto") == "auto" and share_of("0.3") == 0.3
    in_scope(task, SharedStart(task, STARTED), STARTED, 0.5, folder=RunFolder(tmp_path))
    other = tiny_task(tmp_path, unlabeled=30)
    with pytest.raises(DataError, match="151"):
        in_scope(other, SharedStart(other, STARTED), STARTED, 0.5, folder=RunFolder(tmp_path, resume=True))
    (tmp_path / "out_of_scope.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="151"):
        in_scope(task, SharedStart(task, STARTED), STARTED, 0.5, folder=RunFolder(tmp_path, resume=True))
    alone = replace(task, data=task.data.without_pool())
    assert in_scope(alone, SharedStart(alone, STARTED), STARTED, 0.5) is alone


def test_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = tiny_task(tmp_path, unlabeled=40)
    rows = task.data.texts.to_pylist()
    (tmp_path / "l.csv").write_text(
        "text,label\n" + "".join(f"{rows[i]},{task.data.labels[i]}\n" for i in task.data.labeled)
    )
    (tmp_path / "u.txt").write_text("\n".join(rows[i] for i in task.data.unlabeled))
    words = ["train", "--method", "uda", "--model", str(tmp_path / "model"), "--labeled", str(tmp_path / "l.csv"),
             "--unlabeled", str(tmp_path / "u.txt"), "--max-steps", "1", "--warm-steps", "1", "--max-length", "24",
             "--output-dir", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]  # fmt: skip
    assert cli([*words, "--drop-out-of-scope", "half"]) == 2
    assert "455" in capsys.readouterr().err
    assert cli([*words, "--drop-out-of-scope", "0.5"]) == 0
    assert pq.read_table(tmp_path / "out" / "out_of_scope.parquet")["left_out"].to_pylist().count(True) == 20


def test_without_the_flag_nothing_is_written(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, unlabeled=8)
    compare(Supervised(), task, FAST, seeds=[0], baseline=False, folder=tmp_path / "out")
    assert not (tmp_path / "out" / "out_of_scope.parquet").exists()
