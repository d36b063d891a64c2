"""Labels that may mean something else, through commands and models: -1, words, spaces, rows of 0 and 1."""

import json
import logging

import numpy as np
import pytest
from datasets import Dataset
from tiny import saved_classifier, tiny_bert, tiny_texts, tiny_tokenizer
from transformers import AutoModelForSequenceClassification

from nlp_ssl import SSLClassifier, SSLTrainer, SSLTrainingArguments, TrainConfig
from nlp_ssl.cli import run
from nlp_ssl.data.arrays import InputError, read_labels
from nlp_ssl.data.bundled import load_named
from nlp_ssl.data.pseudo_labels import labels_from_file
from nlp_ssl.errors import DataError, SSLError
from nlp_ssl.inference.teacher import logits_of

TEXTS, _ = tiny_texts(60, seed=7)
SIGNS = [str(i % 3 - 1) for i in range(60)]  # -1, 0, 1


def csv(path, texts, labels):
    path.write_text("\n".join(["text,label", *(f"{t},{y}" for t, y in zip(texts, labels, strict=True))]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Labeled, pool and test rows of the classes -1, 0 and 1, and models: of two, of these three, of three others."""
    path = tmp_path_factory.mktemp("doors")
    tiny_bert(path / "model", dropout=0.0)
    csv(path / "l.csv", TEXTS[:15], SIGNS[:15])
    (path / "u.txt").write_text("\n".join(TEXTS[15:30]))
    csv(path / "t.csv", TEXTS[30:45], SIGNS[30:45])
    csv(path / "noisy.csv", TEXTS[15:30], SIGNS[15:30])
    for name, classes in (("signs", ("-1", "0", "1")), ("two", ("0", "1")), ("words", ("neg", "None", "pos"))):
        (path / name).mkdir()
        saved_classifier(path / name, classes, TEXTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path))
        yield path


def train(folder, out, *more, labeled="l.csv", test="t.csv"):
    return run([
        "train", "--method", "supervised", "--model", str(folder / "model"), "--labeled", str(folder / labeled),
        "--unlabeled", str(folder / "u.txt"), "--test", str(folder / test), "--max-steps", "1", "--batch-size", "4",
        "--max-length", "24", "--warm-start", "none", "--mixed-precision", "no", "--no-report",
        "--cache-dir", str(folder / "cache"), "--output-dir", str(out), *more,
    ])  # fmt: skip


def refused(capsys, code, *words):
    """The one line that a command ended with."""
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"SSL{code}: ") and all(word in line for word in words), line


WAYS_OUT = ("--minus-one class", "--minus-one unlabeled")


# ---- commands


def test_minus_one_as_a_class_in_every_command(folder, tmp_path, capsys):
    """Without the flag there is a question; with it, the class goes from training to scores."""
    assert train(folder, tmp_path / "out") == 3
    refused(capsys, 116, "l.csv", *WAYS_OUT)
    assert train(folder, tmp_path / "out", "--minus-one", "class") == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert set(model.config.label2id) == {"-1", "0", "1"}
    capsys.readouterr()
    assert run(["eval", str(tmp_path / "out"), str(folder / "t.csv")]) == 3
    refused(capsys, 116, *WAYS_OUT)
    assert run(["eval", str(tmp_path / "out"), str(folder / "t.csv"), "--minus-one", "class", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (
        scores["rows"] == 15
        and scores["accuracy"] == json.loads((tmp_path / "out/result.json").read_text())["scores"]["test"]["accuracy"]
    )
    for extra in (["--pseudo-labels", str(folder / "noisy.csv")], ["--teacher", str(folder / "signs/out")]):
        assert train(folder, tmp_path / extra[0][2:], "--minus-one", "class", *extra) == 0
    assert run(["doctor", "--labeled", str(folder / "l.csv"), "--model", str(folder / "model")]) == 3
    shown = capsys.readouterr().out
    assert "SSL116" in shown and all(way in shown for way in WAYS_OUT)


def test_minus_one_as_a_marker_in_every_command(folder, tmp_path, capsys):
    told = ["--minus-one", "unlabeled"]
    assert train(folder, tmp_path / "out", *told) == 3
    refused(capsys, 124, "t.csv row 1", "'-1' marks an unlabeled row, and test rows", "--minus-one class")
    clean = csv(folder / "t2.csv", TEXTS[30:45], [y if y != "-1" else "" for y in SIGNS[30:45]])
    assert train(folder, tmp_path / "out", *told, "--pseudo-labels", str(folder / "noisy.csv"), test=clean) == 0
    assert set(json.loads((tmp_path / "out/config.json").read_text())["label2id"]) == {"0", "1"}
    capsys.readouterr()
    assert run(["eval", str(tmp_path / "out"), str(folder / "t.csv"), *told, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["left_out"]) == (10, 5), "whoever says that it marks rows without a label means it"
    assert train(folder, tmp_path / "never", *told, "--teacher", str(folder / "signs/out"), test=clean) == 2
    refused(capsys, 238, "-1, 0, 1", *WAYS_OUT)


def test_eval_asks_what_minus_one_means(folder, tmp_path, capsys):
    """Also alone in the file, and where the model has no numbers: no row to be scored is left out by a guess."""
    for model, labels in (("signs", ["-1", "-1"]), ("words", ["pos", "-1", "neg"])):
        path = csv(tmp_path / "t.csv", TEXTS[: len(labels)], labels)
        assert run(["eval", str(folder / model / "out"), path]) == 3
        refused(capsys, 116, *WAYS_OUT)
    assert run(["eval", str(folder / "signs/out"), path, "--minus-one", "class", "--unlabeled-value=-1"]) == 2


def test_given_labels_are_read_as_those_of_training(folder, tmp_path):
    import pyarrow as pa

    pool = pa.chunked_array([TEXTS[15:30]], pa.large_string())
    source = folder / "noisy.csv"
    with pytest.raises(DataError, match="SSL116"):
        labels_from_file(source, pool, ("-1", "0", "1"))
    found = labels_from_file(source, pool, ("-1", "0", "1"), minus_one="class")
    assert found.label.tolist() == [int(sign) + 1 for sign in SIGNS[15:30]]
    found = labels_from_file(source, pool, ("0", "1"), minus_one="unlabeled")
    assert found.copies.tolist() == [int(sign != "-1") for sign in SIGNS[15:30]]
    alone = csv(tmp_path / "alone.csv", TEXTS[15:17], ["-1", "-1"])
    with pytest.raises(DataError, match="SSL116.*a class of the labeled rows"):
        labels_from_file(alone, pool, ("-1", "0", "1"))


def test_words_and_spaces_reach_the_model(folder, tmp_path, capsys, caplog):
    """None, a class with a warning; three spellings of pos that are one class; the same in `eval`."""
    labels = ["None", " pos", "neg", "None", "pos\u200b", "neg ", "None", "pos", " neg"]
    csv(folder / "words.csv", TEXTS[:9], labels)
    csv(folder / "words-t.csv", TEXTS[30:33], ["None", "pos ", "\ufeffneg"])
    assert train(folder, tmp_path / "out", labeled="words.csv", test="words-t.csv") == 0
    assert set(json.loads((tmp_path / "out/config.json").read_text())["label2id"]) == {"None", "pos", "neg"}
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("rows labeled 'None', a class: 3" in line and "--unlabeled-value None" in line for line in warned)
    capsys.readouterr()
    assert run(["eval", str(tmp_path / "out"), str(folder / "words-t.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3
    logits = logits_of(
        folder / "words/out", __import__("pyarrow").chunked_array([TEXTS[:2]]), ("None", "neg", "pos"), tmp_path
    )
    assert logits.shape == (2, 3)
    both = ["--unlabeled-value", "None"]
    assert train(folder, tmp_path / "two", *both, labeled="words.csv", test="words-t.csv") == 3
    refused(capsys, 124, "words-t.csv row 1", "'None' marks")


def test_eval_of_rows_of_0_and_1(folder, tmp_path, capsys):
    """The model's own names; the task says that a row has one label."""
    path = tmp_path / "hot.jsonl"
    rows = [[0, 1], [1, 0], [0, 1]]
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in zip(TEXTS[:3], rows, strict=True)))
    plain = csv(tmp_path / "plain.csv", TEXTS[:3], ["1", "0", "1"])
    scores = []
    for file in (str(path), plain):
        assert run(["eval", str(folder / "two/out"), file, "--json"]) == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert scores[0] == scores[1] and scores[0]["rows"] == 3
    path.write_text(json.dumps({"text": "a film", "label": [1, 1]}) + "\n")
    assert run(["eval", str(folder / "two/out"), str(path)]) == 3
    refused(capsys, 115, "row 1", "2 of the 2 numbers are 1")


