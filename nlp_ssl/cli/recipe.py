"""What recipes share: flags of reviews and of images, and the way from flags to the closing table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nlp_ssl.cli import console, options
from nlp_ssl.cli.files import Marking
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.config import TrainConfig
from nlp_ssl.data.bundled import load_bundled, load_named
from nlp_ssl.data.images import named_images
from nlp_ssl.data.splits import draw_rows
from nlp_ssl.data.table import Table
from nlp_ssl.experiments.compare import compare
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.task import EncoderChoice, ImageSource, Task, TextSource
from nlp_ssl.training.run_folder import RunFolder

# Small images and a net that starts at random.
IMAGE_LOOP = TrainConfig(
    max_steps=600,
    batch_size=32,
    unlabeled_ratio=4,
    learning_rate=2e-3,
    head_learning_rate=2e-3,
    lr_scheduler_type="cosine",
    eval_ema_decay=0.99,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Flags of every recipe, beside those of the loop and of the method."""

    labels_per_class: int = 10
    baseline: Annotated[bool, "also train on the labels alone, from the same start"] = True
    seeds: Annotated[tuple[int, ...], "one run each"] = (0, 1, 2)
    output_dir: Path
    resume: Annotated[bool, "go on where an earlier run stopped"] = False
    overwrite: Annotated[bool, "replace an earlier run"] = False

    def task(self) -> Task:
        """Reads the data."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Reviews(Recipe, StrongView, Marking):
    """Movie reviews: the bundled ones, IMDb from the hub, or a folder of your own."""

    data: Annotated[str, "bundled, hub, or a folder with train and test rows"] = "bundled"
    model: Annotated[str, "folder or hub name of the encoder"] = "bundled"
    max_length: Annotated[int, "tokens of a text; longer ones are cut"] = 128
    test_rows: Annotated[int, "test rows to score, drawn once; 0 takes all"] = 1000

    def task(self) -> Task:
        """Reads the data; the first seed's labels are drawn."""
        train, dev, test = self.read()
        encoder = EncoderChoice(
            self.model, max_length=self.max_length, strong=self.policy(), rewritings=self.rewritings([train])
        )
        tables = {"labeled": train, "unlabeled": None, "dev": dev, "test": test}
        return TextSource(tables, encoder, self.labels_per_class, drop_leaks=True).task(self.seeds[0], None)

    def read(self) -> tuple[Table, Table | None, Table | None]:
        """The (train, dev, test) rows, as many of the last as asked for."""
        dev, test = None, None
        if self.data == "bundled":
            train, test = load_bundled("reviews")
        else:
            place = "stanfordnlp/imdb" if self.data == "hub" else self.data
            train, dev, test = load_named(place, unlabeled_value=self.unlabeled_value, minus_one=self.minus_one)
        if test is not None and 0 < self.test_rows < len(test):
            test = test.take(draw_rows(len(test), self.test_rows, seed=0))
        return train, dev, test


@dataclass(frozen=True, kw_only=True)
class Images(Recipe):
    """Fashion-MNIST where the Debian package `dataset-fashion-mnist` is installed, scikit-learn's digits otherwise."""

    data: Literal["auto", "fashion_mnist", "digits"] = "auto"
    backbone: Annotated[str, "wrn-D-K or a torchvision classifier"] = "wrn-10-1"
    pool_size: Annotated[int | None, "unlabeled images, drawn by the seed; all by default"] = None

    def task(self) -> Task:
        """The images; the first seed's labels and pool are drawn."""
        return ImageSource(named_images(self.data), self.backbone, self.labels_per_class, self.pool_size).task(
            self.seeds[0], None
        )


def run(
    argv: Sequence[str], file: str, doc: str | None, recipe: Recipe, config: TrainConfig, method: Method | RoundMethod
) -> None:
    """Parses the flags, trains, and prints the method beside the label-only baseline.

    Args:
        argv: the command line.
        file: the recipe's `__file__`, whose name the help shows.
        doc: the recipe's docstring, the head of the help.
        recipe: defaults of the data.
        config: defaults of the loop.
        method: the method with its defaults.
    """
    recipe, config, method = options.parse(argv, recipe, config, method, name=Path(file).name, doc=doc or "")
    console.check_processes()
    folder = RunFolder(recipe.output_dir, resume=recipe.resume)
    folder.check(overwrite=recipe.overwrite)
    comparison = compare(
        method,
        recipe.task(),
        config,
        seeds=recipe.seeds,
        baseline=recipe.baseline,
        folder=folder,
        overwrite=recipe.overwrite,
    )
    console.show(comparison)
    console.leave_report(recipe.output_dir)
