"""Rounds of teacher and student around the training loop; each leaves its labels and its model on disk."""

import json
import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.pseudo_labels import read_labels, write_labels
from nlp_ssl.inference.metrics import Scores
from nlp_ssl.method import RoundMethod
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.nets.base import Module
from nlp_ssl.ops.multilabel import refuse
from nlp_ssl.rounds.teacher import Teacher
from nlp_ssl.task import Task
from nlp_ssl.training.guard import FEW, collapse
from nlp_ssl.training.loop import Outcome, Result, check_same, claim, described, fit, read_identity, write_result
from nlp_ssl.training.run_folder import copy_model, exclusive
from nlp_ssl.training.trackers import check_trackers
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils import atomic

log = logging.getLogger("nlp_ssl")
ROUNDS = "rounds.jsonl"
_LABELS = "pseudo_labels.parquet"
Start = Callable[[Module, int], None]


def identity(loop: RoundMethod, task: Task, config: TrainConfig) -> dict[str, Any]:
    """What must be the same for a run in rounds to be resumed, or to count as already done."""
    student = {} if task.student is None else {"student": dict(task.student.data.origin)}
    return {**described(loop.name, asdict(loop), with_given(task, config), config), **student}


def with_given(task: Task, config: TrainConfig) -> Data:
    """The task's rows, those of the pool that came with labels among the labeled ones."""
    return task.data if task.given is None else with_labels(task.data, task.given, config.unlabeled_ratio)


def with_labels(data: Data, labels: PseudoLabels, ratio: float) -> Data:
    """The task with the used rows of the pool among its labeled ones, and out of its pool.

    The labeled rows that were there are repeated where they would be fewer than one in 1 + `ratio`: a large pool would
    drown them.
    """
    rows = np.repeat(np.arange(len(labels.p)), labels.copies)
    if data.kind == "many":
        refuse("labels for the pool")
    if not len(rows):
        return data
    times = max(1, math.ceil(len(rows) / (ratio * len(data.labeled))))
    targets, weights = data.targets, data.weights
    if targets is None:
        targets = np.eye(len(data.classes))[data.labels[data.labeled]]
    if weights is None:
        weights = np.ones(len(data.labeled))
    targets = np.concatenate([np.tile(targets, (times, 1)), labels.targets()[rows]])
    weights = np.concatenate([np.tile(weights, times), labels.weights[rows]])
    digest = xxhash.xxh3_128(data.content_hash.encode())
    for part in (rows, targets, weights):
        digest.update(np.ascontiguousarray(part).tobytes())
    return replace(
        data,
        labeled=np.concatenate([np.tile(data.labeled, times), data.unlabeled[rows]]),
        unlabeled=data.unlabeled[labels.copies == 0],
        targets=targets,
        weights=weights,
        content_hash=digest.hexdigest(),
        own=data.gold,
    )


def fit_rounds(
    loop: RoundMethod,
    task: Task,
    config: TrainConfig,
    *,
    start: Start | None = None,
    student_start: Start | None = None,
    output_dir: Path | None = None,
    resume: bool = False,
    trackers: tuple[str, ...] = (),
) -> Outcome:
    """Trains a teacher on the labels, then a student a round; the last one, or the best on dev rows, is the result.

    `output_dir` gets the chosen model, `rounds.jsonl` with a line a round, and a folder for each round with its
    `pseudo_labels.parquet`, model and metrics. Steps are those of each round; a student's batch has as many rows as one
    of a method that sees the pool (batch_size x (1 + unlabeled_ratio)). Rounds end early when the labels stay the same.

    Args:
        loop: the loop with its hyper-parameters.
        task: data and net; `task.student` is the net of the students where it is another, `task.given` labels of the
            first round where they come from elsewhere.
        config: settings of the training loop.
        start: the stage before, as in `fit`; every net begins there.
        student_start: the same for `task.student`.
        output_dir: nothing is written without it.
        resume: go on after the last round whose labels were written.
        trackers: names of Accelerate trackers.

    Raises:
        ConfigError, RunError, Interrupted: as `fit`.
    """
    check_trackers(trackers, output_dir is not None)
    with nullcontext() if output_dir is None else exclusive(output_dir):
        return _Rounds(loop, task, config, start, student_start, output_dir, resume, trackers).run()


