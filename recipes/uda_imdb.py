"""UDA on movie reviews (Xie et al. 2020, arXiv:1904.12848): few labels, many unlabeled reviews.

accelerate launch recipes/uda_imdb.py               embedded reviews and encoder: baseline and UDA, 3 seeds
accelerate launch recipes/uda_imdb.py --data hub    the paper's setting: bert-base-uncased, stanfordnlp/imdb, 20 labels
torchrun --nproc_per_node 2 recipes/uda_imdb.py     the same arithmetic on two processes
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nlp_ssl import UDA, Task, TrainConfig, build_data, compare, text_task
from nlp_ssl.cli import console, options
from nlp_ssl.cli.train import model_name
from nlp_ssl.data.embedded import load_embedded, load_named
from nlp_ssl.data.splits import draw_rows
from nlp_ssl.process import check_output


@dataclass(frozen=True)
class Recipe:
    """Flags beside those of the loop and of UDA."""

    data: Annotated[str, "embedded, hub, or a folder with train and test rows"] = "embedded"
    model: Annotated[str, "folder or hub name of the encoder"] = "embedded"
    labels_per_class: int = 40
    test_rows: Annotated[int, "test rows to score, drawn once; 0 takes all"] = 1000
    baseline: Annotated[bool, "also train on the labels alone, from the same start"] = True
    seeds: Annotated[tuple[int, ...], "one run each"] = (0, 1, 2)
    output_dir: Path = Path("runs/uda_imdb")
    resume: Annotated[bool, "go on where an earlier run stopped"] = False
    overwrite: Annotated[bool, "replace an earlier run"] = False


EMBEDDED = Recipe(), TrainConfig(max_steps=100), UDA()
PAPER = (
    Recipe(model="bert-base-uncased", labels_per_class=10, test_rows=0, seeds=(0,)),
    TrainConfig(max_steps=10_000, warm_start="none", head_learning_rate=2e-5, save_every=1000),
    UDA(threshold=0.0, temperature=1.0, tsa="linear", target_dropout=True),
)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints UDA beside the label-only baseline."""
    defaults = PAPER if "hub" in argv or "--data=hub" in argv else EMBEDDED
    recipe, config, uda = options.parse(argv, *defaults, name="uda_imdb.py", doc=__doc__)
    console.check_processes()
    check_output(recipe.output_dir, recipe.resume, recipe.overwrite)
    if recipe.data == "embedded":
        (train, test), dev = load_embedded("reviews"), None
    else:
        train, dev, test = load_named("stanfordnlp/imdb" if recipe.data == "hub" else recipe.data)
    if test is not None and 0 < recipe.test_rows < len(test):
        test = test.take(draw_rows(len(test), recipe.test_rows, seed=0))

    def task_of(seed: int) -> Task:
        data = build_data(train, None, dev, test, labels_per_class=recipe.labels_per_class, seed=seed, drop_leaks=True)
        return text_task(data, model_name(recipe.model), max_length=config.max_length)

    comparison = compare(
        uda, task_of, config, recipe.seeds,
        baseline=recipe.baseline, output_dir=recipe.output_dir, resume=recipe.resume, overwrite=recipe.overwrite,
    )  # fmt: skip
    console.show(comparison)


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
