"""Predictions over positions of a store, and what they are worth."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from nlp_ssl.augment.counter_rng import row_keys
from nlp_ssl.data.dataset import Data, Store
from nlp_ssl.nets.base import Module
from nlp_ssl.precision import Autocast

_TOKENS = 8192  # tokens of one prediction batch
_ROWS = 256


@dataclass(frozen=True)
class Scores:
    """Quality of predictions: shares between 0 and 1, `nll` in nats."""

    accuracy: float
    macro_f1: float
    nll: float
    calibration_error: float


def batches(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers in batches of like length within a token budget, longest first."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = min(max(_TOKENS // int(lengths[order[start]]), 1), _ROWS)
        yield order[start : start + rows]
        start += rows


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


@torch.no_grad()
def features(
    module: Module,
    store: Store,
    positions: np.ndarray,
    max_length: int,
    context: Autocast = nullcontext,
    *,
    augment: Any = None,
    seed: int = 0,
) -> Tensor:
    """Features [n, D] float32 on the CPU in the order of `positions`, in eval mode; of augmented rows on request."""
    device = next(module.parameters()).device
    lengths = np.minimum(store.lengths[positions], max_length)
    out = torch.empty(0)
    with evaluating(module):
        for rows in batches(lengths):
            keys = row_keys(seed, 0, positions[rows])
            inputs, _ = store.views([(positions[rows], augment, keys)], max_length)
            with context():
                part = module.embed({k: v.to(device) for k, v in inputs.items()}).float().cpu()
            out = out if len(out) else torch.empty(len(positions), part.shape[1])
            out[torch.from_numpy(rows)] = part
    return out


@torch.no_grad()
def predict(
    module: Module,
    store: Store,
    positions: np.ndarray,
    max_length: int,
    context: Autocast = nullcontext,
    *,
    augment: Any = None,
    seed: int = 0,
) -> Tensor:
    """Logits [n, C] float32 on the CPU in the order of `positions`, in eval mode; of augmented rows on request."""
    if not len(positions):
        return torch.empty(0, 0)
    device = next(module.parameters()).device
    found = features(module, store, positions, max_length, context, augment=augment, seed=seed)
    with evaluating(module):
        return module.head(found.to(device)).float().cpu()


def score_splits(module: Module, data: Data, max_length: int, context: Autocast = nullcontext) -> dict[str, Scores]:
    """Scores on the dev and test rows, as far as there are any."""
    positions = {"dev": data.dev, "test": data.test}
    return {
        split: score(predict(module, data.store, at, max_length, context), data.labels[at])
        for split, at in positions.items()
        if len(at)
    }


def score(logits: Tensor, labels: np.ndarray, bins: int = 15) -> Scores:
    """Accuracy, macro F1 over the classes present, negative log-likelihood and expected calibration error."""
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
