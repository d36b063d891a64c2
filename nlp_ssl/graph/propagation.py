"""Label propagation: the labels of a few rows spread over the graph of all."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.functional import entropy, probabilities
from nlp_ssl.graph.knn import neighbors, unit

_TOLERANCE = 1e-10  # of the solver; what it gives a row must be well above that to count
_ITERATIONS = 500


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
    """Solution z [N, C] >= 0 of (I - alpha * graph) z = seeds [N, C], by conjugate gradients for each class."""
    from scipy import sparse
    from scipy.sparse.linalg import cg

    system = (sparse.eye_array(graph.shape[0], format="csr") - alpha * graph).tocsr()
    columns = [cg(system, seed, rtol=_TOLERANCE, atol=0.0, maxiter=_ITERATIONS)[0] for seed in seeds.T]
    z: np.ndarray = np.maximum(np.stack(columns, 1), 0.0)
    return z


def class_weights(shares: Tensor) -> Tensor:
    """Weights [C] that make classes with these numbers of rows [C] count alike: (N / C) / rows, N in all."""
    return shares.sum() / len(shares) / shares.clamp(min=1.0)


def propagate(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    k: int = 50,
    gamma: float = 3.0,
    alpha: float = 0.99,
) -> Propagated:
    """Spreads labels over the graph of nearest neighbors (Iscen et al. 2019, arXiv:1904.04717), float64, on the CPU.

    Args:
        features: of all rows [N, D], the labeled ones first.
        labels: classes [L] or probabilities [L, C] of the labeled rows.
        num_classes: C.
        k: neighbors of a row.
        gamma: power of the similarities; larger ones make the graph sparser.
        alpha: share that a row takes from its neighbors; 0 leaves all but the labeled rows without a label.

    Every class sends out the same amount, however many labels it has. Time and memory of the graph grow with N k, the
    search for neighbors takes N^2 D multiplications.
    """
    rows = unit(features)
    known = probabilities(labels.detach().cpu(), torch.zeros(1, num_classes, dtype=torch.float64))  # [L, C]
    seeds = np.zeros((len(rows), num_classes))
    seeds[: len(known)] = (known / known.sum(0).clamp(min=1e-12)).numpy()
    z = torch.from_numpy(spread(normalized(affinity(*neighbors(rows, k), gamma)), seeds, alpha))
    total = z.sum(1)
    reached = total > 100 * _TOLERANCE * total.max()
    p = torch.where(reached[:, None], z / total.clamp(min=1e-300)[:, None], 0.0)
    sure = (1.0 - entropy(p) / math.log(num_classes)).clamp(min=0.0) * reached
    sure = sure / sure.max() if bool(sure.max() > 0) else sure
    p[: len(known)] = known
    sure[: len(known)] = 1.0
    counts = known.sum(0) + torch.bincount(p[len(known) :].argmax(1)[reached[len(known) :]], minlength=num_classes)
    return Propagated(p, sure, class_weights(counts))
