"""Synthetic label noise, to test methods with."""

from dataclasses import replace

import numpy as np

from nlp_ssl.data.dataset import Data
from nlp_ssl.ops.multilabel import refuse_multilabel
from nlp_ssl.utils.ranges import check


def with_label_noise(data: Data, share: float, seed: int) -> Data:
    """The same task with a share of the labeled rows given another class: synthetic noise to test methods with."""
    check(share, "label_noise", 0.0, 1.0)
    if data.kind == "multi-label":
        refuse_multilabel("label_noise")
    rng = np.random.default_rng((seed, 9))
    wrong = rng.permutation(len(data.labeled))[: round(share * len(data.labeled))]
    labels = data.labels.copy()
    at = data.labeled[wrong]
    labels[at] = (labels[at] + rng.integers(1, len(data.classes), len(at))) % len(data.classes)
    return replace(data, labels=labels, content_hash=f"{data.content_hash} label noise {share} seed {seed}")
