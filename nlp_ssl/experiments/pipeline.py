"""The stacked recipe: pre-train on the domain, fine-tune, learn from the pool, distill; each stage beside the labels
alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from nlp_ssl.classifier import SSLClassifier
from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.compare import Comparison, seed_numbers
from nlp_ssl.experiments.pretrain import objective_of, pretrain, start_from
from nlp_ssl.experiments.runs import learner, run_one
from nlp_ssl.experiments.saving import Saved
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.inference.predict import predict
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.methods.distillation import Distillation
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.nets.image import ImageNet
from nlp_ssl.task import Task
from nlp_ssl.training.checks import check_defined
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.training.run_folder import RunFolder
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
    task: Task,
    config: TrainConfig,
    *,
    seeds: int | Sequence[int] = 3,
    folder: RunFolder,
    overwrite: bool = False,
) -> Comparison:
    """Runs all stages once per seed; every stage that is complete is kept in a folder that is resumed.

    Each folder of a seed holds `baseline` (the labels alone), `pretrain`, `pretrained` (the labels alone from there),
    `method` and `distilled`; the last stage's model of the first seed is copied to `folder`. The sides of the
    comparison are the stages in their order, and the last one is what the verdict is about.

    Raises:
        ConfigError: there are no unlabeled rows, a stage is not defined for the labels, or as `compare`.
    """
    numbers = seed_numbers(seeds, config)
    results: dict[str, list[Outcome]] = {}
    for seed in numbers:
        drawn, settings = task.draw(seed), replace(config, seed=seed)
        _check(stages, method, drawn, settings)
        if overwrite and seed == numbers[0]:
            folder.clear()
        last, learned = _one_seed(stages, method, drawn, settings, folder.of_seed(seed), results)
        if seed == numbers[0]:
            folder.copy_model(last)
            net = learned.load(last.path)
    order = sorted(results, key=lambda name: name != START)  # known only once the first stage has run
    named = {name: tuple(results[name]) for name in order if len(results[name]) == len(numbers)}
    side = DISTILLED if stages.distill else method.name
    return Comparison(side, numbers, named, SSLClassifier.from_net(net), Saved(side, numbers[0], ""))


def _check(stages: Stages, method: Method | RoundMethod, task: Task, config: TrainConfig) -> None:
    if not len(task.data.unlabeled):
        raise ConfigError(497, "the stages learn from unlabeled rows, and there are none: give --unlabeled FILE")
    if stages.pretrain != "none" and task.data.kind == "multi-label":
        raise ConfigError(477, f"--pretrain {stages.pretrain} works with single-label data only: give --pretrain none")
    for stage in [method, *([Distillation()] if stages.distill else [])]:
        check_defined(stage, task.data, config)


def _one_seed(
    stages: Stages, method: Method | RoundMethod, task: Task, config: TrainConfig, folder: RunFolder,
    results: dict[str, list[Outcome]],
) -> tuple[RunFolder, Task]:  # fmt: skip
    """Runs the stages of a seed, adds what they came to, and returns the folder of the last one and what it learned."""

    def stage(name: str, side: Method | RoundMethod, learned: Task, start: SharedStart, place: RunFolder) -> None:
        run = run_one(side, learned, config, start=start, folder=place)
        results.setdefault(name, []).append(Outcome(run.scores, run.steps, run.seconds, run.warnings))

    with atomic.writing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    start = SharedStart(task, config, folder)
    stage("supervised", Supervised(), task.without_pool(), start, folder.baseline)
    if (scored := start.outcome()) is not None:
        results.setdefault(START, []).append(scored)
    if stages.pretrain != "none":
        objective = objective_of(stages.pretrain, isinstance(task.build(0), ImageNet))
        log.info("seed %d: pre-training (%s), %d steps", config.seed, objective.name, stages.pretrain_steps)
        weights = pretrain(objective, task, config, stages.pretrain_steps, folder=folder.within("pretrain"))
        task = start_from(task, weights)
        start = SharedStart(task, config, folder.within("pretrain"))
        stage(PRETRAINED, Supervised(), task.without_pool(), start, folder.within(PRETRAINED))
    last = folder.within("method")
    stage(method.name, method, task, start, last)
    learned = learner(method, task)
    if not stages.distill:
        return last, learned
    logits = predict(learned.load(last.path), learned.data.store, learned.data.unlabeled)
    student = replace(task.student or task, teacher=logits, pseudo_labels=None, student=None)
    begin = start if task.student is None else SharedStart(task.student, config)
    stage(DISTILLED, Distillation(), student, begin, folder.within(DISTILLED))
    return folder.within(DISTILLED), student
