"""The classifier: a scikit-learn estimator that learns from labeled and unlabeled texts, and what every run ends in."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from transformers import TrainerCallback

from nlp_ssl.augment.base import Augment
from nlp_ssl.config import DEFAULT_MODEL, TrainConfig
from nlp_ssl.data.arrays import (
    Column,
    InputError,
    labeled_accuracy,
    labeled_table,
    read_pairs,
    scored_table,
    sets_right,
    split_pairs,
    text_table,
)
from nlp_ssl.data.cleaning import label_name
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.image_store import ImageStore
from nlp_ssl.data.table import Table
from nlp_ssl.errors import ConfigError, Interrupted
from nlp_ssl.experiments.runs import run_one
from nlp_ssl.inference.predict import logits_of_texts, longest_text, predict, probabilities
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.image import ImageNet
from nlp_ssl.nets.text import TextNet, check_pairs
from nlp_ssl.registry import as_method
from nlp_ssl.task import EncoderChoice, Task, TextSource
from nlp_ssl.training.checks import check_run
from nlp_ssl.training.classifier_files import open_classifier, save_classifier, save_params, upload
from nlp_ssl.training.classifier_params import NestedParams, changed, short
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.training.view_strength import Strongest
from nlp_ssl.types import Kind
from nlp_ssl.utils.progress import verbosity
from nlp_ssl.utils.ranges import check
from nlp_ssl.utils.ranks import is_main

_OF_CONFIG = {  # parameters that are settings of the loop: None leaves them to `config`
    "max_steps": "max_steps",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "random_state": "seed",
}


class Pool:
    """Unlabeled texts that scikit-learn's tools hand on whole, also where they are as many as the labeled rows.

    `GridSearchCV` and `cross_val_score` cut every argument of `fit` that is as long as X along with it. A pool in this
    wrapper stays as it is.

    Args:
        texts: texts, or pairs of texts.

    Example:
        from sklearn.model_selection import GridSearchCV
        from nlp_ssl import Pool, SSLClassifier, TrainConfig

        texts = ["a joy from start to end", "great fun", "dull and far too long", "a waste of time"]
        classifier = SSLClassifier("bundled", max_steps=1, config=TrainConfig(warm_steps=1))
        search = GridSearchCV(classifier, {"method__threshold": [0.6, 0.9]}, cv=2)
        search.fit(texts, ["pos", "pos", "neg", "neg"], unlabeled=Pool(["pure joy", "so dull", "fun", "a bore"]))
        print(search.best_params_)
    """

    def __init__(self, texts: Column) -> None:
        self.texts = texts


class SSLClassifier(ClassifierMixin, NestedParams):  # type: ignore[misc]  # scikit-learn has no types
    """Fine-tunes a pre-trained encoder on a few labeled and many unlabeled texts.

    Args:
        model: folder or hub name of a pre-trained encoder; "bundled" for the one of the demo extra.
        method: name of a method, or a method with its hyper-parameters: `UDA(threshold=0.9)`.
        max_steps: steps of the method, after the warm start on the labels; those of `config` if not given.
        batch_size: labeled rows per step; that of `config` if not given.
        learning_rate: of the encoder; that of `config` if not given.
        max_length: tokens of a text; longer ones are cut.
        strong: the strong view, an augmentation or its name; chosen by itself if not given.
        config: all further settings: `TrainConfig(warm_start="none")`.
        class_names: names of the columns, where labels are rows of 0 and 1.
        threshold: probability from which `predict` gives a label, where rows have several labels.
        random_state: seed of draws, order, noise and initial weights; that of `config` if not given.
        verbose: whether progress is shown.

    Attributes:
        classes_: the classes [C], sorted, in the type of the labels; columns of `predict_proba` and outputs of the
            saved model are in this order.
        net_: the trained net; `net_.model` is the one of transformers.
        notes_: what was dropped, counted or looks doubtful in the texts and labels.

    In `fit`, rows labeled -1, None, NaN or "" are unlabeled. (scikit-learn's own tools sort labels: among strings give
    them "", not None.) Words are classes, also "nan", which NumPy makes of NaN among strings. Where -1 or such a word
    may be meant otherwise there is a warning. `score` is the accuracy on the rows that have a label, so that a grid
    search scores folds with unlabeled rows rightly. A grid reaches the options of a method as `method__threshold`, also
    where `method` is a name, and settings as `config__warm_steps`.

    Example:
        from nlp_ssl import SSLClassifier, TrainConfig

        texts = ["a joy from start to end", "great fun", "dull and far too long", "a waste of time"]
        classifier = SSLClassifier("bundled", max_steps=2, config=TrainConfig(warm_steps=10))
        classifier.fit(texts, ["pos", "pos", "neg", "neg"], unlabeled=["pure joy", "so dull"])
        print(classifier.predict(["great acting"]), classifier.predict_proba(["great acting"]))
    """

    _is_clone = False  # scikit-learn's tools train clones: see `_check_pool`

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        method: str | Method | RoundMethod = "uda",
        *,
        max_steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_length: int = 128,
        strong: Augment | Strongest | str | None = None,
        config: TrainConfig | None = None,
        class_names: Sequence[str] | None = None,
        threshold: float = 0.5,
        random_state: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.model = model
        self.method = method
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_length = max_length
        self.strong = strong
        self.config = config
        self.class_names = class_names
        self.threshold = threshold
        self.random_state = random_state
        self.verbose = verbose

    # --- parameters ---

    def _config(self) -> TrainConfig:
        """The settings, with those that are parameters of their own."""
        given = {name: self.__dict__[param] for param, name in _OF_CONFIG.items()}
        own = {name: value for name, value in given.items() if value is not None}
        return changed(self._settings(), own)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        method = repr(self.method) if isinstance(self.method, str) else short(self.method)
        classes = [] if "classes_" not in self.__dict__ else self.classes_.tolist()
        some = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
        return f"SSLClassifier({str(self.model)!r}, method={method}, {f'classes {some}' if some else 'not fitted'})"

    def __sklearn_clone__(self) -> Self:
        twin: Self = super().__sklearn_clone__()
        twin._is_clone = True
        return twin

    # --- learning ---

    def fit(
        self,
        X: Column,
        y: Column,
        unlabeled: "Column | Pool | None" = None,
        sample_weight: Column | None = None,
        dev: tuple[Column, Column] | None = None,
        output_dir: str | Path | None = None,
        resume: bool = False,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> Self:
        """Trains on texts X [N] with labels y [N], and on unlabeled texts.

        Stopped by Ctrl-C, it keeps the net as far as it is trained, which then predicts.

        Args:
            X: texts, or pairs of texts.
            y: their labels; lists or sets of labels, or a matrix of 0 and 1, where rows have several.
            unlabeled: further texts of the pool; in scikit-learn's own tools as `Pool(texts)`.
            sample_weight: weights [N] of the labeled rows.
            dev: texts and labels for early stopping.
            output_dir: where metrics, checkpoints and the trained model are written; nothing is written without it.
            resume: go on where an earlier run in `output_dir` stopped.
            callbacks: called as by `transformers.Trainer`.

        Raises:
            ConfigError: a parameter is unknown or out of range, the method cannot do it, or the model cannot be opened.
            DataError: a text or label cannot be used, or a class has too few.
            RunError: the loss stopped being finite.
            Interrupted: SIGINT or SIGTERM arrived; it is a KeyboardInterrupt.
        """
        method, config = as_method(self.method), self._config()
        check(self.threshold, "threshold", 0.0, 1.0)
        if not isinstance(self.model, str | Path):
            kind = type(self.model).__name__
            raise ConfigError(491, f"model is a {kind}: give a name or a folder; SSLTrainer trains model objects")
        if output_dir is None and resume:
            raise ConfigError(213, "resume needs an output folder: give output_dir")
        folder = None if output_dir is None else RunFolder(output_dir, resume=resume)
        if folder is not None:
            folder.check()
        with verbosity(self.verbose):
            source, classes = self._source(X, y, unlabeled, dev)
            data = source.data(config.seed)
            if sample_weight is not None:
                data = _weighted(data, source.tables["labeled"], sample_weight, len(split_pairs(X)[0]))
            check_run(method, data, config, folder=folder is not None)
            task = source.task_of(data)
            try:
                module = run_one(method, task, config, folder=folder, callbacks=callbacks).module
            except Interrupted as stop:
                if stop.module is not None:
                    self._fitted(stop.module, classes, task.data.notes)
                raise
        if folder is not None:
            module = module or task.load(folder.path)  # it was complete before
        assert module is not None  # without a folder no run is complete before
        self._fitted(module, classes, task.data.notes)
        if folder is not None:
            self.save_params(folder.path)
        return self

    def _fitted(self, module: Module, classes: np.ndarray, notes: tuple[str, ...]) -> None:
        self.net_, self.classes_, self.notes_ = module.eval(), classes, notes

    def _source(
        self, X: Column, y: Column, unlabeled: "Column | Pool | None", dev: tuple[Column, Column] | None
    ) -> tuple[TextSource, np.ndarray]:
        table, classes = labeled_table(X, y, self.class_names)
        tables: dict[str, Table | None] = {"labeled": table, "unlabeled": None, "dev": None, "test": None}
        if unlabeled is not None:
            pool = unlabeled.texts if isinstance(unlabeled, Pool) else unlabeled
            if self._is_clone and not isinstance(unlabeled, Pool):
                _check_pool(X, pool)
            tables["unlabeled"] = text_table(pool, None, "unlabeled")
        if dev is not None:
            tables["dev"] = scored_table(dev, "dev", self.class_names)
        encoder = EncoderChoice(str(self.model), max_length=self.max_length, strong=self.strong)
        return TextSource(tables, encoder, classes=classes), classes

    def save_params(self, folder: Path) -> None:
        """Writes parameters and classes beside a net that a run has saved; the first process does it.

        Raises:
            RunError: the folder cannot be written.
        """
        if is_main():
            save_params(folder, self.classes_, self.get_params(deep=False))

    # --- answering ---

    def predict_proba(self, X: Column) -> np.ndarray:
        """Probabilities [n, C] of the classes, in the order of `classes_`; where rows have several, each label's own.

        Args:
            X: texts, pairs of texts, or images uint8 [n, H, W, channels], as the net was trained on.

        Raises:
            NotFittedError: the classifier has not been fitted.
            InputError: a text is missing.
        """
        check_is_fitted(self)
        p: np.ndarray = probabilities(self._logits(X), self._kind).numpy()
        return p

    def predict(self, X: Column) -> np.ndarray | list[list[Any]]:
        """The most likely classes [n], in the type of the labels; a list of labels per row, where rows have several."""
        p = self.predict_proba(X)
        if self._kind == "multi-label":
            return [self.classes_[row >= self.threshold].tolist() for row in p]
        labels: np.ndarray = self.classes_[p.argmax(1)]
        return labels

    def score(self, X: Column, y: Column, sample_weight: Column | None = None) -> float:
        """Accuracy on the rows that have a label; where rows have several, the share with all of them right."""
        predicted = self.predict(X)
        if isinstance(predicted, np.ndarray):
            return labeled_accuracy(y, predicted, sample_weight)
        names = [str(label_name(value)) for value in self.classes_.tolist()]
        return sets_right(y, predicted, names, self.class_names, sample_weight)

    @property
    def _kind(self) -> Kind:
        return self.net_.kind if isinstance(self.net_, TextNet) else "single-label"

    def _logits(self, X: Column) -> Tensor:
        net = self.net_
        if isinstance(net, ImageNet):
            store = ImageStore.like(np.asarray(X), *net.normalization())
            return predict(net, store, np.arange(len(store)))
        assert isinstance(net, TextNet)
        texts, pairs = read_pairs(X)
        check_pairs(net.model.config, pairs is not None)
        return logits_of_texts(net, texts, longest_text(net), pairs)

    # --- files ---

    @classmethod
    def from_net(
        cls,
        net: Module,
        *,
        classes: np.ndarray | None = None,
        model: str | Path = DEFAULT_MODEL,
        method: str | Method | RoundMethod = "uda",
        max_length: int = 128,
        strong: Augment | Strongest | str | None = None,
        config: TrainConfig | None = None,
    ) -> Self:
        """A fitted classifier around a trained net.

        Args:
            net: the net, of texts or images.
            classes: its classes [C], where they are not the names that the net has.
            model: folder or hub name of the encoder, for `fit`; as are the others.
            method: name of a method, or a method.
            max_length: tokens of a text.
            strong: the strong view.
            config: settings.
        """
        classifier = cls(model, method, max_length=max_length, strong=strong, config=config)
        classifier._fitted(net, np.array(net.classes, dtype=object) if classes is None else classes, ())
        return classifier

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model, which opens with `AutoModelForSequenceClassification`, and a small JSON file beside it.

        Raises:
            NotFittedError: the classifier has not been fitted.
            RunError: the folder cannot be written.
        """
        check_is_fitted(self)
        save_classifier(Path(folder), self.net_, self.classes_, self.get_params(deep=False))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """A fitted classifier: one that `save_pretrained` or a run wrote, or any sequence classifier of transformers.

        Args:
            folder: a folder, or a name of the hub.

        Raises:
            ConfigError: the model cannot be opened, or holds no classifier.
            DataError: its settings are damaged.
        """
        saved = open_classifier(str(folder), cls().get_params(deep=False))
        classifier = cls(**saved.params)
        classifier._fitted(saved.net, saved.classes, ())
        return classifier

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload classifier",
    ) -> str:
        """Uploads what `save_pretrained` writes to a repository of the hub, and returns its address.

        Args:
            repo_id: "owner/name"; it is created where it does not exist.
            private: whether a new repository is private.
            token: of the account; the one that is logged in if not given.
            commit_message: of the upload.

        Raises:
            NotFittedError: the classifier has not been fitted.
            RunError: the hub cannot be reached, or does not let this account write there.
        """
        check_is_fitted(self)
        return upload(repo_id, self.save_pretrained, private=private, token=token, commit_message=commit_message)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def classifier_of(net: Module, task: Task, method: Method | RoundMethod, config: TrainConfig) -> SSLClassifier:
    """A fitted classifier around the net of a run, with the parameters of the run."""
    source = task.source
    if not isinstance(source, TextSource):
        return SSLClassifier.from_net(net, method=method, config=config)
    encoder = source.encoder
    return SSLClassifier.from_net(
        net, classes=source.classes, model=encoder.model, method=method, max_length=encoder.max_length,
        strong=encoder.strong, config=config,
    )  # fmt: skip


