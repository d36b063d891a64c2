"""Data sets of `datasets` as the toolkit's texts, and what a `transformers.Trainer` iterates over."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import datasets
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.columns import LABEL_COLUMNS, TEXT_COLUMNS
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.label_sets import is_list, list_flags
from nlp_ssl.data.markers import CONVENTION, MINUS_ONE, spelling, stripped
from nlp_ssl.data.schema import build, log_notes
from nlp_ssl.data.table import Table, hidden_columns, memory_table
from nlp_ssl.errors import ConfigError, DataError, listed
from nlp_ssl.nets.text import class_names
from nlp_ssl.ops.multilabel import refuse
from nlp_ssl.types import Batch


def texts_of(
    config: PreTrainedConfig,
    labeled: Any,
    unlabeled: Any,
    evaluated: Sequence[Any],
    allow_transductive: bool,
    pair_column: str | None = None,
) -> Data:
    """The texts, checked against each other, with the classes of the model in the order of its outputs.

    With `pair_column` rows are pairs, whose second texts stand in it.
    Of the datasets `evaluated` those that have texts are looked through for texts that are also trained on.

    Raises:
        ConfigError: a dataset has no texts, or a label that is not a class of the model.
        DataError: texts or labels cannot be used as they are.
    """
    train = _table(labeled, "train_dataset", config, pair_column)
    _check_classes(train, config)
    same = hidden_columns(train)
    pool = None if unlabeled is None else _table(unlabeled, "unlabeled_dataset", config, pair_column, same)
    devs: list[Table | None] = [
        _table(dataset, "eval_dataset", config, pair_column)
        for dataset in evaluated
        if isinstance(dataset, datasets.Dataset) and _column(dataset, TEXT_COLUMNS)
    ]
    for dev in devs or [None]:
        found = build(train, pool, dev, allow_transductive=allow_transductive)
    log_notes(found.notes)
    return replace(found, classes=tuple(class_names(config)), dev=found.dev[:0])


def tokenized(dataset: Any, tokenizer: PreTrainedTokenizerBase, max_length: int, pair_column: str | None = None) -> Any:
    """A dataset of texts with their tokens; anything else as it is."""
    if not isinstance(dataset, datasets.Dataset) or "input_ids" in dataset.column_names:
        return dataset
    _check_pairs(dataset, "eval_dataset", pair_column)
    columns = [column for column in (_column(dataset, TEXT_COLUMNS), pair_column) if column is not None]
    return dataset.map(
        lambda rows: tokenizer(*(rows[column] for column in columns), truncation=True, max_length=max_length),
        batched=True,
    )


class Pass:
    """Numbers of the micro-batches of the pass that a training is in, none beyond its last step."""

    def __init__(self, step: Callable[[], int], steps: int, config: TrainConfig) -> None:
        self.step, self.steps, self.config = step, steps, config

    def __len__(self) -> int:
        return self.steps * self.config.gradient_accumulation_steps

    def __iter__(self) -> Iterator[list[int]]:
        first = self.step() // self.steps * self.steps
        last = min(first + self.steps, self.config.max_steps)
        return (
            [i]
            for i in range(
                first * self.config.gradient_accumulation_steps, last * self.config.gradient_accumulation_steps
            )
        )


def only(batches: list[Batch]) -> dict[str, Any]:
    """The one batch, its tokens also where the Trainer counts them."""
    return {**batches[0], **batches[0]["inputs"]}


def _check_classes(train: Table, config: PreTrainedConfig) -> None:
    """Refuses labels that are no class of the model.

    Raises:
        ConfigError: there is one.
    """
    numbers = _numbers(config)
    unknown = next((name for name in train.labels or () if name is not None and name not in numbers), None)
    if unknown is not None:
        raise ConfigError(475, f"label {unknown!r} is not a class of the model: {_remedy(unknown, config)}")


def _remedy(label: str, config: PreTrainedConfig) -> str:
    """What a model lacks that does not know a label: outputs for a number, a name for a word."""
    if label.isdecimal():
        return f"it has 0 to {cast(int, config.num_labels) - 1}, make it with a larger num_labels"
    known = listed([repr(name) for name in cast(dict[str, int], config.label2id)])
    return f"its label2id has {known}, make it with the label2id and id2label of your labels"


def _numbers(config: PreTrainedConfig) -> tuple[str, ...]:
    """The classes of the model by number: "0", "1", ..."""
    return tuple(str(i) for i in range(cast(int, config.num_labels)))


def _table(
    dataset: Any,
    name: str,
    config: PreTrainedConfig,
    pair_column: str | None,
    label_columns: Sequence[str] = LABEL_COLUMNS,
) -> Table:
    """Texts with the numbers of their classes, which stand in one of these columns."""
    if not isinstance(dataset, datasets.Dataset):
        raise ConfigError(471, f"{name} is a {type(dataset).__name__}: give a datasets.Dataset with a column 'text'")
    text, label = _column(dataset, TEXT_COLUMNS), _column(dataset, label_columns)
    if text is None:
        raise ConfigError(
            471,
            f"{name} has no column of texts but {', '.join(dataset.column_names)}: views are made from words, keep the "
            "texts in a column 'text' beside the tokens",
        )
    _check_pairs(dataset, name, pair_column)
    plain = dataset.with_format(None)
    if label is not None:
        _check_order(dataset.features[label], name, config)
    labels = None if label is None else _as_numbers(plain[label], config, name)
    pairs = None if pair_column is None else plain[pair_column]
    table = memory_table(plain[text], labels, CONVENTION, pairs, name, class_names=_numbers(config))
    return replace(table, label_column=label)


def _as_numbers(labels: Sequence[Any], config: PreTrainedConfig, name: str) -> list[Any]:
    """Labels with the number of their class for its name; what is no class of the model stays as it is.

    Raises:
        ConfigError: rows have several labels, or may have.
        DataError: -1 is the name of a class.
    """
    if any(map(is_list, labels)) and config.problem_type != "single_label_classification":
        if all(list_flags(row) is not None for row in labels if is_list(row)):
            raise ConfigError(
                485,
                f"{name} has rows of 0 and 1, SSLTrainer takes one label a row: if there is one 1 in each, set "
                'problem_type="single_label_classification" in the config of the model',
            )
        refuse("SSLTrainer")
    label2id = {stripped(word): number for word, number in cast(dict[str, int], config.label2id).items()}
    if MINUS_ONE in label2id and any(not isinstance(v, str) and not is_list(v) and v == -1 for v in labels):
        raise DataError(
            116,
            f"{name}: label -1 may be the class '-1' of the model or mean unlabeled: write {label2id[MINUS_ONE]}, the "
            "number of the class, or None",
        )
    return [label2id.get(stripped(value), value) if isinstance(value, str) else value for value in labels]


def _check_order(feature: Any, name: str, config: PreTrainedConfig) -> None:
    """Refuses numbers that stand for other classes than the model's of the same names.

    Raises:
        ConfigError: they do.
    """
    known = class_names(config)
    if not isinstance(feature, datasets.ClassLabel):
        return
    places = {spelling(label): i for i, label in enumerate(known)}
    if any(places.get(spelling(label), i) != i for i, label in enumerate(feature.names)):
        raise ConfigError(
            484, f"{name} counts its classes as {', '.join(feature.names)}, the model as {', '.join(known)}: load the "
            "model with the id2label and label2id of the dataset"
        )  # fmt: skip


def _check_pairs(dataset: datasets.Dataset, name: str, pair_column: str | None) -> None:
    if pair_column is not None and pair_column not in dataset.column_names:
        there = ", ".join(dataset.column_names)
        raise ConfigError(471, f"{name} has no column {pair_column!r} of second texts: it has {there}")


def _column(dataset: datasets.Dataset, names: Sequence[str]) -> str | None:
    return next((column for name in names for column in dataset.column_names if stripped(column) == name), None)
