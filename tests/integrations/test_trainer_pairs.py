"""Pairs of texts in `SSLTrainer`: the weights of `fit`, and a folder that says what it wants."""

import pytest
import torch
from datasets import Dataset
from pairs import pair_bert, pair_rows
from tiny import FAST, difference
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ssl import FixMatch, SSLTrainer, SSLTrainingArguments, fit
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.table import table_of
from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.text import check_pairs, load_trained
from nlp_ssl.task import text_task

OPEN, CLASSES = FixMatch(threshold=0.0), ("other", "same")


def dataset(rows, seed, labels=True):
    first, second, y = pair_rows(rows, seed)
    known = {"label": [CLASSES.index(name) for name in y]} if labels else {}
    return Dataset.from_dict({"text": first, "other": second, **known})


def trainer(folder, **more):
    arguments = SSLTrainingArguments(
        str(folder / "out"), use_cpu=True, max_steps=3, per_device_train_batch_size=4, learning_rate=1e-3,
        head_learning_rate=1e-3, warmup_steps=0, lr_scheduler_type="constant", save_strategy="no", disable_tqdm=True,
        unlabeled_ratio=2, warm_start="none", max_length=24,
    )  # fmt: skip
    usual = {"train_dataset": dataset(16, 1), "unlabeled_dataset": dataset(48, 2, labels=False)}
    return SSLTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=2),
        args=arguments,
        eval_dataset=dataset(12, 3),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        method=OPEN,
        strong=TfidfReplace(0.2),
        **(usual | {"pair_column": "other"} | more),
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # tokenized texts are kept below it
    pair_bert(tmp_path / "model")
    return tmp_path


def test_weights_are_those_of_fit_and_the_saved_model_wants_pairs(folder):
    made = trainer(folder)
    made.train()
    labeled, pool = dataset(16, 1), dataset(48, 2, labels=False)
    tables = [table_of(rows["text"], names, pairs=rows["other"])
              for rows, names in ((labeled, [CLASSES[y] for y in labeled["label"]]), (pool, None))]  # fmt: skip
    task = text_task(
        build_data(*tables), str(folder / "model"), pooling="stock", strong=TfidfReplace(0.2), max_length=24
    )
    found = fit(OPEN, task, FAST).module.state_dict()
    weights = made.engine.student.state_dict()
    assert difference(weights, found) < 1e-6
    assert difference(found, task.build(0).state_dict()) > 1e-4
    assert torch.isfinite(torch.tensor(made.evaluate()["eval_loss"]))
    made.save_model(str(folder / "saved"))
    made.processing_class.save_pretrained(folder / "saved")
    with pytest.raises(ConfigError, match="SSL452"):
        check_pairs(load_trained(folder / "saved").model.config, given=False)


def test_evaluation_reads_both_texts(folder):
    made = trainer(folder)
    one, other = dataset(12, 3), dataset(12, 3)
    other = other.map(lambda row: {"other": "good good good"})
    assert made.evaluate(one)["eval_loss"] != made.evaluate(other)["eval_loss"]


def test_a_missing_column_of_second_texts_is_named(folder):
    with pytest.raises(ConfigError, match="'second' of second texts"):
        trainer(folder, pair_column="second")
