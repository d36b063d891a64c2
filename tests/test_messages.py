"""What runs say of classes: by their names, the first few of many, and nothing that scikit-learn says of its caller."""

import logging
import warnings
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.exceptions import ConvergenceWarning
from tiny import FAST, tiny_bert, tiny_task, tiny_texts, tiny_tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification

from nlp_ssl import LabelPropagationClassifier, SSLTrainer, SSLTrainingArguments, Supervised, compare, fit
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.data.arrays import read_labels
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.table import table_of
from nlp_ssl.doctor.probe import probe_of
from nlp_ssl.errors import ConfigError, listed
from nlp_ssl.experiments.out_of_scope import foreign
from nlp_ssl.experiments.tuning import Candidate, held_out_start, tune
from nlp_ssl.inference.metrics import score
from nlp_ssl.methods import UDA
from nlp_ssl.ops.targets import clean_probability
from nlp_ssl.task import text_task
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import PseudoLabels

STARTED = replace(FAST, max_steps=1, warm_start="contrastive", warm_steps=1, batch_size=2)


def task_of(folder, classes, each):
    """A task of that many classes with as many labeled rows of each, and one row of a class "rare"."""
    texts, _ = tiny_texts(classes * each + 31, seed=5)
    names = [f"class {i % classes:02d}" for i in range(classes * each)]
    data = build_data(table_of(texts[: len(names) + 1], [*names, "rare"]), table_of(texts[len(names) + 1 :]))
    if not (folder / "model").exists():
        tiny_bert(folder / "model")
    strong = TfidfReplace(0.2)
    return text_task(data, str(folder / "model"), strong=strong, max_length=24, cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("messages")


def said(caplog, beginning):
    return [line for line in caplog.messages if line.startswith(beginning)]


@pytest.mark.parametrize(("classes", "each", "shown"), [(2, 4, 3), (29, 1, 8)])
def test_class_shares_have_names_and_scikit_learn_has_no_word(folder, caplog, classes, each, shown):
    task = task_of(folder, classes, each)
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        fit(UDA(), task, STARTED)
    (line,) = said(caplog, "class shares of the pool: ")
    parts, _, more = line.removeprefix("class shares of the pool: ").partition(" and ")
    shares = dict(part.rsplit(" ", 1) for part in parts.split(", "))
    assert len(shares) == shown and set(shares) <= {repr(name) for name in task.data.classes}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert more == (f"{classes + 1 - shown} more" if classes + 1 > shown else "")


def test_the_class_that_cannot_be_held_out_is_named(folder, tmp_path):
    task = task_of(folder, 2, 4)
    wanted = "held-out labels take two labels of every class, 'rare' has 1: label more"
    with pytest.raises(ConfigError, match=f"^SSL405: {wanted}"):
        tune([Candidate("one", UDA(), FAST)], task, 2, RunFolder(tmp_path))
    with pytest.raises(ConfigError, match=f"^SSL405: {wanted}"):
        held_out_start(task, FAST, 2)
    with pytest.raises(ConfigError, match=f"^SSL401: calibrate labels: {wanted}"):
        fit(UDA(), task, replace(FAST, calibrate="labels"))
    many = task_of(folder, 29, 1)
    with pytest.raises(ConfigError, match="'class 00' has 1, .*'class 07' has 1 and 22 more: label more"):
        tune([Candidate("one", UDA(), FAST)], many, 2, RunFolder(tmp_path))


def test_labels_from_elsewhere_are_not_said_to_be_few(tmp_path):
    task = tiny_task(tmp_path)
    p = np.tile([0.9, 0.1], (len(task.data.unlabeled), 1))
    given = replace(task, pseudo_labels=PseudoLabels(p, np.ones(len(p), dtype=int), np.ones(len(p))))
    with pytest.raises(ConfigError, match="SSL401: calibrate labels: labels from a file or a teacher cannot be held"):
        compare(Supervised(), given, replace(FAST, calibrate="labels"), seeds=[0], baseline=False)


def many_labels():
    """Labels of more than half as many classes as rows, of which scikit-learn thinks that they may be numbers."""
    return np.array([f"class {i % 20}" for i in range(30)])


def two_of_each():
    """Labels of which half are learned, one of each class."""
    return [f"class {i % 30}" for i in range(60)]


def wide_losses():
    """Losses that two Gaussians do not settle on within ten steps."""
    return torch.from_numpy(np.exp(3 * np.random.default_rng(81).normal(size=100)))


def test_fits_make_no_remarks():
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(30, 4)), many_labels()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_labels(labels).classes) == 20
        LabelPropagationClassifier(n_neighbors=3).fit(z, labels)
        assert probe_of(rng.normal(size=(60, 4)), two_of_each(), 0).folds == 2
        score(torch.from_numpy(rng.normal(size=(30, 20))), np.arange(30) % 20)
        foreign(np.concatenate([rng.normal(size=50), rng.normal(5, size=50)]), "auto")
        clean_probability(wide_losses())


def test_they_would_make_them(monkeypatch):
    """What the test above listens for."""
    monkeypatch.setattr("nlp_ssl.data.arrays.without_remarks", nullcontext)
    with pytest.warns(UserWarning, match="number of unique classes"):
        read_labels(many_labels())
    with pytest.warns(UserWarning, match="number of unique classes"):
        probe_of.__wrapped__(np.random.default_rng(0).normal(size=(60, 4)), two_of_each(), 0)
    with pytest.warns(ConvergenceWarning):
        clean_probability.__wrapped__(wide_losses())


def test_the_first_parts_of_a_list():
    assert listed(["a", "b"], 2) == "a, b" and listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["pos", "neg"], "SSL475: label 'pos' is not a class of the model: its label2id has 'LABEL_0', 'LABEL_1', "
         "make it with the label2id and id2label of your labels"),
        ([0, 2], "SSL475: label '2' is not a class of the model: it has 0 to 1, make it with a larger num_labels"),
    ],
)  # fmt: skip
def test_what_a_model_lacks_that_does_not_know_a_label(tmp_path, labels, message):
    with pytest.raises(ConfigError) as error:
        trainer_of(tmp_path, labels * 3, label2id={"LABEL_0": 0, "LABEL_1": 1}, id2label={0: "LABEL_0", 1: "LABEL_1"})
    assert str(error.value) == message


def test_what_it_is_told_to_have_helps(tmp_path):
    names = {"label2id": {"neg": 0, "pos": 1}, "id2label": {0: "neg", 1: "pos"}}
    assert trainer_of(tmp_path, ["pos", "neg"] * 3, **names).task.data.classes == ("neg", "pos")
    assert len(trainer_of(tmp_path, [0, 2, 1] * 2, num_labels=3).task.data.classes) == 3


def trainer_of(folder, labels, **of_the_model):
    """A trainer on these labels of a model that was made with these arguments."""
    config = AutoConfig.from_pretrained(tiny_bert(folder / "model"), **of_the_model)
    rows = Dataset.from_dict({"text": tiny_texts(len(labels), seed=1)[0], "label": labels})
    return SSLTrainer(
        model=AutoModelForSequenceClassification.from_config(config),
        args=SSLTrainingArguments(str(folder), report_to=[], use_cpu=True, max_length=24),
        train_dataset=rows,
        processing_class=tiny_tokenizer(),
        method="supervised",
    )
