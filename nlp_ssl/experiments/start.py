"""The label-only start that every method begins from."""

import contextlib
import copy
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from nlp_ssl.config import TrainConfig
from nlp_ssl.inference.metrics import score_splits
from nlp_ssl.nets.base import Module
from nlp_ssl.task import Task
from nlp_ssl.training.loop import Outcome
from nlp_ssl.training.warm_start import start_kind, warm_up
from nlp_ssl.utils import atomic

START = "start.json"  # what the warm start scored


_NEXT_NET = 1_000_003  # seeds of the second net lie far from those a user counts through


class SharedStart:
    """Runs the warm start for each number of net once and copies the outcome into later modules of that number.

    Methods with two nets need two that differ: the second net's start has its own seed.
    """

    def __init__(self, task: Task, config: TrainConfig, folder: Path | None = None) -> None:
        self.task, self.config = task, config
        self.note = None if folder is None else folder / START
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.found: Outcome | None = None

    def __call__(self, module: Module, number: int = 0) -> None:
        if number not in self.weights:
            began = time.perf_counter()
            warm_up(module, self.task.data, replace(self.config, seed=self.config.seed + _NEXT_NET * number))
            self.weights[number] = copy.deepcopy(module.state_dict())
            if number == 0 and start_kind(module, self.config) != "none":
                seconds = time.perf_counter() - began
                self.found = Outcome(score_splits(module, self.task.data, self.config.max_length), 0, seconds, [])
                if self.note is not None:  # at once: the run may be killed, and only this one knows
                    atomic.write_text(self.note, json.dumps(asdict(self.found)))
        module.load_state_dict(self.weights[number])

    def outcome(self) -> Outcome | None:
        """What the start scored, in this process or in the one that was interrupted."""
        if self.found is None and self.note is not None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no note, or a damaged one: no row
                self.found = Outcome.of(json.loads(self.note.read_text()))
        return self.found
