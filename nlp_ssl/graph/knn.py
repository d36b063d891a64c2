"""Nearest neighbors by cosine, exact."""

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.errors import RunError

_ROUNDING = 1e-6  # relative size below which what is left of a row after centring is rounding


def unit(features: Tensor) -> np.ndarray:
    """Rows [N, D] of features, less their mean and scaled to length 1, float32. A row equal to the mean is all zeros.

    Without centring all texts are alike: features of language models share a large common part.

    Raises:
        RunError: a feature is not finite.
    """
    if not bool(torch.isfinite(features).all()):
        raise RunError(320, "features are not finite: lower the learning rate, or use --mixed-precision no")
    f = features.detach().cpu().double()
    centred = f - f.mean(0)
    length = centred.norm(dim=1, keepdim=True)
    something = length > _ROUNDING * f.norm(dim=1).max()
    rows: np.ndarray = torch.where(something, centred / length.clamp(min=1e-300), 0.0).float().numpy()
    return np.ascontiguousarray(rows)


def neighbors(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The min(k, N - 1) rows nearest to each row [N, D], without itself: (inner products, row numbers), best first."""
    import faiss

    n = len(rows)
    k = min(k, n - 1)
    if k < 1:
        return np.zeros((n, 0), dtype=np.float32), np.zeros((n, 0), dtype=np.int64)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    similarity, number = index.search(rows, k + 1)
    own = number == np.arange(n)[:, None]
    own[~own.any(1), -1] = True  # crowded out by duplicates: the last one goes instead
    return similarity[~own].reshape(n, k), number[~own].reshape(n, k)
