"""`nlp-ssl train`: any method on files."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nlp_ssl.cli.console import show
from nlp_ssl.cli.files import Files, Tables, tables, text
from nlp_ssl.cli.options import parse
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.config import TrainConfig
from nlp_ssl.data.embedded import encoder_name
from nlp_ssl.data.schema import TextData
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiment import compare
from nlp_ssl.nets.text import Pooling
from nlp_ssl.process import check_output
from nlp_ssl.registry import get_method
from nlp_ssl.task import Task, text_task

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class Options:
    """Flags of `train` beside those of the files, the loop and the method."""

    method: Annotated[str, "name of the method; `nlp-ssl methods` lists them"] = "uda"
    model: Annotated[str, "folder or hub name of a pre-trained encoder; `embedded` for the one from the demo extra"] = (
        "embedded"
    )
    pooling: Annotated[Pooling, "how token vectors become one"] = "auto"
    baseline: Annotated[bool, "also train on the labels alone, and compare"] = False
    seeds: Annotated[tuple[int, ...] | None, "repeat with these seeds, e.g. 0,1,2 (instead of --seed)"] = None
    trackers: Annotated[str | None, "Accelerate trackers, e.g. tensorboard or tensorboard,wandb"] = None
    output_dir: Annotated[Path | None, "where the model, metrics and checkpoints go"] = None
    resume: Annotated[bool, "go on where an earlier run in output-dir stopped"] = False
    overwrite: Annotated[bool, "replace an earlier run in output-dir; other files there are kept"] = False
    cache_dir: Annotated[Path | None, "where tokenized texts are kept"] = None


def main(argv: Sequence[str]) -> None:
    """Parses the flags of the files, the loop and the chosen method, trains, and prints the closing table."""
    cls = get_method(_chosen_method(argv))
    doc = f"Trains {cls.name} on your files. Every hyper-parameter of the method is a flag (the last ones below)."
    options, files, strong, config, method = parse(
        argv, Options(), Files(), StrongView(), TrainConfig(), cls(), name="nlp-ssl train", doc=doc
    )
    if files.labeled is None or options.output_dir is None:
        raise ConfigError(206, "train needs --labeled FILE and --output-dir DIR")
    check_output(options.output_dir, options.resume, options.overwrite)
    found = tables(files)
    comparison = compare(
        method,
        _cached_task(lambda seed: text(files, found, seed), options, strong, config, found),
        config,
        options.seeds or (config.seed,),
        baseline=options.baseline,
        output_dir=options.output_dir,
        resume=options.resume,
        overwrite=options.overwrite,
        trackers=tuple(options.trackers.split(",")) if options.trackers else (),
    )
    show(comparison)
    log.info("the model lies in %s", options.output_dir)


def _chosen_method(argv: Sequence[str]) -> str:
    for i, word in enumerate(argv):
        if word == "--method" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith("--method="):
            return word.removeprefix("--method=")
    return Options().method


def _cached_task(
    text_of: Callable[[int], TextData],
    options: Options,
    strong: StrongView,
    config: TrainConfig,
    found: Tables,
) -> Callable[[int], Task]:
    policy = strong.policy()
    views = strong.rewritings([table for table in (found["labeled"], found["unlabeled"]) if table is not None])

    def task_of(seed: int) -> Task:
        task = text_task(
            text_of(seed),
            encoder_name(options.model),
            pooling=options.pooling,
            strong=policy,
            views=views,
            max_length=config.max_length,
            cache_dir=options.cache_dir,
        )
        for note in task.data.notes:
            log.info("%s", note)
        return task

    return task_of
