"""The same task with the same settings and seed comes to the same weights through every door."""

import csv

import pytest
from datasets import Dataset
from safetensors.torch import load_file
from tiny import difference, tiny_files
from transformers import AutoTokenizer

from nlp_ssl import SSLClassifier, SSLTrainer, SSLTrainingArguments, Task, TrainConfig, fit, load_classifier
from nlp_ssl.cli import run

CLASSES = ["neg", "pos"]
STEPS, LENGTH = 4, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tiny_files(tmp_path_factory.mktemp("doors"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path))  # tokenized texts are kept below it
        yield path


def rows(folder):
    """Labeled texts, their labels, and the pool."""
    with open(folder / "l.csv") as file:
        labeled = list(csv.DictReader(file))
    return [r["text"] for r in labeled], [r["label"] for r in labeled], (folder / "u.txt").read_text().splitlines()


def by_fit(folder, out, method, config):
    task = Task.from_files(
        folder / "l.csv", folder / "u.txt", test=folder / "t.csv", model=folder / "model", max_length=LENGTH
    )
    result = fit(method, task, config)
    return result.module.whole().state_dict(), task.build(0).whole().state_dict()


def by_classifier(folder, out, method, config):
    texts, labels, pool = rows(folder)
    classifier = SSLClassifier(str(folder / "model"), method, max_length=LENGTH, config=config, verbose=False)
    return classifier.fit(texts, labels, unlabeled=pool).net_.whole().state_dict()


def by_command(folder, out, method, config):
    flags = {
        "method": method, "model": folder / "model", "labeled": folder / "l.csv", "unlabeled": folder / "u.txt",
        "test": folder / "t.csv", "output-dir": out, "max-steps": STEPS, "warm-start": config.warm_start,
        "warm-steps": config.warm_steps, "max-length": LENGTH, "learning-rate": config.learning_rate,
        "head-learning-rate": config.head_learning_rate, "seed": config.seed, "mixed-precision": "no",
    }  # fmt: skip
    line = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    assert run(["train", *line, "--no-report"]) == 0
    return load_file(out / "model.safetensors")


def by_trainer(folder, out, method, config):
    """From the name where the last layer's first weights count, else from a model, whose last layer has others."""
    texts, labels, pool = rows(folder)
    name = str(folder / "model")
    named = config.warm_start == "none"
    trainer = SSLTrainer(
        model=name if named else load_classifier(name, id2label=dict(enumerate(CLASSES))),
        args=SSLTrainingArguments(
            str(out), method=method, max_steps=STEPS, max_length=LENGTH, warm_start=config.warm_start,
            warm_steps=config.warm_steps, learning_rate=config.learning_rate,
            head_learning_rate=config.head_learning_rate, seed=config.seed, use_cpu=True, report_to=[],
            disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=Dataset.from_dict({"text": texts, "label": labels}),
        unlabeled_dataset=Dataset.from_dict({"text": pool}),
        processing_class=None if named else AutoTokenizer.from_pretrained(name),
    )  # fmt: skip
    trainer.train()
    return trainer.model.state_dict()


def own(weights):
    """Without the layer that saved models have the mean in."""
    return {name: value for name, value in weights.items() if ".layer.2." not in name}


@pytest.mark.parametrize(("method", "start"), [("uda", "none"), ("uda", "contrastive"), ("dividemix", "contrastive")])
def test_the_same_weights_through_every_door(folder, tmp_path, method, start):
    config = TrainConfig(
        max_steps=STEPS, learning_rate=1e-3, head_learning_rate=5e-3, warm_start=start, warm_steps=3,
        mixed_precision="no", seed=3,
    )  # fmt: skip
    wanted, before = by_fit(folder, tmp_path / "fit", method, config)
    assert difference(wanted, before) > 1e-3
    for door in (by_classifier, by_command, by_trainer):
        weights = own(door(folder, tmp_path / door.__name__, method, config))
        assert weights.keys() == wanted.keys() and difference(weights, wanted) < 1e-6, door.__name__
