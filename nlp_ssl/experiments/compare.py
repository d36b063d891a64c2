"""Method against label-only baseline over seeds: did the unlabeled text help?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy import stats

from nlp_ssl.classifier import SSLClassifier, classifier_of
from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.out_of_scope import LeftOutShare, in_scope
from nlp_ssl.experiments.runs import learner, run_one
from nlp_ssl.experiments.saving import Save, Saved, check_save, choose, keep
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.nets.base import Module
from nlp_ssl.registry import as_method
from nlp_ssl.task import Task
from nlp_ssl.training.checks import check_defined
from nlp_ssl.training.loop import Trained
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.training.run_folder import RunFolder, free_folder
from nlp_ssl.training.trackers import check_trackers

_LABEL_ONLY = ("start", "supervised")
PSEUDO_LABELED = "pseudo_labels"  # supervised training on the given pseudo-labels, compared with the labels alone


@dataclass(frozen=True, repr=False)
class Comparison:
    """Outcomes per seed of a method and, where asked for, of training on the labels alone.

    Attributes:
        method: its name.
        seeds: one run each.
        results: "start" (the warm start itself), "supervised" (the same steps on the labels alone) and the method's
            name with one outcome per seed.
        best: the classifier to use, that of the run `saved`.
        saved: which run that is: the best one on dev rows; without dev rows the method's, of the first seed. Test rows
            have no say.
    """

    method: str
    seeds: tuple[int, ...]
    results: dict[str, tuple[Outcome, ...]]
    best: SSLClassifier | None = field(default=None, repr=False)
    saved: Saved | None = None

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        split = "test" if any("test" in o.scores for o in self.outcomes) else "dev"
        rows = score_table(self, split)
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        head = [f"{split} {self.score_name(split)} in %", *lines] if len(rows) > 1 else []
        return "\n".join([*head, self.verdict(split)])

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The method's own outcomes."""
        return self.results[self.method]

    def accuracies(self, split: str = "test") -> dict[str, np.ndarray]:
        """Accuracies of each side, one per seed, or what leads instead; sides without this split are left out."""
        accuracies = {
            name: np.array([o.scores[split].primary for o in side if split in o.scores])
            for name, side in self.results.items()
        }
        return {name: values for name, values in accuracies.items() if len(values) == len(self.seeds)}

    def score_name(self, split: str = "test") -> str:
        """What `accuracies` are: "accuracy", or "micro F1" for multi-label data."""
        scores = next((o.scores[split] for o in self.outcomes if split in o.scores), None)
        return "accuracy" if scores is None else next(iter(scores.named()))

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
        best, measured = self.baseline(split), self.gain(split)
        if self.method not in self.accuracies(split):
            return "No verdict: there are no test rows."
        if measured is None:
            return "No verdict: it needs --baseline beside a method that uses unlabeled rows."
        gain, half = measured
        interval = f" (95 % interval {gain - half:+.1f} to {gain + half:+.1f})" if half else ""
        if gain < 0:
            below = f"{self.method} is BELOW the best label-only model ({best}) by {-gain:.1f} points{interval}"
            return f"{below}{'; one seed may be bad luck: use --seeds 3' if len(self.seeds) == 1 else ''}."
        if gain == 0:
            return f"{self.method} equals the best label-only model ({best}){interval}."
        above = f"{self.method} is above the best label-only model ({best}) by {gain:.1f} points"
        sure = "" if gain - half > 0 else ", not beyond what seeds alone explain"
        if len(self.seeds) == 1:
            sure = "; one seed cannot tell a gain from luck: use --seeds 3"
        return f"{above}{interval}{sure}."


