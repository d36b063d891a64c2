"""What a method in rounds sees of the net that labels the pool."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.inference.predict import features, predict, predict_sampled
from nlp_ssl.nets.base import Module
from nlp_ssl.ops.functional import align, softmax
from nlp_ssl.ops.targets import estimate_prior
from nlp_ssl.training.imbalance import adjustment, with_class_weights
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils.precision import Autocast, autocast, resolve


class Teacher:
    """A trained net as a method in rounds sees it: its predictions for the pool, the same on every process."""

    def __init__(
        self, module: Module, data: Data, config: TrainConfig, number: int, pseudo_labels: PseudoLabels | None = None
    ) -> None:
        self.data, self.number, self.pseudo_labels = with_class_weights(data, config), number, pseudo_labels
        self._module, self._config = module, config
        shift = adjustment(self.data, config)  # labels of the pool hold under the shares of the labels, as online
        self._shift = torch.zeros(1) if shift is None else shift
        device = next(module.parameters()).device
        self._context: Autocast = autocast(resolve(config.mixed_precision, device), device)

    @cached_property
    def prior(self) -> Tensor | None:
        """Class shares [C] of the pool: known, or estimated where pseudo-labels are to be aligned, else None."""
        if self.data.prior is not None:
            return torch.tensor(self.data.prior, dtype=torch.float64)
        if not self._config.align:
            return None
        shares = estimate_prior(self._own, torch.from_numpy(self.data.labeled_shares()))
        return torch.tensor(shares, dtype=torch.float64)

    @cached_property
    def _own(self) -> Tensor:
        data = self.data
        logits = predict(self._module, data.store, data.unlabeled, self._context)
        return softmax((logits + self._shift).double())

    @cached_property
    def p(self) -> Tensor:
        """Probabilities [U, C] float64 of the pool without dropout, aligned to the pool's class shares.

        In the first round given pseudo-labels take the place of the teacher's own.
        """
        own = self._own if self.prior is None else align(self._own, self.prior, self._own.mean(0))
        if self.pseudo_labels is None:
            return own
        known = torch.from_numpy(self.pseudo_labels.copies > 0)
        return torch.where(known[:, None], torch.from_numpy(self.pseudo_labels.targets()), torch.zeros_like(own))

    def samples(self, rows: np.ndarray, passes: int) -> Iterator[Tensor]:
        """Probabilities [n, C] float64 of these rows of the pool [n], pass after pass with dropout."""
        data, seed = self.data, int(self.rng().integers(2**31))
        at = data.unlabeled[rows]
        for logits in predict_sampled(self._module, data.store, at, self._context, passes=passes, seed=seed):
            yield softmax((logits + self._shift).double())

    def features(self) -> Tensor:
        """Features [L + U, D] of the labeled rows and the pool."""
        at = np.concatenate([self.data.labeled, self.data.unlabeled])
        return features(self._module, self.data.store, at, self._context)

    def rng(self) -> np.random.Generator:
        """A fresh generator of this round."""
        return np.random.default_rng((self._config.seed, 12, self.number))
