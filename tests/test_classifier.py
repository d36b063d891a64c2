"""SSLClassifier: columns of all libraries, every method, searches, several labels, pairs, callbacks, folders, hub."""

import io
import os
import pickle
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from huggingface_hub import constants
from pairs import pair_bert
from rich.console import Console
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from tiny import tiny_bert, tiny_images, tiny_label_sets, tiny_texts, tiny_tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import nlp_ssl.classifier as classifier_module
from nlp_ssl import (
    UDA,
    FixMatch,
    Pool,
    SSLClassifier,
    Supervised,
    Task,
    TrainConfig,
    fit,
    get_method,
    list_methods,
)
from nlp_ssl.errors import ConfigError, DataError, RunError, SSLError
from nlp_ssl.inference.predict import predict
from nlp_ssl.training import classifier_files
from nlp_ssl.utils import progress

TEXTS, LABELS = tiny_texts(48, seed=4)
X, Y, POOL = TEXTS[:16], LABELS[:16], TEXTS[16:40]
QUICK = TrainConfig(
    max_steps=2, batch_size=4, unlabeled_ratio=2, learning_rate=1e-3, head_learning_rate=1e-3, warm_start="none",
    mixed_precision="no",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """Tokenized texts are cached beside the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture
def make(tiny):
    """Makes classifiers on the tiny model."""

    def of(method="uda", **params):
        return SSLClassifier(tiny, method, **{"max_length": 24, "config": QUICK, **params})

    return of


@pytest.fixture(scope="module")
def fitted(tiny):
    return SSLClassifier(tiny, max_length=24, config=QUICK).fit(X, Y, unlabeled=POOL)


@pytest.fixture
def tasks(monkeypatch):
    """The tasks of all trainings."""
    seen = []

    def run_one(method, task, config, **more):
        seen.append(task)
        return original(method, task, config, **more)

    original = classifier_module.run_one
    monkeypatch.setattr(classifier_module, "run_one", run_one)
    return seen


# --- columns


@pytest.mark.parametrize(
    "column",
    [list, np.array, lambda v: np.array(v, dtype=object), pd.Series, pl.Series, pa.array,
     lambda v: pa.chunked_array([v])],
    ids=["list", "numpy", "object", "pandas", "polars", "arrow", "chunked"],
)  # fmt: skip
def test_columns_of_all_libraries(make, fitted, column):
    found = make().fit(column(X), column(Y), unlabeled=column(POOL))
    assert found.predict_proba(column(TEXTS)) == pytest.approx(fitted.predict_proba(TEXTS), abs=1e-6)
    assert found.classes_.tolist() == ["neg", "pos"] and found.score(column(X), column(Y)) == fitted.score(X, Y)


def test_the_pool_trains_beside_rows_without_a_label(make, tasks):
    make().fit([*X, *POOL[:4]], [*Y, None, "", -1, float("nan")], unlabeled=POOL[4:])
    make().fit(X, Y, unlabeled=POOL)
    assert [len(task.data.unlabeled) for task in tasks] == [len(POOL), len(POOL)]


@pytest.mark.parametrize("name", list_methods())
def test_every_method(make, name):
    rounds = {"rounds": 1} if name in list_methods(in_rounds=True) else {}
    found = make(get_method(name)(**rounds), max_steps=1).fit(X, Y, unlabeled=POOL)
    p = found.predict_proba(TEXTS[40:])
    assert p.shape == (8, 2) and p.sum(1) == pytest.approx(1.0) and set(found.predict(TEXTS)) <= {"neg", "pos"}


@pytest.mark.parametrize("y", [[10 if label == "neg" else 2 for label in Y], [label == "pos" for label in Y], Y])
def test_columns_of_probabilities_follow_the_classes(make, tmp_path, y):
    found = make("supervised", max_steps=40).fit(X, y)
    assert found.classes_.tolist() == sorted(set(y))
    assert (found.classes_[found.predict_proba(X).argmax(1)] == np.array(y)).mean() > 0.9
    found.save_pretrained(tmp_path)
    again = SSLClassifier.from_pretrained(tmp_path)
    assert again.classes_.dtype == found.classes_.dtype and again.predict(X).tolist() == found.predict(X).tolist()


# --- scikit-learn


def test_a_search_over_options_of_a_method_that_is_a_name(make, tasks):
    """Also where the method itself is searched, and comes last; with missing labels, and settings."""
    grid = {"method__threshold": [0.6, 0.7], "method": ["fixmatch", "uda"], "config__warmup_steps": [0.0]}
    y = [label if i < 12 else "" for i, label in enumerate(Y)]
    search = GridSearchCV(make("supervised"), grid, cv=2, error_score="raise").fit(X, y, unlabeled=Pool(POOL))
    best = search.best_estimator_
    assert isinstance(best.method, FixMatch | UDA) and best.method.threshold == search.best_params_["method__threshold"]
    assert best.config == replace(QUICK, warmup_steps=0.0)
    assert {type(p["method"]) for p in search.cv_results_["params"]} == {str} and len(tasks) == 9
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(tasks[-1].data.unlabeled) == len(POOL) + 4 and len(tasks[-1].data.labeled) == 12


def test_a_pool_as_long_as_the_texts_stays_whole_in_a_search(make, tasks):
    search = GridSearchCV(make(), {"method__threshold": [0.6]}, cv=2, error_score="raise")
    search.fit(X, Y, unlabeled=Pool(POOL[: len(X)]))
    assert [len(task.data.unlabeled) for task in tasks] == [len(X)] * 3
    pipe = Pipeline([("same", FunctionTransformer(list)), ("clf", make())])
    cross_val_score(pipe, X, Y, cv=2, params={"clf__unlabeled": Pool(POOL[: len(X)])}, error_score="raise")
    assert [len(task.data.unlabeled) for task in tasks[3:]] == [len(X)] * 2


def test_a_pool_that_may_have_been_cut_is_refused(make, tasks):
    plain = POOL[: len(X)]
    for call in (
        lambda: GridSearchCV(make(), {"max_steps": [1]}, cv=2, error_score="raise").fit(X, Y, unlabeled=plain),
        lambda: cross_val_score(make(), X, Y, cv=2, params={"unlabeled": plain}, error_score="raise"),
        lambda: pickle.loads(pickle.dumps(clone(make()))).fit(X, Y, unlabeled=plain),
    ):
        with pytest.raises(ValueError, match=r"SSL128.*unlabeled=Pool\(texts\)"):
            call()
    assert not tasks
    make().fit(X, Y, unlabeled=plain)
    assert len(tasks[0].data.unlabeled) == len(X), "nobody but scikit-learn's tools cuts it"


def test_parameters_of_methods_and_settings(make):
    found = make("fixmatch").set_params(method__threshold=0.7, config__warm_steps=np.int64(3), max_steps=5)
    assert found.method == FixMatch(threshold=0.7) and found.config.warm_steps == 3 and found.max_steps == 5
    assert type(found.config.warm_steps) is int, "settings are saved as JSON"
    assert found.set_params(method__threshold=0.6, method="uda").method == UDA(threshold=0.6)
    assert clone(found).get_params() == found.get_params()
    wrong = make("uad", config={"warm_steps": 1})
    assert not [name for name in wrong.get_params() if "__" in name], "what is wrong is said by fit"
    assert wrong.set_params(method="vat", config=None).get_params()["config__seed"] == 0
    with pytest.raises(TypeError, match="max_step"):
        SSLClassifier(max_step=5)


def test_a_short_repr(make, fitted):
    assert re.fullmatch(r"SSLClassifier\('.*model', method='uda', not fitted\)", repr(make()))
    assert "method=UDA(threshold=0.9), not fitted)" in repr(make(UDA(threshold=0.9)))
    assert repr(fitted).endswith("method='uda', classes 'neg', 'pos')")
    many = SSLClassifier.from_net(SimpleNamespace(classes=tuple("abcdefgh"), eval=lambda: None))
    assert repr(many).endswith("classes 'a', 'b', 'c', 'd', 'e', ...)") and len(repr(many)) < 120
    assert "uad" in make("uad")._repr_html_()


def test_pickling(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all() and again.notes_ == fitted.notes_


def test_scores_go_by_the_names_of_labels(tiny, tmp_path):
    """A model of transformers, and a run on files, know names alone: numbers in y are these classes."""
    net = AutoModelForSequenceClassification.from_pretrained(tiny, id2label={0: "1", 1: "0"}, label2id={"1": 0, "0": 1})
    net.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    found = SSLClassifier.from_pretrained(tmp_path)
    predicted = found.predict(X)
    assert set(predicted) <= {"0", "1"} and found.score(X, [int(label) for label in predicted]) == 1.0
    assert found.score(X, [1 - int(label) for label in predicted]) == 0.0


def test_the_model_of_a_run_has_classes_of_the_labels_type(tiny):
    task = Task.from_texts(X, [int(label == "pos") for label in Y], unlabeled=POOL, model=tiny, max_length=24)
    found = fit(UDA(threshold=0.6), task, QUICK).model
    assert found.classes_.dtype == np.int64 and found.classes_.tolist() == [0, 1]
    again = clone(found).fit(X, Y, unlabeled=POOL)
    assert (again.method, again.config, again.max_length) == (UDA(threshold=0.6), QUICK, 24)
    assert again.net_.model.config.hidden_size == 32, "the encoder of the task"


# --- weights


def test_weights_of_rows(make, tasks, fitted):
    found = make().fit(X, Y, unlabeled=POOL, sample_weight=np.ones(16))
    assert found.predict_proba(TEXTS) == pytest.approx(fitted.predict_proba(TEXTS), abs=1e-6)
    weights = np.where(np.array(Y) == "pos", 5.0, 0.1)
    other = make().fit([" ", *X, "a film"], ["pos", *Y, None], unlabeled=POOL, sample_weight=[9.0, *weights, 7.0])
    assert (other.predict_proba(TEXTS)[:, 1] > fitted.predict_proba(TEXTS)[:, 1]).all()
    data = tasks[1].data
    assert data.weights.tolist() == weights.tolist(), "rows that are dropped or unlabeled take theirs with them"
    make().fit(X, Y, unlabeled=POOL, sample_weight=weights)
    assert tasks[2].data.content_hash != tasks[0].data.content_hash, "other weights are another run"
    for wrong in ([1.0] * 15, [-1.0] * 16, [np.nan] * 16, [0.0] * 16):
        with pytest.raises(ValueError, match="SSL188"):
            make().fit(X, Y, sample_weight=wrong)


# --- several labels, pairs, images

SETS = tiny_label_sets(40, seed=6)
FLAGS = np.array([[name in row for name in ("bad", "good")] for row in SETS[1]], dtype=int)


@pytest.fixture(scope="module")
def multilabel(tiny):
    return SSLClassifier(tiny, "fixmatch", max_length=24, config=replace(QUICK, max_steps=60)).fit(
        SETS[0][:24], SETS[1][:24], unlabeled=SETS[0][24:]
    )


def test_several_labels(multilabel, tmp_path):
    texts, names = SETS
    p, found = multilabel.predict_proba(texts), multilabel.predict(texts)
    assert multilabel.classes_.tolist() == ["bad", "good"] and p.shape == (40, 2) and np.abs(p.sum(1) - 1).max() > 0.1
    assert found == [[c for c, value in zip(("bad", "good"), row, strict=True) if value >= 0.5] for row in p]
    right = np.mean([set(a) == set(b) for a, b in zip(found, names, strict=True)])
    assert right > 0.5
    for y in (names, [set(row) for row in names], pd.DataFrame(FLAGS, columns=["bad", "good"]), FLAGS):
        assert multilabel.score(texts, y) == right
    assert multilabel.score(texts, [None, *names[1:]]) == np.mean(
        [set(a) == set(b) for a, b in zip(found[1:], names[1:], strict=True)]
    )
    half = [0.0] * 20 + [1.0] * 20
    assert multilabel.score(texts, names, half) == np.mean(
        [set(a) == set(b) for a, b in zip(found[20:], names[20:], strict=True)]
    )
    every = clone(multilabel).set_params(threshold=0.0)
    every.net_, every.classes_, every.notes_ = multilabel.net_, multilabel.classes_, ()
    assert every.predict(texts[:2]) == [["bad", "good"]] * 2
    multilabel.save_pretrained(tmp_path)
    assert SSLClassifier.from_pretrained(tmp_path).predict(texts) == found


@pytest.mark.parametrize(
    "given",
    [lambda y, f: [set(row) for row in y], lambda y, f: pd.Series([tuple(row) for row in y]), lambda y, f: f,
     lambda y, f: f.astype(bool), lambda y, f: f.tolist(), lambda y, f: pl.DataFrame(f, schema=["bad", "good"])],
    ids=["sets", "pandas", "matrix", "bool", "lists of 0 and 1", "polars"],
)  # fmt: skip
def test_several_labels_in_every_form(make, given):
    y, names = given(SETS[1][:24], FLAGS[:24]), ["bad", "good"]
    flags = not isinstance(y, pd.Series) and not isinstance(y[0], set)
    wanted = make("fixmatch").fit(SETS[0][:24], SETS[1][:24], unlabeled=SETS[0][24:])
    found = make("fixmatch", class_names=names if flags else None).fit(SETS[0][:24], y, unlabeled=SETS[0][24:])
    assert found.classes_.tolist() == names
    assert found.predict_proba(SETS[0]) == pytest.approx(wanted.predict_proba(SETS[0]), abs=1e-6)


def test_labels_that_are_numbers_stay_numbers_where_there_are_several(make):
    y = [[30] * ("good" in row) + [7] * ("bad" in row) for row in SETS[1][:24]]
    found = make("supervised", threshold=0.0).fit(SETS[0][:24], y)
    assert found.classes_.tolist() == [30, 7] and sorted(found.predict(SETS[0][:1])[0]) == [7, 30]


def test_pairs(tmp_path, tasks):
    model = pair_bert(tmp_path / "model")
    first, second = X, [*X[1:], X[0]]
    given = [
        list(zip(first, second, strict=True)), np.array([first, second]).T, pd.DataFrame({"a": first, "b": second}),
        pl.DataFrame({"a": first, "b": second}), pa.table({"a": first, "b": second}),
    ]  # fmt: skip
    pool = list(zip(POOL, POOL[::-1], strict=True))
    trained = [SSLClassifier(model, config=QUICK, max_length=48).fit(pairs, Y, unlabeled=pool) for pairs in given]
    answers = [found.predict_proba(pairs) for found, pairs in zip(trained, given, strict=True)]
    assert all(p == pytest.approx(answers[0], abs=1e-6) for p in answers) and tasks[0].data.pairs is not None
    a, b = trained[0].predict_proba([("good", "bad"), ("bad", "good")])
    assert np.abs(a - b).max() > 1e-6
    with pytest.raises(ConfigError, match="SSL452: this model was trained on pairs"):
        trained[0].predict(X)


def test_images(tmp_path):
    task = tiny_images()
    net = fit("supervised", task, replace(QUICK, max_steps=1)).module
    found, images = SSLClassifier.from_net(net), task.data.images.images[:6]
    p = found.predict_proba(images)
    assert p == pytest.approx(predict(net, task.data.images, np.arange(6)).double().softmax(-1).numpy(), abs=1e-6)
    assert found.predict(images).tolist() == found.classes_[p.argmax(1)].tolist()
    found.save_pretrained(tmp_path / "classifier")
    net.save((tmp_path / "net").mkdir() or tmp_path / "net")
    for place in ("classifier", "net"):
        again = SSLClassifier.from_pretrained(tmp_path / place)
        assert again.predict_proba(images) == pytest.approx(p, abs=1e-6) and again.classes_.tolist() == [*net.classes]
    for wrong in (images / 255, images[..., 0], ["a text"], np.repeat(images, 3, -1)):
        with pytest.raises(DataError, match=r"SSL174: images must be uint8 \[N, H, W, 1\]"):
            found.predict(wrong)


# --- progress, callbacks, Ctrl-C


@pytest.mark.parametrize("verbose", [True, False])
def test_bars_in_a_terminal(make, monkeypatch, verbose):
    shown = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=shown, force_terminal=True, width=80))
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    make(verbose=verbose).fit(X, Y, unlabeled=POOL, callbacks=[Refresh()])
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    assert ("uda" in text and "1/2" in text) if verbose else not text


class Refresh(TrainerCallback):
    """Draws the bars: they wait for a moment otherwise."""

    def on_step_end(self, args, state, control, **kwargs):
        for bars in progress._OPEN:
            bars.refresh()


@pytest.mark.parametrize("verbose", [True, False])
def test_bars_in_a_notebook(make, monkeypatch, verbose):
    """By IPython's display alone: one output per cell, which is empty at the end."""
    cells = []

    def display(data, raw, display_id):
        assert raw and display_id
        cells.append([data])
        return SimpleNamespace(update=lambda data, raw: cells[-1].append(data))

    module = ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)  # every console in a notebook shows through IPython
    monkeypatch.setattr(progress, "console", Console(force_jupyter=True))
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    make(verbose=verbose).fit(X, Y, unlabeled=POOL, callbacks=[Refresh()])
    if not verbose:
        assert not cells
        return
    shown = [data["text/plain"] for cell in cells for data in cell]
    assert all(cell[0] != {"text/plain": ""} for cell in cells), "no output of nothing"
    assert any("uda" in text and "1/2" in text for text in shown) and cells[-1][-1] == {"text/plain": ""}