def _weighted(data: Data, table: Table | None, sample_weight: Column, rows: int) -> Data:
    """The rows with the labeled ones weighted; rows that were dropped take their weight with them."""
    try:
        weights = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError):
        weights = np.full(0, np.nan)
    if weights.shape != (rows,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(188, f"sample_weight should be {rows} numbers of 0 or more: give one for each text")
    assert table is not None
    weights = weights[table.rows[data.labeled] - 1]
    if not weights.any():
        raise InputError(188, "all weights of labeled rows are zero: give sample_weight above zero to rows that count")
    digest = xxhash.xxh3_128_hexdigest(weights.tobytes())
    counts = weights > 0  # a row without weight is as if it were not there, for every part of a method
    content_hash = f"{data.content_hash} weighted {digest}"
    return replace(data, labeled=data.labeled[counts], weights=weights[counts], content_hash=content_hash)


def _check_pool(X: Column, pool: Column) -> None:
    """Refuses a pool that scikit-learn's tools may have cut along with X; they train clones.

    Raises:
        InputError: it is as long as X.
    """
    rows = len(split_pairs(X)[0])
    if len(split_pairs(pool)[0]) == rows:
        raise InputError(
            128, f"the pool has {rows} texts, as many as X, and scikit-learn's tools cut such arguments of fit along "
            "with X: give it as unlabeled=Pool(texts)"
        )  # fmt: skip
