"""Meta Pseudo Labels on movie reviews (Pham et al. 2021, arXiv:2003.10580): a teacher judged by what its labels teach.

accelerate launch recipes/meta_pseudo_labels_reviews.py                    bundled reviews and encoder, 3 seeds
accelerate launch recipes/meta_pseudo_labels_reviews.py --labels soft      by the gradient through the student's step
accelerate launch recipes/meta_pseudo_labels_reviews.py --label-weight 0 --finetune 0.2    labels last, as in the paper
"""

import sys
from pathlib import Path

from nlp_ssl import MetaPseudoLabels, TrainConfig
from nlp_ssl.cli import console
from nlp_ssl.cli.recipe import Reviews, run

RECIPE = Reviews(output_dir=Path("runs/meta_pseudo_labels_reviews"), labels_per_class=40)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints Meta Pseudo Labels beside the label-only baseline."""
    run(argv, __file__, __doc__, RECIPE, TrainConfig(max_steps=100), MetaPseudoLabels())


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
