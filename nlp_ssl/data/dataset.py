"""What is learned from: labeled, unlabeled, dev and test rows, of texts or images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from torch import Tensor

from nlp_ssl.data.splits import whole
from nlp_ssl.types import DataSpec, Kind


class Store(Protocol):
    """Rows addressed by position; a view of a row is made by an augmentation and a key."""

    max_length: int  # tokens of a row at most; 1 of images

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row before truncation, int32 [N]; ones for images."""
        ...

    def __len__(self) -> int: ...

    def views(self, requests: Sequence[tuple[np.ndarray, Any, np.ndarray]]) -> tuple[dict[str, Tensor], np.ndarray]:
        """One padded block for requests of (positions [n], augmentation, keys uint64 [n]), and each row's length."""
        ...


@dataclass(frozen=True)
class Data:
    """All rows of a task, one after the other, and which of them play which part.

    Attributes:
        classes: class names in the order of a model's outputs.
        labels: int64 [N], the class index, -1 where no label is known; multi-label int8 [N, C], 1, 0 or -1 where it is
            not known. Labels of `unlabeled` rows are hidden truth: they may score pseudo-labels and must never train.
        labeled, unlabeled, dev, test: int64 positions of rows; those of texts share none.
        notes: what was dropped, counted or looks doubtful ("warning: ..."), in words.
        content_hash: tells other classes, rows, labels or positions apart.
        texts: large_string [N], as they were read, of texts.
        pairs: large_string [N], the second text of each row, where rows are pairs.
        tokens: the texts as tokens, once an encoder is chosen.
        images: the images, of images.
        targets: probabilities [len(labeled), C] that replace the labels of the labeled rows.
        weights: weights [len(labeled)] of the labeled rows.
        prior: share of each class in the pool, where it is known.
        came_labeled: the rows that came with labels, where rows of the pool are among the labeled ones, too.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    labeled: np.ndarray
    unlabeled: np.ndarray
    dev: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()
    content_hash: str = ""
    texts: pa.ChunkedArray | None = None
    pairs: pa.ChunkedArray | None = None
    tokens: Store | None = None
    images: Store | None = None
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None
    prior: tuple[float, ...] | None = None
    came_labeled: np.ndarray | None = None

    @property
    def store(self) -> Store:
        """What nets read: the images, or the texts as tokens."""
        store = self.images if self.images is not None else self.tokens
        if store is None:
            raise RuntimeError("these texts have no tokens yet: a Task has them, made with the encoder's tokenizer")
        return store

    @property
    def whole_texts(self) -> pa.ChunkedArray | None:
        """Each text, of pairs both [N]: for what looks at words and not at who says them."""
        return None if self.texts is None else whole(self.texts, self.pairs)

    @property
    def original_labeled(self) -> np.ndarray:
        """The rows that came with labels, each once."""
        return self.labeled if self.came_labeled is None else self.came_labeled

    @property
    def kind(self) -> Kind:
        """Whether the data is single-label or multi-label."""
        return "single-label" if self.labels.ndim == 1 else "multi-label"

    @property
    def spec(self) -> DataSpec:
        """What methods may know."""
        if self.kind == "multi-label":
            each = len(self.classes)
            return DataSpec(2, len(self.unlabeled) * each, len(self.labeled) * each, kind="multi-label")
        return DataSpec(len(self.classes), len(self.unlabeled), len(self.labeled), self.prior)

    def labeled_counts(self) -> np.ndarray:
        """Labeled rows of each class, by their weights where they have some: float64 [C]; multi-label of no and yes."""
        weights = np.ones(len(self.labeled)) if self.weights is None else self.weights
        if self.kind == "multi-label":
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
