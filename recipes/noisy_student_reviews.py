"""Noisy Student on movie reviews (Xie et al. 2020, arXiv:1911.04252): a clean teacher, noised students, in rounds.

accelerate launch recipes/noisy_student_reviews.py
"""

import sys
from pathlib import Path

from nlp_ssl import NoisyStudent, TrainConfig
from nlp_ssl.cli import console
from nlp_ssl.cli.recipe import Reviews, run

REVIEWS = Reviews(output_dir=Path("runs/noisy_student"), labels_per_class=40)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints the last student beside the label-only baseline."""
    run(argv, __file__, __doc__, REVIEWS, TrainConfig(max_steps=100), NoisyStudent())


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
