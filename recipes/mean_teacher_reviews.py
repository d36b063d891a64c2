"""Mean Teacher on movie reviews (Tarvainen & Valpola 2017, arXiv:1703.01780): agree with one's own running average.

accelerate launch recipes/mean_teacher_reviews.py                  bundled reviews and encoder, 3 seeds, and baseline
accelerate launch recipes/mean_teacher_reviews.py --data FOLDER    your own train and test rows
"""

import sys
from pathlib import Path

from nlp_ssl import MeanTeacher, TrainConfig
from nlp_ssl.cli import console
from nlp_ssl.cli.recipe import Reviews, run

RECIPE = Reviews(output_dir=Path("runs/mean_teacher_reviews"), labels_per_class=40)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints Mean Teacher beside the label-only baseline."""
    run(argv, __file__, __doc__, RECIPE, TrainConfig(max_steps=100), MeanTeacher())


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
