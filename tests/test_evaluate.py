"""Scores worked out by hand, and predictions that do not depend on the mode, the order or the neighbours."""

import numpy as np
import pytest
import torch
from tiny import tiny_images, tiny_task

from nlp_ssl.evaluate import batches, features, predict, score


@pytest.mark.parametrize("pooling", ["mean", "stock"])
def test_predictions_have_no_dropout_and_leave_the_mode_alone(tmp_path, pooling):
    task = tiny_task(tmp_path, dropout=0.5, pooling=pooling)
    module = task.build(0).train()
    first, second = (predict(module, task.data.store, task.data.test, 24) for _ in range(2))
    assert torch.equal(first, second)
    assert module.training and all(m.training for m in module.modules())


def test_predictions_of_images_leave_running_statistics_alone():
    task = tiny_images()
    module = task.build(0).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    predict(module, task.data.store, task.data.test, 1)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_order_of_positions_is_kept(tmp_path):
    task = tiny_task(tmp_path)
    module = task.build(0)
    at = task.data.test
    shuffled = np.random.default_rng(0).permutation(len(at))
    straight = features(module, task.data.store, at, 24)
    assert torch.allclose(features(module, task.data.store, at[shuffled], 24), straight[shuffled], atol=1e-5)


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
