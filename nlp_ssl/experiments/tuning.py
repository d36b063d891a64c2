"""Settings chosen with few labels: candidates run without a part of the labels, and are judged on that part."""

import contextlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.folds import folds, parts_of, why_not_held_out
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.runs import identity_of, run_one
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.inference.predict import predict
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.ops.functional import softmax
from nlp_ssl.ops.multilabel import refuse_multilabel
from nlp_ssl.task import Task
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.utils import atomic

log = logging.getLogger("nlp_ssl")
_ROUNDING = 1e-9
_POOL = 2_000  # rows of the pool on which runs are compared


@dataclass(frozen=True)
class Candidate:
    """Settings that may be chosen, under the name they are reported by."""

    name: str
    method: Method | RoundMethod
    config: TrainConfig


@dataclass(frozen=True)
class Judged:
    """What a candidate's runs without a part of the labels came to.

    `right` [L] says for each labeled row whether the run that did not know its label gave it. `agreement` is how often
    two of the runs give a pool row the same class, beyond what chance would have them do (Cohen's kappa): a sign that
    needs no labels, and that is 0 for runs which know one class alone.
    """

    name: str
    right: np.ndarray
    agreement: float

    def __str__(self) -> str:
        right, agreement = 100 * self.right.mean(), 100 * self.agreement
        return f"{self.name}: {right:.1f} % of held-out labels right, agreement beyond chance {agreement:.1f} %"


def tune(candidates: Sequence[Candidate], task: Task, number: int, folder: RunFolder) -> tuple[Judged, ...]:
    """Runs every candidate once for each of `number` parts of the labels. Dev and test rows are not looked at.

    A line of `tuning.jsonl` in the folder keeps what a run came to: an interrupted choice goes on where it stopped.

    Raises:
        ConfigError: there are too few labels, or several processes.
    """
    _check(task)
    with folder.lock():
        return _tune(candidates, task, number, folder)


def _tune(candidates: Sequence[Candidate], task: Task, number: int, folder: RunFolder) -> tuple[Judged, ...]:
    number = parts_of(task.data, number)
    known, keys, done = _finished(folder), [_key(candidate, task, number) for candidate in candidates], 0
    results: list[list[dict[str, Any]]] = [[] for _ in candidates]
    pool = task.data.unlabeled[np.sort(np.random.default_rng(0).permutation(len(task.data.unlabeled))[:_POOL])]
    for fold, (part, out) in enumerate(_parts(task, number, candidates[0].config.seed)):
        starts: dict[TrainConfig, SharedStart] = {}
        for candidate, key, mine in zip(candidates, keys, results, strict=True):
            line, done = known.get((key, fold)), done + 1
            if line is None:
                began = time.perf_counter()
                start = starts.setdefault(candidate.config, SharedStart(part, candidate.config))
                rows = np.concatenate([task.data.labeled[out], pool])
                with _silence():
                    classes = _predicted(candidate, part, start, rows, folder).argmax(1).tolist()
                line = {"key": key, "fold": fold, "name": candidate.name, "classes": classes}
                with atomic.writing(folder.trials), folder.trials.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                seconds, runs = time.perf_counter() - began, len(candidates) * number
                log.info("choosing settings, run %d of %d: %s, %.0f s", done, runs, candidate.name, seconds)
            mine.append({**line, "out": out})
    return tuple(_judged(c.name, lines, task) for c, lines in zip(candidates, results, strict=True))


def best(judged: Sequence[Judged]) -> int:
    """Number of the candidate to take: of those that nothing tells from the one that is right most often, the one whose
    runs agree most on the pool; the first of equals.

    A candidate is told from the best where its share of right labels is lower by more than the standard error of their
    difference, label by label; a single label tells nothing.
    """
    top = max(judged, key=lambda one: one.right.mean())
    behind = [top.right.astype(float) - one.right for one in judged]
    like = [i for i, gap in enumerate(behind) if gap.mean() <= gap.std(ddof=1) / math.sqrt(len(gap)) + _ROUNDING]
    return max(like, key=lambda i: judged[i].agreement)


