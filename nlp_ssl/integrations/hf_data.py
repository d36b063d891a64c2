"""Data sets of `datasets` as the toolkit's texts, and what a `transformers.Trainer` iterates over."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import datasets
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.label_sets import is_list
from nlp_ssl.data.schema import TextData, build
from nlp_ssl.data.sources import LABEL_COLUMNS, TEXT_COLUMNS, Table, table_of
from nlp_ssl.errors import ConfigError, listed
from nlp_ssl.many import refuse
from nlp_ssl.method import Batch
from nlp_ssl.nets.text import class_names

log = logging.getLogger("nlp_ssl")


def texts_of(
    config: PreTrainedConfig,
    labeled: Any,
    unlabeled: Any,
    evaluated: Sequence[Any],
    allow_transductive: bool,
    pair_column: str | None = None,
) -> TextData:
    """The texts, checked against each other, with the classes of the model in the order of its outputs.

    With `pair_column` rows are pairs, whose second texts stand in it.
    Of the datasets `evaluated` those that have texts are looked through for texts that are also trained on.

    Raises:
        ConfigError: a dataset has no texts, or a label that is not a class of the model.
        DataError: texts or labels cannot be used as they are.
    """
    train = _table(labeled, "train_dataset", config, pair_column)
    pool = None if unlabeled is None else _table(unlabeled, "unlabeled_dataset", config, pair_column)
    devs: list[Table | None] = [
        _table(dataset, "eval_dataset", config, pair_column)
        for dataset in evaluated
        if isinstance(dataset, datasets.Dataset) and _column(dataset, TEXT_COLUMNS)
    ]
    for dev in devs or [None]:
        found = build(train, pool, dev, allow_transductive=allow_transductive)
    for note in found.notes:
        log.log(logging.WARNING if note.startswith("warning") else logging.INFO, "%s", note)
    return _in_order_of(config, replace(found, dev=found.dev[:0]))


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
        return self.steps * self.config.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        first = self.step() // self.steps * self.steps
        last = min(first + self.steps, self.config.max_steps)
        return ([i] for i in range(first * self.config.accumulate, last * self.config.accumulate))


def only(batches: list[Batch]) -> dict[str, Any]:
    """The one batch, its tokens also where the Trainer counts them."""
    return {**batches[0], **batches[0]["inputs"]}


def _in_order_of(config: PreTrainedConfig, text: TextData) -> TextData:
    numbers = _numbers(config)
    unknown = next((name for name in text.classes if name not in numbers), None)
    if unknown is not None:
        raise ConfigError(475, f"label {unknown!r} is not a class of the model: {_remedy(unknown, config)}")
    return replace(text, classes=tuple(class_names(config)))


def _remedy(label: str, config: PreTrainedConfig) -> str:
    """What a model lacks that does not know a label: outputs for a number, a name for a word."""
    if label.isdecimal():
        return f"it has 0 to {cast(int, config.num_labels) - 1}, make it with a larger num_labels"
    known = listed([repr(name) for name in cast(dict[str, int], config.label2id)])
    return f"its label2id has {known}, make it with the label2id and id2label of your labels"


def _numbers(config: PreTrainedConfig) -> tuple[str, ...]:
    """The classes of the model by number: "0", "1", ..."""
    return tuple(str(i) for i in range(cast(int, config.num_labels)))


def _table(dataset: Any, name: str, config: PreTrainedConfig, pair_column: str | None) -> Table:
    """Texts with the numbers of their classes."""
    if not isinstance(dataset, datasets.Dataset):
        raise ConfigError(471, f"{name} is a {type(dataset).__name__}: give a datasets.Dataset with a column 'text'")
    text, label = _column(dataset, TEXT_COLUMNS), _column(dataset, LABEL_COLUMNS)
    if text is None:
        raise ConfigError(
            471,
            f"{name} has no column of texts but {', '.join(dataset.column_names)}: views are made from words, keep the "
            "texts in a column 'text' beside the tokens",
        )
    _check_pairs(dataset, name, pair_column)
    plain = dataset.with_format(None)
    if label is not None and any(map(is_list, plain[label])):
        refuse("SSLTrainer")
    if label is not None:
        _check_order(dataset.features[label], name, config)
    label2id = cast(dict[str, int], config.label2id)
    labels = None if label is None else [label2id.get(value, value) for value in plain[label]]
    pairs = None if pair_column is None else plain[pair_column]
    return replace(table_of(plain[text], labels, pairs=pairs, source=name), classes=_numbers(config))


def _check_order(feature: Any, name: str, config: PreTrainedConfig) -> None:
    """Refuses numbers that stand for the model's classes in another order.

    Raises:
        ConfigError: they do.
    """
    known = class_names(config)
    if isinstance(feature, datasets.ClassLabel) and feature.names != known and sorted(feature.names) == sorted(known):
        raise ConfigError(
            484, f"{name} counts its classes as {', '.join(feature.names)}, the model as {', '.join(known)}: load the "
            "model with the id2label and label2id of the dataset"
        )  # fmt: skip


def _check_pairs(dataset: datasets.Dataset, name: str, pair_column: str | None) -> None:
    if pair_column is not None and pair_column not in dataset.column_names:
        there = ", ".join(dataset.column_names)
        raise ConfigError(471, f"{name} has no column {pair_column!r} of second texts: it has {there}")


def _column(dataset: datasets.Dataset, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in dataset.column_names), None)