def test_commands_that_read_texts_alone_ask_nothing_about_labels(folder, tmp_path, capsys):
    """There is no flag in them that could answer."""
    odd = csv(tmp_path / "odd.csv", TEXTS[:6], ["-1", "0", "1", "[a]", "nan", ""])
    assert run(["select", odd, "--classifier", str(folder / "two/out"), "--out", str(tmp_path / "s.parquet")]) == 0
    views = ["--how", "swap", "--out", str(tmp_path / "v.parquet")]
    assert run(["augment", odd, *views]) == 0, capsys.readouterr().err


def test_a_folder_with_splits_is_asked_as_well(tmp_path):
    rows = [f"{t},{y},train" for t, y in zip(TEXTS[:9], SIGNS, strict=False)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label,split", *rows]))
    with pytest.raises(DataError, match="in Python minus_one=.class"):
        load_named(tmp_path)
    assert load_named(tmp_path, minus_one="class")[0].labels == SIGNS[:9]


# ---- the estimator


@pytest.mark.parametrize("given", [[-1, 0, 1, 0], np.array([-1.0, 0, 1, 0]), np.array(["-1", "0", "1", "0"])], ids=type)
def test_minus_one_is_unlabeled_for_scikit_learn_with_a_warning_beside_numbers(given):
    found = read_labels(given)
    assert found.number.tolist() == [-1, 0, 1, 0]
    (note,) = found.notes
    assert note.startswith("warning: rows labeled '-1' taken as unlabeled: 1 (if it is a class")
    assert read_labels(["pos", "neg", "-1"]).notes == ("rows labeled '-1' taken as unlabeled: 1",)


def test_words_are_classes_for_scikit_learn_with_a_warning():
    found = read_labels(np.array(["b", "a", np.nan, "None"]))
    assert found.classes.tolist() == ["None", "a", "b", "nan"]
    assert [("'nan', a class: 1" in n, "put None in its place" in n) for n in found.notes] == [
        (False, True),
        (True, True),
    ]
    assert read_labels(["b", "a", float("nan"), None]).notes == ()


def test_spaces_in_the_estimator():
    assert read_labels([" b", "a", " b"]).classes.tolist() == [" b", "a"] and read_labels([" b", "a"]).names == [
        "b",
        "a",
    ]
    with pytest.raises(InputError, match="SSL136.*read alike"):
        read_labels(["b", "a", "b\u200b"])
    with pytest.raises(InputError, match="SSL190"):
        read_labels([[1, 0], [0, 1]])


def test_the_estimator_says_it(folder, caplog):
    labels = np.array([*(["good", "bad"] * 4), "nan", ""])
    config = TrainConfig(warm_start="none")
    model = SSLClassifier(folder / "model", "supervised", max_steps=1, max_length=24, config=config)
    model.fit(TEXTS[:10], labels)
    assert model.classes_.tolist() == ["bad", "good", "nan"] and model.predict(TEXTS[:2]).dtype == labels.dtype
    assert any(note.startswith("warning: texts: rows labeled 'nan', a class: 1") for note in model.notes_)
    assert any("'nan'" in r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)


# ---- the Trainer


def trainer(folder, labels, *, names=("0", "1"), pool=None, evaluated=None, column="label", **config):
    model = AutoModelForSequenceClassification.from_pretrained(
        folder / "model", num_labels=len(names), id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)}, ignore_mismatched_sizes=True, **config,
    )  # fmt: skip
    return SSLTrainer(
        model, SSLTrainingArguments(str(folder / "trainer"), use_cpu=True, report_to=[], max_length=24), None,
        Dataset.from_dict({"text": TEXTS[: len(labels)], column: labels}), evaluated, tiny_tokenizer(),
        method="supervised", unlabeled_dataset=pool,
    ).task.data  # fmt: skip


