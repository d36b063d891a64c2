"""Pseudo-label policies: probabilities [N, C] in, weights [N] out. Online methods and rounds share them."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from nlp_ssl.ops.distributed import from_first_values
from nlp_ssl.ops.fits import without_remarks

Unused = Annotated[
    Literal["seen", "pool", "none"],
    "rows that hold thresholds down while they are many: seen and not confident, all of the pool not selected, or none",
]


def confident(p: Tensor, threshold: float | Tensor) -> Tensor:
    """1 where the largest probability reaches `threshold`, else 0: weights [N], no gradient."""
    return (p.detach().amax(-1) >= threshold).to(p.dtype)


def relative(p: Tensor, p_labeled: Tensor, threshold: float) -> Tensor:
    """Weights [N] against `threshold` times the mean confidence on the labeled rows [B, C] (AdaMatch)."""
    return confident(p, threshold * p_labeled.detach().amax(-1).mean())


def classwise(p: Tensor, thresholds: Tensor) -> Tensor:
    """Weights [N] against the threshold [C] of each row's predicted class."""
    conf, label = p.detach().max(-1)
    return (conf >= thresholds[label]).to(p.dtype)


def estimate_prior(p: Tensor, trained: Tensor, rounds: int = 100) -> tuple[float, ...]:
    """Class shares [C] of rows with predictions p [N, C] by a model trained on class shares `trained` [C].

    Expectation maximisation (Saerens et al. 2002, doi:10.1162/089976602753284446), then half-way back (geometrically)
    to `trained`: with few labels the predictions are too rough to be believed in full.
    """
    p, trained = p.double(), trained.double()
    shares = trained
    for _ in range(rounds):
        q = p * (shares / trained)
        shares = (q / q.sum(-1, keepdim=True)).mean(0)
    damped = (shares * trained).sqrt()
    return tuple((damped / damped.sum()).tolist())


def top_k_per_class(p: Tensor, k: int) -> Tensor:
    """Weights [N]: 1 for the k most confident rows of every predicted class, ties by position."""
    conf, label = p.detach().max(-1)
    keep = torch.zeros_like(conf)
    for c in range(p.shape[-1]):
        rows = (label == c).nonzero().squeeze(1)
        keep[rows[conf[rows].argsort(descending=True, stable=True)[:k]]] = 1.0
    return keep


@without_remarks()
def clean_probability(loss: Tensor, least_gap: float = 0.0) -> Tensor:
    """Probability [L] that each label is right, from a trained net's losses [L] (Li et al. 2020, arXiv:2002.07394).

    The losses are scaled to 0..1 and fitted by two Gaussians; it is the share of the one with the lower mean. All ones
    where there is nothing to divide: fewer than four rows, or losses within `least_gap` nats of one another.
    """
    from sklearn.mixture import GaussianMixture

    gap = float(loss.max() - loss.min()) if len(loss) else 0.0
    if len(loss) < 4 or not gap > max(least_gap, 1e-12):
        return torch.ones_like(loss)
    scaled = ((loss - loss.min()) / gap).double().cpu().numpy()[:, None]
    fitted = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(scaled)
    clean = fitted.predict_proba(scaled)[:, fitted.means_.argmin()]
    return from_first_values(torch.from_numpy(clean).to(loss))


def truncated_gaussian(conf: Tensor, mean: Tensor, variance: Tensor, width: float) -> Tensor:
    """Weights [N] of confidences [N]: 1 from the mean on, below it exp(-(conf - mean)^2 / (2 variance / width^2))."""
    below = (conf.detach() - mean).clamp(max=0.0)
    return torch.exp(-0.5 * (width * below).square() / variance.clamp(min=1e-12))


def class_status(selected: Tensor, num_classes: int, unused: Unused) -> Tensor:
    """How well each class is learned [C]: rows selected for it, relative to those of the best class (FlexMatch).

    Args:
        selected: of each row of the pool [N] its class, -1 if it was never confident, -2 if it was not seen yet.
        num_classes: C.
        unused: rows that count like one more class while they are many: those "seen" without being confident, all
            those of the "pool" that are not selected, or "none".

    Ones as long as nothing was counted: no row seen, or, with "pool", no row there.
    """
    rows = torch.ones_like(selected, dtype=torch.float32)
    counts = rows.new_zeros(num_classes + 2).index_add_(0, selected + 2, rows)  # not seen, not confident, classes
    best = counts[2:].amax()
    if unused != "none":
        best = torch.maximum(best, counts[:2].sum() if unused == "pool" else counts[1])
    return torch.where(best > 0, counts[2:] / best.clamp(min=1.0), 1.0)


def selection(p: Tensor, threshold: float, before: Tensor) -> Tensor:
    """For `class_status`, what rows of probabilities p [N, C] are selected for [N], `before` [N] until now.

    That is the class that reaches `threshold`: a fixed one, since moving thresholds would feed on themselves.
    """
    conf, label = p.max(-1)
    return torch.where(conf >= threshold, label, before.clamp(min=-1))


def flexible(threshold: float, status: Tensor, lowest: float = 0.0) -> Tensor:
    """Thresholds [C] that grow with the learning status [C] from `lowest` to `threshold`, by status / (2 - status)."""
    return lowest + (threshold - lowest) * (status / (2.0 - status))
