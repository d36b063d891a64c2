"""What the loop trains on, for any modality: one store of rows and positions into it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from torch import Tensor

from nlp_ssl.types import DataSpec, Kind


class Store(Protocol):
    """Rows addressed by position; a view of a row is made by an augmentation and a key."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row before truncation, int32 [N]; ones for images."""
        ...

    def __len__(self) -> int: ...

    def views(
        self, requests: Sequence[tuple[np.ndarray, Any, np.ndarray]], max_length: int
    ) -> tuple[dict[str, Tensor], np.ndarray]:
        """One padded block for requests of (positions [n], augmentation, keys uint64 [n]), and each row's length."""
        ...


@dataclass(frozen=True)
class Data:
    """Labeled, unlabeled, dev and test rows of one task.

    `labels` [N] are class indices, -1 where unknown; with several labels a row [N, C], 1, 0 or -1 where unknown. Those
    of unlabeled rows are hidden truth: only ever used to log how right the pseudo-labels are. `targets`
    [len(labeled), C] replaces the labels of the labeled rows by probabilities, `weights` [len(labeled)] weighs them.
    """

    classes: tuple[str, ...]
    store: Store
    labels: np.ndarray
    labeled: np.ndarray
    unlabeled: np.ndarray
    dev: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()
    content_hash: str = ""
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None
    prior: tuple[float, ...] | None = None
    texts: pa.ChunkedArray | None = None  # as they were read, for the eye alone
    origin: tuple[tuple[str, str], ...] = ()  # model, pooling and views: what a resumed run must share beside the rows
    own: np.ndarray | None = None  # the labeled rows that came with labels, where pool rows count as labeled, too

    @property
    def gold(self) -> np.ndarray:
        """The rows that came with labels, each once."""
        return self.labeled if self.own is None else self.own

    @property
    def kind(self) -> Kind:
        """Whether a row has one label or several."""
        return "one" if self.labels.ndim == 1 else "many"

    @property
    def spec(self) -> DataSpec:
        """What methods may know."""
        if self.kind == "many":
            each = len(self.classes)
            return DataSpec(2, len(self.unlabeled) * each, len(self.labeled) * each, kind="many")
        return DataSpec(len(self.classes), len(self.unlabeled), len(self.labeled), self.prior)

    def labeled_counts(self) -> np.ndarray:
        """Labeled rows of each class, by their weights where they have some: float64 [C]; of several labels no, yes."""
        weights = np.ones(len(self.labeled)) if self.weights is None else self.weights
        if self.kind == "many":
            labels = self.labels[self.labeled]
            return np.array([(weights @ (labels == answer)).sum() for answer in (0, 1)])
        if self.targets is not None:
            return np.asarray(weights @ self.targets, dtype=np.float64)
        return np.bincount(self.labels[self.labeled], weights, minlength=len(self.classes))

    def labeled_shares(self) -> np.ndarray:
        """Share of each class [C] among the labeled rows; no class has less than half a row."""
        counts = np.maximum(self.labeled_counts(), 0.5)
        shares: np.ndarray = counts / counts.sum()
        return shares

    def without_pool(self) -> "Data":
        """The same task for label-only training."""
        return replace(self, unlabeled=self.unlabeled[:0])