class _Rounds:
    def __init__(
        self, loop: RoundMethod, task: Task, config: TrainConfig, start: Start | None, student_start: Start | None,
        folder: Path | None, resume: bool, trackers: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.loop, self.task, self.config, self.start = loop, task, config, start
        self.folder, self.resume, self.trackers = folder, resume, trackers
        self.learner = task.student or task
        self.learner_start = start if task.student is None else student_start
        self.labels: list[PseudoLabels] = []
        self.lines: list[dict[str, Any]] = []
        self.labeling = 0.0  # seconds that the labels of the round took

    def run(self) -> Outcome:
        made = identity(self.loop, self.task, self.config)
        if self.resume and self.folder is not None:
            check_same(self.folder, read_identity(self.folder) or made, made)
            self._read(self.folder)
        result = None if self.labels else self._teacher()
        if self.folder is not None:
            claim(self.folder, made)
        for number in range(max(len(self.labels), 1), self.loop.rounds + 1):
            if len(self.labels) < number:
                assert result is not None
                began = time.perf_counter()
                labels = self._label(result.module, number)
                self.labeling = time.perf_counter() - began
                if self.labels and labels.same(self.labels[-1]):
                    log.info("round %d: the labels stay the same, no more rounds", number)
                    break
                self.labels.append(labels)
                if self._place(number) is not None and not int(os.environ.get("RANK", "0")):
                    self._write_labels(number)
            result = self._student(number)
        return self._finish(made)

    # --- one round ---

    def _teacher(self) -> Result:
        log.info("teacher: supervised, %d steps", self.config.max_steps)
        task, place = self.task, None if self.folder is None else self.folder / "round-0"
        result = fit(Supervised(), task.data.without_pool(), task.build, self.config, augment=task.augment,
                     start=self.start, output_dir=place, resume=self.resume)  # fmt: skip
        self._note(0, result, None)
        return result

    def _label(self, module: Module, number: int) -> PseudoLabels:
        # The first teacher may read texts in another way than the students: its own task has its own tokens.
        data = self.task.data if number == 1 else self.learner.data
        given = self.task.given if number == 1 else None
        labels = self.loop.label(Teacher(module, data, self.config, number, given))
        return labels if given is None else replace(labels, weights=labels.weights * given.weights)

    def _student(self, number: int) -> Result:
        labels, task = self.labels[number - 1], self.learner
        log.info("round %d: %d of %d pool rows, %d steps", number, (labels.copies > 0).sum(), len(labels.p),
                 self.config.max_steps)  # fmt: skip
        rows = self.config.batch_size * (1 + self.config.unlabeled_ratio)
        learned = with_labels(task.data, labels, self.config.unlabeled_ratio)
        result = fit(
            Supervised(),
            replace(learned, unlabeled=task.data.unlabeled),  # the strength of the view is chosen on the whole pool
            task.build,
            replace(self.config, batch_size=rows),
            augment={"weak": task.augment[self.loop.student_view]},
            start=self.learner_start,
            output_dir=self._place(number),
            resume=self.resume,
            trackers=self.trackers,
        )
        self._note(number, result, labels)
        return result

    def _note(self, number: int, result: Result, labels: PseudoLabels | None) -> None:
        """A line of `rounds.jsonl`: scores, and how the labels are, by the names of metrics.jsonl."""
        line: dict[str, Any] = {"round": number, "scores": {k: asdict(v) for k, v in result.scores.items()},
                                "steps": result.steps, "seconds": round(result.seconds + self.labeling, 2)}  # fmt: skip
        self.labeling = 0.0
        warnings = list(result.warnings)
        if labels is not None:
            line |= self._health(labels)
            warnings += self._watch(number, line["mask_rate"], line["pseudo_hist"])
        self.lines.append({**line, "warnings": warnings})
        scores = ", ".join(f"{k} accuracy {v.accuracy:.3f}" for k, v in result.scores.items())
        log.info("round %d: %s", number, scores or f"done, {line['seconds']:.0f} s")
        if self.folder is not None and not int(os.environ.get("RANK", "0")):
            atomic.write_text(self.folder / ROUNDS, "".join(json.dumps(one) + "\n" for one in self.lines))

    def _health(self, labels: PseudoLabels) -> dict[str, Any]:
        used, label, data = labels.copies > 0, labels.label, self.task.data
        truth = data.labels[data.unlabeled]
        counts = np.bincount(label[used], minlength=len(data.classes))
        found: dict[str, Any] = {
            "mask_rate": float(used.mean()),
            "pseudo_hist": (counts / max(counts.sum(), 1)).tolist(),
        }
        if len(self.labels) > 1:
            found["changed"] = float((label != self.labels[-2].label).mean())
        known = used & (truth >= 0)
        if known.any():
            found["pseudo_accuracy"] = float((label == truth)[known].mean())
        return found

    def _watch(self, number: int, used: float, shares: list[float]) -> list[str]:
        """Warns of pseudo-labels for a small share of the pool, and of a large share of one class [C]."""
        found, top = [], max(shares)
        if self.config.guard and used < FEW:
            found.append(
                f"round {number}: {used:.1%} of the pool have a pseudo-label: lower the method's threshold, or add "
                "labels or steps"
            )
        if self.config.guard and top > collapse(float(self.task.data.labeled_shares().max())):
            found.append(
                f"round {number}: {top:.0%} of the pseudo-labels are one class, "
                f"{self.task.data.classes[shares.index(top)]!r}: they have collapsed or the pool is not of this task; "
                "add labels or steps"
            )
        for one in found:
            log.warning(one)
        return found

    # --- what is written ---

    def _place(self, number: int) -> Path | None:
        return None if self.folder is None else self.folder / f"round-{number}"

    def _write_labels(self, number: int) -> None:
        place, data = self._place(number), self.task.data
        assert place is not None
        with atomic.writing(place):
            place.mkdir(parents=True, exist_ok=True)
        texts = None if self.task.data.texts is None else self.task.data.texts.take(data.unlabeled).combine_chunks()
        write_labels(place / _LABELS, self.labels[-1], self.labels[:-1], data.classes, texts)

    def _read(self, folder: Path) -> None:
        """The labels of earlier rounds, and their lines except that of the last one, which is trained again."""
        data = self.task.data
        while len(self.labels) < self.loop.rounds:
            path = folder / f"round-{len(self.labels) + 1}" / _LABELS
            if not path.exists():
                break
            self.labels.append(read_labels(path, len(data.unlabeled), data.classes))
        whole = {line["round"]: line for line in atomic.json_lines(folder / ROUNDS) if _is_whole(line)}
        self.lines = [line for number, line in whole.items() if number < len(self.labels)]
        if self.labels:
            log.info("going on with round %d", len(self.labels))

    def _chosen(self) -> dict[str, Any]:
        """The line of the round whose student is the result: the best on dev rows, or the last one."""
        if all("dev" in line["scores"] for line in self.lines):
            return max(self.lines, key=lambda line: (line["scores"]["dev"]["accuracy"], -line["round"]))
        return self.lines[-1]

    def _finish(self, made: dict[str, Any]) -> Outcome:
        line = self._chosen()
        scores = {split: Scores(**values) for split, values in line["scores"].items()}
        seconds, steps = sum(one["seconds"] for one in self.lines), sum(one["steps"] for one in self.lines)
        warnings = [
            one for each in self.lines for one in each.get("warnings", [])
        ]  # lines of earlier versions have none
        outcome = Outcome(scores, steps, seconds, warnings)
        if self.folder is not None and not int(os.environ.get("RANK", "0")):
            copy_model(self.folder / f"round-{line['round']}", self.folder)
            write_result(self.folder, made, outcome)
        return outcome


def _is_whole(line: dict[str, Any]) -> bool:
    """Whether this is the line of a round, as `_note` writes it: a file that people opened may hold anything."""
    number, warnings = line.get("round"), line.get("warnings", [])
    try:
        for scores in line["scores"].values():
            Scores.of(scores)
    except (KeyError, AttributeError, TypeError, ValueError):
        return False
    counted = all(atomic.is_number(line.get(name)) and line[name] >= 0 for name in ("steps", "seconds"))
    texts = isinstance(warnings, list) and all(isinstance(one, str) for one in warnings)
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0 and counted and texts
