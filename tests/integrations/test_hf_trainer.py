"""`SSLTrainer` does what `nlp_ssl.fit` does, and what users of `Trainer` count on."""

import copy
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import ranks
import torch
from datasets import ClassLabel, Dataset
from safetensors.torch import load_file
from tiny import FAST, difference, neutral_draws, tiny_bert, tiny_task, tiny_texts, tiny_tokenizer
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from nlp_ssl import FixMatch, SSLTrainer, SSLTrainingArguments, Supervised, fit
from nlp_ssl.errors import ConfigError, DataError, RunError
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.methods import DivideMix, MeanTeacher
from nlp_ssl.training import warm_start as warm_stage

OPEN = FixMatch(threshold=0.0)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("trainer")
    tiny_bert(path / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path))  # tokenized texts are kept below it
        yield path


def sets(labels=("neg", "pos")):
    """The rows of `tiny_tables` as datasets: labeled, pool, evaluated."""
    texts, names = tiny_texts(16 + 96 + 40, seed=1)
    y = [labels.index(name) for name in names]
    whole = [Dataset.from_dict({"text": texts[a:b], "label": y[a:b]}) for a, b in ((0, 16), (16, 112), (112, 152))]
    return whole[0], whole[1].remove_columns("label"), whole[2]


def decided(folder, dropout=None):
    """The tiny net with a head that is sure of itself: its pseudo-labels then matter."""
    options = {} if dropout is None else {f"{part}_dropout_prob": dropout for part in ("hidden", "attention_probs")}
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model", **options)
    with torch.no_grad():
        model.classifier.weight.mul_(40.0)
    return model


def arguments(out, **more):
    """Those of `tiny.FAST`."""
    usual = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "head_learning_rate": 1e-3,
             "warmup_steps": 0, "lr_scheduler_type": "constant", "unlabeled_ratio": 2, "warm_start": "none",
             "max_length": 24, "save_strategy": "no", "disable_tqdm": True}  # fmt: skip
    return SSLTrainingArguments(str(out), use_cpu=True, **(usual | more))


def trainer(folder, out, method, model=None, data=None, callbacks=None, compute_metrics=None, **more):
    labeled, pool, evaluated = data or sets()
    return SSLTrainer(
        model=model or decided(folder),
        args=arguments(out, **more),
        train_dataset=labeled,
        unlabeled_dataset=pool,
        eval_dataset=evaluated,
        processing_class=tiny_tokenizer(),
        method=method,
        callbacks=callbacks,
        compute_metrics=compute_metrics,
    )


def student(trainer):
    return {name: value.clone() for name, value in trainer.engine.student.state_dict().items()}


def fitted(folder, method, config=FAST, unlabeled=96):
    """Weights that `fit` comes to from the same net, and their values before."""
    task = tiny_task(folder, pooling="stock", unlabeled=unlabeled)

    def build(number):
        net = task.build(number)
        with torch.no_grad():
            net.classifier.weight.mul_(40.0)
        if number:
            net.classifier.reset_parameters()
        return net

    result = fit(method, replace(task, build=build), config)
    return result.module.state_dict(), build(0).state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- the same as fit


@pytest.mark.parametrize("name", ranks.methods())
def test_weights_of_every_method_are_those_of_fit(name, folder, tmp_path):
    method = ranks.methods()[name]
    made = trainer(folder, tmp_path, method, max_steps=2)
    made.train()
    weights, before = fitted(folder, method, replace(FAST, max_steps=2))
    assert difference(student(made), weights) < 1e-6 and difference(weights, before) > 1e-4
    # The user's own model is what was trained, and it is whole.
    assert torch.equal(made.model.classifier.weight, weights["classifier.weight"])
    assert made.model.bert.pooler.dense.weight is made.engine.student.model.bert.pooler.dense.weight


def test_later_passes_are_those_of_fit(folder, tmp_path):
    """A pass of 24 rows has 3 steps of 8; what a method does at the start of a pass it does again in step 4."""
    labeled, pool, _ = sets()
    for name in ("temporal_ensembling", "label_propagation"):
        method = ranks.methods()[name]
        made = trainer(folder, tmp_path, method, data=(labeled, pool.select(range(24)), None), max_steps=5)
        made.train()
        assert difference(student(made), fitted(folder, method, replace(FAST, max_steps=5), unlabeled=24)[0]) < 1e-6


