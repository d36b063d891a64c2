"""What there is to learn: rows with and without labels, the net that reads them, and the views made of them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import xxhash
from torch import Tensor

from nlp_ssl.augment.base import Augment, Identity
from nlp_ssl.augment.ctaugment import ImagePolicy, TextPolicy
from nlp_ssl.augment.image import OPS, FlipShift, Strong
from nlp_ssl.augment.policy import Rewritten, parse_policy
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.config import DEFAULT_MODEL, cache_folder
from nlp_ssl.data.arrays import Column, labeled_table, scored_table, text_table
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.columns import LABEL_COLUMNS
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.image_store import ImageStore
from nlp_ssl.data.images import ImageRows, image_rows, named_images
from nlp_ssl.data.markers import MinusOne
from nlp_ssl.data.pseudo_labels import labels_from_file
from nlp_ssl.data.schema import build_data, check_lengths, log_notes
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import Table, by_split, hidden_columns, in_roles
from nlp_ssl.data.tokens import TokenStore
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.teacher import joined, logits_of
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.image import ImageNet, build_image_net
from nlp_ssl.nets.text import Pooling, TextNet, load_text_net, load_trained, set_task
from nlp_ssl.ops.multilabel import refuse_multilabel
from nlp_ssl.paraphrase.views import rewritings_of
from nlp_ssl.training.view_strength import Strongest
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils.ranges import check

if TYPE_CHECKING:
    from nlp_ssl.data.sources import Source

# Word replacement as strong as the started model can stand.
TFIDF = Strongest((*(TfidfReplace(p) for p in (0.4, 0.2, 0.1, 0.05)), Identity()))
# Rewritings where there are some; how strongly words are replaced elsewhere is chosen in the same way.
REWRITTEN = Strongest(tuple(Rewritten(otherwise=way) for way in TFIDF.candidates))
log = logging.getLogger("nlp_ssl")
ROLES = ("labeled", "unlabeled", "dev", "test")

_MAX_WORDS = 4096  # words kept of one text: far beyond any max_length in use


class Drawing(Protocol):
    """What a task was made from, so that its labels can be drawn anew."""

    def task(self, seed: int, labels_per_class: int | None) -> "Task":
        """The task of a seed, with that many labels of every class, or as many as the task itself was made with."""
        ...


@dataclass(frozen=True)
class Task:
    """What there is to learn: `Task.from_texts`, `from_files`, `from_dataset` and `from_images` make one.

    Attributes:
        data: the rows.
        build: makes the net to train, called with 0, and further ones with 1, 2, ...
        augment: the augmentation of each kind of view. "controlled" is a policy that becomes an augmentation once the
            loop lets it read its rates, "probe" its probes.
        load: opens the net that a run of this task saved to a folder.
        origin: model, pooling and views in words: what a resumed run must share beside the rows.
        pseudo_labels: pseudo-labels for the pool from a file or a teacher.
        teacher: logits [U, C] of a trained net for the pool: what a frozen teacher of a method says.
        student: the same rows with the net of the students, where methods in rounds give them another.
        source: what the task was made from.
    """

    data: Data
    build: Callable[[int], Module]
    augment: Mapping[str, Any]
    load: Callable[[Path], Module]
    origin: tuple[tuple[str, str], ...] = ()
    pseudo_labels: PseudoLabels | None = None
    teacher: Tensor | None = None
    student: "Task | None" = None
    source: Drawing | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        data = self.data
        rows = ", ".join(
            f"{len(at):,} {role}" for role in ROLES if len(at := {"labeled": data.labeled, "unlabeled": data.unlabeled,
                                                                  "dev": data.dev, "test": data.test}[role])
        )  # fmt: skip
        return f"Task({rows}; classes: {', '.join(data.classes[:10])}{', ...' if len(data.classes) > 10 else ''})"

    def draw(self, seed: int, labels_per_class: int | None = None) -> "Task":
        """The task as a seed draws it: `labels_per_class` labels, the other labeled rows join the pool.

        Without `labels_per_class` here and when the task was made, all seeds have the same rows.

        Raises:
            ConfigError: the task was not made by one of the `from_` functions, so that nothing can be drawn anew.
            DataError: a class has fewer labels.
        """
        if labels_per_class is None and isinstance(self.source, TextSource) and self.source.labels_per_class is None:
            return self
        if self.source is not None:
            return self.source.task(seed, labels_per_class)
        if labels_per_class is not None:
            raise ConfigError(259, "labels_per_class draws rows: make the task with Task.from_texts or its siblings")
        return self

    def without_pool(self) -> "Task":
        """The same task for label-only training."""
        return replace(self, data=self.data.without_pool(), pseudo_labels=None, teacher=None, student=None)

    @classmethod
    def from_texts(
        cls,
        texts: Column,
        labels: Column,
        *,
        unlabeled: Column | None = None,
        dev: tuple[Column, Column] | None = None,
        test: tuple[Column, Column] | None = None,
        class_names: Sequence[str] | None = None,
        model: str | Path = DEFAULT_MODEL,
        pooling: Pooling = "auto",
        max_length: int = 128,
        strong: "Augment | Strongest | str | None" = None,
        labels_per_class: int | None = None,
        seed: int = 0,
        drop_leaks: bool = False,
        allow_transductive: bool = False,
        teacher: str | Path | None = None,
        student: str | Path | None = None,
        cache_dir: str | Path | None = None,
    ) -> "Task":
        """A task from columns in memory: lists, NumPy arrays, pandas, Polars or Arrow columns.

        Args:
            texts: texts [N], or pairs of texts.
            labels: their labels [N]; None, NaN, "" and -1 mean unlabeled. Lists or sets of labels, or an indicator
                matrix [N, C] with `class_names`, if the task is multi-label.
            unlabeled: further texts of the pool.
            dev: texts and labels for early stopping and for what is chosen.
            test: texts and labels for the scores; never looked at in training.
            class_names: names of the columns of an indicator matrix.
            model: folder or hub name of a pre-trained encoder; "bundled" for the one of the demo extra.
            pooling: how token vectors become one.
            max_length: tokens of a text; longer ones are cut.
            strong: the strong view, an augmentation or its name; chosen by itself if not given.
            labels_per_class: draw that many labels of every class; the other rows join the pool.
            seed: of that draw.
            drop_leaks: remove training and pool texts that are also dev or test texts.
            allow_transductive: keep pool texts that are also dev or test texts.
            teacher: folder of a saved classifier whose answers for the pool are learned.
            student: folder or hub name of the students' encoder, for methods in rounds.
            cache_dir: where tokenized texts are kept.

        Raises:
            ConfigError: the options contradict each other, or the model cannot be opened.
            DataError: a text or label cannot be used, or a class has too few rows.

        Example:
            task = Task.from_texts(["great fun", "so dull"], ["pos", "neg"], unlabeled=["pure joy", "a bore"])
            print(task)
        """
        table, classes = labeled_table(texts, labels, class_names)
        tables: dict[str, Table | None] = {"labeled": table}
        tables["unlabeled"] = None if unlabeled is None else text_table(unlabeled, None, "unlabeled")
        for role, part in (("dev", dev), ("test", test)):
            tables[role] = None if part is None else scored_table(part, role, class_names)
        source = TextSource(
            tables,
            EncoderChoice(
                str(model), pooling, max_length, strong, cache_dir=None if cache_dir is None else Path(cache_dir)
            ),
            labels_per_class,
            drop_leaks=drop_leaks,
            allow_transductive=allow_transductive,
            teacher=_path(teacher),
            student=None if student is None else str(student),
            classes=classes,
        )
        return source.task(seed, None)

    @classmethod
    def from_files(
        cls,
        labeled: "Source | Table",
        unlabeled: "Source | Table | None" = None,
        dev: "Source | Table | None" = None,
        test: "Source | Table | None" = None,
        *,
        text_column: str | None = None,
        label_column: str | None = None,
        pair_column: str | None = None,
        label_separator: str | None = None,
        class_names: Sequence[str] | None = None,
        unlabeled_value: str | None = None,
        minus_one: MinusOne | None = None,
        encoding: str = "utf-8",
        on_bad_lines: Literal["error", "skip"] = "error",
        model: str | Path = DEFAULT_MODEL,
        pooling: Pooling = "auto",
        max_length: int = 128,
        strong: "Augment | Strongest | str | None" = None,
        rewritings: pa.Table | None = None,
        labels_per_class: int | None = None,
        seed: int = 0,
        drop_leaks: bool = False,
        allow_transductive: bool = False,
        pseudo_labels: str | Path | None = None,
        teacher: str | Path | None = None,
        student: str | Path | None = None,
        cache_dir: str | Path | None = None,
    ) -> "Task":
        """A task from files (csv, tsv, jsonl, json, parquet, txt), folders, hub data sets, data frames or datasets.

        Args:
            labeled: rows with labels; where it has a column of splits, its dev and test rows are dev and test.
            unlabeled: rows without labels, or a txt file with a text per line.
            dev: labeled rows for early stopping and for what is chosen.
            test: labeled rows for the scores; never looked at in training.
            text_column: column of the texts, where it is not recognized by itself.
            label_column: column of the labels, where it is not recognized by itself; "a,b,c" where each has a column of
                0 and 1.
            pair_column: column of the second texts, where rows are pairs of texts.
            label_separator: between the labels of a row of multi-label data, e.g. ";".
            class_names: what the numbers stand for where labels are rows of 0 and 1.
            unlabeled_value: label that marks an unlabeled row, beside the empty one and -1.
            minus_one: what the label -1 is, "class" or "unlabeled", where others are numbers.
            encoding: of the files.
            on_bad_lines: what to do with ragged rows.
            model: folder or hub name of a pre-trained encoder; "bundled" for the one of the demo extra.
            pooling: how token vectors become one.
            max_length: tokens of a text; longer ones are cut.
            strong: the strong view, an augmentation or its name; chosen by itself if not given.
            rewritings: rewritings of texts, columns "text" and "view" (`nlp_ssl.paraphrase.views.read_views`).
            labels_per_class: draw that many labels of every class; the other rows join the pool.
            seed: of that draw.
            drop_leaks: remove training and pool texts that are also dev or test texts.
            allow_transductive: keep pool texts that are also dev or test texts.
            pseudo_labels: file of noisy labels for texts of the pool, or for more texts.
            teacher: folder of a saved classifier whose answers for the pool are learned.
            student: folder or hub name of the students' encoder, for methods in rounds.
            cache_dir: where tokenized texts are kept.

        Raises:
            ConfigError: the options contradict each other, or the model cannot be opened.
            DataError: a file cannot be read, a text or label cannot be used, or a class has too few rows.

        Example:
            from nlp_ssl import Task

            task = Task.from_files("labeled.csv", "pool.txt", test="test.csv")  # doctest: +SKIP
        """
        marks: dict[str, Any] = {"unlabeled_value": unlabeled_value, "minus_one": minus_one, "encoding": encoding}
        tables: dict[str, Table | None] = {}
        for role, given in zip(ROLES, (labeled, unlabeled, dev, test), strict=True):
            pool = role == "unlabeled"
            tables[role] = given if given is None or isinstance(given, Table) else read_table(
                given, text_column=text_column, label_column=None if pool else label_column, pair_column=pair_column,
                on_bad_lines=on_bad_lines, expect_labels=not pool, label_separator=label_separator, label_lists=True,
                label_columns=hidden_columns(tables["labeled"]) if pool else LABEL_COLUMNS,
                class_names=class_names, **marks,
            )  # fmt: skip
        noisy = None if pseudo_labels is None else NoisyLabels(
            pseudo_labels, text_column, label_column, encoding, unlabeled_value, minus_one
        )  # fmt: skip
        source = TextSource(
            in_roles(tables),
            EncoderChoice(
                str(model), pooling, max_length, strong, rewritings, None if cache_dir is None else Path(cache_dir)
            ),
            labels_per_class,
            drop_leaks=drop_leaks,
            allow_transductive=allow_transductive,
            pseudo_labels=noisy,
            teacher=_path(teacher),
            student=None if student is None else str(student),
        )
        return source.task(seed, None)

    @classmethod
    def from_dataset(
        cls,
        labeled: Any,
        unlabeled: Any = None,
        *,
        dev: Any = None,
        test: Any = None,
        text_column: str | None = None,
        label_column: str | None = None,
        pair_column: str | None = None,
        model: str | Path = DEFAULT_MODEL,
        pooling: Pooling = "auto",
        max_length: int = 128,
        strong: "Augment | Strongest | str | None" = None,
        labels_per_class: int | None = None,
        seed: int = 0,
        drop_leaks: bool = False,
        allow_transductive: bool = False,
        cache_dir: str | Path | None = None,
    ) -> "Task":
        """A task from `datasets`: a `Dataset`, or a `DatasetDict` with its splits as labeled, unlabeled, dev and test.

        Args:
            labeled: rows with labels, or a dict of splits.
            unlabeled: rows without labels.
            dev: labeled rows for early stopping and for what is chosen.
            test: labeled rows for the scores; never looked at in training.
            text_column: column of the texts, where it is not recognized by itself.
            label_column: column of the labels, where it is not recognized by itself.
            pair_column: column of the second texts, where rows are pairs of texts.
            model: folder or hub name of a pre-trained encoder; "bundled" for the one of the demo extra.
            pooling: how token vectors become one.
            max_length: tokens of a text; longer ones are cut.
            strong: the strong view, an augmentation or its name; chosen by itself if not given.
            labels_per_class: draw that many labels of every class; the other rows join the pool.
            seed: of that draw.
            drop_leaks: remove training and pool texts that are also dev or test texts.
            allow_transductive: keep pool texts that are also dev or test texts.
            cache_dir: where tokenized texts are kept.

        Raises:
            ConfigError, DataError: as `from_files`.

        Example:
            import datasets
            from nlp_ssl import Task

            rows = datasets.Dataset.from_dict({"text": ["great fun", "so dull"], "label": ["pos", "neg"]})
            task = Task.from_dataset(rows, datasets.Dataset.from_dict({"text": ["pure joy", "a bore"]}))
        """
        return cls.from_files(
            labeled, unlabeled, dev, test, text_column=text_column, label_column=label_column, pair_column=pair_column,
            model=model, pooling=pooling, max_length=max_length, strong=strong, labels_per_class=labels_per_class,
            seed=seed, drop_leaks=drop_leaks, allow_transductive=allow_transductive, cache_dir=cache_dir,
        )  # fmt: skip

    @classmethod
    def from_images(
        cls,
        images: np.ndarray | str,
        labels: Column | None = None,
        *,
        unlabeled: np.ndarray | None = None,
        dev: tuple[np.ndarray, Column] | None = None,
        test: tuple[np.ndarray, Column] | None = None,
        class_names: Sequence[str] | None = None,
        flip: bool = True,
        backbone: str = "wrn-10-1",
        labels_per_class: int | None = None,
        pool_size: int | None = None,
        seed: int = 0,
    ) -> "Task":
        """A task from images in memory, or from a collection by name.

        Args:
            images: uint8 [N, H, W, 1 or 3]; or "digits" (of scikit-learn), "fashion_mnist" (of the Debian package
                dataset-fashion-mnist), "auto" for the latter where it is installed and the former elsewhere.
            labels: their labels [N]; None and -1 mean unlabeled. Collections bring their own.
            unlabeled: further images of the pool.
            dev: images and labels for early stopping and for what is chosen.
            test: images and labels for the scores; never looked at in training.
            class_names: names of the classes, where labels are their numbers.
            flip: whether a mirrored image keeps its class.
            backbone: "wrn-DEPTH-WIDTH", or the name of a torchvision classifier.
            labels_per_class: draw that many labels of every class; the other rows join the pool.
            pool_size: unlabeled images to draw; all if not given.
            seed: of these draws.

        Raises:
            ConfigError: there is no such backbone or collection, or a size is out of range.
            DataError: images or labels cannot be used, or a class has too few.

        Example:
            task = Task.from_images("digits", labels_per_class=2, pool_size=96)
            print(task)
        """
        if isinstance(images, str):
            if labels is not None or labels_per_class is None:
                raise ConfigError(260, f"{images} brings its own labels: give labels_per_class, and no labels")
            rows = named_images(images)
        else:
            rows = image_rows(images, labels, unlabeled, dev, test, class_names, flip)
        return ImageSource(rows, backbone, labels_per_class, pool_size).task(seed, None)


@dataclass(frozen=True)
class EncoderChoice:
    """How texts are read: by which encoder, how much of each, and what its strong view is."""

    model: str
    pooling: Pooling = "auto"
    max_length: int = 128
    strong: Augment | Strongest | str | None = None
    rewritings: pa.Table | None = None
    cache_dir: Path | None = None

    def task(self, data: Data) -> Task:
        """The task of these texts."""
        strong = parse_policy(self.strong) if isinstance(self.strong, str) else self.strong
        return text_task(
            data, self.model, pooling=self.pooling, strong=strong, views=self.rewritings,
            max_length=self.max_length, cache_dir=self.cache_dir,
        )  # fmt: skip


@dataclass(frozen=True)
class NoisyLabels:
    """A file of labels for texts of the pool, and how to read it."""

    path: str | Path
    text_column: str | None = None
    label_column: str | None = None
    encoding: str = "utf-8"
    unlabeled_value: str | None = None
    minus_one: MinusOne | None = None

    def texts(self) -> Table:
        """Its texts, but for those of dev and test."""
        whole = read_table(self.path, text_column=self.text_column, encoding=self.encoding, label_columns=())
        return by_split(whole)[0]  # its dev and test rows must not train

    def labels(self, pool: pa.ChunkedArray, classes: Sequence[str]) -> PseudoLabels:
        """What it says of a pool."""
        return labels_from_file(
            self.path, pool, classes, text_column=self.text_column, label_column=self.label_column,
            encoding=self.encoding, unlabeled_value=self.unlabeled_value, minus_one=self.minus_one,
        )  # fmt: skip


@dataclass(frozen=True)
class TextSource:
    """Tables of texts by role, and what tasks are made of them; `classes` [C] are in the type of the labels."""

    tables: Mapping[str, Table | None]
    encoder: EncoderChoice
    labels_per_class: int | None = None
    drop_leaks: bool = False
    allow_transductive: bool = False
    pseudo_labels: NoisyLabels | None = None
    teacher: Path | None = None
    student: str | None = None
    classes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.pseudo_labels is not None and self.teacher is not None:
            raise ConfigError(232, "--pseudo-labels and --teacher both label the pool: give one of them")
        if self.pseudo_labels is not None and (labeled := self.tables["labeled"]) is not None:
            # Texts that have noisy labels are among the pool.
            pool = joined(self.tables["unlabeled"], self.pseudo_labels.texts(), labeled)
            object.__setattr__(self, "tables", {**self.tables, "unlabeled": pool})

    def task(self, seed: int, labels_per_class: int | None) -> Task:
        """The task of a seed, with that many labels of every class, or as many as `labels_per_class` says."""
        return self.task_of(self.data(seed, labels_per_class))

    def data(self, seed: int, labels_per_class: int | None = None) -> Data:
        """The rows of that task: no model is opened for them."""
        return build_data(
            self.tables["labeled"], self.tables["unlabeled"], self.tables["dev"], self.tables["test"],
            labels_per_class=labels_per_class or self.labels_per_class, seed=seed,
            allow_transductive=self.allow_transductive, drop_leaks=self.drop_leaks,
        )  # fmt: skip

    def task_of(self, data: Data) -> Task:
        """The task of these rows."""
        task = self.encoder.task(data)
        log_notes(task.data.notes)
        student = None if self.student is None else replace(self.encoder, model=self.student).task(data)
        return replace(self._with_labels(task), student=student, source=self)

    def _with_labels(self, task: Task) -> Task:
        """The task with what others say of its pool: a file of labels, or a teacher."""
        if self.pseudo_labels is None and self.teacher is None:
            return task
        data = task.data
        if data.kind == "multi-label":
            refuse_multilabel("training on given pseudo-labels or a teacher's")
        if data.pairs is not None:
            raise ConfigError(
                453, "--pseudo-labels and --teacher are for single texts: leave out --pair-column, or them"
            )
        assert data.texts is not None
        pool = data.texts.take(pa.array(data.unlabeled))
        if self.pseudo_labels is not None:
            labels = self.pseudo_labels.labels(pool, data.classes)
            used = int((labels.copies > 0).sum())
            log.info("labels for %d of %d pool texts from %s", used, len(pool), self.pseudo_labels.path)
            return replace(task, pseudo_labels=labels)
        assert self.teacher is not None
        return replace(task, teacher=logits_of(self.teacher, pool, data.classes, self.encoder.cache_dir))


@dataclass(frozen=True)
class ImageSource:
    """Images, and what tasks are made of them."""

    rows: ImageRows
    backbone: str
    labels_per_class: int | None = None
    pool_size: int | None = None

    def task(self, seed: int, labels_per_class: int | None) -> Task:
        """The task of a seed, with that many labels of every class, or as many as `labels_per_class` says."""
        data = self.rows.draw(labels_per_class or self.labels_per_class, seed, pool_size=self.pool_size)
        return replace(image_task(data, self.backbone), source=self)


def text_task(
    data: Data,
    model: str,
    *,
    pooling: Pooling = "auto",
    strong: Augment | Strongest | None = None,
    views: pa.Table | None = None,
    max_length: int = 128,
    cache_dir: Path | None = None,
) -> Task:
    """Tokenizes the texts once (memory-mapped, cached by content) and prepares the classifier.

    Augmentation statistics come from the labeled and unlabeled rows alone, never from dev or test texts.

    Args:
        data: the texts and their parts.
        model: folder or hub name of the encoder; "bundled" for the one of the demo extra.
        pooling: how token vectors become one.
        strong: the strong view; if not given words are replaced, or rewritings taken where `views` has them.
        views: rewritings of texts, columns "text" and "view" (`nlp_ssl.paraphrase.views.read_views`).
        max_length: tokens of a row at most.
        cache_dir: where tokenized texts are kept.

    Raises:
        ConfigError: the model cannot be opened.
    """
    place = encoder_name(model)

    def build_net(number: int) -> Module:
        net = load_text_net(place, data.classes, pooling=pooling)
        net.tokenizer.model_max_length = max_length  # saved with the model: it is used on texts cut alike
        set_task(net.model.config, data.kind, data.pairs is not None)
        return net

    # The default model is the same wherever it is opened from.
    origin = (("model", model if model == DEFAULT_MODEL else place), ("pooling", pooling))
    return task_of_nets(
        data, build_net, origin=origin, strong=strong, views=views, max_length=max_length, cache_dir=cache_dir
    )


def task_of_nets(
    data: Data,
    build: Callable[[int], Module],
    *,
    origin: tuple[tuple[str, str], ...] = (),
    strong: Augment | Strongest | None = None,
    views: pa.Table | None = None,
    max_length: int = 128,
    cache_dir: Path | None = None,
) -> Task:
    """As `text_task`, for text nets that `build` makes; `origin` says in words what they are made from."""
    first, texts = build(0), data.texts
    assert isinstance(first, TextNet) and texts is not None
    check(max_length, "max_length", 3, 1e6)
    longest = first.longest()
    if longest is not None and max_length > longest:
        raise ConfigError(229, f"max_length is {max_length}, the model has positions for {longest} tokens: lower it")
    size, training = len(texts), np.concatenate([data.labeled, data.unlabeled])
    if data.pairs is not None:
        texts = pa.chunked_array([*texts.chunks, *data.pairs.chunks])
        training = np.concatenate([training, training + size])
    rewritings, positions = (None, None) if views is None else rewritings_of(texts, views)
    store = TokenStore.build(
        texts if rewritings is None else pa.chunked_array([*texts.chunks, *rewritings.chunks]),
        first.tokenizer,
        cache_dir=cache_dir or cache_folder(),
        fit_rows=np.sort(training),
        max_words=_MAX_WORDS,
        max_length=max_length,
    )
    if positions is not None:
        store.rewritings = positions
    if data.pairs is not None:
        store.join(np.arange(size, 2 * size), first.tokenizer)
    strong = strong or (TFIDF if views is None else REWRITTEN)
    note = check_lengths(store.lengths[:size], max_length)
    policy = TextPolicy()
    return Task(
        replace(data, tokens=store, notes=data.notes if note is None else (*data.notes, note)),
        build,
        {"weak": Identity(), "strong": strong, "controlled": policy, "probe": policy.probe()},
        partial(load_trained, kinds=("single-label", "multi-label")),
        origin=(
            *origin, ("max_length", str(max_length)), ("strong", repr(strong)), ("views", _name(rewritings)),
            *(() if data.kind == "single-label" else (("labels", "multi-label"),)),
        ),
    )  # fmt: skip


def _path(place: str | Path | None) -> Path | None:
    return None if place is None else Path(place)


def _name(rewritings: pa.ChunkedArray | None) -> str:
    """A hash of the rewritings, so that a resumed run notices others."""
    if rewritings is None:
        return ""
    digest = xxhash.xxh3_128()
    for text in rewritings.to_pylist():
        digest.update(f"{text}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()


def image_task(data: Data, backbone: str) -> Task:
    """Prepares a torchvision backbone or a Wide-ResNet ("wrn-16-2") for images, with FixMatch's two views.

    Raises:
        ConfigError: no such backbone.
    """
    store = data.images
    assert isinstance(store, ImageStore)
    channels = store.images.shape[-1]
    weak = FlipShift(flip=store.flip)

    def build_net(number: int) -> Module:
        return build_image_net(
            backbone, len(data.classes), channels, classes=data.classes, mean=store.mean, std=store.std
        )

    policy = ImagePolicy(tuple(op for op in OPS if op != "color" or channels == 3), flip_shift=weak)
    views = {"weak": weak, "strong": Strong(flip_shift=weak), "controlled": policy, "probe": policy.probe()}
    return Task(data, build_net, views, ImageNet.load, origin=(("model", backbone),))
