"""Scores worked out by hand, and predictions that do not depend on the mode, the order or the neighbours."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import FAST, tiny_images, tiny_task, trained
from torch import nn

from nlp_ssl import compare, fit
from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.compare import score_table
from nlp_ssl.inference.attack import predict_attacked
from nlp_ssl.inference.metrics import score, score_splits
from nlp_ssl.inference.predict import batches, features, predict
from nlp_ssl.methods import FixMatch, Supervised
from nlp_ssl.nets.base import Module, Net
from nlp_ssl.ops.adversary import AddNoise
from nlp_ssl.training.run_folder import RunFolder


@pytest.mark.parametrize("pooling", ["mean", "stock"])
def test_predictions_have_no_dropout_and_leave_the_mode_alone(tmp_path, pooling):
    task = tiny_task(tmp_path, dropout=0.5, pooling=pooling)
    module = task.build(0).train()
    first, second = (predict(module, task.data.store, task.data.test) for _ in range(2))
    assert torch.equal(first, second)
    assert module.training and all(m.training for m in module.modules())


def test_predictions_of_images_leave_running_statistics_alone():
    task = tiny_images()
    module = task.build(0).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    predict(module, task.data.store, task.data.test)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_order_of_positions_is_kept(tmp_path):
    task = tiny_task(tmp_path)
    module = task.build(0)
    at = task.data.test
    shuffled = np.random.default_rng(0).permutation(len(at))
    straight = features(module, task.data.store, at)
    assert torch.allclose(features(module, task.data.store, at[shuffled]), straight[shuffled], atol=1e-5)


def test_batches_hold_every_row_once_within_the_token_budget():
    lengths = np.random.default_rng(0).integers(1, 500, 1000)
    made = list(batches(lengths))
    assert sorted(np.concatenate(made).tolist()) == list(range(1000))
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= 8192 for rows in made)


def test_scores_by_hand():
    """Four rows, two classes, p of class 1: .9 .6 .4 .2; truth 1 0 1 0.

    Right: rows 0 and 3, accuracy 2/4. Class 0: tp 1 fp 1 fn 1, F1 .5; class 1 the same; macro F1 .5.
    nll = -(ln .9 + ln .4 + ln .4 + ln .8) / 4 = (.105361 + .916291 + .916291 + .223144) / 4 = .540272.
    Confidences .9 .6 .6 .8 fall into bins 13, 9 (twice: .6 * 15 = 9) and 12; errors are gaps .9-1, 2*.6-0, .8-1,
    so the calibration error is (.1 + 1.2 + .2) / 4 = .375.
    """
    p = torch.tensor([0.9, 0.6001, 0.3999, 0.2], dtype=torch.float64)
    found = score(torch.stack([(1 - p).log(), p.log()], 1), np.array([1, 0, 1, 0]))
    assert found.accuracy == 0.5 and found.macro_f1 == 0.5
    assert abs(found.nll - 0.540272) < 3e-4 and abs(found.calibration_error - 0.375) < 3e-4


def test_macro_f1_is_the_mean_over_the_classes_of_the_rows():
    """Truth 0 0 0 1, answers 0 0 2 0: class 0 has tp 2, fp 1, fn 1, F1 2/3; class 1 has F1 0; class 2 has no row.

    The mean over all three names would be 2/9, F1 over all answers 0.5, and weighted by rows it would be 0.5 too.
    """
    logits = torch.full((4, 3), -2.0)
    logits[range(4), [0, 0, 2, 0]] = 2.0
    found = score(logits, np.array([0, 0, 0, 1]))
    assert found.macro_f1 == pytest.approx(1 / 3) and found.accuracy == 0.5


# --- fast gradient sign ---


class Pixels(Module):
    """Two pixels are the two logits."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.classifier.weight)

    def embed(self, inputs, edit=None):
        h = inputs["pixel_values"]
        return (h if edit is None else edit(h, None, None)[0]).flatten(1)

    def head(self, features):
        return self.classifier(features)


class TwoPixels:
    """A store of images [n, 1, 1, 2]."""

    def __init__(self, rows):
        self.pixels, self.lengths = torch.tensor(rows).view(-1, 1, 1, 2), np.ones(len(rows), np.int32)

    max_length = 1

    def views(self, wanted):
        ((positions, _, _),) = wanted
        return {"pixel_values": self.pixels[torch.from_numpy(positions)]}, None


def test_attack_by_hand():
    """Pixels (1, -1): mean 0, deviation 1. Of class 0 the loss grows with -x0 and +x1: size 0.5 gives (0.5, -0.5).

    (3, 5) deviates by 1 from 4: class 0 (2.5, 5.5). (10, -10) by 10: class 1 (15, -15). (7, 7) by 0: as it is.
    """
    store = TwoPixels([[1.0, -1.0], [3.0, 5.0], [10.0, -10.0], [7.0, 7.0]])
    at = np.array([2, 0, 3, 1])
    found = predict_attacked(Pixels(), store, at, np.array([1, 0, 0, 0]), 0.5)
    assert found.tolist() == [[15.0, -15.0], [0.5, -0.5], [7.0, 7.0], [2.5, 5.5]]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny_task(tmp_path_factory.mktemp("attacked"), dropout=0.3)


