"""FixMatch on images (Sohn et al. 2020, arXiv:2001.07685) through the same loop as text.

accelerate launch recipes/fixmatch_fashion_mnist.py

Reads Fashion-MNIST where the Debian package `dataset-fashion-mnist` is installed, scikit-learn's digits otherwise.
"""

import sys
from dataclasses import replace
from pathlib import Path

from nlp_ssl import FixMatch
from nlp_ssl.cli import console
from nlp_ssl.cli.recipe import IMAGE_LOOP, Images, run

CONFIG = replace(IMAGE_LOOP, max_steps=1000, unlabeled_ratio=7)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints FixMatch beside the label-only baseline."""
    run(argv, __file__, __doc__, Images(output_dir=Path("runs/fixmatch_fashion_mnist")), CONFIG, FixMatch.for_images())


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