def test_loss_scaling_is_exact_and_comes_back_at_its_scale(folder, tmp_path):
    """Scales are powers of two: nothing is rounded. They double after two good updates; a step has two of them."""

    def scaled():
        made = trainer(folder, tmp_path, DivideMix(threshold=0.0), save_strategy="steps", save_steps=2, max_grad_norm=0)
        made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=2)
        return made

    made = scaled()
    made.train()
    assert (
        difference(student(made), fitted(folder, DivideMix(threshold=0.0), replace(FAST, max_grad_norm=0.0))[0]) < 1e-6
    )
    assert made.accelerator.scaler.get_scale() == 2.0 * 2**3
    again = scaled()
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.accelerator.scaler.get_scale() == 2.0 * 2**3 and same(student(again), student(made))


def test_micro_batches_are_those_of_fit_and_make_one_batch(folder, tmp_path, monkeypatch):
    for method in (OPEN, DivideMix(threshold=0.0)):
        made = trainer(folder, tmp_path, method, per_device_train_batch_size=2, gradient_accumulation_steps=2)
        made.train()
        assert difference(student(made), fitted(folder, method, replace(FAST, gradient_accumulation_steps=2))[0]) < 1e-6
    neutral_draws(monkeypatch)
    norms = []
    for size, parts in ((4, 1), (2, 2), (1, 4)):
        made = trainer(folder, tmp_path, OPEN, decided(folder, dropout=0.0), logging_steps=1,
                       per_device_train_batch_size=size, gradient_accumulation_steps=parts)  # fmt: skip
        made.train()
        norms.append([(line["loss"], line["grad_norm"]) for line in made.state.log_history if "loss" in line])
    assert len(norms[0]) == 3
    for other in norms[1:]:
        assert np.array(other) == pytest.approx(np.array(norms[0]), rel=1e-3)


def test_the_schedule_is_that_of_fit(folder, tmp_path):
    made = trainer(folder, tmp_path, OPEN, max_steps=4, lr_scheduler_type="linear", warmup_steps=2, logging_steps=1)
    made.train()
    rates = [line["learning_rate"] for line in made.state.log_history if "loss" in line]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])
    made = trainer(folder, tmp_path, OPEN, max_steps=4, lr_scheduler_type="polynomial", warmup_steps=2, logging_steps=1)
    made.train()
    rates = [line["learning_rate"] for line in made.state.log_history if "loss" in line]
    assert rates == pytest.approx([0.0, 5e-4, 1e-3, 5e-4], rel=1e-3), "others are the stock ones"


def test_each_net_is_started_from_the_model_as_it_was_given(folder, tmp_path, monkeypatch):
    """Not from the one that was started before it, in whose memory the student's weights lie."""
    monkeypatch.setattr(warm_stage, "_CONTRASTIVE_RATE", 1e-3)
    made = trainer(folder, tmp_path, DivideMix(), warm_start="auto", warm_steps=3,
                   max_steps=1, learning_rate=0.0, head_learning_rate=0.0)  # fmt: skip
    twin = made._net(1)
    made.train()
    SharedStart(made.task, made.engine.config)(twin, 1)
    second = made.engine.modules["second"].state_dict()
    assert difference(second, twin.state_dict()) < 1e-6 and difference(second, student(made)) > 1e-4


def test_warm_start_comes_before_the_method(folder, tmp_path):
    """With a rate of zero all that changes is the start; its class shares of the pool are then known to the method."""
    made = trainer(folder, tmp_path, OPEN, warm_start="auto", warm_steps=3, max_steps=1,
                   learning_rate=0.0, head_learning_rate=0.0)  # fmt: skip
    before = copy.deepcopy(made.model.state_dict())
    made.train()
    assert not torch.equal(made.model.classifier.weight, before["classifier.weight"])
    assert not torch.equal(made.model.bert.pooler.dense.weight, before["bert.pooler.dense.weight"])
    assert made.engine.run.spec.prior is not None


# --- checkpoints


