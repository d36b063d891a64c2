"""Multi-label data: to a method every label of a row is a binary row of its own with the classes no and yes.

The net's logit z of a label becomes the logits (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)). So cross-entropy
is the binary one, the largest probability is max(p, 1 - p), entropy and KL are those of a coin. A method that treats
its rows one by one, without heads or mixing, works for single-label and multi-label data alike, and says so in
`Method.kinds`. R rows of C labels are R * C rows, row by row; means go over all of them. A label that is not known has
weight 0 and target (0, 0): it adds nothing to any loss.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.errors import ConfigError
from nlp_ssl.types import Batch


def binary_logits(logits: Tensor) -> Tensor:
    """Logits [R * C, 2] of no and yes, of logits [R, C] of the labels."""
    return torch.stack([torch.zeros_like(logits), logits], -1).flatten(0, 1)


def binary_targets(labels: Tensor) -> Tensor:
    """Targets [R * C, 2] of labels [R, C] that are 1, 0 or -1 (not known): zeros where nothing is known."""
    return torch.stack([labels == 0, labels == 1], -1).flatten(0, 1).float()


def binary_ids(ids: Tensor, labels: int) -> Tensor:
    """Numbers [R * C] of the binary rows of rows with these numbers [R]."""
    return (ids[:, None] * labels + torch.arange(labels, device=ids.device)).flatten()


def binary_batch(batch: Batch) -> Batch:
    """A batch with labels y [B, C] and true_labels [N, C], 1, 0 or -1, as binary rows; inputs and views stay."""
    y = batch["y"]
    binary = {
        "y": binary_targets(y),
        "w": batch["w"].repeat_interleave(y.shape[1]) * (y >= 0).flatten(),
        "id": {block: binary_ids(ids, y.shape[1]) for block, ids in batch["id"].items()},
        "true_labels": batch["true_labels"].flatten().long(),
    }
    return cast(Batch, {**batch, **binary})


def known_binary(logits: Tensor, labels: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Binary logits [K, 2] and labels [K] of those that are known, from logits and labels [n, C]."""
    known = labels.reshape(-1) >= 0
    return binary_logits(logits)[torch.from_numpy(known)], labels.reshape(-1)[known].astype(np.int64)


def refuse_multilabel(what: str) -> None:
    """Refuses what multi-label data cannot do.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(477, f"{what} works with single-label data only, and this data is multi-label: leave it out")
