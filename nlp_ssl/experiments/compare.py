"""Method against label-only baseline over seeds: did the unlabeled text help?"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.out_of_scope import Share, in_scope
from nlp_ssl.experiments.saving import Save, Saved, check_save, choose, keep
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.rounds.engine import fit_rounds, with_given
from nlp_ssl.rounds.engine import identity as rounds_identity
from nlp_ssl.task import Task
from nlp_ssl.training.checks import check_defined
from nlp_ssl.training.loop import Outcome, finished, fit, identity
from nlp_ssl.training.run_folder import clear_run
from nlp_ssl.training.trackers import check_trackers

log = logging.getLogger("nlp_ssl")
_LABEL_ONLY = ("start", "supervised")
GIVEN = "pseudo_labels"  # the side of supervised training on labels from elsewhere, beside the labels alone


@dataclass(frozen=True)
class Comparison:
    """Outcomes per seed of a method and, where asked for, of training on the labels alone.

    `sides` maps "start" (the warm start itself), "supervised" (the same steps on the labels alone) and the method's
    name to one outcome per seed. `saved` is the run whose model is the one to use.
    """

    method: str
    seeds: tuple[int, ...]
    sides: dict[str, tuple[Outcome, ...]]
    saved: Saved | None = None

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The method's own outcomes."""
        return self.sides[self.method]

    def accuracies(self, split: str = "test") -> dict[str, np.ndarray]:
        """Accuracies of each side, one per seed, or what leads instead; sides without this split are left out."""
        found = {
            name: np.array([o.scores[split].lead for o in side if split in o.scores])
            for name, side in self.sides.items()
        }
        return {name: values for name, values in found.items() if len(values) == len(self.seeds)}

    def score_name(self, split: str = "test") -> str:
        """What `accuracies` are: "accuracy", or "micro F1" where rows have several labels."""
        found = next((o.scores[split] for o in self.outcomes if split in o.scores), None)
        return "accuracy" if found is None else next(iter(found.named()))

    def baseline(self, split: str = "test") -> str | None:
        """The better label-only side by its mean: what the method is compared with."""
        sides = self.accuracies(split)
        means = {name: sides[name].mean() for name in _LABEL_ONLY if name in sides and name != self.method}
        return max(means, key=lambda name: means[name]) if means else None

    def gain(self, split: str = "test") -> tuple[float, float] | None:
        """Mean difference to the better label-only side in points, and half of its 95 % interval (0 for one seed)."""
        accuracies, best = self.accuracies(split), self.baseline(split)
        if best is None or self.method not in accuracies:
            return None
        gains = 100 * (accuracies[self.method] - accuracies[best])
        return float(gains.mean()), _half_width(gains)

    def verdict(self, split: str = "test") -> str:
        """One line that says whether the unlabeled rows helped."""
        best, found = self.baseline(split), self.gain(split)
        if self.method not in self.accuracies(split):
            return "No verdict: there are no test rows."
        if found is None:
            return "No verdict: it needs --baseline beside a method that uses unlabeled rows."
        gain, half = found
        interval = f" (95 % interval {gain - half:+.1f} to {gain + half:+.1f})" if half else ""
        if gain < 0:
            below = f"{self.method} is BELOW the best label-only model ({best}) by {-gain:.1f} points{interval}"
            return f"{below}{'; one seed may be bad luck: use --seeds 0,1,2' if len(self.seeds) == 1 else ''}."
        if gain == 0:
            return f"{self.method} equals the best label-only model ({best}){interval}."
        above = f"{self.method} is above the best label-only model ({best}) by {gain:.1f} points"
        sure = "" if gain - half > 0 else ", not beyond what seeds alone explain"
        if len(self.seeds) == 1:
            sure = "; one seed cannot tell a gain from luck: use --seeds 0,1,2"
        return f"{above}{interval}{sure}."