@pytest.mark.parametrize(
    ("name", "accumulate"),
    [(n, 1) for n in ("comatch", "distillation", "flexmatch", "temporal_ensembling")]
    + [("dividemix", 2), ("mean_teacher", 2)],
)
def test_resume_is_the_run_that_was_not_interrupted(name, accumulate, folder, tmp_path):
    """In the middle of the second pass, with dropout and a rate that falls; a pass of 24 rows has 3 steps of 8."""
    method, (labeled, pool, _) = ranks.methods()[name], sets()
    more = {"max_steps": 5, "save_strategy": "steps", "save_steps": 4, "lr_scheduler_type": "linear",
            "per_device_train_batch_size": 4 // accumulate, "gradient_accumulation_steps": accumulate,
            "data": (labeled, pool.select(range(24)), None)}  # fmt: skip
    whole = trainer(folder, tmp_path, method, **more)
    whole.train()
    again = trainer(folder, tmp_path, method, **more)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert again.state.global_step == 5
    for role, module in whole.engine.modules.items():
        assert same(module.state_dict(), again.engine.modules[role].state_dict()), role
    for key, value in whole.engine.run.state.items():
        assert torch.equal(value, again.engine.run.state[key]), key


def test_resume_of_a_finished_run_changes_nothing(folder, tmp_path):
    made = trainer(folder, tmp_path, OPEN, save_strategy="steps", save_steps=3)
    made.train()
    again = trainer(folder, tmp_path, OPEN, save_strategy="steps", save_steps=3)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 3 and same(again.model.state_dict(), made.model.state_dict())


def test_a_checkpoint_opens_as_a_model_and_holds_no_weights_twice(folder, tmp_path):
    made = trainer(folder, tmp_path, MeanTeacher(), save_strategy="steps", save_steps=3)
    made.train()
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-3")
    assert same(opened.state_dict(), made.model.state_dict())
    kept = tmp_path / "checkpoint-3/ssl/step-3"
    assert not load_file(kept / "net.student.safetensors")
    assert load_file(kept / "net.teacher.safetensors").keys() == made.engine.modules["teacher"].state_dict().keys()


def test_resume_refuses_what_does_not_fit(folder, tmp_path):
    trainer(folder, tmp_path, OPEN, save_strategy="steps", save_steps=3).train()
    with pytest.raises(ConfigError, match="SSL214.*threshold: 0.0 -> 0.5"):
        trainer(folder, tmp_path, FixMatch(threshold=0.5)).train(resume_from_checkpoint=True)
    bare = trainer(folder, tmp_path / "bare", OPEN, save_strategy="steps", save_steps=3, save_only_model=True)
    bare.train()
    with pytest.raises(RunError, match="SSL356.*holds no state of the method"):
        trainer(folder, tmp_path / "bare", OPEN).train(resume_from_checkpoint=True)


def test_the_best_model_is_loaded_at_the_end(folder, tmp_path):
    """Scores are .1 .9 .5: the second checkpoint's weights are those at the end."""
    scores = iter([0.1, 0.9, 0.5])
    made = trainer(
        folder, tmp_path, OPEN, compute_metrics=lambda found: {"quality": next(scores)}, eval_strategy="steps",
        eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True,
        metric_for_best_model="quality", greater_is_better=True,
    )  # fmt: skip
    made.train()
    best, last = (load_file(tmp_path / f"checkpoint-{n}/model.safetensors") for n in (2, 3))
    assert same(best, made.model.state_dict()) and not same(last, best)
    assert made.state.best_metric == 0.9


# --- what goes wrong


def test_losses_that_are_not_finite_stop_the_run(folder, tmp_path, monkeypatch):
    from nlp_ssl.methods import fixmatch

    honest, calls = fixmatch.ce, iter(range(10_000))
    monkeypatch.setattr(fixmatch, "ce", lambda z, y: honest(z, y) * (float("nan") if next(calls) >= 4 else 1.0))
    made = trainer(folder, tmp_path, OPEN, max_steps=20, save_strategy="steps", save_steps=1)
    with pytest.raises(RunError, match="SSL301.*not finite 5 times in a row up to step 6"):
        made.train()
    # Two steps were good; the five bad ones have changed nothing.
    good, last = (load_file(tmp_path / f"checkpoint-{n}/model.safetensors") for n in (2, 6))
    assert same(good, last) and same(good, made.model.state_dict())


