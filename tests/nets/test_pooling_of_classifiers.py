"""A classifier that somebody trained answers here as it does in transformers, however it pools its tokens."""

import shutil

import pytest
import torch
from tiny import tiny_bert, tiny_texts
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ssl.cli import run
from nlp_ssl.inference.predict import logits_of_texts
from nlp_ssl.nets.text import load_text_net, load_trained

TEXTS = tiny_texts(12, seed=2)[0]


def as_anybody_opens_it(folder):
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return AutoModelForSequenceClassification.from_pretrained(folder).eval()(**tokens).logits


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A classifier of the stock architecture, with a pooler and a last layer that matter."""
    folder = tiny_bert(tmp_path_factory.mktemp("pooling") / "model", dropout=0.0)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight.normal_(std=3.0, generator=torch.Generator().manual_seed(0))
        model.bert.pooler.dense.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(folder)
    return folder


def test_to_predict_with(trained):
    ours = logits_of_texts(load_trained(trained), TEXTS, 32)
    assert torch.allclose(ours, as_anybody_opens_it(trained), atol=1e-5) and ours.std() > 0.1


@pytest.mark.parametrize("classes", [["neg", "pos"], ["pos", "neg"]])
def test_to_train_on(trained, classes):
    """With its classes it starts where it was; with others its encoder is pooled anew."""
    wanted = as_anybody_opens_it(trained)[:, [["neg", "pos"].index(name) for name in classes]]
    assert torch.allclose(logits_of_texts(load_text_net(str(trained), classes).eval(), TEXTS, 32), wanted, atol=1e-5)
    assert not load_text_net(str(trained), classes).mean_pooling
    assert load_text_net(str(trained), ["good", "bad"]).mean_pooling


@pytest.mark.parametrize("pooling", ["stock", "mean", "auto"])
def test_saved_by_a_run(trained, tmp_path, pooling):
    shutil.copytree(trained, tmp_path / "model")
    texts, labels = tiny_texts(12, seed=2)
    rows = [f"{text},{'good' if label == 'pos' else 'bad'}" for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "l.csv").write_text("\n".join(["text,label", *rows]))
    assert run(["train", "--method", "supervised", "--warm-start", "none", "--max-steps", "3", "--max-length", "32",
                "--learning-rate", "1e-3", "--mixed-precision", "no", "--no-report", "--pooling", pooling,
                "--model", str(tmp_path / "model"), "--labeled", str(tmp_path / "l.csv"),
                "--cache-dir", str(tmp_path / "cache"), "--output-dir", str(tmp_path / "out")]) == 0  # fmt: skip
    ours = logits_of_texts(load_trained(tmp_path / "out"), TEXTS, 32)
    assert torch.allclose(ours, as_anybody_opens_it(tmp_path / "out"), atol=1e-4)
