"""What version 0.1.0 left on a disk opens in this version: see fixtures/v0_1_0/README.md."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline

from nlp_ssl import SSLClassifier
from nlp_ssl.cli import run
from nlp_ssl.retrieval import Index

TRAIN = (
    "train --method fixmatch --threshold 0.6 --model model --labeled l.csv --unlabeled u.txt --test t.csv "
    "--max-steps 4 --batch-size 4 --max-length 16 --warm-steps 3 --mixed-precision no --learning-rate 0.01 "
    "--cache-dir cache"
).split()


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    place = tmp_path_factory.mktemp("old") / "v0_1_0"
    return shutil.copytree(Path(__file__).parent / "fixtures/v0_1_0", place)


@pytest.fixture
def old(copied, monkeypatch):
    """The folder, entered: runs remember their model by its path."""
    monkeypatch.chdir(copied)
    return copied


@pytest.fixture
def expected(old):
    return json.loads((old / "expected.json").read_text())


def same_answers(shown, expected):
    """Lines of `predict` against labels and probabilities."""
    lines = [line.split("\t") for line in shown.splitlines()]
    assert [label for label, _ in lines] == [label for label, _ in expected]
    assert np.allclose([float(p) for _, p in lines], [p for _, p in expected], atol=1e-3)


def test_a_model_predicts_as_it_did(old, expected, capsys):
    assert run(["predict", "run", "t.csv", "--mixed-precision", "no"]) == 0
    same_answers(capsys.readouterr().out, expected["predict"])
    texts = [line.split(",")[0] for line in (old / "t.csv").read_text().splitlines()[1:]]
    found = pipeline("text-classification", "run")(texts)
    assert [answer["label"] for answer in found] == [label for label, _ in expected["predict"]]


def test_a_model_is_scored_as_it_was(expected, capsys):
    assert run(["eval", "run", "t.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = expected["eval"]
    assert found["classes"] == wanted["classes"] and found["confusion"] == wanted["confusion"]
    for name in ("accuracy", "macro_f1", "nll"):
        assert found[name] == pytest.approx(wanted[name], abs=1e-4), name


def test_the_report_of_a_run(old, tmp_path):
    assert run(["report", "run", "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "fixmatch" in page and "supervised" in page and "67.5" in page and "55.0" in page


def test_a_classifier_answers_in_its_own_classes(expected):
    model = SSLClassifier.from_pretrained("classifier")
    assert model.classes_.tolist() == list(range(11))
    assert model.predict(expected["numbers"]).tolist() == expected["classifier"]
    assert np.allclose(model.predict_proba(expected["numbers"]), expected["probabilities"], atol=1e-3)
    found = pipeline("text-classification", "classifier")(expected["numbers"])
    assert [int(answer["label"]) for answer in found] == expected["classifier"]


def test_an_index_is_searched_and_verified(expected):
    (hits,) = Index.open("index", "encoder").search(["good film"], 3)
    assert [hit.text for hit in hits] == [text for text, _ in expected["search"]]
    assert np.allclose([hit.score for hit in hits], [score for _, score in expected["search"]], atol=1e-5)
    assert run(["index", "verify", "index"]) == 0


def test_a_finished_run_is_taken_for_done(expected, capsys, caplog):
    caplog.set_level("INFO", logger="nlp_ssl")
    assert run([*TRAIN, "--output-dir", "run", "--seeds", "0,1", "--baseline", "--resume"]) == 0
    assert capsys.readouterr().out == expected["table"] and caplog.text.count("is already done") == 4


def test_an_interrupted_run_goes_on_to_where_the_whole_one_came(old, expected, capsys, tmp_path):
    out = shutil.copytree(old / "interrupted", tmp_path / "out")
    assert run([*TRAIN, "--output-dir", str(out), "--save-steps", "2", "--resume"]) == 0
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4]
    capsys.readouterr()
    assert run(["predict", str(out), "t.csv", "--mixed-precision", "no"]) == 0
    same_answers(capsys.readouterr().out, expected["predict"])


def test_other_settings_are_refused_by_name(old, capsys):
    argv = [*TRAIN, "--output-dir", "run", "--seeds", "0,1", "--baseline", "--resume", "--threshold", "0.7"]
    assert run(argv) == 2
    assert "SSL214" in (shown := capsys.readouterr().err) and "threshold: 0.6 -> 0.7" in shown
