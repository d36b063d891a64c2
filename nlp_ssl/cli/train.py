"""`nlp-ssl train`: any method on files."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from nlp_ssl.cli.console import show
from nlp_ssl.cli.files import Files
from nlp_ssl.cli.options import parse
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.cli.tasks import Options, check_student, chosen_method, tasks
from nlp_ssl.config import TrainConfig
from nlp_ssl.experiment import compare
from nlp_ssl.registry import get

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class Beside:
    """What `train` does beside training."""

    baseline: Annotated[bool, "also train on the labels alone, and compare"] = False
    trackers: Annotated[str | None, "Accelerate trackers, e.g. tensorboard or tensorboard,wandb"] = None


def main(argv: Sequence[str]) -> None:
    """Parses the flags of the files, the loop and the chosen method, trains, and prints the closing table."""
    cls = get(chosen_method(argv))
    doc = f"Trains {cls.name} on your files. Every hyper-parameter of the method is a flag (the last ones below)."
    options, beside, files, strong, config, method = parse(
        argv, Options(), Beside(), Files(), StrongView(), TrainConfig(), cls(), name="nlp-ssl train", doc=doc
    )
    check_student(options, method)
    output_dir = options.check(files, "train")
    comparison = compare(
        method,
        tasks(options, files, strong, config, method),
        config,
        options.seeds or (config.seed,),
        baseline=beside.baseline,
        output_dir=output_dir,
        resume=options.resume,
        overwrite=options.overwrite,
        trackers=tuple(beside.trackers.split(",")) if beside.trackers else (),
    )
    show(comparison)
    log.info("the model lies in %s", output_dir)
