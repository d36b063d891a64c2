"""The label-only start before any method: tune the encoder on the labels, then fit the head."""

import math

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from nlp_ssl.config import TrainConfig, WarmStart
from nlp_ssl.data.dataset import Data
from nlp_ssl.inference.predict import features
from nlp_ssl.nets.base import Module
from nlp_ssl.ops.fits import without_remarks
from nlp_ssl.training.imbalance import adjustment, with_class_weights
from nlp_ssl.utils.precision import Autocast
from nlp_ssl.utils.progress import track

_CONTRASTIVE_RATE = 2e-5
_MAX_ROWS = 32  # rows of one contrastive batch: all their pairs count, so labels are never paired up in advance


def pair_loss(z: Tensor, y: Tensor) -> Tensor:
    """Squared error between the cosine of two rows and 1 (same class) or 0 (other class), over all pairs.

    z [B, D] features, y [B] classes; of multi-label y [B, C] the cosine should be the share that two rows have in
    common of those that either has. Equal and unequal pairs weigh the same, however many there are of each
    (the objective of SetFit, Tunstall et al. 2022, arXiv:2209.11055, on all pairs of a batch instead of drawn ones).
    """
    z = F.normalize(z.float(), dim=-1)
    cos = z @ z.T  # [B, B]
    alike = overlap(y).to(cos.dtype)
    off = ~torch.eye(len(y), dtype=torch.bool, device=z.device)
    error = (cos - alike).square()
    parts = [error[pairs].mean() for pairs in ((alike > 0) & off, (alike == 0) & off) if bool(pairs.any())]
    return torch.stack(parts).mean()


def overlap(y: Tensor) -> Tensor:
    """How alike the labels of two rows are [B, B]: 1 for the same class, 0 for another, y [B].

    Of multi-label y [B, C], 1, 0 or -1 (not known), the Jaccard index over those that are known of both rows: 1
    also where neither row has any.
    """
    if y.dim() == 1:
        return (y[:, None] == y[None, :]).float()
    known = (y[:, None] >= 0) & (y[None, :] >= 0)  # [B, B, C]
    yes = y == 1
    both = (known & yes[:, None] & yes[None, :]).sum(-1)
    either = (known & (yes[:, None] | yes[None, :])).sum(-1)
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def contrastive(module: Module, data: Data, config: TrainConfig, context: Autocast) -> None:
    """Tunes the encoder so that labeled rows of one class lie together, in place."""
    device = next(module.parameters()).device
    labels = data.labels[data.labeled]
    steps = config.warm_steps or contrastive_steps(len(labels))
    optimizer = torch.optim.AdamW(
        [p for n, p in module.named_parameters() if not n.startswith("classifier")], lr=_CONTRASTIVE_RATE, fused=True
    )
    module.train()
    for step in track(range(steps), "contrastive start", steps):
        rng = np.random.default_rng((config.seed, 3, step))
        rows = balanced_rows(labels, min(_MAX_ROWS, len(labels)), rng)
        inputs, _ = data.store.views([(data.labeled[rows], None, np.zeros(len(rows), dtype=np.uint64))])
        torch.manual_seed(int(rng.integers(2**31)))
        with context():
            z = module.embed({k: v.to(device) for k, v in inputs.items()})
        loss = pair_loss(z, torch.from_numpy(labels[rows]).to(device))
        for group in optimizer.param_groups:
            group["lr"] = _CONTRASTIVE_RATE * min(1.0, (step + 1) / (0.1 * steps)) * (1 - step / steps)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def contrastive_steps(labeled: int) -> int:
    """More labels hold more to learn: 1.5 steps per label, between 100 and 400."""
    return min(max(math.ceil(1.5 * labeled), 100), 400)


def balanced_rows(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws n rows with the classes as equal as can be, each row at most once unless its class is too small.

    Of multi-label data any n are drawn.
    """
    if labels.ndim == 2:
        return rng.permutation(len(labels))[:n]
    classes = rng.permutation(np.unique(labels))
    shares = np.array([n // len(classes) + (i < n % len(classes)) for i in range(len(classes))])
    drawn = []
    for c, share in zip(classes, shares, strict=True):
        members = rng.permutation(np.flatnonzero(labels == c))
        drawn.append(np.resize(members, share))
    return np.concatenate(drawn)


@without_remarks()
def fit_head(module: Module, data: Data, config: TrainConfig, context: Autocast, strength: float = 10.0) -> None:
    """Logistic regression on the labeled rows' features becomes the classifier's weights.

    `strength` is the inverse of the L2 penalty on features of unit spread. At 1 the model is far too unsure of itself
    (calibration error 0.3 on questions at 10 labels per class), at 10 it is nearly calibrated, with the same accuracy.
    Unequal classes are made up for as `config` says. In multi-label data each label has a regression of its own.
    """
    z = features(module, data.store, data.labeled, context).double().numpy()
    y, shift = data.labels[data.labeled], adjustment(data, config)
    scale = float(np.linalg.norm(z - z.mean(0), axis=1).mean()) or 1.0
    weights = with_class_weights(data, config).weights
    if data.kind == "single-label":
        weight, bias = _head(z / scale, y, weights, strength, len(data.classes))
    else:
        weight, bias = _one_head_each(z / scale, y, weights, strength)
    weight = weight / scale
    classifier = module.classifier
    assert isinstance(classifier, torch.nn.Linear)
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(weight))
        classifier.bias.copy_(torch.from_numpy(bias))
        if shift is not None:
            classifier.bias.sub_(shift.to(classifier.bias.device))


def _head(
    z: np.ndarray, y: np.ndarray, weights: np.ndarray | None, strength: float, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [C, D] and biases [C] of the classes y [n].

    A class without a row has a bias alone: the others' logits have the mean 0, so that it is never likelier than half a
    row among the n.
    """
    model = LogisticRegression(C=strength, max_iter=1000).fit(z, y, weights)
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # the library keeps one row for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    present = model.classes_
    every_weight, every_bias = np.zeros((classes, z.shape[1])), np.full(classes, np.log(0.5 * len(present) / len(y)))
    every_weight[present], every_bias[present] = weight, bias
    return every_weight, every_bias


def _one_head_each(
    z: np.ndarray, y: np.ndarray, weights: np.ndarray | None, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """The same for multi-label y [n, C], each from the rows where it is known: one against the rest."""
    weight, bias = np.zeros((y.shape[1], z.shape[1])), np.zeros(y.shape[1])
    for c in range(y.shape[1]):
        known = y[:, c] >= 0
        yes = int((y[:, c] == 1).sum())
        if 0 < yes < known.sum():
            model = LogisticRegression(C=strength, max_iter=1000)
            model.fit(z[known], y[known, c], None if weights is None else weights[known])
            weight[c], bias[c] = model.coef_[0], model.intercept_[0]
        else:  # all rows have it, or none: its odds, half a row on each side
            bias[c] = np.log((yes + 0.5) / (known.sum() - yes + 0.5))
    return weight, bias


def start_kind(module: Module, config: TrainConfig) -> WarmStart:
    """What "auto" stands for with this module."""
    return module.natural_start if config.warm_start == "auto" else config.warm_start
