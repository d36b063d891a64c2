"""Nearest neighbors by cosine."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.errors import RunError

_ROUNDING = 1e-6  # relative size below which what is left of a row after centring is rounding
_EXACT = 20_000  # rows up to which all pairs are compared
_LISTS = 32  # that a search looks at beyond that
_CANDIDATES = 8  # compared exactly for each neighbor, after codes of four bits have told which
_TRAINING = 64  # rows that a list is trained on


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
    """The min(k, N - 1) rows nearest to each row [N, D], without itself: (inner products, row numbers), best first.

    Among many rows a search looks at a share of them, and may miss a neighbor; where it finds fewer than k, the rest
    are the row itself with an inner product of 0.
    """
    n = len(rows)
    k = min(k, n - 1)
    if k < 1:
        return np.zeros((n, 0), dtype=np.float32), np.zeros((n, 0), dtype=np.int64)
    similarity, number = _index(rows).search(rows, k + 1)
    own = number == np.arange(n)[:, None]
    own[~own.any(1), -1] = True  # crowded out by duplicates: the last one goes instead
    similarity, number = similarity[~own].reshape(n, k), number[~own].reshape(n, k)
    nothing = number < 0
    return np.where(nothing, 0.0, similarity), np.where(nothing, np.arange(n)[:, None], number)


def _index(rows: np.ndarray) -> Any:
    """A FAISS index of the rows: exact among few; among many lists of like rows, in which codes choose candidates."""
    import faiss

    n, d = rows.shape
    if n <= _EXACT:
        index: Any = faiss.IndexFlatIP(d)
    else:
        lists = int(math.sqrt(n))
        size = next(size for size in (4, 3, 2, 1) if d % size == 0) if d >= 128 else 1  # numbers that a code stands for
        index = faiss.index_factory(d, f"IVF{lists},PQ{d // size}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
        chosen = np.random.default_rng(0).choice(n, min(n, _TRAINING * lists), replace=False)
        index.train(rows[np.sort(chosen)])
        for knob, value in (("nprobe", min(_LISTS, lists)), ("k_factor_rf", _CANDIDATES)):
            faiss.ParameterSpace().set_index_parameter(index, knob, value)
    index.add(rows)
    return index
