"""Rounds of teacher and student around the training loop; each leaves its labels and its model on disk."""

import json
import logging
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import xxhash
from transformers import TrainerCallback

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.pseudo_labels import read_pseudo_labels, write_pseudo_labels
from nlp_ssl.inference.metrics import Scores
from nlp_ssl.method import RoundMethod
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.nets.base import Module
from nlp_ssl.ops.multilabel import refuse_multilabel
from nlp_ssl.rounds.teacher import Teacher
from nlp_ssl.task import Task
from nlp_ssl.training.guard import FEW, collapse
from nlp_ssl.training.identity import describe_run
from nlp_ssl.training.loop import Start, Trained, train
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.training.trackers import check_trackers
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranks import is_main

log = logging.getLogger("nlp_ssl")


def rounds_identity(method: RoundMethod, task: Task, config: TrainConfig) -> dict[str, Any]:
    """What must be the same for a run in rounds to be resumed, or to count as already done."""
    student = {} if task.student is None else {"student": dict(task.student.origin)}
    return {**describe_run(method.name, asdict(method), with_pseudo_labels(task, config), config), **student}


def with_pseudo_labels(task: Task, config: TrainConfig) -> Task:
    """The task with pseudo-labeled rows of the pool among the labeled ones."""
    if task.pseudo_labels is None:
        return task
    data = with_labels(task.data, task.pseudo_labels, config.unlabeled_ratio)
    return replace(task, data=data)


def with_labels(data: Data, labels: PseudoLabels, ratio: float) -> Data:
    """The task with the used rows of the pool among its labeled ones, and out of its pool.

    The labeled rows that were there are repeated where they would be fewer than one in 1 + `ratio`: a large pool would
    drown them.
    """
    rows = np.repeat(np.arange(len(labels.p)), labels.copies)
    if data.kind == "multi-label":
        refuse_multilabel("labels for the pool")
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
        came_labeled=data.original_labeled,
    )


