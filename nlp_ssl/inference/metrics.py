"""What predictions are worth: accuracy, macro F1, likelihood, calibration, confusion."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score
from torch import Tensor

from nlp_ssl.data.dataset import Data
from nlp_ssl.inference.attack import predict_attacked
from nlp_ssl.inference.predict import predict_splits
from nlp_ssl.nets.base import Module
from nlp_ssl.ops.multilabel import known_binary
from nlp_ssl.utils import atomic
from nlp_ssl.utils.precision import Autocast


@dataclass(frozen=True)
class Scores:
    """Quality of predictions: shares between 0 and 1, `nll` in nats.

    For multi-label data accuracy is the share of rows with all labels right (exact match), and micro F1 is primary.
    """

    accuracy: float
    macro_f1: float
    nll: float
    calibration_error: float
    micro_f1: float | None = None  # of multi-label data only

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Scores":
        """Scores as they were saved.

        Raises:
            TypeError, ValueError: one is missing, unknown, of another kind or out of range.
        """
        scores = cls(**saved)
        for name, value in asdict(scores).items():
            most = 1e30 if name == "nll" else 1.001
            if not (atomic.is_number(value) and 0 <= value <= most) and not (name == "micro_f1" and value is None):
                raise ValueError(f"{name} is {value!r}")
        return scores

    @property
    def primary_name(self) -> Literal["accuracy", "micro_f1"]:
        """Name of the score that methods are compared by."""
        return "accuracy" if self.micro_f1 is None else "micro_f1"

    @property
    def primary(self) -> float:
        """The score that methods are compared by."""
        return self.accuracy if self.micro_f1 is None else self.micro_f1

    def named(self) -> dict[str, float]:
        """The scores that count, by their names in words."""
        if self.micro_f1 is None:
            return {"accuracy": self.accuracy, "macro F1": self.macro_f1}
        return {"micro F1": self.micro_f1, "macro F1": self.macro_f1, "exact match": self.accuracy}


def score_splits(
    module: Module,
    data: Data,
    context: Autocast = nullcontext,
    *,
    fgsm: float = 0.0,
    logits: Mapping[str, Tensor] | None = None,
) -> dict[str, Scores]:
    """Scores on the dev and test rows, as far as there are any; and on attacked test rows, "test_fgsm", if fgsm > 0.

    `logits` are those of `predict_splits`, where they are known already.
    """
    labels = {"dev": data.labels[data.dev], "test": data.labels[data.test]}
    logits = predict_splits(module, data, context) if logits is None else logits
    scores = {split: score(of_split, labels[split]) for split, of_split in logits.items()}
    if fgsm and len(data.test):
        truth = data.labels[data.test]
        attacked = predict_attacked(module, data.store, data.test, truth, fgsm, context)
        scores["test_fgsm"] = score(attacked, truth)
    return scores


def score(logits: Tensor, labels: np.ndarray, bins: int = 15) -> Scores:
    """Accuracy, macro F1 over the classes present, negative log-likelihood and expected calibration error.

    Labels [n] are classes; of multi-label data [n, C], 1, 0 or -1 where a label is not known and does not count.
    """
    if labels.ndim == 2:
        return _score_multilabel(logits, labels, bins)
    p = logits.double().softmax(-1)
    truth = torch.from_numpy(labels)
    confidence, guess = p.max(-1)
    right = (guess == truth).double()
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, confidence - right)
    return Scores(
        accuracy=float(right.mean()),
        macro_f1=float(f1_score(labels, guess.numpy(), average="macro", labels=np.unique(labels), zero_division=0.0)),
        nll=float(-p[torch.arange(len(p)), truth].clamp(min=1e-12).log().mean()),
        calibration_error=float(gap.abs().sum() / len(p)),
    )


def _score_multilabel(logits: Tensor, labels: np.ndarray, bins: int) -> Scores:
    """Scores over the labels that are known; a label applies from a probability of 0.5 on."""
    guess = logits.numpy() >= 0
    known, wanted = labels >= 0, labels == 1
    each = [f1_score(wanted[k, c], guess[k, c], zero_division=0.0) for c, k in enumerate(known.T) if wanted[:, c].any()]
    asked = score(*known_binary(logits, labels), bins)
    return Scores(
        accuracy=float((~known | (guess == wanted))[known.any(1)].all(1).mean()),
        macro_f1=float(np.mean(each)) if each else 0.0,
        nll=asked.nll,
        calibration_error=asked.calibration_error,
        micro_f1=float(f1_score(wanted[known], guess[known], zero_division=0.0)),
    )


def confusion(logits: Tensor, labels: np.ndarray) -> np.ndarray:
    """How many rows of each class [C] are given to each class [C], from logits [n, C] and labels [n].

    For multi-label data, labels [n, C], the same for no and yes of each label: [C, 2, 2].
    """
    if labels.ndim == 2:
        yes = logits.numpy() >= 0
        known = [(y[y >= 0], p[y >= 0]) for y, p in zip(labels.T, yes.T, strict=True)]
        none = np.zeros((2, 2), dtype=np.int64)
        return np.stack([confusion_matrix(y, p, labels=(0, 1)) if len(y) else none for y, p in known])
    counts: np.ndarray = confusion_matrix(labels, logits.argmax(-1).numpy(), labels=range(logits.shape[1]))
    return counts
