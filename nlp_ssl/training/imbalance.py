"""Classes of unequal size: weights of the labeled rows, and logits adjusted by the classes' shares."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data


def class_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Weights [C] of classes with these numbers of rows [C]; their mean over the rows is 1.

    Inverse to the effective number of rows (1 - beta^n) / (1 - beta) (Cui et al. 2019, arXiv:1901.05555); with beta 1
    that is n itself: inverse frequency.
    """
    rows = np.maximum(counts.astype(np.float64), 0.5)
    effective = rows if beta == 1.0 else (1 - beta**rows) / (1 - beta)
    weights: np.ndarray = counts.sum() / (counts / effective).sum() / effective
    return weights


def with_class_weights(data: Data, config: TrainConfig) -> Data:
    """The data with labeled rows weighted by class, as `config.class_weights` says; soft labels by share."""
    if config.class_weights == "none":
        return data
    beta = config.effective_beta if config.class_weights == "effective" else 1.0
    counts = data.labeled_counts()
    of_class = class_weights(counts, beta)
    of_row = of_class[data.labels[data.labeled]] if data.targets is None else data.targets @ of_class
    return replace(data, weights=of_row if data.weights is None else of_row * data.weights)


def adjustment(data: Data, config: TrainConfig) -> Tensor | None:
    """What training adds to the logits [C]: `config.logit_adjustment` times the logarithm of the labels' class shares.

    Logit adjustment (Menon et al. 2020, arXiv:2007.07314): methods see predictions under the shares of the labels, the
    net itself learns what they would be if the shares were even. As its last layer has a bias, this is the same as
    training without and taking the term off the bias at the end, but scores on the way are those of the adjusted net.
    A class without a labeled row is not made up for: nothing is known of it that a larger share could bring out.
    """
    if not config.logit_adjustment:
        return None
    shares = data.labeled_shares()
    shares = np.where(data.labeled_counts() > 0, shares, shares.max())
    return config.logit_adjustment * torch.from_numpy(shares).float().log()