def compare(
    method: Method | RoundMethod,
    task_of: Callable[[int], Task],
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    baseline: bool,
    output_dir: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    trackers: tuple[str, ...] = (),
    out_of_scope: Share | None = None,
    save: Save | None = None,
) -> Comparison:
    """Runs the method (and the baseline) once per seed; baseline and method share the warm start of their seed.

    With one seed the run is in `output_dir` itself, with several in `output_dir/seed-S`; baselines are in a folder
    `baseline` beside each run, without their weights. Whose model is in `output_dir` goes by `save`: see
    `saving.choose`. With `resume`, completed runs are not repeated and the interrupted one goes on; with `overwrite`,
    an earlier run is removed once all input has been read.
    `out_of_scope` leaves a share of each seed's pool out, or those that stand apart ("auto"): see `scope.in_scope`.

    Raises:
        ConfigError: a seed is given twice or negative, or as `fit`.
    """
    sides: dict[str, list[Outcome]] = {}
    starts: list[Outcome] = []
    check_seeds(seeds)
    check_trackers(trackers, output_dir is not None)
    for seed in seeds:
        task, settings = task_of(seed), replace(config, seed=seed)
        if overwrite and output_dir is not None and seed == seeds[0]:
            clear_run(output_dir)
        check_save(save, task.data)
        plan = _plan(method, task, baseline)
        for kind in plan.values():
            check_defined(kind, task.data, settings)
        folder = None if output_dir is None else output_dir if len(seeds) == 1 else output_dir / f"seed-{seed}"
        start = SharedStart(task, settings, folder)
        if out_of_scope is not None:
            task = in_scope(task, start, settings, out_of_scope, output_dir=folder, resume=resume)
        for side, kind in plan.items():
            place = folder if kind is method or folder is None else folder / "baseline"
            if kind is method:
                done = run_one(kind, task, settings, start=start, output_dir=place, resume=resume, trackers=trackers)
            else:
                bare = replace(task, data=task.data.without_pool(), given=None)
                done = run_one(kind, bare, settings, start=start, output_dir=place, resume=resume)
            sides.setdefault(side, []).append(done)
        if len(plan) > 1 and (scored := start.outcome()) is not None:
            starts.append(scored)
    saved = choose(sides, seeds, [*sides][-1], save)
    if output_dir is not None:
        keep(saved, [*sides][-1], seeds, output_dir)
    named = {**({"start": starts} if starts else {}), **sides}
    outcomes = {side: tuple(each) for side, each in named.items()}
    return Comparison([*sides][-1], tuple(seeds), outcomes, saved)


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuses seeds that cannot be.

    Raises:
        ConfigError: one is given twice or negative.
    """
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(209, f"seeds must differ and not be negative: {','.join(map(str, seeds))}")


def _plan(method: Method | RoundMethod, task: Task, baseline: bool) -> dict[str, Method | RoundMethod]:
    """What is trained, by its name in the comparison: the labels alone where they tell something, then the method."""
    if not baseline or (method.name == "supervised" and task.given is None):
        return {method.name: method}
    return {"supervised": Supervised(), GIVEN if method.name == "supervised" else method.name: method}


def run_one(
    method: Method | RoundMethod,
    task: Task,
    config: TrainConfig,
    *,
    start: "SharedStart",
    output_dir: Path | None,
    resume: bool,
    trackers: tuple[str, ...] = (),
) -> Outcome:
    """One run of a method or loop, or what it came to where it is complete already; a loop without a pool is labels."""
    made = identity_of(method, task, config)
    done = finished(output_dir, made) if resume and output_dir is not None else None
    if done is not None:
        log.info("seed %d: %s is already done", config.seed, method.name)
        return done
    log.info("seed %d: %s, %d steps", config.seed, method.name, config.max_steps)
    loop = _loop(method, task)
    if loop is not None:
        other = None if task.student is None else SharedStart(task.student, config)
        done = fit_rounds(loop, task, config, start=start, student_start=other, output_dir=output_dir, resume=resume,
                          trackers=trackers)  # fmt: skip
    else:
        found = fit(_kind(method), with_given(task, config), task.build, config, augment=task.augment, start=start,
                    output_dir=output_dir, resume=resume, trackers=trackers, given=_teacher(task))  # fmt: skip
        done = Outcome(found.scores, found.steps, found.seconds, found.warnings)
    log.info("seed %d: %s %s", config.seed, method.name, describe(done))
    return done


def identity_of(method: Method | RoundMethod, task: Task, config: TrainConfig) -> dict[str, Any]:
    """What must be the same for a run to be resumed, or to count as already done."""
    loop = _loop(method, task)
    if loop is not None:
        return rounds_identity(loop, task, config)
    return identity(_kind(method), with_given(task, config), config, _teacher(task))


def _loop(method: Method | RoundMethod, task: Task) -> RoundMethod | None:
    return method if isinstance(method, RoundMethod) and len(task.data.unlabeled) else None


def _kind(method: Method | RoundMethod) -> Method:
    return method if isinstance(method, Method) else Supervised()


def _teacher(task: Task) -> dict[str, Tensor]:
    return {} if task.teacher is None else {"teacher": task.teacher}


def describe(outcome: Outcome) -> str:
    """`test accuracy 0.871, macro F1 0.868, 62 s` of a run."""
    parts = []
    for split, scores in outcome.scores.items():
        parts.append(f"{split} " + ", ".join(f"{name} {value:.3f}" for name, value in scores.named().items()))
    return ", ".join([*parts, f"{outcome.seconds:.0f} s"])


def table(comparison: Comparison, split: str = "test") -> list[tuple[str, ...]]:
    """Rows (name, one accuracy per seed, mean, spread) in percent, the difference last; header first."""
    accuracies, best = comparison.accuracies(split), comparison.baseline(split)
    rows: list[tuple[str, ...]] = [("", *(f"seed {s}" for s in comparison.seeds), "mean", "sd")]
    if best is not None and comparison.method in accuracies:
        accuracies["difference"] = accuracies[comparison.method] - accuracies[best]
    for name, values in accuracies.items():
        spread = f"{100 * values.std(ddof=1):.1f}" if len(values) > 1 else "-"
        sign = "+" if name == "difference" else ""
        cells = [f"{100 * v:{sign}.1f}" for v in values]
        rows.append((name, *cells, f"{100 * values.mean():{sign}.1f}", spread))
    return rows


def _half_width(values: np.ndarray) -> float:
    """Half of the 95 % interval of a mean by Student's t; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
