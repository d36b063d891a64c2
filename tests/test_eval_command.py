"""`nlp-ssl eval`: scores of a saved model on labeled texts."""

import json

import numpy as np
import pytest
import torch
from tiny import tiny_bert, tiny_texts

from nlp_ssl.cli import run
from nlp_ssl.inference.metrics import confusion
from nlp_ssl.inference.predict import features_of_texts, logits_of_texts, predict_texts
from nlp_ssl.nets.text import load_text_net

TEXTS, LABELS = tiny_texts(40, seed=5)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A classifier that tells the two classes at random."""
    folder = tmp_path_factory.mktemp("eval")
    net = load_text_net(str(tiny_bert(folder / "model")), ["neg", "pos"])
    (folder / "out").mkdir()
    net.save(folder / "out")
    lines = ["text,label", *(f"{t},{y}" for t, y in zip(TEXTS, LABELS, strict=True)), "a film,"]
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_scores_are_those_of_predict(out, capsys):
    assert run(["predict", str(out / "out"), str(out / "t.csv"), "--mixed-precision", "no"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()][:40]
    guess, p = [label for label, _ in rows], np.array([float(p) for _, p in rows])
    right = np.array(guess) == np.array(LABELS)
    assert run(["eval", str(out / "out"), str(out / "t.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 40 and found["left_out"] == 1 and found["classes"] == ["neg", "pos"]
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["nll"] == pytest.approx(-np.log(np.where(right, p, 1 - p)).mean(), abs=1e-3)
    names = found["classes"]
    wanted = [[sum(y == a and g == b for y, g in zip(LABELS, guess, strict=True)) for b in names] for a in names]
    assert found["confusion"] == wanted


def test_people_get_lines(out, capsys):
    assert run(["eval", str(out / "out"), str(out / "t.csv")]) == 0
    shown = capsys.readouterr().out
    assert "40, 1 without a label left out" in shown and "accuracy" in shown and "taken for" in shown
    assert "calibration error" in shown and {"neg", "pos"} <= set(shown.split())


@pytest.mark.parametrize(
    ("file", "more", "code", "words"),
    [
        (
            "text,label\ngood film,positive\n",
            [],
            3,
            "row 1: label 'positive' is not a class of the model",
        ),
        ("text,label\ngood film,\n", [], 3, "SSL139"),
        ("text,kind\ngood film,pos\n", [], 3, "--label-column"),
        ("text,label\ngood film,pos\n", ["--max-length", "99"], 2, "positions for"),
    ],
)
def test_what_cannot_be_scored_is_one_line(out, capsys, file, more, code, words):
    (out / "bad.csv").write_text(file)
    assert run(["eval", str(out / "out"), str(out / "bad.csv"), *more]) == code
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("SSL") == 1 and captured.out == ""


def test_places_are_needed(capsys):
    assert run(["eval", "out"]) == 2
    shown = capsys.readouterr().err
    assert "Missing argument 'FILE'" in shown and "Try 'nlp-ssl eval --help' for help." in shown


def test_rows_of_a_split(out, capsys):
    (out / "s.csv").write_text("text,label,split\ngood film,pos,train\nbad film,neg,test\n")
    assert run(["eval", str(out / "out"), str(out / "s.csv"), "--split", "test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1


def test_confusion_has_true_classes_in_rows():
    logits = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]])
    assert confusion(logits, np.array([0, 0, 1])).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_texts_keep_their_order_whatever_their_length(out):
    net = load_text_net(str(out / "out")).eval()
    texts = [t for pair in zip(TEXTS, ["film " * 20] * 40, strict=True) for t in pair]
    logits = logits_of_texts(net, texts, 24)
    alone = torch.cat([logits_of_texts(net, [t], 24) for t in texts])
    assert torch.allclose(logits, alone, atol=1e-5)
    features = features_of_texts(net, texts, 24)
    assert features.shape == (80, 32) and torch.allclose(net.head(features), logits, atol=1e-5)
    assert predict_texts(net, [], 24) == []
