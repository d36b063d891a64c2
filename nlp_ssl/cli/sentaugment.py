"""`nlp-ssl select --index`: sentences of a bank for the task, labeled by a teacher (SentAugment)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click
import numpy as np

from nlp_ssl.cli.command import Spec
from nlp_ssl.cli.files import Files, tables, text
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.predict import logits_of_texts, longest_text
from nlp_ssl.nets.text import class_names, load_trained
from nlp_ssl.retrieval import Index
from nlp_ssl.retrieval.sentaugment import LabeledSentence, Retrieval, augment, by_class, write_sentences


@dataclass(frozen=True)
class SentAugmentOptions:
    """Flags of `select --index` beside those of the files and of retrieval."""

    index: Annotated[Path | None, "bank that `nlp-ssl index build` made"] = None
    teacher: Annotated[Path | None, "saved classifier that labels what is retrieved"] = None
    encoder: Annotated[str | None, "where the encoder of the bank is now, if it was moved"] = None
    seed: Annotated[int, "draws the labels where --labels-per-class is given"] = 0
    out: Annotated[Path | None, "Parquet file that `nlp-ssl train --pseudo-labels` takes"] = None
    overwrite: Annotated[bool, "replace that file"] = False


def main(options: SentAugmentOptions, retrieval: Retrieval, files: Files) -> None:
    """Retrieves, labels and writes sentences for a task."""
    if options.index is None or options.teacher is None or options.out is None or files.labeled is None:
        raise ConfigError(206, "select --index BANK needs --labeled FILE, --teacher FOLDER and --out FILE")
    if files.pair_column is not None:
        raise ConfigError(454, "select --index retrieves single texts: leave out --pair-column")
    if options.out.exists() and not options.overwrite:
        raise ConfigError(442, f"{options.out} exists: name another file or add --overwrite")
    data = text(files, tables(files), options.seed)
    assert data.texts is not None
    teacher = load_trained(options.teacher)
    known = class_names(teacher.model.config)
    if sorted(known) != sorted(data.classes):
        raise ConfigError(
            238, f"the teacher knows the classes {', '.join(known)}, the labels {', '.join(data.classes)}"
        )
    columns, longest = [known.index(name) for name in data.classes], longest_text(teacher)
    index = Index.open(options.index, None if options.encoder is None else encoder_name(options.encoder))
    sentences = augment(
        index,
        data.texts.take(data.labeled).to_pylist(),
        data.labels[data.labeled],
        data.texts.take(np.concatenate([data.dev, data.test])).to_pylist(),
        lambda texts: logits_of_texts(teacher, texts, longest)[:, columns],
        retrieval,
    )
    write_sentences(options.out, sentences, data.classes)
    for line in _lines(sentences, data.classes, retrieval.per_class):
        click.echo(line)


def _lines(sentences: Sequence[LabeledSentence], classes: Sequence[str], keep: int) -> Iterator[str]:
    yield f"{len(sentences)} sentences kept"
    for name, number, least in by_class(sentences, classes):
        short = f": fewer than the {keep} asked for" if number < keep else ""
        yield f"  {name}: {number}{f', probability from {least:.3f}' if number else ''}{short}"


COMMANDS = {
    "select --index": Spec(
        main,
        "sentences of a bank for the task, labeled by a teacher",
        "SentAugment: retrieves sentences like the labeled texts from a bank, without copies of the task's own texts, "
        "and keeps those that the teacher is surest of, equally many of each class. nlp-ssl train --pseudo-labels "
        "takes the result.",
        "nlp-ssl select --index bank --labeled l.csv --test t.csv --teacher out --out found.parquet",
        flags=(SentAugmentOptions(), Retrieval(), Files()),
        first=("index", "labeled", "test", "labels_per_class", "teacher", "query_by", "per_query", "per_class", "out",
               "overwrite"),
    )
}  # fmt: skip
