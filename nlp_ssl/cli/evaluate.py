"""`nlp-ssl eval`: what a trained model is worth on labeled texts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import click
import numpy as np

from nlp_ssl.cli.command import Argument, Spec
from nlp_ssl.cli.files import Marking
from nlp_ssl.data.cleaning import markers_of
from nlp_ssl.data.label_sets import encode_sets, outside
from nlp_ssl.data.markers import MINUS_ONE, minus_one_error, stripped
from nlp_ssl.data.schema import log_notes
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import Table
from nlp_ssl.errors import DataError, nearest
from nlp_ssl.inference.metrics import Scores, confusion, score
from nlp_ssl.inference.predict import logits_of_texts, longest_text
from nlp_ssl.nets.text import check_pairs, class_names, load_trained
from nlp_ssl.utils.ranges import check


@dataclass(frozen=True, kw_only=True)
class EvalOptions(Marking):
    """Flags of `eval`."""

    text_column: Annotated[str | None, "column of the texts, where it is not found by itself"] = None
    label_column: Annotated[str | None, "column of the labels, where it is not found by itself"] = None
    label_separator: Annotated[str, "multi-label: what separates the labels of a row"] = ";"
    pair_column: Annotated[str | None, "column of the second texts, for a model of pairs"] = None
    encoding: Annotated[str, "of the file"] = "utf-8"
    on_bad_lines: Annotated[Literal["error", "skip"], "what to do with ragged rows"] = "error"
    split: Annotated[str | None, "rows of this split alone, e.g. test"] = None
    max_length: Annotated[int | None, "tokens; longer texts are cut; by default as in training"] = None
    json: Annotated[bool, "print JSON instead"] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length is not None:
            check(self.max_length, "max_length", 3, 1e6)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a file, and how many rows of each class [C] are given to each class [C]."""

    classes: tuple[str, ...]
    rows: int
    left_out: int
    scores: Scores
    confusion: np.ndarray


def main(model: str, file: str, options: EvalOptions) -> None:
    """Prints accuracy, macro F1, likelihood, calibration error and the confusions."""
    evaluation = evaluate_file(Path(model), file, options)
    if options.json:
        click.echo(json.dumps(as_json(evaluation), indent=1))
    else:
        for line in lines(evaluation):
            click.echo(line)


def evaluate_file(model: Path, file: str, options: EvalOptions) -> Evaluation:
    """Predicts the labeled texts of a file and scores the answers.

    Raises:
        DataError: the file cannot be read, has no label or one the model does not know, or there is no whole model.
    """
    net = load_trained(model, kinds=("single-label", "multi-label"))
    check_pairs(net.model.config, options.pair_column is not None)
    classes = tuple(stripped(name) for name in class_names(net.model.config))
    table = read_table(
        file,
        text_column=options.text_column,
        label_column=options.label_column,
        pair_column=options.pair_column,
        encoding=options.encoding,
        on_bad_lines=options.on_bad_lines,
        split=options.split,
        unlabeled_value=options.unlabeled_value,
        minus_one=options.minus_one,
        expect_labels=True,
        label_separator=options.label_separator if net.kind == "multi-label" else None,
        label_lists=net.kind == "multi-label",
        class_names=classes,
    )
    log_notes(table.notes)
    if (
        MINUS_ONE in (table.markers or ())
        and not markers_of(options.unlabeled_value, options.minus_one).minus_one_decided
    ):
        raise minus_one_error(f"{table.source}: label '-1'{', a class of the model,' * (MINUS_ONE in classes)}")
    labels = _indices(table, classes)
    known = np.flatnonzero(labels >= 0 if labels.ndim == 1 else (labels >= 0).any(1))
    if not len(known):
        raise DataError(139, f"{table.source}: no row has a label: add labels, or name another --label-column")
    scored = table.take(known)
    pairs = None if scored.pairs is None else scored.pairs.to_pylist()
    logits = logits_of_texts(net, scored.texts.to_pylist(), longest_text(net, options.max_length), pairs)
    return Evaluation(
        classes,
        len(known),
        len(table) - len(known),
        score(logits, labels[known]),
        confusion(logits, labels[known]),
    )


def _indices(table: Table, classes: Sequence[str]) -> np.ndarray:
    """The labels of each row as `TextData` has them."""
    if table.label_sets is not None:
        if (strange := outside(table.label_sets, classes)) is not None:
            _refuse_label(table, *strange, classes)
        return encode_sets(table.label_sets, classes, str)
    index = {None: -1} | {name: i for i, name in enumerate(classes)}
    for i, name in enumerate(table.labels or ()):
        if name not in index:
            _refuse_label(table, i, str(name), classes)
    return np.array([index[name] for name in table.labels or ()], dtype=np.int64)


def _refuse_label(table: Table, position: int, name: str, classes: Sequence[str]) -> NoReturn:
    place = f"{table.source} row {table.rows[position]}"
    raise DataError(196, f"{place}: label {name!r} is not a class of the model.{nearest(name, classes)}")


def lines(evaluation: Evaluation) -> Iterator[str]:
    """Scores, then a line for each class of the file."""
    left_out = f", {evaluation.left_out:,} without a label left out" if evaluation.left_out else ""
    yield f"rows               {evaluation.rows:,}{left_out}"
    for name, value in evaluation.scores.named().items():
        yield f"{name:18} {f'{value:.3f}' if 'F1' in name else f'{value:.1%}'}"
    yield f"nll                {evaluation.scores.nll:.3f}"
    yield f"calibration error  {evaluation.scores.calibration_error:.3f}"
    yield ""
    width = max(len(name) for name in ("class", *evaluation.classes))
    if evaluation.confusion.ndim == 3:
        yield from _label_lines(evaluation, width)
        return
    yield f"{'class':{width}}  {'rows':>6}  {'right':>6}  taken for"
    for i, name in enumerate(evaluation.classes):
        row = evaluation.confusion[i]
        if row.sum():
            others = [j for j in np.argsort(-row, kind="stable") if j != i and row[j]]
            wrong = ", ".join(f"{evaluation.classes[j]} {row[j]}" for j in others[:3]) + (
                ", ..." if len(others) > 3 else ""
            )
            yield f"{name:{width}}  {row.sum():>6}  {row[i] / row.sum():>6.1%}  {wrong or '-'}"


def _label_lines(evaluation: Evaluation, width: int) -> Iterator[str]:
    """A line for each label: how often it is there, is found, and is right where it is given."""
    yield f"{'label':{width}}  {'rows':>6}  {'found':>6}  {'right':>6}"
    for name, ((_, wrong), (missed, right)) in zip(evaluation.classes, evaluation.confusion, strict=True):
        shares = (f"{right / n:.1%}" if n else "-" for n in (right + missed, right + wrong))
        yield f"{name:{width}}  {right + missed:>6}  {'  '.join(f'{share:>6}' for share in shares)}"


def as_json(evaluation: Evaluation) -> dict[str, object]:
    """The same for machines; `confusion` has a row for each true class, or such a table for each label."""
    return {
        **asdict(evaluation.scores),
        "rows": evaluation.rows,
        "left_out": evaluation.left_out,
        "classes": list(evaluation.classes),
        "confusion": evaluation.confusion.tolist(),
    }


COMMANDS = {
    "eval": Spec(
        main,
        "score a trained model on labeled texts",
        "Scores a trained model on the labeled texts of FILE; rows without a label are left out. Where a label is -1, "
        "--minus-one has to say what it means.",
        "nlp-ssl eval out t.csv",
        flags=(EvalOptions(),),
        arguments=(Argument("model"), Argument("file")),
    )
}
