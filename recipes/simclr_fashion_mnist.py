"""Pre-train, fine-tune, distill on images (Chen et al. 2020, SimCLRv2, arXiv:2006.10029).

accelerate launch recipes/simclr_fashion_mnist.py
"""

import sys
from dataclasses import replace
from pathlib import Path

from nlp_ssl import Supervised
from nlp_ssl.cli import console, options
from nlp_ssl.cli.recipe import IMAGE_LOOP, Images
from nlp_ssl.experiments.pipeline import Stages, run_stages
from nlp_ssl.training.run_folder import check_output

IMAGES = Images(output_dir=Path("runs/simclr"), pool_size=5000)
STAGES = Stages(pretrain="contrastive", pretrain_steps=600)


def main(argv: list[str]) -> None:
    """Parses the flags, runs the three stages, and prints each of them beside the labels alone."""
    stages, images, config, method = options.parse(
        argv, STAGES, IMAGES, replace(IMAGE_LOOP, max_steps=300), Supervised(), name=Path(__file__).name,
        doc=__doc__ or "",
    )  # fmt: skip
    check_output(images.output_dir, images.resume, images.overwrite)
    console.show(
        run_stages(
            stages,
            method,
            images.tasks(config),
            config,
            images.seeds,
            output_dir=images.output_dir,
            resume=images.resume,
            overwrite=images.overwrite,
        )
    )


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