def test_a_single_bad_update_is_skipped(folder, tmp_path, monkeypatch):
    from nlp_ssl.methods import fixmatch

    honest, calls = fixmatch.ce, iter(range(10_000))
    monkeypatch.setattr(fixmatch, "ce", lambda z, y: honest(z, y) * (float("inf") if next(calls) == 0 else 1.0))
    made = trainer(folder, tmp_path, OPEN, max_grad_norm=0.0)
    made.train()
    assert made.state.global_step == 3 and made.engine.bad_updates == 0
    assert all(bool(torch.isfinite(p).all()) for p in made.model.parameters())


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("tokens alone", "SSL471: train_dataset has no column of texts but input_ids, label"),
        ("no labeled rows", "SSL471: train_dataset is a NoneType: give a datasets.Dataset"),
        ("a list of texts", "SSL471: unlabeled_dataset is a list: give a datasets.Dataset"),
        ("no tokenizer", "SSL470"),
        ("plain arguments", "SSL472: args is a TrainingArguments: give SSLTrainingArguments"),
        ("label smoothing", "SSL473: SSLTrainer does not support label smoothing"),
        ("third class", "SSL475: label '2' is not a class of the model: it has 0 to 1"),
        ("unknown method", "SSL201: unknown method 'fixmach'. Did you mean 'fixmatch'"),
        ("rounds", "SSL201: self_training works in rounds"),
        ("no method", "SSL487: SSLTrainer has no default method: give one.*SSLClassifier chooses one"),
        ("two methods", "SSL487: method 'uda' in args and another for SSLTrainer"),
        ("a number", "SSL480: method is 3: give a name"),
        ("optimizer of the model alone", "SSL474: dividemix trains more than the model"),
    ],
)
def test_misuse(problem, message, folder, tmp_path):
    labeled, pool, evaluated = sets()
    given = {"model": decided(folder), "args": arguments(tmp_path), "train_dataset": labeled, "method": "fixmatch",
             "unlabeled_dataset": pool, "processing_class": tiny_tokenizer()}  # fmt: skip
    tokens = Dataset.from_dict({"input_ids": [[2, 5, 3], [2, 6, 3]], "label": [0, 1]})
    changes = {
        "tokens alone": {"train_dataset": tokens},
        "no labeled rows": {"train_dataset": None},
        "a list of texts": {"unlabeled_dataset": pool["text"][:]},
        "no tokenizer": {"processing_class": None},
        "plain arguments": {"args": TrainingArguments(str(tmp_path), use_cpu=True)},
        "label smoothing": {"args": arguments(tmp_path, label_smoothing_factor=0.1)},
        "third class": {"train_dataset": sets(labels=("neg", "", "pos"))[0]},
        "unknown method": {"method": "fixmach"},
        "rounds": {"method": "self_training"},
        "no method": {"method": None},
        "two methods": {"args": arguments(tmp_path, method="uda")},
        "a number": {"method": 3},
        "optimizer of the model alone": {
            "method": "dividemix", "optimizers": (torch.optim.SGD(given["model"].parameters(), lr=0.1), None)},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        SSLTrainer(**(given | changes[problem])).train()


def test_evaluated_texts_must_not_be_trained_on(folder, tmp_path):
    labeled, pool, evaluated = sets()
    leaky = Dataset.from_dict({"text": [*pool["text"], evaluated["text"][0]]})
    with pytest.raises(DataError, match="SSL137.*1 of 40 dev texts are also labeled or unlabeled texts"):
        trainer(folder, tmp_path, OPEN, data=(labeled, leaky, evaluated))
    with pytest.raises(DataError, match="SSL137"):
        trainer(folder, tmp_path, OPEN, data=(labeled, leaky, {"a": evaluated, "b": evaluated}))
    SSLTrainer(decided(folder), arguments(tmp_path), None, labeled, evaluated, tiny_tokenizer(), method=OPEN,
               unlabeled_dataset=leaky, allow_transductive=True)  # fmt: skip


# --- data


def test_labels_keep_their_place_in_the_model(tmp_path):
    """Numbers, names and class labels mean the model's outputs, whatever their order in the alphabet."""
    tiny_bert(tmp_path / "three", classes=3)
    names = {"id2label": {0: "pos", 1: "odd", 2: "neg"}, "label2id": {"pos": 0, "odd": 1, "neg": 2}}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "three", **names)
    texts, words = tiny_texts(16, seed=1)
    wanted = [names["label2id"][word] for word in words]
    numbers = Dataset.from_dict({"text": texts, "labels": wanted})
    strings = Dataset.from_dict({"sentence": texts, "label": words})
    classes = Dataset.from_dict({"text": texts, "label": wanted}).cast_column(
        "label", ClassLabel(names=["a", "b", "c"])
    )
    for labeled in (numbers, strings, classes, numbers.with_format("torch")):
        made = SSLTrainer(model, arguments(tmp_path), None, labeled, None, tiny_tokenizer(), method="supervised")
        data = made.task.data
        assert data.classes == ("pos", "odd", "neg") and data.labels[data.labeled].tolist() == wanted


