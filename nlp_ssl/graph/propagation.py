"""Label propagation: the labels of a few rows spread over the graph of all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.graph.knn import neighbors, unit
from nlp_ssl.ops.functional import entropy, probabilities

_TOLERANCE = 1e-10  # of the solver; what it gives a row must be well above that to count
_ITERATIONS = 500
_BALANCINGS = 100
_LEAST_FACTOR = 1e-100


@dataclass(frozen=True)
class Propagated:
    """What every row [N] was told: probabilities, how sure they are, and how rare each class is."""

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

    Every column takes its own steps, and none once it is solved. What no seed reaches stays zero to the last bit.
    """
    z, left = np.zeros_like(seeds), seeds.copy()  # left: seeds - (I - alpha * graph) z
    way, size = left.copy(), _squares(left, left)
    enough = _TOLERANCE**2 * size
    for _ in range(_ITERATIONS):
        going = size > enough
        if not going.any():
            break
        ahead = way - alpha * (graph @ way)
        step = np.divide(size, _squares(way, ahead), out=np.zeros_like(size), where=going)
        z += step * way
        left -= step * ahead
        size, before = _squares(left, left), size
        way = left + np.divide(size, before, out=np.zeros_like(size), where=going) * way
    solution: np.ndarray = np.maximum(z, 0.0)
    return solution


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products [C] of the columns of two arrays [N, C]."""
    found: np.ndarray = np.einsum("nc,nc->c", a, b)
    return found


def class_weights(counts: Tensor, shares: Tensor) -> Tensor:
    """Weights [C] that make classes with these numbers of rows [C] count for these shares [C] of all rows."""
    return shares * counts.sum() / counts.clamp(min=1.0)


def balance(z: Tensor, shares: Tensor) -> Tensor:
    """Factors [C] for the columns of z [N, C] that give every class about its share [C] of the rows' labels.

    Odds between two classes change by the same factor in all rows, so that the rows that change their label are those
    that were least sure of it. The shares are met by labels softened to the scale on which rows differ, half the median
    lead: between rows that a dense graph has made nearly alike, a small factor decides. Rows without z and classes that
    arrive nowhere do not count.
    """
    z, factors = z[z.sum(1) > 0], torch.ones_like(shares)
    there = z.sum(0) > 0
    if len(z) and int(there.sum()) > 1:
        log_z = z[:, there].clamp(min=1e-12 * float(z.max())).log()
        top = log_z.topk(2, dim=1).values
        scale = (0.5 * (top[:, 0] - top[:, 1]).median()).clamp(1e-3, 1.0)
        wanted = shares[there].clamp(min=1e-12)
        wanted, shift = wanted / wanted.sum(), torch.zeros_like(wanted)
        for _ in range(_BALANCINGS):
            # In logarithms: a class far behind in every row would be a share of zero.
            arrived = torch.log_softmax(log_z / scale + shift, 1).logsumexp(0) - math.log(len(z))
            shift = shift + wanted.log() - arrived
        # Shares that no factors can meet, as those of islands, would end in a factor of zero.
        factors[there] = (scale * (shift - shift.max())).exp().clamp(min=_LEAST_FACTOR)
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
        alpha: share that a row takes from its neighbors; 0 leaves all but the labeled rows without a label.
        prior: shares of the classes among the unlabeled rows, where they are known.

    Every class sends out the same amount, however many labels it has; with a prior, classes are then balanced to it.
    Class weights are those of even shares, or of the prior. Time and memory of the graph grow with N k, the search for
    neighbors takes N^2 D multiplications among up to 8,192 rows; among more it looks at the share of them in which a
    sample has 95 % of its neighbors.
    """
    rows = unit(features)
    known = probabilities(labels.detach().cpu(), torch.zeros(1, num_classes, dtype=torch.float64))  # [L, C]
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
    sure = (1.0 - entropy(p) / math.log(num_classes)).clamp(min=0.0) * reached
    sure = sure / sure.max() if bool(sure.max() > 0) else sure
    p[: len(known)] = known
    sure[: len(known)] = 1.0
    counts = known.sum(0) + torch.bincount(p[len(known) :].argmax(1)[reached[len(known) :]], minlength=num_classes)
    return Propagated(p, sure, class_weights(counts, shares))