def test_minus_one_in_the_trainer(folder, caplog):
    data = trainer(folder, [0, 1, -1, 0, 1])
    assert data.labels[data.labeled].tolist() == [0, 1, 0, 1]
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("rows labeled '-1' taken as unlabeled: 1 (if it is a class" in line for line in warned)
    with pytest.raises(
        SSLError, match="SSL116.*the class '-1' of the model.*write 0, the number of the class, or None"
    ):
        trainer(folder, [-1, 0, 1, 2], names=("-1", "0", "1"))
    signs = trainer(folder, ["-1", "0", "1", None], names=("-1", "0", "1"))
    assert signs.labels[signs.labeled].tolist() == [0, 1, 2]
    with pytest.raises(SSLError, match="SSL124.*eval_dataset row 2"):
        trainer(folder, [0, 1], evaluated=Dataset.from_dict({"text": TEXTS[40:42], "label": [0, -1]}))


def test_words_and_spaces_in_the_trainer(folder):
    names = ("None", "nan", "pos")
    data = trainer(folder, ["None", " nan", "pos\u200b", None, ""], names=names)
    assert data.labels[data.labeled].tolist() == [0, 1, 2] and data.classes == names
    with pytest.raises(SSLError, match="SSL475: label 'null'"):
        trainer(folder, ["pos", "None", "null"], names=names)