def test_rows_without_a_class_join_the_pool_and_no_pool_means_supervised(folder, tmp_path, caplog):
    labeled, pool, _ = sets()
    mixed = Dataset.from_dict({"text": [*labeled["text"], *pool["text"]], "label": [*labeled["label"], *[-1] * 96]})
    assert len(trainer(folder, tmp_path, OPEN, data=(mixed, None, None)).task.data.unlabeled) == 96
    with caplog.at_level(logging.WARNING, "nlp_ssl"):
        assert trainer(folder, tmp_path, OPEN, data=(labeled, None, None)).method == Supervised()
    assert "no unlabeled rows: fixmatch becomes supervised training" in caplog.text


def test_an_epoch_is_a_pass_over_the_pool(folder, tmp_path):
    """96 unlabeled rows at 8 a step are 12 steps; without a pool 16 labeled ones at 4 a step are 4."""
    seen = []
    for method, steps in ((OPEN, 18), (Supervised(), 6)):
        made = trainer(folder, tmp_path, method, max_steps=-1, num_train_epochs=1.5)
        made.train()
        assert made.state.global_step == steps and made.state.epoch == pytest.approx(1.5)
        seen.append(made.train_dataset)
    assert made.num_examples(made.get_train_dataloader()) == 16


def test_evaluation_takes_texts_or_tokens(folder, tmp_path):
    labeled, pool, evaluated = sets()
    tokens = evaluated.map(lambda rows: tiny_tokenizer()(rows["text"]), batched=True)

    def accuracy(found):
        return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}

    made = trainer(
        folder, tmp_path, OPEN, data=(labeled, pool, {"t": evaluated, "i": tokens}), compute_metrics=accuracy
    )
    scores = made.evaluate()
    assert scores["eval_t_accuracy"] == scores["eval_i_accuracy"]
    assert scores["eval_t_loss"] == pytest.approx(scores["eval_i_loss"], rel=1e-5)
    assert np.allclose(made.predict(evaluated).predictions, made.predict(tokens).predictions, atol=1e-5)


def accuracy(found):
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


@pytest.mark.parametrize(
    "named",
    [
        lambda y: ["neg", " pos"][y],
        lambda y: ["neg", "pos\u200b"][y],
        float,
        bool,
        str,
        lambda y: [int(y == 0), int(y == 1)],
    ],
    ids=["words", "signs of no width", "floats", "truth", "digits", "rows of 0 and 1"],
)
@pytest.mark.parametrize("column", ["label", "category"])
def test_labels_of_evaluated_rows_are_read_as_those_of_training(named, column, folder, tmp_path):
    labeled, pool, evaluated = sets()
    model = decided(folder)
    model.config.problem_type = "single_label_classification"
    texts, y = list(evaluated["text"]), list(evaluated["label"])
    other = Dataset.from_dict({"text": texts, column: [named(label) for label in y]})
    made = trainer(folder, tmp_path, OPEN, model, (labeled, pool, other), compute_metrics=accuracy)
    wanted = made.evaluate(evaluated)
    tokens = other.map(lambda rows: tiny_tokenizer()(rows["text"]), batched=True)
    for scores in (made.evaluate(), made.evaluate(other), made.evaluate(tokens)):
        assert scores["eval_accuracy"] == wanted["eval_accuracy"]
        assert scores["eval_loss"] == pytest.approx(wanted["eval_loss"], rel=1e-5)
    assert made.predict(other).label_ids.tolist() == y


