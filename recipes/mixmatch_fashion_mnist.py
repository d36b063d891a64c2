"""MixMatch on images (Berthelot et al. 2019, arXiv:1905.02249): guess, sharpen, mix.

accelerate launch recipes/mixmatch_fashion_mnist.py
"""

import sys
from dataclasses import replace
from pathlib import Path

from nlp_ssl import MixMatch
from nlp_ssl.cli import console
from nlp_ssl.cli.recipe import IMAGE_LOOP, Images, run

CONFIG = replace(IMAGE_LOOP, max_steps=1000, batch_size=64, unlabeled_ratio=2)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints MixMatch beside the label-only baseline."""
    run(argv, __file__, __doc__, Images(output_dir=Path("runs/mixmatch")), CONFIG, MixMatch.for_images())


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
