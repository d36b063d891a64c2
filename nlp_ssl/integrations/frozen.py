"""First answers in seconds: scikit-learn estimators on the embeddings of an encoder that stays as it is."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from nlp_ssl.config import DEFAULT_MODEL
from nlp_ssl.data.arrays import Column, labeled_accuracy, read_labels, read_texts
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.schema import log_notes
from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.graph.propagation import propagate
from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.ops.fits import without_remarks
from nlp_ssl.utils.ranges import check

FrozenHead = Literal["logistic", "neighbors"]
_STRENGTH = 10.0  # inverse of the L2 penalty, as for the head of the warm start


class SentenceEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns texts into embeddings of length 1.

    Args:
        model: folder or hub name of a sentence encoder; "bundled" for the one of the demo extra.
    """

    def __init__(self, model: str | Path = DEFAULT_MODEL) -> None:
        self.model = model

    def fit(self, X: Column, y: Column | None = None) -> Self:
        """Nothing is learned."""
        return self

    def transform(self, X: Column) -> np.ndarray:
        """Embeddings float32 [n, D] of texts X [n].

        Raises:
            ConfigError: the encoder cannot be opened.
            DataError: a text is missing or no text.
        """
        return _embedder(encoder_name(str(self.model)))(read_texts(X))

    @property
    def _n_features_out(self) -> int:
        return int(_embedder(encoder_name(str(self.model)))(["a text"]).shape[1])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


class LabelPropagationClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Spreads labels over the graph of nearest neighbors (Iscen et al. 2019, arXiv:1904.04717), for features [N, D].

    Args:
        n_neighbors: neighbors of a row in the graph.
        gamma: power of the similarities; larger ones make the graph sparser.
        alpha: share that a row takes from its neighbors; near 1 labels go far, and some classes take more than theirs.
        prior: shares of the classes among the unlabeled rows, in the order of `classes_`, or "even", where they are
            known; alpha may then be 0.99.
        head: what answers for new rows: logistic regression on the propagated labels, each as sure as the propagation
            was, or the neighbors among the rows of `fit`.

    Attributes:
        classes_: the classes [C], sorted, in the type of the labels.
        label_distributions_: probabilities [N, C] of the rows of `fit`; the head's where no label arrived.
        transduction_: the most likely class of each of them [N].

    In `fit`, rows labeled -1, None, NaN or "" are unlabeled. `score` is the accuracy on the rows that have a label.
    """

    def __init__(
        self,
        n_neighbors: int = 50,
        *,
        gamma: float = 3.0,
        alpha: float = 0.9,
        prior: Literal["even"] | Sequence[float] | None = None,
        head: FrozenHead = "logistic",
    ) -> None:
        self.n_neighbors = n_neighbors
        self.gamma = gamma
        self.alpha = alpha
        self.prior = prior
        self.head = head

    def fit(self, X: Column, y: Column) -> Self:
        """Spreads the labels y [N] over the rows X [N, D] and fits the head.

        Raises:
            ConfigError: a parameter is out of range.
            InputError: a label cannot be used.
            ValueError: X is not an array of finite numbers, or not as long as y.
        """
        self._check()
        X = validate_data(self, X, dtype=np.float64)
        labels = read_labels(y)
        log_notes(labels.notes)
        check_consistent_length(X, labels.number)
        order = np.argsort(labels.number < 0, kind="stable")  # labeled rows first
        known = torch.from_numpy(labels.number[order][: int((labels.number >= 0).sum())])
        propagated = propagate(
            torch.from_numpy(X[order]),
            known,
            len(labels.classes),
            k=self.n_neighbors,
            gamma=self.gamma,
            alpha=self.alpha,
            prior=self._shares(len(labels.classes)),
        )
        p, sure = np.empty(propagated.p.shape), np.empty(len(X))
        p[order], sure[order] = propagated.p.double().numpy(), propagated.weights.double().numpy()
        reached = p.sum(1) > 0
        self.classes_, self._mean = labels.classes, X.mean(0)
        self._fit_head(X[reached], p[reached], sure[reached])
        if not reached.all():
            p[~reached] = self.predict_proba(X[~reached])
        self.label_distributions_, self.transduction_ = p, labels.classes[p.argmax(1)]
        return self

    def predict_proba(self, X: Column) -> np.ndarray:
        """Probabilities [n, C] of the classes for new rows X [n, D]."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        answer = self._head.predict_proba if self.head == "logistic" else self._head.predict
        p: np.ndarray = answer(self._scaled(rows))
        return p

    def predict(self, X: Column) -> np.ndarray:
        """The most likely classes [n], in the type of the labels."""
        p = self.predict_proba(X)
        labels: np.ndarray = self.classes_[p.argmax(1)]
        return labels

    def score(self, X: Column, y: Column, sample_weight: Column | None = None) -> float:
        """Accuracy on the rows that have a label."""
        return labeled_accuracy(y, self.predict(X), sample_weight)

    def _check(self) -> None:
        check(self.n_neighbors, "n_neighbors", 1, 1e6)
        check(self.gamma, "gamma", 0.0, 100.0)
        check(self.alpha, "alpha", 0.0, 0.999)
        if self.head not in get_args(FrozenHead):
            raise ConfigError(204, f"head cannot be {self.head!r}.{nearest(str(self.head), get_args(FrozenHead))}")

    def _shares(self, classes: int) -> list[float] | None:
        if self.prior is None:
            return None
        shares = np.full(classes, 1.0) if isinstance(self.prior, str) else np.asarray(self.prior, dtype=np.float64)
        if self.prior != "even" if isinstance(self.prior, str) else shares.shape != (classes,) or not shares.min() > 0:
            raise ConfigError(
                482, f"prior is {self.prior!r}: give 'even', or a positive share for each of {classes} classes"
            )
        return list(shares / shares.sum())

    @without_remarks()
    def _fit_head(self, X: np.ndarray, p: np.ndarray, sure: np.ndarray) -> None:
        spread = float(np.linalg.norm(X - self._mean, axis=1).mean())
        self._scale = spread if spread > 0 else 1.0
        if self.head == "logistic":
            head: Any = LogisticRegression(C=_STRENGTH, max_iter=1000)
            self._head = head.fit(self._scaled(X), p.argmax(1), sample_weight=sure)
        else:
            near = partial(_closeness, gamma=self.gamma)
            head = KNeighborsRegressor(min(self.n_neighbors, len(X)), weights=near, algorithm="brute", metric="cosine")
            self._head = head.fit(self._scaled(X), p)

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (X - self._mean) / self._scale
        return scaled


def _closeness(distance: np.ndarray, gamma: float) -> np.ndarray:
    """Weights of neighbors at cosine distances; where all are on the other side, all the same."""
    near: np.ndarray = np.maximum(1.0 - distance, 1e-6) ** gamma
    return near


@lru_cache(maxsize=1)
def _embedder(encoder: str) -> Embedder:
    """Shared by all copies of a transformer, so that they stay small and the encoder is loaded once."""
    return Embedder(encoder)