@pytest.mark.parametrize("rows", [[[1, 0], [0, 1], [0, 1]], [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
def test_rows_of_0_and_1_in_the_trainer(folder, rows):
    data = trainer(folder, rows, names=("b", "a"), problem_type="single_label_classification")
    assert data.labels[data.labeled].tolist() == [0, 1, 1] and data.classes == ("b", "a")
    with pytest.raises(SSLError, match='SSL485.*problem_type="single_label_classification"'):
        trainer(folder, rows)
    with pytest.raises(SSLError, match="SSL115.*row 3.*2 of the 2 numbers"):
        trainer(folder, [*rows[:2], [1, 1]], problem_type="single_label_classification")
    with pytest.raises(SSLError, match="SSL477"):
        trainer(folder, [["a"], ["b"]])


def test_other_columns_of_the_trainers_pool_are_no_labels(folder):
    texts = TEXTS[20:24]
    pool = Dataset.from_dict({"text": texts, "category": ["x", "y", "x", "z"], "label": [0, 7, 1, 7]})
    data = trainer(folder, [0, 1, 0, 1], pool=pool)
    assert data.labels[data.unlabeled].tolist() == [0, -1, 1, -1] and any("'7' 2" in note for note in data.notes)
    data = trainer(folder, [0, 1, 0, 1], pool=pool, column="labels")
    assert data.labels[data.unlabeled].tolist() == [-1] * 4
    pool = Dataset.from_dict({"text": texts, "category": [["x"], ["y", "z"], [], ["x"]]})
    assert len(trainer(folder, [0, 1, 0, 1], pool=pool).unlabeled) == 4, "nor are they looked at"