def compare(
    method: str | Method | RoundMethod,
    task: Task,
    config: TrainConfig | None = None,
    *,
    seeds: int | Sequence[int] = 3,
    labels_per_class: int | None = None,
    baseline: bool = True,
    folder: str | Path | RunFolder | None = None,
    overwrite: bool = False,
    out_of_scope: LeftOutShare | None = None,
    save: Save | None = None,
) -> Comparison:
    """Runs the method (and the baseline) once per seed; baseline and method share the warm start of their seed.

    With one seed the run is written to `folder` itself, with several to `folder/seed-S`; baselines to a folder
    `baseline` beside each run, without their weights.

    Args:
        method: name of the method, or the method with its hyper-parameters.
        task: what there is to learn; each seed draws its labels anew where some are drawn.
        config: settings of the loop; the defaults if not given.
        seeds: how many, counted from the seed of the config, or which.
        labels_per_class: draw that many labels of every class per seed; the other rows join the pool.
        baseline: also train on the labels alone.
        folder: where runs are written; with `RunFolder(path, resume=True)` completed runs are not repeated and the
            interrupted one goes on.
        overwrite: an earlier run in the folder is removed once all input has been read.
        out_of_scope: leaves a share of each seed's pool out, or those that stand apart ("auto").
        save: whose model is the one to use: "best" the best one on dev rows, "method" the method's; "best" where there
            are dev rows if not given.

    Raises:
        ConfigError: a seed is given twice or negative, or as `fit`.

    Example:
        from nlp_ssl import Task, TrainConfig, compare

        task = Task.from_texts(["great fun", "a joy", "so dull", "a bore"], ["pos", "pos", "neg", "neg"],
                               unlabeled=["pure joy", "what a bore"], test=(["fun", "dull"], ["pos", "neg"]))
        print(compare("fixmatch", task, TrainConfig(max_steps=2, warm_steps=2), seeds=1))
    """
    method, config = as_method(method), config or TrainConfig()
    numbers = seed_numbers(seeds, config)
    place = free_folder(folder, overwrite=overwrite)
    check_trackers(() if place is None else place.trackers, place is not None)
    results: dict[str, list[Outcome]] = {}
    starts: list[Outcome] = []
    nets: dict[str, _Net] = {}
    for seed in numbers:
        drawn, settings = task.draw(seed, labels_per_class), replace(config, seed=seed)
        if overwrite and place is not None and seed == numbers[0]:
            place.clear()
        check_save(save, drawn.data)
        plan = _plan(method, drawn, baseline)
        for side in plan.values():
            check_defined(side, drawn.data, settings)
        of_seed = place if place is None or len(numbers) == 1 else place.of_seed(seed)
        start = SharedStart(drawn, settings, of_seed)
        if out_of_scope is not None:
            drawn = in_scope(drawn, start, settings, out_of_scope, folder=of_seed)
        for name, side in plan.items():
            learned = drawn if side is method else drawn.without_pool()
            run = of_seed if side is method or of_seed is None else of_seed.baseline
            trained = run_one(side, learned, settings, start=start, folder=run)
            _keep_best(nets, name, trained, learner(side, learned), run)
            results.setdefault(name, []).append(
                Outcome(trained.scores, trained.steps, trained.seconds, trained.warnings)
            )
        if len(plan) > 1 and (scored := start.outcome()) is not None:
            starts.append(scored)
    saved = choose(results, numbers, [*results][-1], save)
    net = nets[saved.side].open(place)
    if place is not None:
        keep(saved, [*results][-1], numbers, place)
    named = {**({"start": starts} if starts else {}), **results}
    outcomes = {side: tuple(each) for side, each in named.items()}
    best = classifier_of(net, task, method, replace(config, seed=saved.seed))
    return Comparison([*results][-1], numbers, outcomes, best, saved)


@dataclass(frozen=True)
class _Net:
    """A trained net, in memory or where an earlier process saved it."""

    primary: float
    module: Module | None
    task: Task
    folder: RunFolder | None

    def open(self, whole: RunFolder | None) -> Module:
        """The net; of a run whose own weights are gone that of the `whole` comparison."""
        if self.module is not None:
            return self.module
        assert self.folder is not None and whole is not None
        return self.task.load((self.folder if self.folder.has_model() else whole).path)


def _keep_best(nets: dict[str, _Net], side: str, trained: Trained, task: Task, folder: RunFolder | None) -> None:
    """Keeps of a side the net of the seed that is best on dev rows; without them of the first one."""
    primary = trained.scores["dev"].primary if "dev" in trained.scores else 0.0
    if side not in nets or primary > nets[side].primary:
        nets[side] = _Net(primary, trained.module, task, folder)


def seed_numbers(seeds: int | Sequence[int], config: TrainConfig) -> tuple[int, ...]:
    """The seeds themselves: so many from that of the config, or those that are named.

    Raises:
        ConfigError: there is none, or one is given twice or negative.
    """
    if isinstance(seeds, str | bool | float) or not isinstance(seeds, int | Sequence):
        raise ConfigError(209, f"seeds is {seeds!r}: give how many, or a list of them")
    numbers = tuple(range(config.seed, config.seed + seeds)) if isinstance(seeds, int) else tuple(seeds)
    if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
        raise ConfigError(209, f"seeds are {', '.join(map(str, numbers))}: give whole numbers")
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise ConfigError(209, f"seeds must be one or more, differ and not be negative: {','.join(map(str, numbers))}")
    return numbers


def _plan(method: Method | RoundMethod, task: Task, baseline: bool) -> dict[str, Method | RoundMethod]:
    """What is trained, by its name in the comparison: the labels alone where they tell something, then the method."""
    alone = method.name == "supervised" and task.pseudo_labels is None and task.teacher is None
    if not baseline or alone:
        return {method.name: method}
    return {"supervised": Supervised(), PSEUDO_LABELED if method.name == "supervised" else method.name: method}


def score_table(comparison: Comparison, split: str = "test") -> list[tuple[str, ...]]:
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
