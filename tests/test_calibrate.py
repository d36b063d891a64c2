"""Temperature scaling: the fit by itself, and in a saved model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from tiny import FAST, tiny_task
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ssl import FixMatch, fit
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.predict import predict
from nlp_ssl.report.collect import collect
from nlp_ssl.training.calibration import apply_temperature, temperature_of


def drawn(temperature, rows=20_000):
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(rows, 4))
    p = softmax(logits / temperature, axis=1).cumsum(1)
    return logits, (rng.random((rows, 1)) > p).sum(1).clip(max=3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature):
    assert temperature_of(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def test_few_rows_that_are_all_right_do_not_make_it_certain():
    logits = np.array([[1.0, 0.0]] * 10)
    t = temperature_of(logits, np.zeros(10, dtype=int))
    # The best constant confidence of 10 rights and one row of even odds is 10.5 / 11.
    assert softmax(logits[0] / t)[0] == pytest.approx(10.5 / 11, abs=1e-3)


def test_cooling_divides_logits_and_leaves_classes():
    layer, x = nn.Linear(5, 3), torch.randn(7, 5)
    before = layer(x)
    apply_temperature(layer, 2.5)
    torch.testing.assert_close(layer(x) * 2.5, before)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    task = tiny_task(tmp_path_factory.mktemp("calibrate"))
    data = task.data
    return replace(task, data=replace(data, dev=data.test[:20], test=data.test[20:]))


def trained(task, folder, calibrate, **more):
    config = replace(FAST, calibrate=calibrate, max_steps=4)
    result = fit(FixMatch(), task, config, folder=folder, **more)
    return result, collect(folder).first.predictions.facts


def test_a_saved_model_is_calibrated_on_dev_rows(task, tmp_path):
    plain, saved = trained(task, tmp_path / "plain", "none")
    assert saved["temperature"] == 1.0
    scaled, noted = trained(task, tmp_path / "scaled", "dev")
    dev, test, store = task.data.dev, task.data.test, task.data.store
    wanted = temperature_of(predict(plain.module, store, dev).numpy(), task.data.labels[dev])
    assert noted["temperature"] == pytest.approx(wanted, rel=1e-4) and abs(wanted - 1) > 0.05
    raw = predict(plain.module, store, test) / wanted
    torch.testing.assert_close(predict(scaled.module, store, test), raw, atol=1e-4, rtol=1e-4)
    assert (
        scaled.scores["dev"].nll < plain.scores["dev"].nll
        and scaled.scores["dev"].accuracy == plain.scores["dev"].accuracy
    )
    # Who opens the folder with transformers alone gets the scaled logits.
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "scaled").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "scaled")
    texts = task.data.texts.take(test.tolist()).to_pylist()
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(logits, raw, atol=1e-3, rtol=1e-3)


def test_held_out_labels_are_not_trained_on(task, tmp_path, monkeypatch):
    import nlp_ssl.experiments.start as start

    seen, plain = [], start.train

    def noting(method, task, *more, **named):
        data = task.data
        seen.append((set(data.labeled), set(data.unlabeled), len(data.dev) + len(data.test)))
        return plain(method, task, *more, **named)

    monkeypatch.setattr(start, "train", noting)
    _, noted = trained(task, tmp_path / "run", "labels")
    labeled = set(task.data.labeled)
    left = [labeled - kept for kept, _, _ in seen]
    assert len(seen) == 3 and set.union(*left) == labeled and sum(map(len, left)) == len(labeled)
    assert all(pool == set(task.data.unlabeled) and scored == 0 for _, pool, scored in seen)
    assert noted["temperature"] != 1.0


def test_a_class_with_one_label_has_none_to_hold_out(task):
    data = replace(task.data, labeled=task.data.labeled[:3])
    with pytest.raises(ConfigError, match="two labels of every class"):
        fit(FixMatch(), replace(task, data=data), replace(FAST, calibrate="labels"))
