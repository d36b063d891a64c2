"""What a run will do and how long it will take, measured on a few of its steps."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from nlp_ssl.config import TrainConfig
from nlp_ssl.experiments.runs import prepared
from nlp_ssl.experiments.start import warm_up
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.rounds.engine import with_pseudo_labels
from nlp_ssl.task import Task
from nlp_ssl.training.checks import check_defined
from nlp_ssl.training.loop import train
from nlp_ssl.training.warm_start import contrastive_steps, start_kind

_STEPS = 4  # measured; the first of them, which is slower, is left out by measuring one step apart
_WARM_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """Seconds of the parts of a run with one seed."""

    warm: float  # the start, once
    step: float  # of the method; in rounds, of a student
    baseline_step: float
    rounds: int = 1

    def seconds(self, steps: int, seeds: int, baseline: bool) -> float:
        """Of a whole run; scoring and saving come on top."""
        alone = self.baseline_step * steps * (baseline + (self.rounds > 1))  # rounds have a teacher of their own
        return seeds * (self.warm + self.step * steps * self.rounds + alone)

    def steps(self, seconds: float, seeds: int, baseline: bool) -> int:
        """The most steps that fit into this time; 1 at least."""
        each = self.seconds(1, seeds, baseline) - self.seconds(0, seeds, baseline)
        return max(math.floor((seconds - self.seconds(0, seeds, baseline)) / each), 1)


def measure(method: Method | RoundMethod, task: Task, config: TrainConfig) -> Estimate:
    """Runs a few steps of each part, without writing anything.

    Raises:
        ConfigError: method and labels do not go together.
    """
    check_defined(method, task.data, config)
    bare = replace(config, warm_start="none", save_steps=0, eval_steps=0, patience=0, guard=False, eval_fgsm=0.0)
    silent = replace(task, data=replace(task.data, dev=task.data.dev[:0], test=task.data.test[:0]))
    alone = _step(Supervised(), silent.without_pool(), bare)
    if isinstance(method, RoundMethod):
        rows = replace(bare, batch_size=bare.batch_size * (1 + bare.unlabeled_ratio))
        student = replace(silent.student or silent, pseudo_labels=None)
        step, rounds = _step(Supervised(), replace(student, data=_whole(student)), rows), method.rounds
    else:
        step, rounds = _step(method, silent, bare), 1
    return Estimate(_warm(task, config), step, alone, rounds)


def _whole(task: Task) -> Any:
    """The pool's rows, as long as they are, in the place of labeled ones."""
    return replace(task.data, labeled=task.data.unlabeled, labels=task.data.labels.clip(min=0))


def _step(method: Method, task: Task, config: TrainConfig) -> float:
    """Seconds of a step, once it runs."""
    times = []
    for steps in (1, _STEPS):
        few = replace(config, max_steps=steps)
        learned, frozen = prepared(method, task, config)
        times.append(train(method, with_pseudo_labels(learned, config), few, frozen_nets=frozen).seconds)
    return max(times[1] - times[0], 1e-4) / (_STEPS - 1)


def _warm(task: Task, config: TrainConfig) -> float:
    module = task.build(0)
    kind = start_kind(module, config)
    if kind == "none":
        return 0.0
    usual = contrastive_steps(len(task.data.labeled)) if kind == "contrastive" else config.max_steps
    wanted = config.warm_steps or usual
    began = time.perf_counter()
    warm_up(module, task, replace(config, warm_steps=min(_WARM_STEPS, wanted)))
    return (time.perf_counter() - began) * wanted / min(_WARM_STEPS, wanted)


def lines(
    estimate: Estimate, method: Method | RoundMethod, task: Task, config: TrainConfig, seeds: int, baseline: bool
) -> Iterator[str]:
    """What a dry run prints."""
    settings = {"method": method.name, **asdict(method), **asdict(config)}
    yield from (f"{name}: {value}" for name, value in settings.items())
    data, pool = task.data, config.batch_size * config.unlabeled_ratio
    sizes = {"labeled": data.labeled, "unlabeled": data.unlabeled, "dev": data.dev, "test": data.test}
    yield f"rows: {', '.join(f'{len(rows)} {name}' for name, rows in sizes.items())}"
    yield f"classes: {', '.join(data.classes)}"
    labeled = config.max_steps * config.batch_size / max(len(data.labeled), 1)
    yield f"labeled rows a step: {config.batch_size}, {labeled:.1f} passes in {config.max_steps} steps"
    if len(data.unlabeled):
        yield f"unlabeled rows a step: {pool}, {config.max_steps * pool / len(data.unlabeled):.2f} passes"
    rounds = f", {estimate.rounds} rounds" if estimate.rounds > 1 else ""
    step, alone = f"{estimate.step:.2f}", f"{estimate.baseline_step:.2f}"
    yield f"start {estimate.warm:.0f} s, step {step} s, on the labels alone {alone} s{rounds}"
    total = duration(estimate.seconds(config.max_steps, seeds, baseline))
    yield f"about {total} for {seeds} seed{'s' * (seeds > 1)}{', with the baseline' if baseline else ''}, and scoring"


def duration(seconds: float) -> str:
    """`95 s` or `12 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
