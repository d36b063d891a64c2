"""Label propagation: the labels of a few rows spread over the graph of all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.graph.knn import neighbors, unit_vectors
from nlp_ssl.ops.functional import as_probabilities, entropy

_TOLERANCE = 1e-10  # of the solver; a row's labels must sum to well above that to count
_ITERATIONS = 500
_BALANCINGS = 100
_LEAST_FACTOR = 1e-100


@dataclass(frozen=True)
class Propagated:
    """The propagated labels of all rows [N]: probabilities, their certainty, and weights of the classes."""

    p: Tensor  # [N, C]; zeros where no label arrives
    weights: Tensor  # [N], 0..1; 1 for labeled rows, 0 where no label arrives
    class_weights: Tensor  # [C]


def affinity(similarity: np.ndarray, number: np.ndarray, gamma: float) -> Any:
    """Sparse symmetric weights [N, N] of edges to neighbors `number` [N, k] with the given similarities [N, k].

    max(s, 0)^gamma, added up over both directions: an edge between rows that are neighbors of each other counts twice.
    """
    from scipy import sparse

    n, k = number.shape
    values = np.maximum(similarity, 0.0).astype(np.float64) ** gamma * (similarity > 0)
    a = sparse.csr_matrix((values.ravel(), number.ravel(), k * np.arange(n + 1)), shape=(n, n))
    w = (a + a.T).tocsr()
    w.setdiag(0.0)
    w.eliminate_zeros()
    return w


def normalized(w: Any) -> Any:
    """D^-1/2 W D^-1/2 with D the row sums, 1 for rows without edges. Its eigenvalues lie in [-1, 1]."""
    from scipy import sparse

    degree = np.asarray(w.sum(1)).ravel()
    scale = sparse.diags_array(1.0 / np.sqrt(np.where(degree > 0, degree, 1.0)))
    return (scale @ w @ scale).tocsr()


def spread(graph: Any, seeds: np.ndarray, alpha: float) -> np.ndarray:
    """Solution z [N, C] >= 0 of (I - alpha * graph) z = seeds [N, C], by conjugate gradients for all classes at once.

    Every column takes its own steps, and none once it is solved. What no seed reaches stays exactly zero.
    """
    z, residual = np.zeros_like(seeds), seeds.copy()  # seeds - (I - alpha * graph) z
    direction, size = residual.copy(), _products(residual, residual)
    solved = _TOLERANCE**2 * size
    for _ in range(_ITERATIONS):
        going = size > solved
        if not going.any():
            break
        image = direction - alpha * (graph @ direction)
        step = np.divide(size, _products(direction, image), out=np.zeros_like(size), where=going)
        z += step * direction
        residual -= step * image
        size, before = _products(residual, residual), size
        direction = residual + np.divide(size, before, out=np.zeros_like(size), where=going) * direction
    solution: np.ndarray = np.maximum(z, 0.0)
    return solution


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products [C] of the columns of two arrays [N, C]."""
    products: np.ndarray = np.einsum("nc,nc->c", a, b)
    return products


def balancing_weights(counts: Tensor, shares: Tensor) -> Tensor:
    """Weights [C] that make classes with these numbers of rows [C] count for these shares [C] of all rows."""
    return shares * counts.sum() / counts.clamp(min=1.0)


def balance(z: Tensor, shares: Tensor) -> Tensor:
    """Factors [C] for the columns of z [N, C] that give every class about its share [C] of the rows' labels.

    Odds between two classes change by the same factor in all rows, so that the rows that change their label are those
    that were least certain of it. The shares are met by labels softened to the scale on which rows differ, half the
    median margin: between rows that a dense graph has made nearly equal, a small factor decides. Rows without z and
    classes that reach no row do not count.
    """
    z, factors = z[z.sum(1) > 0], torch.ones_like(shares)
    reached = z.sum(0) > 0
    if len(z) and int(reached.sum()) > 1:
        log_z = z[:, reached].clamp(min=1e-12 * float(z.max())).log()
        top = log_z.topk(2, dim=1).values
        scale = (0.5 * (top[:, 0] - top[:, 1]).median()).clamp(1e-3, 1.0)
        target = shares[reached].clamp(min=1e-12)
        target, shift = target / target.sum(), torch.zeros_like(target)
        for _ in range(_BALANCINGS):
            # In logarithms: the share of a class that is far behind in every row would underflow.
            actual = torch.log_softmax(log_z / scale + shift, 1).logsumexp(0) - math.log(len(z))
            shift = shift + target.log() - actual
        # Shares that no factors can meet, as in unconnected parts of the graph, would end in a factor of zero.
        factors[reached] = (scale * (shift - shift.max())).exp().clamp(min=_LEAST_FACTOR)
    return factors


def propagate(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    k: int = 50,
    gamma: float = 3.0,
    alpha: float = 0.99,
    prior: Sequence[float] | None = None,
) -> Propagated:
    """Spreads labels over the graph of nearest neighbors (Iscen et al. 2019, arXiv:1904.04717), float64, on the CPU.

    Args:
        features: of all rows [N, D], the labeled ones first.
        labels: classes [L] or probabilities [L, C] of the labeled rows.
        num_classes: C.
        k: neighbors of a row.
        gamma: power of the similarities; larger ones make the graph sparser.
        alpha: share that a row takes from its neighbors; 0 leaves the unlabeled rows without a label.
        prior: shares of the classes among the unlabeled rows, if known.

    Every class starts with the same mass, however many labels it has; with a prior, classes are then balanced to it.
    Class weights are those of even shares, or of the prior. Time and memory of the graph grow with N k, the search for
    neighbors takes N^2 D multiplications among up to 8,192 rows; among more it visits the share of them in which a
    sample has 99 % of its neighbors.
    """
    rows = unit_vectors(features)
    known = as_probabilities(labels.detach().cpu(), torch.zeros(1, num_classes, dtype=torch.float64))  # [L, C]
    seeds = np.zeros((len(rows), num_classes))
    seeds[: len(known)] = (known / known.sum(0).clamp(min=1e-12)).numpy()
    z = torch.from_numpy(spread(normalized(affinity(*neighbors(rows, k), gamma)), seeds, alpha))
    shares = torch.full_like(z[0], 1.0 / num_classes) if prior is None else z.new_tensor(prior)
    total = z.sum(1)
    reached = total > 100 * _TOLERANCE * total.max()
    if prior is not None:
        z = z * balance(z[len(known) :], shares)
        total = z.sum(1)
    p = torch.where(reached[:, None], z / total.clamp(min=1e-300)[:, None], 0.0)
    certainty = (1.0 - entropy(p) / math.log(num_classes)).clamp(min=0.0) * reached
    certainty = certainty / certainty.max() if bool(certainty.max() > 0) else certainty
    p[: len(known)] = known
    certainty[: len(known)] = 1.0
    counts = known.sum(0) + torch.bincount(p[len(known) :].argmax(1)[reached[len(known) :]], minlength=num_classes)
    return Propagated(p, certainty, balancing_weights(counts, shares))
