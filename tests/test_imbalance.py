"""Classes of unequal size: weights and adjusted logits against numbers worked out by hand, and through every method."""

from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny import FAST, tiny_bert, tiny_tables, tiny_task

from nlp_ssl import Supervised, Task, TrainConfig, fit
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.data.schema import build_data
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.start import warm_up
from nlp_ssl.inference.predict import predict
from nlp_ssl.registry import get_method, list_methods
from nlp_ssl.rounds.teacher import Teacher
from nlp_ssl.task import text_task
from nlp_ssl.training.engine import Engine
from nlp_ssl.training.imbalance import adjustment, class_weights, with_class_weights
from nlp_ssl.training.loop import train
from nlp_ssl.training.run_folder import RunFolder

ADJUSTED = replace(FAST, logit_adjustment=1.0)
SHARES = torch.tensor([0.8, 0.2])


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Eight labeled rows of "neg" and two of "pos"."""
    folder = tmp_path_factory.mktemp("task")
    model = tiny_bert(folder / "model", dropout=0.0)
    labeled, pool, test = tiny_tables()
    names = np.array(labeled.labels)
    few = np.sort(np.concatenate([np.flatnonzero(names == "neg")[:8], np.flatnonzero(names == "pos")[:2]]))
    text = build_data(labeled.take(few), pool, None, test)
    return text_task(text, str(model), strong=TfidfReplace(0.3), max_length=24, cache_dir=folder / "cache")


def engine_of(task: Task, config: TrainConfig, method=None) -> Engine:
    return Engine(method or Supervised(), task, config, Accelerator(), "no", frozen_nets={})


def test_class_weights_by_hand() -> None:
    # Inverse: 10 / (2 * 8) and 10 / (2 * 2).
    assert class_weights(np.array([8, 2]), 1.0) == pytest.approx([0.625, 2.5])
    # beta 0.5: effective numbers 2 * (1 - 0.5^2) = 1.5 and 2 * (1 - 0.5) = 1, so weights as 2 to 3 over 3 + 1 rows:
    # (2 * 2 k + 1 * 3 k) / 3 = 1, k = 3 / 7.
    assert class_weights(np.array([2, 1]), 0.5) == pytest.approx([6 / 7, 9 / 7])
    # beta 0: one row says it all, no weights; beta towards 1: inverse frequency.
    assert class_weights(np.array([8, 2]), 0.0) == pytest.approx([1.0, 1.0])
    assert class_weights(np.array([8, 2]), 1 - 1e-7) == pytest.approx([0.625, 2.5], rel=1e-5)
    assert np.isfinite(class_weights(np.array([8.0, 0.0]), 1.0)).all()


@pytest.mark.parametrize(("config", "wanted"), [
    (replace(FAST, class_weights="inverse"), (0.625, 2.5)),
    # Effective numbers 2 (1 - 1/256) = 1.992188 and 1.5; 10 / (8 / 1.992188 + 2 / 1.5) = 1.869502 over each of them.
    (replace(FAST, class_weights="effective", effective_beta=0.5), (0.938416, 1.246335)),
    (FAST, (1.0, 1.0)),
])  # fmt: skip
def test_weights_reach_the_batch(task: Task, config: TrainConfig, wanted: tuple[float, float]) -> None:
    batch = engine_of(task, config).loader[0]
    assert batch["w"].tolist() == pytest.approx([wanted[y] for y in batch["y"].tolist()], rel=1e-4)
    assert batch["y"].unique().tolist() == [0, 1]


def test_weights_of_soft_and_weighed_labels(task: Task) -> None:
    targets = np.array([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
    data = replace(task.data, labeled=task.data.labeled[:3], targets=targets, weights=np.array([2.0, 1.0, 1.0]))
    # Counts 2 * 0.5 + 1 + 1 = 3 and 1; weights 4 / (2 * 3) and 4 / (2 * 1); times what the rows weighed already.
    assert data.labeled_counts() == pytest.approx([3.0, 1.0])
    found = with_class_weights(data, replace(FAST, class_weights="inverse")).weights
    assert found == pytest.approx([2 * (2 / 3 + 2) / 2, 2 / 3, 2 / 3])


def test_adjusted_logits_by_hand(task: Task) -> None:
    made = engine_of(task, replace(FAST, logit_adjustment=0.5), get_method("multimatch")())
    batch, plain = made.loader[0], engine_of(task, FAST, get_method("multimatch")())
    added = torch.tensor([0.5 * log(0.8), 0.5 * log(0.2)])
    with torch.no_grad():
        for view in ("x", "u_w"):
            (ours,), (theirs,) = (s.nets["student"].outputs(batch, view, dropout=False) for s in (made, plain))
            for head in ("logits", "second", "third"):  # heads that classify are shifted with the logits
                torch.testing.assert_close(ours[head] - theirs[head], added.expand_as(ours[head]))
    assert adjustment(task.data, FAST) is None


def test_gradients_and_shares_see_adjusted_logits(task: Task) -> None:
    made = engine_of(task, ADJUSTED)
    net, module = made.nets["student"], made.student
    seen = net.logits_of(net.inputs_of(made.loader[0], ["x"])[0])
    torch.testing.assert_close(seen, module(net.inputs_of(made.loader[0], ["x"])[0]) + SHARES.log())

    def lowered(module, number: int) -> None:
        with torch.no_grad():
            module.classifier.bias.sub_(SHARES.log())

    config = replace(FAST, warm_start="supervised")
    pool = [
        Engine(get_method("uda")(), task, settings, Accelerator(), "no", start=start, frozen_nets={}).run
        for settings, start in ((config, lambda module, number: None), (replace(config, logit_adjustment=1.0), lowered))
    ]  # fmt: skip
    assert pool[1].spec.prior == pytest.approx(pool[0].spec.prior, abs=1e-6)
    torch.testing.assert_close(pool[1].state["pool_mean"], pool[0].state["pool_mean"])


# What the methods see is the same if the term lies in the bias instead: no part of a method may miss it.
@pytest.mark.parametrize("name", list_methods(in_rounds=False))
def test_equals_a_bias_in_every_method(task: Task, name: str) -> None:
    config = replace(FAST, max_steps=2, weight_decay=0.0, batch_size=8, unlabeled_ratio=1)

    def lowered(module, number: int) -> None:
        with torch.no_grad():
            module.classifier.bias.sub_(SHARES.log())

    def weights(settings: TrainConfig, start) -> dict[str, torch.Tensor]:
        found = train(get_method(name)(), task, settings, start=start)
        return found.module.state_dict()

    plain = weights(replace(config, warm_start="supervised"), lambda module, number: None)
    ours = weights(replace(config, warm_start="supervised", logit_adjustment=1.0), lowered)
    torch.testing.assert_close(ours["classifier.bias"] + SHARES.log(), plain["classifier.bias"], atol=2e-5, rtol=0)
    torch.testing.assert_close(ours["classifier.weight"], plain["classifier.weight"], atol=2e-5, rtol=0)


def test_warm_start_makes_an_adjusted_head(task: Task) -> None:
    settings = replace(FAST, warm_start="contrastive", warm_steps=1)
    plain, ours = task.build(0), task.build(0)
    warm_up(plain, task, settings)
    warm_up(ours, task, replace(settings, logit_adjustment=1.0))
    torch.testing.assert_close(ours.classifier.bias + SHARES.log(), plain.classifier.bias)
    weighted = task.build(0)
    warm_up(weighted, task, replace(settings, class_weights="inverse"))
    assert weighted.classifier.bias[1] > plain.classifier.bias[1]  # the rare class gains


def test_teacher_labels_under_the_shares_of_the_labels(task: Task) -> None:
    net = task.build(0).eval()
    teacher = Teacher(net, task.data, replace(ADJUSTED, align=False), 1)
    logits = predict(net, task.data.store, task.data.unlabeled)
    torch.testing.assert_close(teacher.p, (logits.double() + SHARES.log()).softmax(-1), atol=1e-6, rtol=0)


def test_a_rare_class_is_found_more_often(task: Task) -> None:
    config = replace(FAST, max_steps=6, batch_size=10)  # once all labels are fitted, weights say nothing any more

    def rare(**changes) -> float:
        module = fit(Supervised(), task, replace(config, **changes)).module
        return float(predict(module, task.data.store, task.data.test).softmax(-1)[:, 1].mean())

    plain = rare()
    assert rare(class_weights="inverse") > plain + 0.05
    assert rare(logit_adjustment=1.0) > plain + 0.05


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="450"):
        TrainConfig(class_weights="inverse", logit_adjustment=1.0)
    with pytest.raises(ConfigError, match="effective_beta"):
        TrainConfig(effective_beta=1.0)


def test_checkpoints_know_the_setting(task: Task, tmp_path: Path) -> None:
    fit(Supervised(), task, replace(ADJUSTED, save_steps=1), folder=tmp_path)
    with pytest.raises(ConfigError, match="logit_adjustment"):
        fit(Supervised(), task, replace(FAST, save_steps=1), folder=RunFolder(tmp_path, resume=True))  # fmt: skip


def test_tiny_task_is_even(tmp_path: Path) -> None:
    even = tiny_task(tmp_path).data  # where classes are even, weights are ones
    assert with_class_weights(even, replace(FAST, class_weights="inverse")).weights == pytest.approx(
        np.ones(len(even.labeled))
    )
