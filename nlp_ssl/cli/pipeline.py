"""`nlp-ssl pipeline`: pre-train, fine-tune, learn from the pool, distill."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from nlp_ssl.cli.console import leave_report, show
from nlp_ssl.cli.files import Files
from nlp_ssl.cli.options import parse, with_config
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.cli.tasks import Options, chosen_method, task_of
from nlp_ssl.config import TrainConfig
from nlp_ssl.experiments.pipeline import Stages, run_stages
from nlp_ssl.registry import get_method

log = logging.getLogger("nlp_ssl")


def main(argv: Sequence[str]) -> None:
    """Parses the flags, runs all stages for every seed, and prints what each of them brought."""
    argv = with_config(argv)
    cls = get_method(chosen_method(argv))
    doc = (
        f"Pre-trains the encoder on all texts, fine-tunes it, trains {cls.name}, and distills the result into a last "
        "student, beside training on the labels alone. Every stage goes on where it stopped with --resume. Example: "
        "nlp-ssl pipeline --method fixmatch --labeled l.csv --unlabeled u.txt --test t.csv --output-dir out"
    )
    options, stages, files, strong, config, method = parse(
        argv, Options(), Stages(), Files(), StrongView(), TrainConfig(), cls(), name="nlp-ssl pipeline", doc=doc
    )
    folder = options.check(files, "pipeline")
    seeds = options.seeds or (config.seed,)
    comparison = run_stages(
        stages,
        method,
        task_of(options, files, strong, seeds[0]),
        config,
        seeds=seeds,
        folder=folder,
        overwrite=options.overwrite,
    )
    for name in [side for side in comparison.results if side not in ("start", "supervised", comparison.method)]:
        log.info("%s", replace(comparison, method=name).verdict())
    show(comparison)
    leave_report(folder.path)
    log.info("the model is saved to %s", folder)
