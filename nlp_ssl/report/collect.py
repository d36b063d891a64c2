"""A run's folder as values: outcomes, settings, curves and predictions, as far as they are there."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.experiments.compare import PSEUDO_LABELED, Comparison
from nlp_ssl.experiments.pipeline import DISTILLED, FOLDERS, PRETRAINED
from nlp_ssl.experiments.saving import Saved
from nlp_ssl.report.checked import metrics_line, read_predictions
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.utils import atomic

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class Rows:
    """Some rows of a predictions file, one part of them."""

    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def labels(self) -> np.ndarray:
        """Classes int64 [n], -1 where they are not known."""
        labels: np.ndarray = self.table["label"].to_numpy().astype(np.int64)
        return labels

    @cached_property
    def logits(self) -> np.ndarray:
        """Float64 [n, C]."""
        return self.numbers("logits")

    def numbers(self, column: str) -> np.ndarray:
        """A column of lists as an array [n, width]; nothing that is not finite or very large is in it."""
        values = np.array(self.table[column].to_pylist(), dtype=np.float64).reshape(len(self), -1)
        return np.nan_to_num(values, nan=0.0).clip(-1e4, 1e4)

    def contents(self, column: str = "content") -> list[bytes | None]:
        """Texts in UTF-8 or PNG images."""
        contents: list[bytes | None] = self.table[column].to_pylist()
        return contents


@dataclass(frozen=True)
class Predictions:
    """What a finished run wrote beside its model."""

    facts: Mapping[str, Any]
    table: pa.Table

    def part(self, *names: str) -> Rows:
        """The rows of these parts, in the order of the file."""
        return Rows(self.table.filter(pa.compute.is_in(self.table["part"], pa.array(names))))

    @property
    def split(self) -> str | None:
        """The rows that the model is judged by: test rows, else dev rows."""
        parts = set(self.table["part"].to_pylist())
        return next((name for name in ("test", "dev") if name in parts), None)


@dataclass(frozen=True)
class Side:
    """One run of one method with one seed."""

    outcome: Outcome | None
    identity: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]  # lines of metrics.jsonl
    predictions: Predictions | None
    rounds: Sequence[Mapping[str, Any]] = ()  # lines of rounds.jsonl, their number as the step


@dataclass(frozen=True)
class Collected:
    """All that a run's folder tells. `runs` and `baselines` are in the order of `seeds`.

    Of a stacked recipe `runs` are the last stages, `earlier` those before them by their names.
    """

    name: str
    seeds: tuple[int, ...]
    runs: tuple[Side, ...]
    baselines: tuple[Side | None, ...]
    saved: Saved | None
    starts: tuple[Outcome | None, ...]
    earlier: tuple[Mapping[str, Side], ...]
    stage: str = ""
    clock: str = "step"  # what the lines of metrics count

    @property
    def first(self) -> Side:
        """The run whose model lies in the folder."""
        return self.runs[0]

    @property
    def identity(self) -> Mapping[str, Any]:
        """Method, options, settings and data of the first run that tells them."""
        return next((run.identity for run in self.runs if run.identity), {})

    @property
    def method(self) -> str:
        """Name of the method, or of the last stage."""
        return self.stage or self.trained_by

    @property
    def trained_by(self) -> str:
        """Name of the method."""
        return str(self.identity.get("method", "unknown method"))

    @property
    def multi_label(self) -> bool:
        """Whether the data is multi-label."""
        return "labels" in self.identity.get("task", {})

    @property
    def unfinished(self) -> list[int]:
        """Seeds whose run has no result yet."""
        return [seed for seed, run in zip(self.seeds, self.runs, strict=True) if run.outcome is None]

    @property
    def warnings(self) -> list[str]:
        """Those of the guard, each once."""
        warnings = [w for run in self.runs if run.outcome is not None for w in run.outcome.warnings]
        return list(dict.fromkeys(map(str, warnings)))

    @cached_property
    def comparison(self) -> Comparison | None:
        """The method beside the label-only sides, over the seeds that are finished; None if none is."""
        done = [i for i, run in enumerate(self.runs) if run.outcome is not None]
        if not done:
            return None
        sides: dict[str, tuple[Outcome, ...]] = {}
        baselines = [b.outcome for i in done if (b := self.baselines[i]) is not None and b.outcome is not None]
        if len(baselines) == len(done):
            starts = [start for i in done if (start := self.starts[i]) is not None]
            sides = {**({"start": tuple(starts)} if len(starts) == len(done) else {}), "supervised": tuple(baselines)}
        for name in self.earlier[done[0]]:
            stages = [o for i in done if (side := self.earlier[i].get(name)) is not None and (o := side.outcome)]
            if len(stages) == len(done):
                sides[name] = tuple(stages)
        sides[self.method] = tuple(o for run in self.runs if (o := run.outcome) is not None)
        return Comparison(self.method, tuple(self.seeds[i] for i in done), sides)

    @property
    def by_round(self) -> "Collected | None":
        """The same with a line of metrics a round; None where the method does not work in rounds."""
        if not self.first.rounds:
            return None
        return replace(self, runs=tuple(replace(run, metrics=run.rounds) for run in self.runs), clock="round")

    @property
    def split(self) -> str:
        """The rows that methods are compared on."""
        outcomes = [run.outcome for run in self.runs if run.outcome is not None]
        return "dev" if outcomes and all("test" not in o.scores for o in outcomes) else "test"


def collect(folder: Path) -> Collected:
    """Reads a run's folder.

    Raises:
        ConfigError: there is no run in it.
        RunError: a result in it is damaged.
    """
    whole = RunFolder(folder)
    places = [*whole.seeds().values()]
    stages = [of_seed for place in places if (of_seed := _stages(place))] or [[whole]]
    if not stages[0][-1].is_run():
        raise ConfigError(402, f"{folder} holds no run: name the --output-dir of a training run")
    places = [place for place in places if _stages(place)] or [whole]
    runs = tuple(_side(of_seed[-1]) for of_seed in stages)
    baselines = [place.baseline for place in places]
    collected = Collected(
        name=folder.resolve().name,
        seeds=tuple(_seed(place, run) for place, run in zip(places, runs, strict=True)),
        runs=runs,
        baselines=tuple(_side(place) if place.is_run() else None for place in baselines),
        saved=Saved.read(whole),
        starts=tuple(_start(place) for place in places),
        earlier=tuple({_named(place): _side(place) for place in of_seed[:-1]} for of_seed in stages),
        stage=_stage(stages[0][-1], runs[0], baselines[0].is_run()),
    )
    comparison = collected.comparison
    sides = comparison.results.values() if comparison is not None else ()
    if len({scores.primary_name for side in sides for outcome in side for scores in outcome.scores.values()}) > 1:
        raise RunError(306, f"{folder}: some results are single-label, others multi-label: train again")
    return collected


def _stages(place: RunFolder) -> list[RunFolder]:
    """The runs of a seed: the folder itself, or in turn the stages of a stacked recipe."""
    return [place] if place.is_run() else [stage for name in FOLDERS if (stage := place.within(name)).is_run()]


def _stage(place: RunFolder, run: Side, compared: bool) -> str:
    """What the runs are called where that is not the name of their method."""
    if place.path.name in (PRETRAINED, DISTILLED):
        return place.path.name
    return PSEUDO_LABELED if compared and run.identity.get("method") == "supervised" else ""


def _named(stage: RunFolder) -> str:
    """What a stage is called beside others."""
    if stage.path.name in (PRETRAINED, DISTILLED):
        return stage.path.name
    return str(_side(stage).identity.get("method", stage.path.name))


def _side(place: RunFolder) -> Side:
    outcome, identity = place.read_result() or (None, place.read_identity())
    of_metrics = place.last_round() or place  # of a run in rounds the last student's
    return Side(
        outcome, identity, _metrics(of_metrics.metrics, "step"), _predictions(place.predictions),
        [{**line, "step": line["round"]} for line in _metrics(place.rounds, "round")],
    )  # fmt: skip


def _seed(place: RunFolder, run: Side) -> int:
    named = place.path.name.removeprefix("seed-")
    return int(named) if named.isdecimal() else int(run.identity.get("config", {}).get("seed", 0))


def _metrics(path: Path, clock: str) -> list[dict[str, Any]]:
    lines = [metrics_line(raw, clock) for raw in atomic.json_lines(path)]
    if left_out := lines.count(None):
        log.warning("%s: %d lines are damaged and left out", path, left_out)
    return [line for line in lines if line is not None]


def _predictions(path: Path) -> Predictions | None:
    """None where the file is absent, of another format or damaged: runs before it existed have none."""
    try:
        read = read_predictions(path)
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        log.warning("%s is damaged and left out: %s", path, " ".join(str(error).split())[:200])
        return None
    return None if read is None else Predictions(*read)


def _start(place: RunFolder) -> Outcome | None:
    """What the warm start scored; None where there was none."""
    try:
        return Outcome.of(atomic.read_json(place.start))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s is damaged and left out", place.start)
        return None
