"""SentAugment (Du et al. 2021, arXiv:2010.02194): sentences of a bank, labeled by a teacher, teach a student.

nlp-ssl index build news.txt books.txt --sentences --out bank
accelerate launch recipes/sentaugment_reviews.py --bank bank
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from nlp_ssl import Supervised, TrainConfig
from nlp_ssl.cli import console, options
from nlp_ssl.cli.recipe import Reviews
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.schema import build as build_data
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.compare import Comparison, run_one
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.inference.predict import logits_of_texts
from nlp_ssl.retrieval import Index
from nlp_ssl.retrieval.sentaugment import Retrieval, augment, with_sentences
from nlp_ssl.task import text_task
from nlp_ssl.training.run_folder import check_output


@dataclass(frozen=True, kw_only=True)
class Bank:
    """The bank beside the reviews."""

    bank: Annotated[Path | None, "folder that `nlp-ssl index build` made"] = None


def main(argv: list[str]) -> None:
    """Trains a teacher on the labels and a student on what it says of the bank, for every seed."""
    reviews = Reviews(output_dir=Path("runs/sentaugment"), labels_per_class=40)
    bank, retrieval, reviews, config, method = options.parse(
        argv, Bank(), Retrieval(), reviews, TrainConfig(max_steps=100), Supervised(), name=Path(__file__).name,
        doc=__doc__ or "",
    )  # fmt: skip
    if bank.bank is None:
        raise ConfigError(206, "this recipe needs --bank, a folder that `nlp-ssl index build` made")
    check_output(reviews.output_dir, reviews.resume, reviews.overwrite)
    index, (train, dev, test), model = Index.open(bank.bank), reviews.read(), encoder_name(reviews.model)
    sides = {"start": [], "supervised": [], "sentaugment": []}
    for seed in reviews.seeds:
        place, settings = reviews.output_dir / f"seed-{seed}", replace(config, seed=seed)
        texts = build_data(
            train, None, dev, test, labels_per_class=reviews.labels_per_class, seed=seed, drop_leaks=True
        )
        task = text_task(texts, model, max_length=config.max_length)
        shared = {"start": SharedStart(task, settings, place), "resume": reviews.resume}
        alone = replace(task, data=task.data.without_pool())
        sides["supervised"].append(run_one(method, alone, settings, output_dir=place / "teacher", **shared))
        sides["start"].append(shared["start"].outcome())
        teacher, labels = task.saved(place / "teacher"), texts.labels[texts.labeled]
        own, scored = (texts.texts.take(rows).to_pylist() for rows in (texts.labeled, np.r_[texts.dev, texts.test]))
        found = augment(index, own, labels, scored, lambda t, net=teacher: logits_of_texts(net, t, config.max_length),
                        retrieval)  # fmt: skip
        more, given = with_sentences(texts, found)
        student = replace(text_task(more, model, max_length=config.max_length), given=given)
        sides["sentaugment"].append(run_one(method, student, settings, output_dir=place / "student", **shared))
    console.show(Comparison("sentaugment", reviews.seeds, {name: tuple(side) for name, side in sides.items()}))


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
