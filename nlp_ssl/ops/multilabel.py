"""Several labels a row: to a method every label is a row of its own with two classes, no and yes.

The net's logit z of a label becomes the logits (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)). So cross-entropy
is the binary one, the largest probability is max(p, 1 - p), entropy and KL are those of a coin. A method that treats
its rows one by one, without heads or mixing, works for both kinds of labels as it stands, and says so in
`Method.kinds`. R rows of C labels are R * C rows, row by row; means go over all of them. A label that is not known has
weight 0 and target (0, 0): no loss learns from it.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.errors import ConfigError
from nlp_ssl.types import Batch


def per_label(logits: Tensor) -> Tensor:
    """Logits [R * C, 2] of no and yes, of logits [R, C] of the labels."""
    return torch.stack([torch.zeros_like(logits), logits], -1).flatten(0, 1)


def answers(labels: Tensor) -> Tensor:
    """Targets [R * C, 2] of labels [R, C] that are 1, 0 or -1 (not known): zeros where nothing is known."""
    return torch.stack([labels == 0, labels == 1], -1).flatten(0, 1).float()


def places(ids: Tensor, labels: int) -> Tensor:
    """Numbers [R * C] of the labels of rows with these numbers [R]."""
    return (ids[:, None] * labels + torch.arange(labels, device=ids.device)).flatten()


def as_questions(batch: Batch) -> Batch:
    """A batch with labels y [B, C] and hidden [N, C], 1, 0 or -1, as methods see it: inputs and views stay rows."""
    y = batch["y"]
    seen = {
        "y": answers(y),
        "w": batch["w"].repeat_interleave(y.shape[1]) * (y >= 0).flatten(),
        "id": {block: places(ids, y.shape[1]) for block, ids in batch["id"].items()},
        "hidden": batch["hidden"].flatten().long(),
    }
    return cast(Batch, {**batch, **seen})


def known_answers(logits: Tensor, labels: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Logits [K, 2] and true answers [K] of the labels that are known, from logits and labels [n, C]."""
    known = labels.reshape(-1) >= 0
    return per_label(logits)[torch.from_numpy(known)], labels.reshape(-1)[known].astype(np.int64)


def refuse(what: str) -> None:
    """Refuses an option.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(477, f"{what} is for one label a row, these rows have several: leave it out")