def test_evaluated_rows_without_a_label(folder, tmp_path, caplog):
    """Where rows are scored they are left out, or refused where they are marked; predictions are for all of them."""
    labeled, pool, evaluated = sets()
    made = trainer(folder, tmp_path, OPEN, data=(labeled, pool, None), compute_metrics=accuracy)
    texts, y = list(evaluated["text"]), list(evaluated["label"])

    def rows(labels):
        return Dataset.from_dict({"text": texts, "label": labels})

    half = made.evaluate(rows([*y[:20], *[None] * 20]))
    assert half["eval_loss"] == pytest.approx(made.evaluate(evaluated.select(range(20)))["eval_loss"], rel=1e-5)
    assert "eval_dataset: rows left out because they have no label: 20" in caplog.text
    assert "eval_loss" not in made.evaluate(rows([None] * 40))
    with pytest.raises(DataError, match="SSL124: eval_dataset row 1: label '-1' marks"):
        made.evaluate(rows([-1, *y[1:]]))
    with pytest.raises(ConfigError, match="SSL475: label 'odd' is not a class of the model"):
        made.evaluate(rows(["odd", *["pos"] * 39]))
    with pytest.raises(ConfigError, match="SSL484"):
        made.evaluate(evaluated.cast_column("label", ClassLabel(names=["pos", "neg"])))
    for labels in ([-1] * 40, [-1, *y[1:]], [None, *y[1:]]):
        found = made.predict(rows(labels))
        assert found.label_ids is None and len(found.predictions) == 40


# --- a model by name


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["pos", "neg"], ("neg", "pos")),
        ([" pos", "neg"], ("neg", "pos")),
        ([True, False], ("false", "true")),
        (["True", "False"], ("false", "true")),
        ([2, 1], ("0", "1", "2")),
        ([1.0, 0.0], ("0", "1")),
        (["10", "9"], ("9", "10")),
        (["2.0", "1.0"], ("1", "2")),
    ],
)
def test_a_model_by_name_has_the_classes_of_the_labels(labels, classes, folder, tmp_path):
    texts = tiny_texts(8, seed=1)[0]
    made = SSLTrainer(str(folder / "model"), arguments(tmp_path, method="supervised"), train_dataset=Dataset.from_dict(
        {"text": texts, "label": [*labels * 3, None, None]}))  # fmt: skip
    data = made.task.data
    names = [classes[i] for i in data.labels[data.labeled]]
    same = {"true": True, "false": False}
    spelled = [str(same.get(str(y).strip().lower(), y)).strip().lower().removesuffix(".0") for y in labels * 3]
    assert data.classes == classes and names == spelled and made.model.config.id2label == dict(enumerate(classes))
    assert made.processing_class is made.tokenizer and len(made.tokenizer) == len(tiny_tokenizer())


