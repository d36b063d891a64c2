"""The ways in, as the plan of the house writes them, on the encoder of the demo extra."""

import datasets
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ssl import (
    UDA,
    SSLClassifier,
    SSLTrainer,
    SSLTrainingArguments,
    Task,
    TrainConfig,
    compare,
    fit,
    load_classifier,
)
from nlp_ssl.data.bundled import bundled_encoder, load_bundled

FEW = TrainConfig(max_steps=2, batch_size=2, warm_steps=2)
NAME = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def reviews():
    """(texts, labels, pool, test texts, test labels): short reviews, four labels per class."""
    train, test = load_bundled("reviews")
    rows = [(text, label) for text, label in zip(train.texts.to_pylist(), train.labels, strict=True) if len(text) < 90]
    labeled = [[row for row in rows if row[1] == name][:4] for name in ("fresh", "rotten")]
    texts, labels = zip(*[row for part in labeled for row in part], strict=True)
    pool = [text for text, _ in rows if text not in texts][:24]
    scored = [(text, label) for text, label in zip(test.texts.to_pylist(), test.labels, strict=True) if len(text) < 90]
    return [*texts], [*labels], pool, [text for text, _ in scored[:12]], [label for _, label in scored[:12]]


def test_one_object_for_everybody(reviews, tmp_path, monkeypatch):
    texts, labels, pool, *_ = reviews
    classifier = SSLClassifier(NAME, config=FEW)
    classifier.fit(texts, labels, unlabeled=pool)
    answers = classifier.predict(["great acting"])
    assert answers.tolist()[0] in ("fresh", "rotten")
    p = classifier.predict_proba(["great acting"])
    assert p.shape == (1, 2) and classifier.classes_[p.argmax()] == answers[0]
    out = tmp_path / "out"
    classifier.save_pretrained(out)
    again = SSLClassifier.from_pretrained(out)
    assert again.predict_proba(["great acting"]) == pytest.approx(p, abs=1e-5)
    stock = AutoModelForSequenceClassification.from_pretrained(out).eval()
    inputs = AutoTokenizer.from_pretrained(out)(["great acting"], return_tensors="pt")
    assert stock(**inputs).logits.softmax(-1).tolist()[0] == pytest.approx(p[0].tolist(), abs=1e-4)

    uploaded = {}

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            return f"https://hub/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path, **options):
            uploaded[repo_id] = {path.name for path in type(out)(folder_path).iterdir()}

    monkeypatch.setattr("nlp_ssl.training.classifier_files.HfApi", Hub)
    assert classifier.push_to_hub("me/reviews") == "https://hub/me/reviews"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= uploaded["me/reviews"]


def test_did_the_unlabeled_text_help(reviews):
    texts, labels, pool, test_texts, test_labels = reviews
    task = Task.from_texts(texts, labels, unlabeled=pool, test=(test_texts, test_labels), model="bundled")
    result = compare("fixmatch", task, FEW, seeds=3)
    shown = str(result)
    assert result.seeds == (0, 1, 2) and {*result.results} == {"start", "supervised", "fixmatch"}
    assert all(name in shown for name in ("start", "supervised", "fixmatch", "difference", "seed 2"))
    assert shown.splitlines()[-1] == result.verdict()
    assert result.best.predict(["great acting"]).tolist()[0] in ("fresh", "rotten")
    drawn = compare("supervised", task, FEW, seeds=[5], labels_per_class=2)
    assert drawn.seeds == (5,) and len(drawn.outcomes) == 1


def test_research(reviews):
    texts, labels, pool, test_texts, test_labels = reviews
    task = Task.from_texts(texts, labels, unlabeled=pool, test=(test_texts, test_labels), model="bundled")
    result = fit(UDA(threshold=0.9), task, FEW)
    assert result.model.predict(["great acting"]).tolist()[0] in ("fresh", "rotten")
    predicted = result.model.predict(test_texts)
    right = sum(a == b for a, b in zip(predicted, test_labels, strict=True))
    assert result.scores["test"].accuracy == pytest.approx(right / len(test_labels))


def test_inside_a_trainer(reviews, tmp_path):
    texts, labels, pool, test_texts, _ = reviews
    encoder = str(bundled_encoder())
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    arguments = SSLTrainingArguments(
        str(tmp_path / "out"), method="uda", unlabeled_ratio=3, max_steps=2, warm_steps=2,
        per_device_train_batch_size=2, report_to=[], use_cpu=True,
    )  # fmt: skip
    rows = datasets.Dataset.from_dict({"text": texts, "label": [int(label == "fresh") for label in labels]})
    trainer = SSLTrainer(
        load_classifier(encoder, num_labels=2), args=arguments, train_dataset=rows,
        unlabeled_dataset=datasets.Dataset.from_dict({"text": pool}), processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 2
    trainer.save_model(str(tmp_path / "saved"))
    assert SSLClassifier.from_pretrained(tmp_path / "saved").predict(test_texts).shape == (12,)
