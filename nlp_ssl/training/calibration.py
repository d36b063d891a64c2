"""Temperature scaling: probabilities that are as sure as the model is right (Guo et al. 2017, arXiv:1706.04599)."""

import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import nn

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.folds import why_not_held_out
from nlp_ssl.errors import ConfigError

_REACH = math.log(20.0)  # temperatures between 1/20 and 20


def temperature_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T under which softmax(logits / T) gives the labels the highest likelihood.

    One more row with even odds for every class counts beside the n given ones: a few rows that are all right say
    nothing of how sure one may be, and would send T to zero.
    """
    rows, classes = logits.shape
    target = np.full((rows, classes), 1.0 / classes / (rows + 1))
    target[np.arange(rows), labels] += rows / (rows + 1)

    def loss(log_t: float) -> float:
        return float(-(target * log_softmax(logits.astype(np.float64) / math.exp(log_t), axis=1)).sum(1).mean())

    return math.exp(minimize_scalar(loss, bounds=(-_REACH, _REACH), method="bounded").x)


@torch.no_grad()
def apply_temperature(classifier: nn.Linear, temperature: float) -> None:
    """Divides the logits of a last layer by the temperature, in place, so that a saved model carries it."""
    classifier.weight.div_(temperature)
    if classifier.bias is not None:
        classifier.bias.div_(temperature)


def check_calibration(config: TrainConfig, data: Data) -> None:
    """Refuses a calibration that there are no rows for.

    Raises:
        ConfigError: dev rows are missing, or a class has fewer than two labels to hold one out.
    """
    if config.calibrate == "dev" and not len(data.dev):
        raise ConfigError(400, "calibrate dev needs dev rows: give --dev, or use --calibrate labels")
    if config.calibrate != "labels":
        return
    if (why := why_not_held_out(data)) is not None:
        raise ConfigError(401, f"calibrate labels: {why}: label more, or use --calibrate dev")