def fit_rounds(
    method: RoundMethod,
    task: Task,
    config: TrainConfig,
    *,
    start: Start | None = None,
    student_start: Start | None = None,
    folder: RunFolder | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trained:
    """Trains a teacher on the labels, then a student per round; the last one, or the best on dev rows, is the result.

    `folder` gets the chosen model, `rounds.jsonl` with a line per round, and a folder for each round with its
    `pseudo_labels.parquet`, model and metrics. Steps are those of each round; a student's batch has as many rows as one
    of a method that sees the pool (batch_size x (1 + unlabeled_ratio)). Rounds end early when the labels stay the same.

    Args:
        method: the method with its hyper-parameters.
        task: data and net; `task.student` is the net of the students where it is another, `task.pseudo_labels`
            the pseudo-labels of the first round.
        config: settings of the training loop.
        start: the stage before, as in `train`; every net begins there.
        student_start: the same for `task.student`.
        folder: nothing is written without it; resumed, it goes on after the last round whose labels were written.
        callbacks: called as by `transformers.Trainer`, by every training.

    Raises:
        ConfigError, RunError, Interrupted: as `train`.
    """
    check_trackers(() if folder is None else folder.trackers, folder is not None)
    with nullcontext() if folder is None else folder.lock():
        return _Rounds(method, task, config, start, student_start, folder, callbacks).run()


class _Rounds:
    def __init__(
        self, method: RoundMethod, task: Task, config: TrainConfig, start: Start | None, student_start: Start | None,
        folder: RunFolder | None, callbacks: Sequence[TrainerCallback],
    ) -> None:  # fmt: skip
        self.method, self.task, self.config, self.start = method, task, config, start
        self.folder, self.callbacks = folder, callbacks
        self.learner = task.student or task
        self.learner_start = start if task.student is None else student_start
        self.labels: list[PseudoLabels] = []
        self.lines: list[dict[str, Any]] = []
        self.labeling = 0.0  # seconds that the labels of the round took
        self.chosen: tuple[int, Module | None] = (-1, None)  # the round that is the result so far, and its net

    def run(self) -> Trained:
        identity_ = rounds_identity(self.method, self.task, self.config)
        if self.folder is not None and self.folder.resume:
            self.folder.check_same(identity_)
            self._read(self.folder)
        result = None if self.labels else self._teacher()
        if self.folder is not None:
            self.folder.claim(identity_)
        rounds = 0 if result is not None and result.stopped else self.method.rounds
        for number in range(max(len(self.labels), 1), rounds + 1):
            if len(self.labels) < number:
                assert result is not None and result.module is not None
                began = time.perf_counter()
                labels = self._label(result.module, number)
                self.labeling = time.perf_counter() - began
                if self.labels and labels.same(self.labels[-1]):
                    log.info("round %d: the labels stay the same, no more rounds", number)
                    break
                self.labels.append(labels)
                self._write_labels(number)
            result = self._student(number)
            if result.stopped:
                log.info("round %d: a callback ended it, no more rounds", number)
                break
        return self._finish(identity_)

    # --- one round ---

    def _teacher(self) -> Trained:
        log.info("teacher: supervised, %d steps", self.config.max_steps)
        alone = replace(self.task, data=self.task.data.without_pool())
        folder = None if self.folder is None else RunFolder(self.folder.of_round(0).path, resume=self.folder.resume)
        result = train(Supervised(), alone, self.config, start=self.start, folder=folder, callbacks=self.callbacks)
        self._note(0, result, None)
        return result

    def _label(self, module: Module, number: int) -> PseudoLabels:
        # The first teacher may read texts in another way than the students: its own task has its own tokens.
        data = self.task.data if number == 1 else self.learner.data
        from_elsewhere = self.task.pseudo_labels if number == 1 else None
        labels = self.method.label(Teacher(module, data, self.config, number, from_elsewhere))
        return labels if from_elsewhere is None else replace(labels, weights=labels.weights * from_elsewhere.weights)

    def _student(self, number: int) -> Trained:
        labels, task = self.labels[number - 1], self.learner
        log.info("round %d: %d of %d pool rows, %d steps", number, (labels.copies > 0).sum(), len(labels.p),
                 self.config.max_steps)  # fmt: skip
        rows = self.config.batch_size * (1 + self.config.unlabeled_ratio)
        learned = with_labels(task.data, labels, self.config.unlabeled_ratio)
        learned = replace(
            learned, unlabeled=task.data.unlabeled
        )  # the strength of the view is chosen on the whole pool
        result = train(
            Supervised(),
            replace(task, data=learned, augment={"weak": task.augment[self.method.student_view]}),
            replace(self.config, batch_size=rows),
            start=self.learner_start,
            folder=None if self.folder is None else self.folder.of_round(number),
            callbacks=self.callbacks,
        )
        self._note(number, result, labels)
        return result

    def _note(self, number: int, result: Trained, labels: PseudoLabels | None) -> None:
        """A line of `rounds.jsonl`: scores, and how the labels are, by the names of metrics.jsonl."""
        line: dict[str, Any] = {"round": number, "scores": {k: asdict(v) for k, v in result.scores.items()},
                                "steps": result.steps, "seconds": round(result.seconds + self.labeling, 2)}  # fmt: skip
        self.labeling = 0.0
        warnings = list(result.warnings)
        if labels is not None:
            line |= self._health(labels)
            warnings += self._watch(number, line["mask_rate"], line["pseudo_hist"])
        self.lines.append({**line, "warnings": warnings})
        if self._chosen() is self.lines[-1]:
            self.chosen = (number, result.module)
        scores = ", ".join(f"{k} accuracy {v.accuracy:.3f}" for k, v in result.scores.items())
        log.info("round %d: %s", number, scores or f"done, {line['seconds']:.0f} s")
        if self.folder is not None and is_main():
            atomic.write_text(self.folder.rounds, "".join(json.dumps(one) + "\n" for one in self.lines))

    def _health(self, labels: PseudoLabels) -> dict[str, Any]:
        used, label, data = labels.copies > 0, labels.label, self.task.data
        truth = data.labels[data.unlabeled]
        counts = np.bincount(label[used], minlength=len(data.classes))
        health: dict[str, Any] = {
            "mask_rate": float(used.mean()),
            "pseudo_hist": (counts / max(counts.sum(), 1)).tolist(),
        }
        if len(self.labels) > 1:
            health["changed"] = float((label != self.labels[-2].label).mean())
        known = used & (truth >= 0)
        if known.any():
            health["pseudo_accuracy"] = float((label == truth)[known].mean())
        return health

    def _watch(self, number: int, used: float, shares: list[float]) -> list[str]:
        """Warns of pseudo-labels for a small share of the pool, and of a large share of one class [C]."""
        warnings, top = [], max(shares)
        if self.config.guard and used < FEW:
            warnings.append(
                f"round {number}: {used:.1%} of the pool have a pseudo-label: lower the method's threshold, or add "
                "labels or steps"
            )
        if self.config.guard and top > collapse(float(self.task.data.labeled_shares().max())):
            warnings.append(
                f"round {number}: {top:.0%} of the pseudo-labels are one class, "
                f"{self.task.data.classes[shares.index(top)]!r}: they have collapsed or the pool is not of this task; "
                "add labels or steps"
            )
        for one in warnings:
            log.warning(one)
        return warnings

    # --- what is written ---

    def _write_labels(self, number: int) -> None:
        data = self.task.data
        if self.folder is None or not is_main():
            return
        path = self.folder.of_round(number).pseudo_labels
        with atomic.writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        whole = data.whole_texts
        texts = None if whole is None else whole.take(data.unlabeled).combine_chunks()
        write_pseudo_labels(path, self.labels[-1], self.labels[:-1], data.classes, texts)

    def _read(self, folder: RunFolder) -> None:
        """The labels of earlier rounds, and their lines except that of the last one, which is trained again."""
        data = self.task.data
        while len(self.labels) < self.method.rounds:
            path = folder.of_round(len(self.labels) + 1).pseudo_labels
            if not path.exists():
                break
            self.labels.append(read_pseudo_labels(path, len(data.unlabeled), data.classes))
        whole = {line["round"]: line for line in atomic.json_lines(folder.rounds) if _is_whole(line)}
        self.lines = [line for number, line in whole.items() if number < len(self.labels)]
        if self.labels:
            log.info("going on with round %d", len(self.labels))

    def _chosen(self) -> dict[str, Any]:
        """The line of the round whose student is the result: the best on dev rows, or the last one."""
        if all("dev" in line["scores"] for line in self.lines):
            return max(self.lines, key=lambda line: (line["scores"]["dev"]["accuracy"], -line["round"]))
        return self.lines[-1]

    def _finish(self, identity_: dict[str, Any]) -> Trained:
        line = self._chosen()
        scores = {split: Scores(**values) for split, values in line["scores"].items()}
        seconds, steps = sum(one["seconds"] for one in self.lines), sum(one["steps"] for one in self.lines)
        warnings = [
            one for each in self.lines for one in each.get("warnings", [])
        ]  # lines of earlier versions have none
        if self.folder is not None:
            self.folder.copy_model(self.folder.of_round(line["round"]))
            self.folder.write_result(identity_, Outcome(scores, steps, seconds, warnings))
        known, module = self.chosen  # of a round that an interrupted process trained, the net is on disk alone
        return Trained(scores, steps, seconds, warnings, module=module if known == line["round"] else None)


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
