"""VAT on movie reviews (Miyato et al. 2018, arXiv:1704.03976): noise on word embeddings instead of other words.

accelerate launch recipes/vat_reviews.py                    bundled reviews and encoder: baseline and VAT, 3 seeds
accelerate launch recipes/vat_reviews.py --data FOLDER      your own train and test rows
accelerate launch recipes/vat_reviews.py --eval-fgsm 0.02   a second test score, under noise that hurts
"""

import sys
from pathlib import Path

from nlp_ssl import VAT, TrainConfig
from nlp_ssl.cli import console
from nlp_ssl.cli.recipe import Reviews, run

RECIPE = Reviews(output_dir=Path("runs/vat_reviews"), labels_per_class=40)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints VAT beside the label-only baseline."""
    run(argv, __file__, __doc__, RECIPE, TrainConfig(max_steps=100), VAT())


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