def held_out_start(task: Task, config: TrainConfig, number: int) -> Tensor:
    """Probabilities [L, C] of each labeled row by a started net that did not know its label.

    Raises:
        ConfigError: there are too few labels, or several processes.
    """
    _check(task)
    p = np.zeros((len(task.data.labeled), len(task.data.classes)))
    for part, out in _parts(task, number, config.seed):
        module = part.build(0)
        SharedStart(part, config)(module)
        logits = predict(module, part.data.store, task.data.labeled[out])
        p[out] = softmax(logits.double()).numpy()
    return torch.from_numpy(p)


def threshold_for(p: Tensor, labels: np.ndarray, precision: float) -> float | None:
    """The lowest confidence at and above which rows p [L, C] get the right class `precision` of the time.

    Counted as if one more row above it were right and one wrong, since a few rows that are right prove little. None
    where there is no such confidence.
    """
    confidence, classes = (t.numpy() for t in p.max(1))
    order = np.argsort(-confidence, kind="stable")
    right = (classes == labels)[order].cumsum()
    shares = (right + 1) / (np.arange(1, len(order) + 1) + 2)
    enough = np.flatnonzero(shares >= precision)
    return float(confidence[order[enough[-1]]]) if len(enough) else None


def _check(task: Task) -> None:
    if task.data.kind == "multi-label":
        refuse_multilabel("choosing settings by held-out labels")
    if (why := why_not_held_out(task.data)) is not None:
        raise ConfigError(405, f"{why}: label more, or set the flags by hand")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(406, "settings are chosen in one process: run it so first, then all with what it chose")


def _parts(task: Task, number: int, seed: int) -> Iterator[tuple[Task, np.ndarray]]:
    """The task without a part of its labels, and which; students read the same rows."""
    students = None if task.student is None else folds(task.student.data, number, seed)
    for data, out in folds(task.data, number, seed):
        student = None
        if task.student is not None and students is not None:
            student = replace(task.student, data=next(students)[0])
        yield replace(task, data=data, student=student), out


def _key(candidate: Candidate, task: Task, number: int) -> str:
    """Tells runs of other settings, rows, nets and parts apart."""
    identity = {"run": identity_of(candidate.method, task, candidate.config), "parts": number}
    return xxhash.xxh3_128_hexdigest(json.dumps(identity, sort_keys=True).encode())


def _finished(folder: RunFolder) -> dict[tuple[str, int], dict[str, Any]]:
    lines = atomic.json_lines(folder.trials)
    return {
        (k, f): line
        for line in lines
        if isinstance(k := line.get("key"), str) and isinstance(f := line.get("fold"), int)
    }


def _predicted(candidate: Candidate, part: Task, start: SharedStart, rows: np.ndarray, folder: RunFolder) -> Tensor:
    """Logits [n, C] of a candidate's run for rows of the store; the run leaves nothing."""
    place = RunFolder(folder.tuning)
    shutil.rmtree(place.path, ignore_errors=True)
    config = replace(candidate.config, calibrate="none", save_steps=0, eval_steps=0, patience=0, eval_fgsm=0.0)
    run_one(candidate.method, part, config, start=start, folder=place)
    learner = part.student if isinstance(candidate.method, RoundMethod) and part.student is not None else part
    logits = predict(learner.load(place.path), learner.data.store, rows)
    shutil.rmtree(place.path, ignore_errors=True)
    return logits


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What the runs report is of no interest: there are many, and none of them stays."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _judged(name: str, lines: Sequence[dict[str, Any]], task: Task) -> Judged:
    labels = task.data.labels[task.data.labeled]
    right = np.zeros(len(labels), dtype=bool)
    pools = []
    for line in lines:
        out, classes = line["out"], np.array(line["classes"])
        right[out] = classes[: len(out)] == labels[out]
        pools.append(classes[len(out) :])
    return Judged(
        name, right, float(np.mean([_kappa(a, b, len(task.data.classes)) for a, b in combinations(pools, 2)]))
    )


def _kappa(a: np.ndarray, b: np.ndarray, classes: int) -> float:
    """Agreement of two columns of classes [n] beyond chance; 0 where there is nothing to agree on."""
    if not len(a):
        return 0.0
    chance = float(np.bincount(a, minlength=classes) @ np.bincount(b, minlength=classes)) / len(a) ** 2
    return (float((a == b).mean()) - chance) / (1 - chance) if chance < 1 else 0.0
