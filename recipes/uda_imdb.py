"""UDA on movie reviews (Xie et al. 2020, arXiv:1904.12848): few labels, many unlabeled reviews.

accelerate launch recipes/uda_imdb.py               bundled reviews and encoder: baseline and UDA, 3 seeds
accelerate launch recipes/uda_imdb.py --data hub    the paper's setting: bert-base-uncased, stanfordnlp/imdb, 20 labels
torchrun --nproc_per_node 2 recipes/uda_imdb.py     the same arithmetic on two processes
"""

import sys
from pathlib import Path

from nlp_ssl import UDA, TrainConfig
from nlp_ssl.cli import console
from nlp_ssl.cli.recipe import Reviews, run

OUT = Path("runs/uda_imdb")
BUNDLED = Reviews(output_dir=OUT, labels_per_class=40), TrainConfig(max_steps=100), UDA()
PAPER = (
    Reviews(output_dir=OUT, model="bert-base-uncased", labels_per_class=10, test_rows=0, seeds=(0,)),
    TrainConfig(max_steps=10_000, warm_start="none", head_learning_rate=2e-5, save_steps=1000),
    UDA(threshold=0.0, temperature=1.0, tsa="linear", target_dropout=True),
)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints UDA beside the label-only baseline."""
    run(argv, __file__, __doc__, *(PAPER if "hub" in argv or "--data=hub" in argv else BUNDLED))


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
