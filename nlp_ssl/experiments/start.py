"""The stage before a method: trained once, and what every net of a run begins from."""

import contextlib
import copy
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
from torch import Tensor

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.folds import folds
from nlp_ssl.inference.metrics import score_splits
from nlp_ssl.inference.predict import predict
from nlp_ssl.method import Method
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.nets.base import Module
from nlp_ssl.task import Task
from nlp_ssl.training.calibration import temperature_of
from nlp_ssl.training.loop import train
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.training.warm_start import contrastive, fit_head, start_kind
from nlp_ssl.utils import atomic
from nlp_ssl.utils.precision import autocast, resolve

log = logging.getLogger("nlp_ssl")
_FOLDS = 3  # parts of the labels that a temperature is fitted on
_NEXT_NET = 1_000_003  # seeds of the second net are far from those a user counts through


def warm_up(module: Module, task: Task, config: TrainConfig) -> None:
    """The stage before the method, in place, as `config.warm_start` says.

    "auto" is contrastive for pre-trained text encoders and none for nets that start from scratch; "supervised" trains
    on the labels alone for `warm_steps` (by default as many as the method's).
    """
    kind = start_kind(module, config)
    if kind == "none":
        return
    device = next(module.parameters()).device
    context = autocast(resolve(config.mixed_precision, device), device)
    began = time.perf_counter()
    if kind == "contrastive":
        contrastive(module, task.data, config, context)
        fit_head(module, task.data, config, context)
        log.info("warm start: contrastive on %d labels, %.0f s", len(task.data.labeled), time.perf_counter() - began)
        return
    steps = config.warm_steps or config.max_steps
    settings = replace(
        config, max_steps=steps, save_steps=0, eval_steps=0, patience=0, eval_ema_decay=0.0, calibrate="none"
    )
    alone = replace(task.without_pool(), build=lambda number: module, augment={"weak": None})
    train(Supervised(), alone, settings)


class SharedStart:
    """Runs the warm start for each number of net once and copies the outcome into later modules of that number.

    Methods with two nets need two that differ: the second net's start has its own seed.
    """

    def __init__(self, task: Task, config: TrainConfig, folder: RunFolder | None = None) -> None:
        self.task, self.config = task, config
        self.path = None if folder is None else folder.start
        self.weights: dict[int, dict[str, Tensor]] = {}
        self._outcome: Outcome | None = None

    def __call__(self, module: Module, number: int = 0) -> None:
        """Starts a module in place."""
        if number not in self.weights:
            began = time.perf_counter()
            warm_up(module, self.task, replace(self.config, seed=self.config.seed + _NEXT_NET * number))
            self.weights[number] = copy.deepcopy(module.state_dict())
            if number == 0 and start_kind(module, self.config) != "none":
                seconds = time.perf_counter() - began
                self._outcome = Outcome(score_splits(module, self.task.data), 0, seconds, [])
                if self.path is not None:  # at once: the run may be killed, and nothing else keeps it
                    atomic.write_text(self.path, json.dumps(asdict(self._outcome)))
        module.load_state_dict(self.weights[number])

    def outcome(self) -> Outcome | None:
        """What the start scored, in this process or in the one that was interrupted."""
        if self._outcome is None and self.path is not None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no file, or a damaged one: no row
                self._outcome = Outcome.of(json.loads(self.path.read_text()))
        return self._outcome

    def held_out_temperature(self, method: Method, frozen_nets: Mapping[str, Module | Tensor]) -> float:
        """The temperature of runs that each did without a part of the labels, fitted on these parts.

        The labels a model was trained on say nothing of how sure it may be elsewhere. So the whole run, warm start
        included, is repeated once for each part, and takes as long each time.
        """
        task, config = self.task, self.config
        labels = task.data.labels[task.data.labeled]
        settings = replace(config, calibrate="none", save_steps=0, eval_steps=0, patience=0, eval_fgsm=0.0)
        logits = np.zeros((len(labels), len(task.data.classes)))
        for part, out in folds(task.data, _FOLDS, config.seed):
            without = replace(task, data=part)
            module = train(
                method, without, settings, start=_FoldStart(without, settings), frozen_nets=frozen_nets
            ).module
            assert module is not None
            device = next(module.parameters()).device
            context = autocast(resolve(config.mixed_precision, device), device)
            logits[out] = predict(module, task.data.store, task.data.labeled[out], context).numpy()
        return temperature_of(logits, labels)


class _FoldStart(SharedStart):
    """A start whose second net has the seed after the first one's: what version 0.1.0 did on parts of the labels."""

    def __call__(self, module: Module, number: int = 0) -> None:
        warm_up(module, self.task, replace(self.config, seed=self.config.seed + number))
