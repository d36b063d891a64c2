"""`nlp-ssl train`: any method on files."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import click

from nlp_ssl.cli.console import leave_report, show
from nlp_ssl.cli.files import Files
from nlp_ssl.cli.options import parse, with_config
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.cli.tasks import Options, check_student, chosen_method, task_of
from nlp_ssl.cli.tune import Tuning
from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.compare import compare
from nlp_ssl.experiments.out_of_scope import share_of
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.registry import get_method
from nlp_ssl.task import Task
from nlp_ssl.training.run_folder import RunFolder
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
    drop_out_of_scope: Annotated[str | None, "leave out pool texts unlike any class: a share, or auto"] = None
    trackers: Annotated[str | None, "installed Accelerate trackers, e.g. tensorboard or tensorboard,wandb"] = None

    def tracker_names(self) -> tuple[str, ...]:
        """The names in `trackers`."""
        return tuple(name.strip() for name in self.trackers.split(",")) if self.trackers else ()

    def __post_init__(self) -> None:
        if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license) is None:
            raise ConfigError(404, f"license {self.license!r}: give an identifier such as apache-2.0, mit or other")


def main(argv: Sequence[str]) -> None:
    """Parses the flags of the files, the loop and the chosen method, trains, and prints the closing table."""
    argv = with_config(argv)
    options, beside, tuning, files, strong, config, method = _parsed(argv)
    check_student(options, method)
    check_trackers(beside.tracker_names(), folder=True)
    tuning.check(lambda more: _settings(argv, more))
    checked = options.check(files, "train")
    folder = RunFolder(checked.path, resume=options.resume, trackers=beside.tracker_names())
    out_of_scope = None if beside.drop_out_of_scope is None else share_of(beside.drop_out_of_scope)
    seeds = options.seeds or (config.seed,)
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
        more = tuning.chosen(lambda more: _settings(argv, more), task, folder)
        method, config = _settings(argv, more)
    comparison = compare(
        method,
        task,
        config,
        seeds=seeds,
        baseline=beside.baseline,
        folder=folder,
        overwrite=options.overwrite and not tuning.wanted,
        out_of_scope=out_of_scope,
    )
    show(comparison, as_json=beside.json)
    if beside.report:
        leave_report(folder.path, beside.license)
    log.info("the model is saved to %s", folder)


def _parsed(
    argv: Sequence[str],
) -> tuple[Options, Beside, Tuning, Files, StrongView, TrainConfig, Method | RoundMethod]:
    cls = get_method(chosen_method(argv))
    doc = f"Trains {cls.name} on your files. Every hyper-parameter of the method is a flag (the last ones below)."
    return parse(
        argv, Options(), Beside(), Tuning(), Files(), StrongView(), TrainConfig(), cls(), name="nlp-ssl train", doc=doc
    )


def _settings(argv: Sequence[str], more: Sequence[str]) -> tuple[Method | RoundMethod, TrainConfig]:
    """Method and settings of a command line with more flags."""
    options, *others, config, method = _parsed([*argv, *more])
    before, *fixed, earlier, _ = _parsed(argv)
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

    found = estimate.measure(method, task, config)
    if beside.budget:
        config = replace(config, max_steps=found.steps(60 * beside.budget, seeds, beside.baseline))
        log.info("max_steps: %d, to fit into %g minutes", config.max_steps, beside.budget)
    if beside.dry_run:
        for line in estimate.lines(found, method, task, config, seeds, beside.baseline):
            click.echo(line)
        if runs := tuning.runs(task):
            total = estimate.duration(runs * found.seconds(config.max_steps, 1, baseline=False))
            click.echo(f"about {total} before that to choose settings in {runs} runs")
    return config
