"""The stacked recipe: pre-train on the domain, fine-tune, learn from the pool, distill; each stage beside the labels
alone.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.compare import Comparison, check_seeds, run_one
from nlp_ssl.experiments.pretrain import begun_from, objective_of, pretrain
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.inference.predict import predict
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.methods.distillation import Distillation
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.nets.image import ImageNet
from nlp_ssl.task import Task
from nlp_ssl.training.checks import check_defined
from nlp_ssl.training.loop import Outcome
from nlp_ssl.training.run_folder import clear_run, copy_model
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranges import check

log = logging.getLogger("nlp_ssl")
START, PRETRAINED, DISTILLED = "start", "pretrained", "distilled"
FOLDERS = (PRETRAINED, "method", DISTILLED)  # of the stages after the labels alone, in their order


@dataclass(frozen=True)
class Stages:
    """Which stages there are beside the method."""

    pretrain: Annotated[Literal["none", "mlm", "contrastive"], "stage before any label is used"] = "mlm"
    pretrain_steps: Annotated[int, "updates of that stage"] = 300
    distill: Annotated[bool, "teach a last student, of --student or of the same model, what the result says"] = True

    def __post_init__(self) -> None:
        check(self.pretrain_steps, "pretrain_steps", 1, 1e9)


def run_stages(
    stages: Stages,
    method: Method | RoundMethod,
    task_of: Callable[[int], Task],
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    output_dir: Path,
    resume: bool = False,
    overwrite: bool = False,
) -> Comparison:
    """Runs all stages once per seed; every stage that is complete is kept with `resume`.

    Each folder of a seed holds `baseline` (the labels alone), `pretrain`, `pretrained` (the labels alone from there),
    `method` and `distilled`; the last stage's model of the first seed is copied to `output_dir`. The sides of the
    comparison are the stages in their order, and the last one is what the verdict is about.

    Raises:
        ConfigError: there are no unlabeled rows, a stage is not defined for the labels, or as `compare`.
    """
    check_seeds(seeds)
    sides: dict[str, list[Outcome]] = {}
    for seed in seeds:
        task, settings = task_of(seed), replace(config, seed=seed)
        _check(stages, method, task, settings)
        if overwrite and seed == seeds[0]:
            clear_run(output_dir)
        place = output_dir / f"seed-{seed}"
        last = _one_seed(stages, method, task, settings, place, resume, sides)
        if seed == seeds[0]:
            copy_model(last, output_dir)
    order = sorted(sides, key=lambda name: name != START)  # known only once the first stage has run
    named = {name: tuple(sides[name]) for name in order if len(sides[name]) == len(seeds)}
    return Comparison(DISTILLED if stages.distill else method.name, tuple(seeds), named)


def _check(stages: Stages, method: Method | RoundMethod, task: Task, config: TrainConfig) -> None:
    if not len(task.data.unlabeled):
        raise ConfigError(497, "the stages learn from unlabeled rows, and there are none: give --unlabeled FILE")
    if stages.pretrain != "none" and task.data.kind == "many":
        raise ConfigError(477, f"--pretrain {stages.pretrain} is for one label a row: give --pretrain none")
    for stage in [method, *([Distillation()] if stages.distill else [])]:
        check_defined(stage, task.data, config)


def _one_seed(
    stages: Stages, method: Method | RoundMethod, task: Task, config: TrainConfig, place: Path, resume: bool,
    sides: dict[str, list[Outcome]],
) -> Path:  # fmt: skip
    """Runs the stages of a seed, adds what they came to, and returns the folder of the last one."""

    def stage(name: str, what: Method | RoundMethod, of: Task, start: SharedStart, folder: str) -> None:
        outcome = run_one(what, of, config, start=start, output_dir=place / folder, resume=resume)
        sides.setdefault(name, []).append(outcome)

    with atomic.writing(place):
        place.mkdir(parents=True, exist_ok=True)
    start = SharedStart(task, config, place)
    stage("supervised", Supervised(), _labels_alone(task), start, "baseline")
    if (begun := start.outcome()) is not None:
        sides.setdefault(START, []).append(begun)
    if stages.pretrain != "none":
        objective = objective_of(stages.pretrain, isinstance(task.build(0), ImageNet))
        log.info("seed %d: pre-training (%s), %d steps", config.seed, objective.name, stages.pretrain_steps)
        weights = pretrain(objective, task, config, stages.pretrain_steps, folder=place / "pretrain", resume=resume)
        task = begun_from(task, weights)
        start = SharedStart(task, config, place / "pretrain")
        stage(PRETRAINED, Supervised(), _labels_alone(task), start, "pretrained")
    stage(method.name, method, task, start, "method")
    if not stages.distill:
        return place / "method"
    said = predict(task.saved(place / "method"), task.data.store, task.data.unlabeled, config.max_length)
    learner = replace(task.student or task, teacher=said, given=None, student=None)
    begin = start if task.student is None else SharedStart(task.student, config)
    stage(DISTILLED, Distillation(), learner, begin, "distilled")
    return place / "distilled"


def _labels_alone(task: Task) -> Task:
    return replace(task, data=task.data.without_pool(), given=None, student=None)
