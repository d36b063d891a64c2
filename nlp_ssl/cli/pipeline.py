"""`nlp-ssl pipeline`: pre-train, fine-tune, learn from the pool, distill."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from nlp_ssl.cli.console import leave_report, show
from nlp_ssl.cli.files import Files
from nlp_ssl.cli.options import parse, with_config
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.cli.tasks import Options, chosen_method, tasks
from nlp_ssl.config import TrainConfig
from nlp_ssl.experiments.pipeline import Stages, run_stages
from nlp_ssl.registry import get

log = logging.getLogger("nlp_ssl")


def main(argv: Sequence[str]) -> None:
    """Parses the flags, runs all stages for every seed, and prints what each of them brought."""
    argv = with_config(argv)
    cls = get(chosen_method(argv))
    doc = (
        f"Pre-trains the encoder on all texts, fine-tunes it, trains {cls.name}, and distills the result into a last "
        "student, beside training on the labels alone. Every stage goes on where it stopped with --resume. Example: "
        "nlp-ssl pipeline --method fixmatch --labeled l.csv --unlabeled u.txt --test t.csv --output-dir out"
    )
    options, stages, files, strong, config, method = parse(
        argv, Options(), Stages(), Files(), StrongView(), TrainConfig(), cls(), name="nlp-ssl pipeline", doc=doc
    )
    output_dir = options.check(files, "pipeline")
    comparison = run_stages(
        stages,
        method,
        tasks(options, files, strong, config, method),
        config,
        options.seeds or (config.seed,),
        output_dir=output_dir,
        resume=options.resume,
        overwrite=options.overwrite,
    )
    for name in [side for side in comparison.sides if side not in ("start", "supervised", comparison.method)]:
        log.info("%s", replace(comparison, method=name).verdict())
    show(comparison)
    leave_report(output_dir)
    log.info("the model lies in %s", output_dir)
