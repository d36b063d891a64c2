"""FixMatch on images (Sohn et al. 2020, arXiv:2001.07685) through the same loop as text.

accelerate launch recipes/fixmatch_fashion_mnist.py

Reads Fashion-MNIST where the Debian package `dataset-fashion-mnist` is installed, scikit-learn's digits otherwise.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nlp_ssl import FixMatch, Task, TrainConfig, compare, image_task
from nlp_ssl.cli import console, options
from nlp_ssl.data.images import load_images
from nlp_ssl.process import check_output


@dataclass(frozen=True)
class Recipe:
    """Flags beside those of the loop and of FixMatch."""

    data: Literal["auto", "fashion_mnist", "digits"] = "auto"
    backbone: Annotated[str, "wrn-D-K or a torchvision classifier"] = "wrn-10-1"
    labels_per_class: int = 10
    pool_size: Annotated[int | None, "unlabeled images, drawn by the seed; all by default"] = None
    baseline: Annotated[bool, "also train on the labels alone"] = True
    seeds: Annotated[tuple[int, ...], "one run each"] = (0, 1, 2)
    output_dir: Path = Path("runs/fixmatch_fashion_mnist")
    resume: Annotated[bool, "go on where an earlier run stopped"] = False
    overwrite: Annotated[bool, "replace an earlier run"] = False


IMAGES = TrainConfig(
    max_steps=1000,
    eval_ema_decay=0.99,
    batch_size=32,
    unlabeled_ratio=7,
    learning_rate=2e-3,
    head_learning_rate=2e-3,
    schedule="cosine",
)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints FixMatch beside the label-only baseline."""
    recipe, config, fixmatch = options.parse(
        argv, Recipe(), IMAGES, FixMatch(), name="fixmatch_fashion_mnist.py", doc=__doc__
    )
    console.check_processes()
    check_output(recipe.output_dir, recipe.resume, recipe.overwrite)

    def task_of(seed: int) -> Task:
        images = load_images(recipe.data, recipe.labels_per_class, seed, pool_size=recipe.pool_size)
        return image_task(images, recipe.backbone)

    comparison = compare(
        fixmatch, task_of, config, recipe.seeds,
        baseline=recipe.baseline, output_dir=recipe.output_dir, resume=recipe.resume, overwrite=recipe.overwrite,
    )  # fmt: skip
    console.show(comparison)


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
