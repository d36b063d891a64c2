"""Data sets of `datasets` as the toolkit's texts, and what a `transformers.Trainer` iterates over."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import datasets
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.cleaning import clean_name
from nlp_ssl.data.columns import LABEL_COLUMNS, TEXT_COLUMNS
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.label_sets import is_list, list_flags
from nlp_ssl.data.markers import CONVENTION, MINUS_ONE, spelling, stripped
from nlp_ssl.data.schema import MANY_CLASSES, build_data, in_order, log_notes, refuse_markers
from nlp_ssl.data.table import Table, hidden_columns, memory_table
from nlp_ssl.errors import ConfigError, DataError, listed
from nlp_ssl.nets.text import class_names
from nlp_ssl.ops.multilabel import refuse_multilabel
from nlp_ssl.types import Batch

log = logging.getLogger("nlp_ssl")
_READ_AS_LABELS = ("label", "labels", "label_ids")  # columns that collators take for the labels of a batch


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
    names = class_names(config)
    if len(set(names)) < len(names):
        raise ConfigError(488, f"the model calls two classes alike ({listed(names)}): make it with other names")
    numbered = _table(labeled, "train_dataset", config, pair_column)
    _check_classes(numbered, config)
    train, same = _named(numbered, names), hidden_columns(numbered)
    pool = None
    if unlabeled is not None:
        pool = _named(_table(unlabeled, "unlabeled_dataset", config, pair_column, same), names)
    devs: list[Table | None] = [
        _named(_table(dataset, "eval_dataset", config, pair_column), names)
        for dataset in evaluated
        if isinstance(dataset, datasets.Dataset) and _column(dataset, TEXT_COLUMNS)
    ]
    for dev in devs or [None]:
        data = build_data(train, pool, dev, allow_transductive=allow_transductive)
    log_notes(data.notes)
    return replace(data, dev=data.dev[:0])


def classes_of(dataset: Any, pair_column: str | None) -> tuple[str, ...]:
    """The classes of labeled rows for which there is no model yet, in the order of its outputs.

    Those that the dataset declares; numbers are the places of the outputs; words stand in the order that tasks have
    them in.

    Raises:
        ConfigError: the dataset has no texts.
        DataError: texts or labels cannot be used as they are.
    """
    text, label = _columns(dataset, "train_dataset", pair_column, LABEL_COLUMNS)
    if label is None:
        raise DataError(132, "train_dataset: no row has a label: label a few texts of each class")
    if isinstance(dataset.features[label], datasets.ClassLabel):
        return tuple(dataset.features[label].names)
    values = dataset.with_format(None)[label][:]
    if any(map(is_list, values)):
        refuse_multilabel("SSLTrainer")
    names = {name for name in _cleaned(values, "train_dataset", None).labels or () if name is not None}
    numbers = [int(name) for name in names if name.isdecimal()]
    all_numbers = len(numbers) == len(names) and not any(map(_is_word, values))
    if all_numbers and max(numbers, default=MANY_CLASSES) < MANY_CLASSES:
        return tuple(str(i) for i in range(max(numbers) + 1))
    return tuple(in_order(names))


def tokenized(
    dataset: Any,
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    max_length: int,
    pair_column: str | None = None,
    *,
    scored: bool = True,
) -> Any:
    """A dataset of texts with their tokens, and labels as the numbers of the model's outputs; others as they are.

    Where rows are `scored`, those without a label are left out; elsewhere all stay, and have labels if none lacks one.

    Raises:
        ConfigError: a label is not a class of the model.
        DataError: a label is none.
    """
    if not isinstance(dataset, datasets.Dataset):
        return dataset
    dataset = _with_numbers(dataset, config, scored)
    if "input_ids" in dataset.column_names:
        return dataset
    _check_pairs(dataset, "eval_dataset", pair_column)
    columns = [column for column in (_column(dataset, TEXT_COLUMNS), pair_column) if column is not None]
    return dataset.map(
        lambda rows: tokenizer(*(rows[column] for column in columns), truncation=True, max_length=max_length),
        batched=True,
    )


def _with_numbers(dataset: datasets.Dataset, config: PreTrainedConfig, scored: bool) -> datasets.Dataset:
    """The rows with the numbers of their classes in a column "labels"."""
    label = _column(dataset, LABEL_COLUMNS)
    if label is None:
        return dataset
    values = dataset.with_format(None)[label][:]
    _check_order(dataset.features[label], "eval_dataset", config)
    table = _cleaned(_as_numbers(values, config, "eval_dataset"), "eval_dataset", config)
    if scored:
        refuse_markers(table, "eval")
    _check_classes(table, config)
    numbers = [None if name is None else int(name) for name in table.labels or ()]
    if numbers == values and all(type(value) is int for value in values) and label in _READ_AS_LABELS:
        return dataset
    label_columns = [column for column in {label, *_READ_AS_LABELS} if column in dataset.column_names]
    dataset, known = (
        dataset.remove_columns(label_columns),
        [i for i, number in enumerate(numbers) if number is not None],
    )
    if scored and 0 < len(known) < len(numbers):
        log.warning("eval_dataset: rows left out because they have no label: %d", len(numbers) - len(known))
        dataset, numbers = dataset.select(known), [numbers[i] for i in known]
    return dataset.add_column("labels", numbers) if known and None not in numbers else dataset


def _cleaned(labels: Sequence[Any], name: str, config: PreTrainedConfig | None) -> Table:
    """A table of these labels alone, read as those of training."""
    names = None if config is None else _numbers(config)
    return memory_table(["a text"] * len(labels), labels, CONVENTION, None, name, class_names=names)


def _is_word(value: Any) -> bool:
    """Whether a label is a name, and not the number of an output."""
    return isinstance(value, str | bool)


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


def _check_classes(table: Table, config: PreTrainedConfig) -> None:
    """Refuses labels that are no class of the model.

    Raises:
        ConfigError: there is one.
    """
    numbers = _numbers(config)
    unknown = next((name for name in table.labels or () if name is not None and name not in numbers), None)
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


def _named(table: Table, names: Sequence[str]) -> Table:
    """A table of numbers of classes with their names; numbers of no class stay."""
    name_of = {str(i): name for i, name in enumerate(names)}
    labels = None if table.labels is None else [None if y is None else name_of.get(y, y) for y in table.labels]
    return replace(table, labels=labels, classes=tuple(names))


def _table(
    dataset: Any,
    name: str,
    config: PreTrainedConfig,
    pair_column: str | None,
    label_columns: Sequence[str] = LABEL_COLUMNS,
) -> Table:
    """Texts with the numbers of their classes, which stand in one of these columns."""
    text, label = _columns(dataset, name, pair_column, label_columns)
    plain = dataset.with_format(None)
    if label is not None:
        _check_order(dataset.features[label], name, config)
    labels = None if label is None else _as_numbers(plain[label], config, name)
    pairs = None if pair_column is None else plain[pair_column]
    table = memory_table(plain[text], labels, CONVENTION, pairs, name, class_names=_numbers(config))
    return replace(table, label_column=label)


def _columns(dataset: Any, name: str, pair_column: str | None, label_columns: Sequence[str]) -> tuple[str, str | None]:
    """The columns of the texts and of the labels.

    Raises:
        ConfigError: there are no texts.
    """
    if not isinstance(dataset, datasets.Dataset):
        raise ConfigError(471, f"{name} is a {type(dataset).__name__}: give a datasets.Dataset with a column 'text'")
    text = _column(dataset, TEXT_COLUMNS)
    if text is None:
        raise ConfigError(
            471,
            f"{name} has no column of texts but {', '.join(dataset.column_names)}: views are made from words, keep the "
            "texts in a column 'text' beside the tokens",
        )
    _check_pairs(dataset, name, pair_column)
    return text, _column(dataset, label_columns)


def _as_numbers(labels: Sequence[Any], config: PreTrainedConfig, name: str) -> list[Any]:
    """Labels with the number of their class for its name; what is no class of the model stays as it is.

    Raises:
        ConfigError: the data is multi-label, or may be.
        DataError: -1 is the name of a class.
    """
    if any(map(is_list, labels)) and config.problem_type != "single_label_classification":
        if all(list_flags(row) is not None for row in labels if is_list(row)):
            raise ConfigError(
                485,
                f"{name} has rows of 0 and 1, SSLTrainer takes single-label data only: if there is one 1 in each, set "
                'problem_type="single_label_classification" in the config of the model',
            )
        refuse_multilabel("SSLTrainer")
    label2id = {stripped(word): number for word, number in cast(dict[str, int], config.label2id).items()}
    if MINUS_ONE in label2id and any(not isinstance(v, str) and not is_list(v) and v == -1 for v in labels):
        raise DataError(
            116,
            f"{name}: label -1 may be the class '-1' of the model or mean unlabeled: write {label2id[MINUS_ONE]}, the "
            "number of the class, or None",
        )
    return [_number(value, label2id) if _is_word(value) else value for value in labels]


def _number(word: str | bool, label2id: dict[str, int]) -> Any:
    """The number of a class by its name, as it is written or as names are kept.

    Where there is none a truth value is a number, and a word stays as it is.
    """
    with suppress(TypeError):  # a list in a string is no name
        for name in (stripped(str(word)), clean_name(word)):
            if name in label2id:
                return label2id[name]
    return int(word) if isinstance(word, bool) else word


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
        columns = ", ".join(dataset.column_names)
        raise ConfigError(471, f"{name} has no column {pair_column!r} of second texts: it has {columns}")


def _column(dataset: datasets.Dataset, names: Sequence[str]) -> str | None:
    return next((column for name in names for column in dataset.column_names if stripped(column) == name), None)
