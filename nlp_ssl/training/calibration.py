"""Temperature scaling: probabilities that are as sure as the model is right (Guo et al. 2017, arXiv:1706.04599)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor, nn

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.folds import folds, why_not_held_out
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.predict import predict
from nlp_ssl.method import Method
from nlp_ssl.nets.base import Module
from nlp_ssl.training.warm_start import warm_up
from nlp_ssl.utils.precision import autocast, resolve

_FOLDS = 3
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
def cool(classifier: nn.Linear, temperature: float) -> None:
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


def held_out_temperature(
    method: Method,
    data: Data,
    build: Callable[[int], Module],
    config: TrainConfig,
    augment: Mapping[str, Any],
    started: bool,
    given: Mapping[str, Module | Tensor],
) -> float:
    """The temperature of runs that each did without a part of the labels, fitted on these parts.

    The labels a model was trained on say nothing of how sure it may be elsewhere. So the whole run, warm start
    included, is repeated once for each part, and takes as long each time.
    """
    from nlp_ssl.training.loop import fit

    labels = data.labels[data.labeled]
    settings = replace(config, calibrate="none", save_steps=0, eval_steps=0, patience=0, eval_fgsm=0.0)
    logits = np.zeros((len(labels), len(data.classes)))
    for part, out in folds(data, _FOLDS, config.seed):

        def start(module: Module, number: int, part: Data = part) -> None:
            warm_up(module, part, replace(settings, seed=settings.seed + number))

        module = fit(
            method, part, build, settings, augment=augment, start=start if started else None, given=given
        ).module
        device = next(module.parameters()).device
        context = autocast(resolve(config.mixed_precision, device), device)
        logits[out] = predict(module, data.store, data.labeled[out], config.max_length, context).numpy()
    return temperature_of(logits, labels)
