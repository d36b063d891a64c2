"""`nlp-ssl pipeline`: pre-train, fine-tune, learn from the pool, distill."""

import logging
from dataclasses import replace

from nlp_ssl.cli.command import Spec
from nlp_ssl.cli.console import leave_report, show
from nlp_ssl.cli.files import Files
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.cli.tasks import TaskOptions, task_of
from nlp_ssl.config import TrainConfig
from nlp_ssl.experiments.pipeline import Stages, run_stages
from nlp_ssl.method import Method, RoundMethod

log = logging.getLogger("nlp_ssl")


def main(
    options: TaskOptions, stages: Stages, files: Files, strong: StrongView, config: TrainConfig,
    method: Method | RoundMethod,
) -> None:  # fmt: skip
    """Runs all stages for every seed, and prints what each of them brought."""
    folder = options.check(files, "pipeline")
    seeds = options.chosen_seeds(config.seed)
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
    log.info("model saved to %s", folder)


COMMANDS = {
    "pipeline": Spec(
        main,
        "pre-train, fine-tune, learn from the pool, distill: every stage beside the labels alone",
        "Pre-trains the encoder on all texts, fine-tunes it, trains the method, and distills the result into a last "
        "student, beside training on the labels alone. Every stage goes on where it stopped with --resume.",
        "nlp-ssl pipeline --method fixmatch --labeled l.csv --unlabeled u.txt --test t.csv --output-dir out",
        flags=(TaskOptions(), Stages(), Files(), StrongView(), TrainConfig()),
        first=("labeled", "unlabeled", "test", "model", "method", "pretrain", "distill", "max_steps", "seeds",
               "output_dir"),
        of_method=True,
    )
}  # fmt: skip
