"""`nlp-ssl train`: any method on files."""

import logging
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import click

from nlp_ssl.cli.command import Spec, values_with
from nlp_ssl.cli.console import leave_report, show
from nlp_ssl.cli.files import Files
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.cli.tasks import TaskOptions, check_student, task_of
from nlp_ssl.cli.tune import Tuning
from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.compare import compare
from nlp_ssl.experiments.out_of_scope import share_of
from nlp_ssl.experiments.saving import Save
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.task import Task
from nlp_ssl.training.trackers import check_trackers

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class Beside:
    """What `train` does beside training."""

    baseline: Annotated[bool, "also train on the labels alone, and compare"] = False
    dry_run: Annotated[bool, "train nothing: print the settings, and the time by a few measured steps"] = False
    budget: Annotated[float, "minutes for the whole run: chooses --max-steps by a few measured steps; 0 is off"] = 0.0
    json: Annotated[bool, "print scores and verdict as JSON"] = False
    report: Annotated[bool, "write report.html and a model card, README.md, at the end"] = True
    license: Annotated[str, "of the model, as its card says: an identifier of the hub, e.g. apache-2.0"] = "unknown"
    save: Annotated[
        Save | None, "side whose model is saved: the best on dev rows, or the method's; best where there are dev rows"
    ] = None
    drop_out_of_scope: Annotated[str | None, "leave out pool texts unlike any class: a share, or auto"] = None
    trackers: Annotated[str | None, "installed Accelerate trackers, e.g. tensorboard or tensorboard,wandb"] = None

    def tracker_names(self) -> tuple[str, ...]:
        """The names in `trackers`."""
        return tuple(name.strip() for name in self.trackers.split(",")) if self.trackers else ()

    def __post_init__(self) -> None:
        if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license) is None:
            raise ConfigError(404, f"license {self.license!r}: give an identifier such as apache-2.0, mit or other")


def main(
    options: TaskOptions, beside: Beside, tuning: Tuning, files: Files, strong: StrongView, config: TrainConfig,
    method: Method | RoundMethod,
) -> None:  # fmt: skip
    """Trains, and prints the closing table."""
    check_student(options, method)
    check_trackers(beside.tracker_names(), folder=True)
    tuning.check(_settings)
    folder = options.check(files, "train")
    folder.trackers = beside.tracker_names()
    out_of_scope = None if beside.drop_out_of_scope is None else share_of(beside.drop_out_of_scope)
    seeds = options.chosen_seeds(config.seed)
    task = task_of(options, files, strong, seeds[0])
    if beside.dry_run or beside.budget:
        if options.resume:
            raise ConfigError(254, "--budget and --dry-run measure anew: resume with the --max-steps that were chosen")
        if beside.budget and tuning.wanted:
            raise ConfigError(409, "--budget and --tune both choose settings: give one of the two")
        config = _planned(beside, tuning, method, task, config, len(seeds))
    if beside.dry_run:
        return
    if tuning.wanted:
        if options.overwrite:
            folder.clear()
        method, config = _settings(tuning.chosen(_settings, task, folder))
    comparison = compare(
        method,
        task,
        config,
        seeds=seeds,
        baseline=beside.baseline,
        folder=folder,
        overwrite=options.overwrite and not tuning.wanted,
        out_of_scope=out_of_scope,
        save=beside.save,
    )
    show(comparison, as_json=beside.json)
    if beside.report:
        leave_report(folder.path, beside.license)
    if comparison.saved is not None:
        log.info("model saved to %s: %s", folder, comparison.saved)
        log.info("use it: %s", shlex.join(["nlp-ssl", "predict", str(folder), "texts.csv"]))


def _settings(more: Sequence[str]) -> tuple[Method | RoundMethod, TrainConfig]:
    """Method and settings of the command line with more flags."""
    options, *others, config, method = values_with(more)
    before, *fixed, earlier, _ = values_with([])
    same = (replace(options, method=before.method), *others) == (before, *fixed) and config.seed == earlier.seed
    if not same or (options.teacher and options.method != before.method):
        raise ConfigError(407, f"{' '.join(more)} is no setting of the method or the loop: take it out of --tune")
    check_student(options, method)
    return method, config


def _planned(
    beside: Beside, tuning: Tuning, method: Method | RoundMethod, task: Task, config: TrainConfig, seeds: int
) -> TrainConfig:
    """The settings with as many steps as fit into the budget; a dry run prints them, and the time."""
    from nlp_ssl.cli import estimate

    measured = estimate.measure(method, task, config)
    if beside.budget:
        config = replace(config, max_steps=measured.steps(60 * beside.budget, seeds, beside.baseline))
        log.info("max_steps: %d, to fit into %g minutes", config.max_steps, beside.budget)
    if beside.dry_run:
        for line in estimate.lines(measured, method, task, config, seeds, beside.baseline):
            click.echo(line)
        if runs := tuning.runs(task):
            total = estimate.duration(runs * measured.seconds(config.max_steps, 1, baseline=False))
            click.echo(f"about {total} before that to choose settings in {runs} runs")
    return config


COMMANDS = {
    "train": Spec(
        main,
        "train a method on your files",
        "Trains a method on labeled and unlabeled texts. --method chooses it, and with it further flags: its "
        "hyper-parameters.",
        "nlp-ssl train --method fixmatch --labeled l.csv --unlabeled u.txt --test t.csv --seeds 3 --baseline "
        "--output-dir out",
        flags=(TaskOptions(), Beside(), Tuning(), Files(), StrongView(), TrainConfig()),
        first=("labeled", "unlabeled", "dev", "test", "model", "method", "max_steps", "seeds", "baseline",
               "output_dir"),
        of_method=True,
    )
}  # fmt: skip
