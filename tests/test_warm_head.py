"""The head that a warm start fits to the labeled rows: scikit-learn's regression, for two classes and for more."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tiny import FAST, tiny_bert, tiny_task

from nlp_ssl.inference.predict import features, predict
from nlp_ssl.nets.text import load_text_net
from nlp_ssl.training.warm_start import fit_head


@pytest.mark.parametrize("classes", [("neg", "pos"), ("a", "b", "c")], ids=len)
def test_the_head_is_one_regression_over_the_classes(tmp_path, classes):
    task = tiny_task(tmp_path / "task")
    number = len(classes)
    labels = np.where(np.arange(len(task.data.labels)) % 7 == 0, number - 1, task.data.labels)
    data = replace(task.data, classes=classes, labels=labels)
    module = load_text_net(str(tiny_bert(tmp_path / "net", classes=number)), classes)
    fit_head(module, data, FAST, torch.no_grad)

    z = features(module, data.store, data.labeled).double().numpy()
    scale = np.linalg.norm(z - z.mean(0), axis=1).mean()
    plain = LogisticRegression(C=10.0, max_iter=1000).fit(z / scale, labels[data.labeled])
    at = features(module, data.store, data.test).double().numpy() / scale
    ours = predict(module, data.store, data.test).softmax(-1).numpy()
    assert np.abs(ours - plain.predict_proba(at)).max() < 1e-4
    assert len(set(ours.argmax(1).tolist())) == number
