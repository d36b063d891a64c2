"""Nearest neighbors by cosine."""

import math

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.errors import RunError

_ROUNDING = 1e-6  # relative size below which what is left of a row after centring is rounding
_EXACT = 8_192  # rows up to which all pairs are compared
_FOUND = 0.99  # share of the neighbors that is looked for beyond that
_SAMPLE = 512  # rows whose neighbors tell how many lists to look at
_TRAINING = 32  # rows that the centre of a list is trained on, in so many rounds:
_ROUNDS = 5
_CELLS = 4_000_000  # inner products in memory at once


def unit(features: Tensor) -> np.ndarray:
    """Rows [N, D] of features, less their mean and scaled to length 1, float32. A row equal to the mean is all zeros.

    Without centring all texts are alike: features of language models share a large common part.

    Raises:
        RunError: a feature is not finite.
    """
    if not bool(torch.isfinite(features).all()):
        raise RunError(320, "features are not finite: lower the learning rate, or use --mixed-precision no")
    f = features.detach().cpu()
    f = f if f.dtype == torch.float64 else f.float()
    centred = f - f.mean(0, dtype=torch.float64).to(f)
    length = centred.norm(dim=1, keepdim=True)
    something = length > _ROUNDING * f.norm(dim=1).max()
    scale = torch.where(something, 1.0 / length.double().clamp(min=1e-300), 0.0)
    rows: np.ndarray = centred.mul_(scale).float().numpy()
    return np.ascontiguousarray(rows)


def neighbors(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The min(k, N - 1) rows nearest to each row [N, D], without itself: (inner products, row numbers), best first.

    Among many rows a search looks at a share of them, and may miss a neighbor; where it finds fewer than k, the rest
    are the row itself with an inner product of 0.
    """
    n = len(rows)
    k = min(k, n - 1)
    if k < 1:
        return np.zeros((n, 0), dtype=np.float32), np.zeros((n, 0), dtype=np.int64)
    r = torch.from_numpy(rows)
    found = _nearest(r, r, k + 1) if n <= _EXACT else _nearest_in_lists(r, k + 1)
    similarity, number = found[0].numpy(), found[1].numpy()
    own = number == np.arange(n)[:, None]
    own[~own.any(1), -1] = True  # crowded out by duplicates: the last one goes instead
    similarity, number = similarity[~own].reshape(n, k), number[~own].reshape(n, k)
    nothing = number < 0
    return np.where(nothing, 0.0, similarity), np.where(nothing, np.arange(n)[:, None], number)


def _nearest(queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows [N, D] nearest to each of the queries [Q, D]: (inner products [Q, k], row numbers), best first."""
    blocks = [(q @ rows.T).topk(k) for q in torch.split(queries, max(_CELLS // len(rows), 1))]
    return torch.cat([b.values for b in blocks]), torch.cat([b.indices for b in blocks])


def _nearest_in_lists(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `_nearest` of all rows [N, D] among themselves, but of lists of like rows only those whose centres are near.

    An inverted file as in FAISS, with all rows that look at a list compared with it in one product of matrices. Rows
    not found are -1.
    """
    n = len(rows)
    centres = _centres(rows)
    own = _nearest(rows, centres, 1)[1][:, 0]
    looks = _nearest(rows, centres, _lists_to_look_at(rows, centres, own, k))[1]  # [N, lists]
    members = _grouped(own[:, None], len(centres))
    best, number = torch.full((n, k), -torch.inf), torch.full((n, k), -1)
    for part in (looks[:, :1], looks[:, 1:]):  # nearest first, so that few rows find something better in the rest
        for these, asking in zip(members, _grouped(part, len(centres)), strict=True):
            for some in torch.split(asking, max(_CELLS // max(len(these), 1), 1)):
                _merge(best, number, rows, some, these)
    best, order = best.sort(1, descending=True)
    return best, number.gather(1, order)


def _merge(best: Tensor, number: Tensor, rows: Tensor, asking: Tensor, these: Tensor) -> None:
    """Puts those of `these` rows into the best [N, k] of the `asking` rows that are nearer than what is there."""
    if not len(these):
        return
    k, found = best.shape[1], rows[asking] @ rows[these].T
    better = found.amax(1) > best[asking].amin(1)
    asking, found = asking[better], found[better]
    best[asking], at = torch.cat([best[asking], found], 1).topk(k, sorted=False)
    number[asking] = torch.where(at < k, number[asking].gather(1, at.clamp(max=k - 1)), these[(at - k).clamp(min=0)])


def _centres(rows: Tensor) -> Tensor:
    """Directions of about sqrt(N) lists of like rows [N, D]."""
    import faiss

    lists = int(math.sqrt(len(rows)))
    points = {"min_points_per_centroid": 1, "max_points_per_centroid": _TRAINING}
    kmeans = faiss.Kmeans(rows.shape[1], lists, niter=_ROUNDS, spherical=True, **points)
    kmeans.train(rows.numpy())
    return torch.from_numpy(kmeans.centroids)


def _lists_to_look_at(rows: Tensor, centres: Tensor, own: Tensor, k: int) -> int:
    """In how many lists, from the nearest on, the rows of a sample have `_FOUND` of their true neighbors."""
    drawn = np.random.default_rng(0).choice(len(rows), min(_SAMPLE, len(rows)), replace=False)
    sample = rows[torch.from_numpy(drawn)]
    true = _nearest(sample, rows, k)[1][:, 1:]  # [S, k - 1]
    rank = (sample @ centres.T).argsort(1, descending=True).argsort(1)  # [S, lists]
    return int(np.quantile(rank.gather(1, own[true]).numpy(), _FOUND, method="higher")) + 1


def _grouped(lists: Tensor, count: int) -> tuple[Tensor, ...]:
    """For each of `count` lists the rows that name it in `lists` [N, L], in order."""
    flat = lists.flatten()
    rows = flat.argsort(stable=True) // max(lists.shape[1], 1)
    return torch.split(rows, flat.bincount(minlength=count).tolist())