@pytest.fixture(scope="module")
def module(task):
    net = task.build(0)
    net.load_state_dict(trained(Supervised(), task, replace(FAST, max_steps=60)))
    return net.train()


def attacked(module, task, size, at=None):
    at = task.data.test if at is None else at
    return predict_attacked(module, task.data.store, at, task.data.labels[at], size)


def test_attack_lowers_the_score_the_more_the_larger_it_is(module, task):
    truth = task.data.labels[task.data.test]
    found = [score(attacked(module, task, size), truth).nll for size in (0.0, 0.05, 0.1, 0.2)]
    assert found == sorted(found) and found[-1] > 1.5 * found[0]
    plain = predict(module, task.data.store, task.data.test)
    assert torch.allclose(attacked(module, task, 0.0), plain, atol=1e-5)


def test_attack_leaves_the_module_alone_and_has_no_dropout(module, task):
    before = {k: v.clone() for k, v in module.state_dict().items()}
    assert torch.equal(attacked(module, task, 0.1), attacked(module, task, 0.1))
    assert all(m.training for m in module.modules())
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_attack_keeps_the_order_and_goes_round_special_tokens(module, task, monkeypatch):
    """Every own token of a text gets noise of one size, [CLS], [SEP] and padding none."""
    seen = []
    call = Net.__call__

    def spy(self, batch, *views, edit=None, dropout=True):
        if isinstance(edit, AddNoise):
            seen.append((batch["inputs"]["input_ids"], edit.noise))
        return call(self, batch, *views, edit=edit, dropout=dropout)

    monkeypatch.setattr(Net, "__call__", spy)
    at = task.data.test
    shuffled = np.random.default_rng(0).permutation(len(at))
    assert torch.allclose(attacked(module, task, 0.1)[shuffled], attacked(module, task, 0.1, at[shuffled]), atol=1e-4)
    ((ids, noise), *_) = seen
    special = torch.isin(ids[:, : noise.shape[1]], torch.tensor([0, 2, 3]))
    assert special.any() and not noise[special].any()
    size = noise.abs().flatten(1).amax(1)
    for row, free, wanted in zip(noise.abs(), ~special, size, strict=True):
        assert float((row[free] == wanted).float().mean()) > 0.99  # a gradient of exactly zero moves nothing


def test_attack_of_images_uses_and_leaves_running_statistics():
    """A row's prediction does not depend on its neighbours."""
    task = tiny_images()
    module, at = task.build(0).train(), task.data.unlabeled[:6]
    before = {k: v.clone() for k, v in module.state_dict().items()}
    labels = np.zeros(6, np.int64)
    found = predict_attacked(module, task.data.store, at, labels, 0.1)
    alone = predict_attacked(module, task.data.store, at[:1], labels[:1], 0.1)
    assert torch.allclose(found[:1], alone, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_split_under_attack_is_scored_on_request(module, task):
    found = score_splits(module, task.data, fgsm=0.1)
    assert set(found) == {"test", "test_fgsm"}
    assert found["test_fgsm"] == score(attacked(module, task, 0.1), task.data.labels[task.data.test])
    assert set(score_splits(module, task.data)) == {"test"}
    assert score_splits(module, replace(task.data, test=task.data.test[:0]), fgsm=0.1) == {}


def test_attack_in_a_run_its_table_and_its_resumption(task, tmp_path):
    """The split is saved, read again, and part of what a run is; table and verdict go by the plain test rows."""
    config = replace(FAST, eval_fgsm=0.3)

    def run(config, resume=False):
        return compare(FixMatch(), task, config, seeds=[0], folder=RunFolder(tmp_path, resume=resume))

    comparison = run(config)
    saved = json.loads((tmp_path / "result.json").read_text())
    assert set(saved["scores"]) == {"test", "test_fgsm"}
    assert set(comparison.accuracies("test_fgsm")) == {"supervised", "fixmatch"}
    assert score_table(comparison) == score_table(run(replace(config, eval_fgsm=0.3), resume=True))
    plain = fit(FixMatch(), task, FAST)
    assert score_table(comparison)[2][:2] == ("fixmatch", f"{100 * plain.scores['test'].accuracy:.1f}")
    assert "supervised" in comparison.verdict()
    with pytest.raises(ConfigError, match="eval_fgsm: 0.3 -> 0.2"):
        run(replace(config, eval_fgsm=0.2), resume=True)


@pytest.mark.parametrize("bad", [-0.1, float("nan")])
def test_size_of_an_attack_is_checked(bad):
    with pytest.raises(ConfigError, match="eval_fgsm"):
        TrainConfig(eval_fgsm=bad)