def test_declared_classes_of_a_model_by_name(folder, tmp_path):
    rows = Dataset.from_dict({"text": tiny_texts(8, seed=1)[0], "label": [0, 2] * 4})
    rows = rows.cast_column("label", ClassLabel(names=["z", "y", "x"]))
    made = SSLTrainer(str(folder / "model"), arguments(tmp_path, method="supervised"), train_dataset=rows)
    assert made.task.data.classes == ("z", "y", "x")
    for train_dataset, message in (
        (None, "SSL471: train_dataset is a NoneType"),
        (Dataset.from_dict({"text": ["a film"]}), "SSL132: train_dataset: no row has a label"),
        (Dataset.from_dict({"text": ["a film", "a plot"], "label": [["a"], ["b"]]}), "SSL477"),
        (Dataset.from_dict({"text": ["a film", "a plot"], "label": [0, 10**9]}), "SSL475: label '1000000000'"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            SSLTrainer(str(folder / "model"), arguments(tmp_path, method="uda"), train_dataset=train_dataset)


def test_classes_of_one_name_are_refused(folder, tmp_path):
    model = decided(folder)
    model.config.id2label = {0: "a", 1: "a"}
    with pytest.raises(ConfigError, match="SSL488: the model calls two classes alike"):
        trainer(folder, tmp_path, OPEN, model)


def test_layers_that_start_untrained_have_their_own_rate(folder, tmp_path):
    made = trainer(folder, tmp_path, DivideMix(), learning_rate=1e-3, head_learning_rate=1e-2, layer_decay=0.5)
    made.train()
    rates = {id(p): group["initial_lr"] for group in made.optimizer.param_groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in made.optimizer.param_groups for p in group["params"]}
    for net in made.engine.trained.values():
        assert rates[id(net.classifier.weight)] == rates[id(net.classifier.bias)] == 1e-2
        layers, words = net.model.bert.encoder.layer, net.model.bert.embeddings.word_embeddings.weight
        encoder = (layers[1].output.dense.weight, layers[0].output.dense.bias, words)
        assert [rates[id(p)] for p in encoder] == [1e-3, 5e-4, 2.5e-4]
        assert (decays[id(net.classifier.weight)], decays[id(net.classifier.bias)]) == (0.01, 0.0)
    sgd = trainer(folder, tmp_path, OPEN)
    sgd.optimizer_cls_and_kwargs = (torch.optim.SGD, {"lr": 0.5})
    sgd.train()
    assert {group["initial_lr"] for group in sgd.optimizer.param_groups} == {0.5}, "whoever brings one sets its rates"


# --- as its users expect


class Watch(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_event(self, name):
        self.seen.append(name)

    def on_train_begin(self, args, state, control, **kwargs):
        self.on_event("train begin")

    def on_step_end(self, args, state, control, **kwargs):
        self.on_event("step end")

    def on_substep_end(self, args, state, control, **kwargs):
        self.on_event("substep end")

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        self.on_event("optimizer step" if model.classifier.weight.grad is not None else "no gradient")

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.on_event("evaluate")

    def on_train_end(self, args, state, control, **kwargs):
        self.on_event("train end")


def test_callbacks_are_called_and_may_stop_the_run(folder, tmp_path):
    class EndAtTwo(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 2

    watch = Watch()
    trainer(folder, tmp_path, DivideMix(), callbacks=[watch, EndAtTwo()], eval_strategy="steps", eval_steps=1,
            per_device_train_batch_size=2, gradient_accumulation_steps=2).train()  # fmt: skip
    step = ["substep end", "optimizer step", "step end", "evaluate"]
    assert watch.seen == ["train begin", *step, *step, "train end"]


def test_logs_tell_losses_and_pseudo_labels(folder, tmp_path):
    made = trainer(folder, tmp_path, OPEN, logging_steps=1, report_to="none", include_num_input_tokens_seen="all")
    made.train()
    line = made.state.log_history[0]
    assert line["loss"] == pytest.approx(line["sup"] + line["unsup"], rel=1e-5)
    assert line["mask_rate"] == 1.0 and 0.0 <= line["pseudo_entropy"] <= 0.7 and line["num_input_tokens_seen"] > 0
    json.dumps(made.state.log_history)


def test_a_second_training_starts_afresh_and_model_init_makes_the_model_anew(folder, tmp_path):
    labeled, pool, _ = sets()
    made = SSLTrainer(args=arguments(tmp_path), train_dataset=labeled, unlabeled_dataset=pool, method=DivideMix(),
                      processing_class=tiny_tokenizer(), model_init=lambda: decided(folder))  # fmt: skip
    made.train()
    first = {k: v.clone() for k, v in made.model.state_dict().items()}
    made.train()
    assert same(first, made.model.state_dict())
    kept = trainer(folder, tmp_path, DivideMix())
    kept.train()
    old = kept.engine.modules["second"]
    kept.train()
    assert kept.engine.modules["second"] is not old
    held = {id(p) for group in kept.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in kept.engine.wrapped.parameters()}


def test_bf16_trains_in_it_and_evaluates(folder, tmp_path):
    made = trainer(folder, tmp_path, OPEN, bf16=True, eval_strategy="steps", eval_steps=3)
    seen = []
    made.model.bert.pooler.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    made.train()
    weights, _ = fitted(folder, OPEN, replace(FAST, mixed_precision="bf16"))
    assert difference(student(made), weights) < 1e-6
    assert seen and set(seen) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in made.model.parameters())


def test_other_optimizers_hold_all_nets(folder, tmp_path):
    made = trainer(folder, tmp_path, DivideMix(), optim="adafactor")
    made.train()
    held = sum(len(group["params"]) for group in made.optimizer.param_groups)
    assert type(made.optimizer.optimizer).__name__ == "Adafactor"
    assert held == 2 * len(list(made.model.parameters()))


def test_workers_prepare_the_same_batches(folder, tmp_path):
    alone, helped = (trainer(folder, tmp_path, OPEN, dataloader_num_workers=n) for n in (0, 2))
    alone.train()
    helped.train()
    assert same(student(alone), student(helped))


@pytest.mark.ddp
def test_two_ranks_are_one_process(folder, tmp_path, monkeypatch):
    ranks.spawn(ranks.train_all, tmp_path)
    neutral_draws(monkeypatch)
    for name in ranks.TRAINED:
        one, other = (load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in range(ranks.WORLD))
        assert same(one, other)
        made = ranks.still_trainer(tmp_path, name, size=4)
        made.train()
        together = {**made.model.state_dict(), "eval_loss": torch.tensor(made.evaluate()["eval_loss"])}
        assert difference(one, together) < 1e-5, name


def test_it_is_a_trainer(folder, tmp_path):
    made = trainer(folder, tmp_path, OPEN)
    assert isinstance(made, Trainer)
    with pytest.raises(RunError, match="SSL357"):
        made.get_train_dataloader()


SCRIPT = """
import numpy as np
from datasets import Dataset, load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments
from transformers import Trainer

tokenizer = AutoTokenizer.from_pretrained("model")
data = load_dataset("csv", data_files={"train": "labeled.csv", "test": "test.csv"})
data = data.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=24), batched=True)
trainer = Trainer(
    model=AutoModelForSequenceClassification.from_pretrained("model", num_labels=2),
    args=TrainingArguments("out", max_steps=2, per_device_train_batch_size=4, eval_strategy="epoch", use_cpu=True),
    train_dataset=data["train"],
    eval_dataset=data["test"],
    processing_class=tokenizer,
    compute_metrics=lambda found: {"accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids))},
)
trainer.train()
scores = trainer.evaluate()
trainer.save_model("out")
"""


def test_a_script_of_the_stock_trainer_changes_in_few_words(folder, tmp_path, monkeypatch):
    changes = {
        "from transformers import Trainer\n": "from nlp_ssl import SSLTrainer as Trainer\n"
        "from nlp_ssl import SSLTrainingArguments, load_classifier\n",
        "=AutoModelForSequenceClassification.from_pretrained(": "=load_classifier(",
        "=TrainingArguments(": '=SSLTrainingArguments(method="uda", max_length=24, warm_steps=2, output_dir=',
        "trainer = Trainer(\n": 'trainer = Trainer(unlabeled_dataset=Dataset.from_text("pool.txt"),\n',
    }
    changed = SCRIPT
    for old, new in changes.items():
        assert changed.count(old) == 1
        changed = changed.replace(old, new)
    monkeypatch.chdir(tmp_path)
    tiny_bert(tmp_path / "model")
    labeled, pool, test = sets()
    labeled.to_csv("labeled.csv", index=False)
    test.to_csv("test.csv", index=False)
    (tmp_path / "pool.txt").write_text("\n".join(pool["text"]) + "\n")
    for script, kind in ((SCRIPT, Trainer), (changed, SSLTrainer)):
        names = {}
        exec(script, names)
        assert type(names["trainer"]) is kind and 0.0 <= names["scores"]["eval_accuracy"] <= 1.0
        opened = AutoModelForSequenceClassification.from_pretrained("out").eval()
        tokens = {k: v for k, v in names["tokenizer"](test["text"][:8], padding=True, return_tensors="pt").items()}
        with torch.no_grad():
            logits = [model(**tokens).logits for model in (opened, names["trainer"].model.eval())]
        assert torch.allclose(*logits, atol=1e-5) and type(opened).__name__ == "BertForSequenceClassification"
