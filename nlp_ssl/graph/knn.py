"""Nearest neighbors by cosine."""

import math

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.errors import RunError

_ROUNDING = 1e-6  # relative length below which a centred row is rounding error
_EXACT = 8_192  # rows up to which all pairs are compared
_SAMPLE = 512  # rows that decide how many lists are visited
_TRAINING = 32  # rows per centre in k-means, and its iterations
_ITERATIONS = 5
_CELLS = 4_000_000  # inner products in memory at once


def unit_vectors(features: Tensor) -> np.ndarray:
    """Rows [N, D] of features, centred and scaled to length 1, float32. A row equal to the mean is all zeros.

    Without centring all texts are similar: features of language models share a large common part.

    Raises:
        RunError: a feature is not finite.
    """
    if not bool(torch.isfinite(features).all()):
        raise RunError(320, "features are not finite: lower the learning rate, or use --mixed-precision no")
    f = features.detach().cpu()
    f = f if f.dtype == torch.float64 else f.float()
    centred = f - f.mean(0, dtype=torch.float64).to(f)
    length = centred.norm(dim=1, keepdim=True)
    nonzero = length > _ROUNDING * f.norm(dim=1).max()
    scale = torch.where(nonzero, 1.0 / length.double().clamp(min=1e-300), 0.0)
    rows: np.ndarray = centred.mul_(scale).float().numpy()
    return np.ascontiguousarray(rows)


def neighbors(rows: np.ndarray, k: int, *, exact: int = _EXACT, recall: float = 0.99) -> tuple[np.ndarray, np.ndarray]:
    """The min(k, N - 1) rows nearest to each row [N, D], without itself: (inner products, row numbers), best first.

    Among more than `exact` rows a search visits a share of them, as large as a sample needs to have this `recall` of
    its neighbors; where it finds fewer than k, the rest are the row itself with an inner product of 0.
    """
    n = len(rows)
    k = min(k, n - 1)
    if k < 1:
        return np.zeros((n, 0), dtype=np.float32), np.zeros((n, 0), dtype=np.int64)
    r = torch.from_numpy(rows)
    best, numbers = _nearest(r, r, k + 1) if n <= exact else _nearest_in_lists(r, k + 1, recall)
    similarity, number = best.numpy(), numbers.numpy()
    own = number == np.arange(n)[:, None]
    own[~own.any(1), -1] = True  # crowded out by duplicates: the last one goes instead
    similarity, number = similarity[~own].reshape(n, k), number[~own].reshape(n, k)
    missing = number < 0
    return np.where(missing, 0.0, similarity), np.where(missing, np.arange(n)[:, None], number)


def _nearest(queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows [N, D] nearest to each of the queries [Q, D]: (inner products [Q, k], row numbers), best first."""
    blocks = [(q @ rows.T).topk(k) for q in torch.split(queries, max(_CELLS // len(rows), 1))]
    return torch.cat([b.values for b in blocks]), torch.cat([b.indices for b in blocks])


def _nearest_in_lists(rows: Tensor, k: int, recall: float) -> tuple[Tensor, Tensor]:
    """As `_nearest` of all rows [N, D] among themselves, but only in the lists of similar rows whose centres are near.

    An inverted file as in FAISS, with all rows that visit a list compared with it in one matrix product. Missing rows
    are -1.
    """
    n = len(rows)
    centres = _centres(rows)
    own = _nearest(rows, centres, 1)[1][:, 0]
    visits = _nearest(rows, centres, _lists_to_visit(rows, centres, own, k, recall))[1]  # [N, lists]
    members = _grouped(own[:, None], len(centres))
    best, number = torch.full((n, k), -torch.inf), torch.full((n, k), -1)
    for part in (visits[:, :1], visits[:, 1:]):  # nearest first, so that few rows improve in the rest
        for these, asking in zip(members, _grouped(part, len(centres)), strict=True):
            for some in torch.split(asking, max(_CELLS // max(len(these), 1), 1)):
                _merge(best, number, rows, some, these)
    best, order = best.sort(1, descending=True)
    return best, number.gather(1, order)


def _merge(best: Tensor, number: Tensor, rows: Tensor, asking: Tensor, these: Tensor) -> None:
    """Merges `these` rows into the k best of the `asking` rows, best [N, k], where they are nearer."""
    if not len(these):
        return
    k, similarity = best.shape[1], rows[asking] @ rows[these].T
    better = similarity.amax(1) > best[asking].amin(1)
    asking, similarity = asking[better], similarity[better]
    best[asking], at = torch.cat([best[asking], similarity], 1).topk(k, sorted=False)
    number[asking] = torch.where(at < k, number[asking].gather(1, at.clamp(max=k - 1)), these[(at - k).clamp(min=0)])


def _centres(rows: Tensor) -> Tensor:
    """Centres of about sqrt(N) lists of similar rows [N, D], by spherical k-means."""
    import faiss

    lists = int(math.sqrt(len(rows)))
    points = {"min_points_per_centroid": 1, "max_points_per_centroid": _TRAINING}
    kmeans = faiss.Kmeans(rows.shape[1], lists, niter=_ITERATIONS, spherical=True, **points)
    kmeans.train(rows.numpy())
    return torch.from_numpy(kmeans.centroids)


def _lists_to_visit(rows: Tensor, centres: Tensor, own: Tensor, k: int, recall: float) -> int:
    """How many lists, the nearest first, hold a share `recall` of the true neighbors of a sample of rows."""
    drawn = np.random.default_rng(0).choice(len(rows), min(_SAMPLE, len(rows)), replace=False)
    sample = rows[torch.from_numpy(drawn)]
    true = _nearest(sample, rows, k)[1][:, 1:]  # [S, k - 1]
    rank = (sample @ centres.T).argsort(1, descending=True).argsort(1)  # [S, lists]
    return int(np.quantile(rank.gather(1, own[true]).numpy(), recall, method="higher")) + 1


def _grouped(lists: Tensor, count: int) -> tuple[Tensor, ...]:
    """For each of `count` lists the rows that name it in `lists` [N, L], in order."""
    flat = lists.flatten()
    rows = flat.argsort(stable=True) // max(lists.shape[1], 1)
    return torch.split(rows, flat.bincount(minlength=count).tolist())