class Recorder(TrainerCallback):
    """What is called, in order, and for whom."""

    def __init__(self):
        self.events, self.steps, self.logs, self.given = [], [], [], {}


def _event(name):
    def call(self, args, state, control, **kwargs):
        self.events.append(name)
        self.steps.append(state.global_step)
        self.given = kwargs
        if name == "on_log":
            self.logs.append(kwargs["logs"])

    return call


for _name in ("init_end", "train_begin", "epoch_begin", "step_begin", "substep_end", "pre_optimizer_step",
              "optimizer_step", "step_end", "log", "evaluate", "save", "epoch_end", "train_end"):  # fmt: skip
    setattr(Recorder, f"on_{_name}", _event(f"on_{_name}"))


def test_callbacks_are_called_as_by_trainer(tiny, make, tmp_path):
    """The very events of a Trainer with the same settings, in the same order."""
    theirs, ours = Recorder(), Recorder()
    rows = Dataset.from_dict(dict(tiny_tokenizer()(X), labels=[int(label == "pos") for label in Y]))
    args = TrainingArguments(
        str(tmp_path / "hf"), max_steps=4, gradient_accumulation_steps=2, per_device_train_batch_size=2,
        logging_steps=1, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=4, report_to=[],
        disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(tiny)
    Trainer(model, args, train_dataset=rows, eval_dataset=rows, processing_class=tiny_tokenizer(),
            callbacks=[theirs]).train()  # fmt: skip
    config = replace(QUICK, max_steps=4, gradient_accumulation_steps=2, logging_steps=1, eval_steps=2, save_steps=4)
    found = make("supervised", config=config)
    found.fit(X, Y, dev=(TEXTS[40:], LABELS[40:]), output_dir=tmp_path / "ours", callbacks=[ours])
    at_start = ours.events.index("on_save")  # our first checkpoint is the start, before anything is trained
    assert ours.events[at_start - 1] == "on_init_end"
    del ours.events[at_start], ours.steps[at_start]
    assert list(zip(ours.events, ours.steps, strict=True)) == list(zip(theirs.events, theirs.steps, strict=True))
    assert any("eval_accuracy" in logs for logs in ours.logs) and "train_runtime" in ours.logs[-1]
    assert ours.given["model"] is found.net_.model and isinstance(ours.given["optimizer"], torch.optim.Optimizer)


class StopAt(TrainerCallback):
    def __init__(self, step, how="training"):
        self.step, self.how, self.trainings = step, how, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainings += 1

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            if self.how == "signal":
                signal.raise_signal(signal.SIGINT)
            control.should_training_stop = self.how == "training"


@pytest.mark.parametrize("method", ["uda", "self_training"])
def test_a_callback_may_stop_the_run(make, method):
    """Also one in rounds, as a whole."""
    recorder, stop = Recorder(), StopAt(1)
    found = make(method, max_steps=5).fit(X, Y, unlabeled=POOL, callbacks=[recorder, stop])
    assert recorder.events.count("on_step_end") == 1 and recorder.events[-1] == "on_train_end"
    assert stop.trainings == 1 and len(found.predict(X)) == 16


def test_what_is_no_callback_is_refused(make):
    for wrong in (Recorder, print):
        with pytest.raises(ConfigError, match="SSL486"):
            make().fit(X, Y, callbacks=[wrong])


@pytest.mark.parametrize("method", ["uda", "self_training"])
def test_ctrl_c_leaves_a_classifier_that_predicts(make, method):
    found = make(method, max_steps=50)
    with pytest.raises(KeyboardInterrupt):
        found.fit(X, Y, unlabeled=POOL, callbacks=[StopAt(2, "signal")])
    assert found.predict_proba(X).shape == (16, 2) and found.classes_.tolist() == ["neg", "pos"]
    assert found.fit(X, Y, unlabeled=POOL).predict(X).shape == (16,)


def test_ctrl_c_before_the_first_step_leaves_what_was_there(make, fitted, monkeypatch):
    found = pickle.loads(pickle.dumps(fitted))

    def stopped(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(classifier_module, "run_one", stopped)
    with pytest.raises(KeyboardInterrupt):
        found.fit(TEXTS[40:], [f"{label} now" for label in LABELS[40:]])
    assert found.classes_.tolist() == ["neg", "pos"] and len(found.predict(X)) == 16
    with pytest.raises(KeyboardInterrupt):
        (fresh := make()).fit(X, Y)
    with pytest.raises(NotFittedError):
        fresh.predict(X)


# --- folders


def test_a_run_that_is_written_goes_on_where_it_stopped(make, tmp_path):
    y = [int(label == "pos") for label in Y]
    whole = make(max_steps=4).fit(X, y, unlabeled=POOL, output_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        make(max_steps=4).fit(X, y, unlabeled=POOL, output_dir=tmp_path / "out", callbacks=[StopAt(2, "signal")])
    with pytest.raises(ConfigError, match="SSL219"):
        make(max_steps=4).fit(X, y, unlabeled=POOL, output_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"SSL214.*max_steps: 4 -> 5"):
        make(max_steps=5).fit(X, y, unlabeled=POOL, output_dir=tmp_path / "out", resume=True)
    recorder = Recorder()
    resumed = make(max_steps=4).fit(
        X, y, unlabeled=POOL, output_dir=tmp_path / "out", resume=True, callbacks=[recorder]
    )
    assert recorder.events.count("on_step_end") == 2
    assert (resumed.predict_proba(TEXTS) == whole.predict_proba(TEXTS)).all()
    again, recorder = make(max_steps=4), Recorder()
    again.fit(X, y, unlabeled=POOL, output_dir=str(tmp_path / "out"), resume=True, callbacks=[recorder])
    assert not recorder.events, "it was complete"
    opened = SSLClassifier.from_pretrained(tmp_path / "out")
    for found in (again, opened):
        assert found.predict_proba(TEXTS) == pytest.approx(whole.predict_proba(TEXTS), abs=1e-5)
        assert found.classes_.dtype == np.int64 and found.max_steps == 4


def test_a_folder_of_a_run(tiny, tmp_path):
    task = Task.from_texts(X, Y, unlabeled=POOL, model=tiny, max_length=24)
    wanted = fit(FixMatch(threshold=0.7), task, QUICK, folder=tmp_path / "run").model
    found = SSLClassifier.from_pretrained(tmp_path / "run")
    assert found.predict_proba(TEXTS) == pytest.approx(wanted.predict_proba(TEXTS), abs=1e-5)
    assert (found.method, found.config, found.max_length) == (FixMatch(threshold=0.7), QUICK, 24)
    assert found.model == str(tiny) and found.fit(X, Y).score(X, Y) >= 0
    rounds = fit("self_training", task, QUICK, folder=tmp_path / "rounds").model
    found = SSLClassifier.from_pretrained(tmp_path / "rounds")
    assert found.method == get_method("self_training")() == rounds.method


def test_a_folder_of_transformers(tiny, tmp_path):
    found = SSLClassifier.from_pretrained(tiny)
    assert found.classes_.tolist() == ["neg", "pos"] and found.model == str(tiny)
    model = AutoModelForSequenceClassification.from_pretrained(tiny)
    tokens = tiny_tokenizer()(X, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        assert found.predict_proba(X) == pytest.approx(model(**tokens).logits.softmax(-1).numpy(), abs=1e-5)
    again = clone(found).set_params(config=QUICK, max_length=24).fit(X, Y)
    assert len(again.predict(X)) == 16
    model.config.problem_type = "multi_label_classification"
    model.save_pretrained(tmp_path / "many")
    tiny_tokenizer().save_pretrained(tmp_path / "many")
    assert isinstance(SSLClassifier.from_pretrained(tmp_path / "many").predict(X), list)
    BertForSequenceClassification(BertConfig(**{**model.config.to_dict(), "id2label": {0: "score"}})).save_pretrained(
        tmp_path / "one"
    )
    tiny_tokenizer().save_pretrained(tmp_path / "one")
    with pytest.raises(ConfigError, match="SSL269.*regression"):
        SSLClassifier.from_pretrained(tmp_path / "one")


def test_a_folder_of_version_0_1_0():
    found = SSLClassifier.from_pretrained(Path(__file__).parent / "fixtures/v0_1_0/classifier")
    assert found.classes_.tolist() == list(range(11)) and found.method == Supervised()
    assert (found.max_steps, found.random_state, found.max_length) == (1, 0, 16)
    assert found.config == TrainConfig(
        batch_size=11, warm_start="supervised", warm_steps=200, learning_rate=0.01, head_learning_rate=0.01
    )


def test_parameters_are_saved(tiny, fitted, tmp_path, caplog):
    params = {
        "model": Path(tiny), "method": UDA(threshold=0.9), "max_steps": np.int64(3), "batch_size": 2,
        "learning_rate": np.float32(0.5), "max_length": 20, "strong": "tfidf(p=0.2)", "config": QUICK,
        "class_names": np.array(["a", "b"]), "threshold": 0.4, "random_state": 7, "verbose": False,
    }  # fmt: skip
    found = SSLClassifier(**params)
    found.net_, found.classes_, found.notes_ = fitted.net_, fitted.classes_, ()
    found.save_pretrained(tmp_path)
    again = SSLClassifier.from_pretrained(tmp_path).get_params(deep=False)
    assert again == params | {"model": str(tiny), "class_names": ["a", "b"]}
    found.set_params(strong=Task.from_texts(X, Y, model=tiny, max_length=24).augment["strong"])
    found.save_pretrained(tmp_path)
    assert SSLClassifier.from_pretrained(tmp_path).strong is None and "give it again for fit" in caplog.text


# --- the hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub whose repositories are at once in the cache of this machine."""
    calls = []

    class Api:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, repo_id, *, private=None, exist_ok=False):
            calls.append(("create", repo_id, private, exist_ok))
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            calls.append(("upload", repo_id, commit_message))
            place = tmp_path / "hub" / f"models--{repo_id.replace('/', '--')}"
            shutil.copytree(folder_path, place / "snapshots" / "1")
            (place / "refs").mkdir()
            (place / "refs" / "main").write_text("1")

    monkeypatch.setattr(classifier_files, "HfApi", Api)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return calls


def test_push_and_open_again(make, hub):
    found = make().fit(X, [int(label == "pos") for label in Y], unlabeled=POOL)
    address = found.push_to_hub("me/reviews", private=True, token="t", commit_message="First")
    assert address == "https://huggingface.co/me/reviews"
    assert hub == [("token", "t"), ("create", "me/reviews", True, True), ("upload", "me/reviews", "First")]
    again = SSLClassifier.from_pretrained("me/reviews")
    assert again.classes_.dtype == np.int64 and again.predict(TEXTS).tolist() == found.predict(TEXTS).tolist()
    image = SSLClassifier.from_net(tiny_images().build(0))
    image.push_to_hub("me/digits")
    assert SSLClassifier.from_pretrained("me/digits").classes_.tolist() == image.classes_.tolist()


def test_what_the_hub_refuses_is_one_line(fitted, make, monkeypatch):
    with pytest.raises(NotFittedError):
        make().push_to_hub("me/reviews")
    for name in ("me/reviews", "no name"):  # there is no hub in tests
        with pytest.raises(RunError, match=f"SSL308: cannot upload to '{name}': check the name, and log in") as caught:
            fitted.push_to_hub(name)
        assert "\n" not in str(caught.value)


# --- refused before any work


@pytest.mark.parametrize(
    ("params", "arguments", "code"),
    [
        ({"method": "mixtext"}, {"y": [["a"], ["b"]] * 8}, 476),
        ({"method": "self_training"}, {"y": [["a"], ["b"]] * 8}, 476),
        ({"config": replace(QUICK, calibrate="labels")}, {"y": [["a"], ["b"]] * 8}, 477),
        ({"config": replace(QUICK, save_steps=1)}, {}, 215),
        ({"config": replace(QUICK, eval_steps=1)}, {}, 227),
        ({"config": replace(QUICK, calibrate="dev")}, {}, 400),
        ({"config": replace(QUICK, calibrate="labels"), "method": "self_training"}, {"unlabeled": POOL}, 401),
        ({"config": replace(QUICK, gradient_accumulation_steps=3)}, {}, 210),
        ({"config": replace(QUICK, dataloader_num_workers=1), "method": "remixmatch"}, {"unlabeled": POOL}, 275),
        ({"strong": "nonsense"}, {}, 283),
        ({}, {"dev": X}, 127),
        ({}, {"dev": (X, ["other"] * 16)}, 134),
        ({}, {"output_dir": os.path.dirname(__file__)}, 219),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model_is_opened(make, monkeypatch, params, arguments, code):
    monkeypatch.setattr("nlp_ssl.task.load_text_net", lambda *args, **more: pytest.fail("the model is opened"))
    with pytest.raises(SSLError, match=f"SSL{code}"):
        make(**params).fit(X, **{"y": Y, **arguments})
