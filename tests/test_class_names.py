"""Whatever a class is called: its name and its place are the same in the saved model, in answers, files and scores."""

import csv
import json

import numpy as np
import pytest
from datasets import Dataset
from tiny import BAD, FILLER, GOOD, tiny_bert, tiny_tokenizer
from transformers import AutoModelForSequenceClassification, pipeline

from nlp_ssl import SSLClassifier, SSLTrainer, SSLTrainingArguments, TrainConfig, fit
from nlp_ssl.cli import run
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import table_of
from nlp_ssl.methods import Supervised
from nlp_ssl.task import text_task

SETTINGS = TrainConfig(max_steps=1, batch_size=4, warm_start="none", mixed_precision="no")
# In the order that a model's outputs are to have: whole numbers as numbers, everything else as strings.
NAMES = {
    "two": ["neg", "pos"],
    "from zero": ["0", "1", "2"],
    "twelve": [str(i) for i in range(12)],
    "gaps": ["3", "20", "100"],
    "negative": ["-20", "-3", "5"],
    "zeros in front": ["007", "08", "9"],
    "fractions": ["0.5", "10.25", "2.5"],
    "years and words": ["1999", "20", "later"],
    "none": ["None", "some"],
    "nan": ["high", "nan"],
    "null": ["NULL", "null-ish"],
    "not available": ["A", "NA"],
    "booleans": ["false", "true"],
    "formulas": ["+x", "=1+1", "@name"],
    "minus": ["-x", "x-"],
    "spaces within": ["not so good", "very good"],
    "quotes": ['"quoted"', "it's"],
    "commas": ["a, b", "c; d"],
    "tab": ["one\ttwo", "three"],
    "emoji": ["\U0001f600", "\U0001f621 no"],
    "accents": ["Abc", "\u00e9t\u00e9", "\u00fcber"],
    "right to left": ["\u05d0\u05d1", "\u05d2"],
    "markup": ["&amp;", "<b>"],
    "upper first": ["B", "a"],
    "like defaults": ["LABEL_1", "LABEL_9"],
    "long": ["x" * 200, "y" * 200],
}


def rows_of(classes):
    """Three texts of each class, and their labels."""
    rng, rows = np.random.default_rng(0), {}
    while len(rows) < 3 * len(classes):
        label = classes[len(rows) % len(classes)]
        rows.setdefault(" ".join([*rng.choice(FILLER, 4), (GOOD + BAD)[classes.index(label)]]), label)
    return list(rows), list(rows.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("names")
    tiny_bert(place / "model", dropout=0.0)
    return place


@pytest.fixture(params=NAMES)
def case(request):
    classes = NAMES[request.param]
    return classes, *rows_of(classes)


def written(path, texts, labels):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    return path


def opened(place, texts):
    """Class names of a saved model as transformers reads them, and the answers of its pipeline."""
    config = AutoModelForSequenceClassification.from_pretrained(place).config
    classes = [config.id2label[i] for i in range(config.num_labels)]
    assert config.label2id == {name: i for i, name in enumerate(classes)}
    return classes, [answer["label"] for answer in pipeline("text-classification", str(place))(texts)]


def test_command_line(case, folder, tmp_path, capsys):
    classes, texts, labels = case
    given, out = written(tmp_path / "l.csv", texts, labels), tmp_path / "out"
    assert run(["train", "--method", "supervised", "--warm-start", "none", "--max-steps", "1", "--max-length", "24",
                "--mixed-precision", "no", "--no-report", "--model", str(folder / "model"), "--labeled", str(given),
                "--cache-dir", str(folder / "cache"), "--output-dir", str(out)]) == 0  # fmt: skip
    known, answers = opened(out, texts)
    assert known == classes
    # Its own answers, written to a file and read again as labels, are right in every row.
    assert run(["predict", str(out), str(given), "--out", str(tmp_path / "p.csv"), "--mixed-precision", "no"]) == 0
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == answers
    again = read_table(written(tmp_path / "answers.csv", texts, answers))
    assert again.labels == answers
    capsys.readouterr()
    assert run(["eval", str(out), str(tmp_path / "answers.csv"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["classes"] == classes and scores["accuracy"] == 1.0 and scores["rows"] == len(texts)
    # The labels given back as pseudo-labels are those of the same classes.
    pool = written(tmp_path / "pool.csv", [f"{text} {FILLER[0]}" for text in texts], labels)
    assert run(["train", "--method", "supervised", "--warm-start", "none", "--max-steps", "1", "--max-length", "24",
                "--mixed-precision", "no", "--no-report", "--model", str(folder / "model"), "--labeled", str(given),
                "--pseudo-labels", str(pool), "--cache-dir", str(folder / "cache"),
                "--output-dir", str(tmp_path / "noisy")]) == 0  # fmt: skip


def test_python(case, folder, tmp_path):
    classes, texts, labels = case
    data = build_data(table_of(texts, labels))
    assert list(data.classes) == classes and [classes[i] for i in data.labels] == labels
    task = text_task(data, str(folder / "model"), max_length=24, cache_dir=folder / "cache")
    place = tmp_path / "out"
    module = fit(Supervised(), task, SETTINGS, folder=place).module
    known, answers = opened(place, texts)
    assert known == classes == list(module.classes) and set(answers) <= set(classes)


def test_estimator(case, folder, tmp_path):
    classes, texts, labels = case
    numbers = all(name.lstrip("-").isdigit() and str(int(name)) == name for name in classes)
    y = [int(label) for label in labels] if numbers else labels
    model = SSLClassifier(folder / "model", "supervised", max_length=24, config=SETTINGS)
    model.fit(texts, y).save_pretrained(tmp_path / "out")
    assert model.classes_.tolist() == np.unique(y).tolist() == ([int(c) for c in classes] if numbers else classes)
    known, answers = opened(tmp_path / "out", texts)
    assert known == classes
    predicted, p = model.predict(texts), model.predict_proba(texts)
    assert [str(label) for label in predicted.tolist()] == answers
    assert model.score(texts, predicted) == 1.0 and (p.argmax(1) == [classes.index(a) for a in answers]).all()
    again = SSLClassifier.from_pretrained(tmp_path / "out")
    assert again.classes_.tolist() == model.classes_.tolist() and (again.predict(texts) == predicted).all()


def test_trainer(case, folder, tmp_path, capsys):
    classes, texts, labels = case
    places = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    net = AutoModelForSequenceClassification.from_pretrained(
        folder / "model", num_labels=len(classes), ignore_mismatched_sizes=True, **places
    )
    args = SSLTrainingArguments(str(tmp_path / "out"), max_steps=1, report_to="none", per_device_train_batch_size=4,
                                use_cpu=True, disable_tqdm=True, save_strategy="no", max_length=24)  # fmt: skip
    rows = Dataset.from_dict({"text": texts, "label": labels})
    trainer = SSLTrainer(net, args, method="supervised", train_dataset=rows,
                         processing_class=tiny_tokenizer())  # fmt: skip
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    known, answers = opened(tmp_path / "out", texts)
    assert known == classes
    capsys.readouterr()
    assert run(["eval", str(tmp_path / "out"), str(written(tmp_path / "a.csv", texts, answers)), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["classes"] == classes and scores["accuracy"] == 1.0
