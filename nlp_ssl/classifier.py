"""The classifier: a scikit-learn estimator that learns from labeled and unlabeled texts, and what every run ends in."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Never, Self, cast

import numpy as np
from huggingface_hub import HfApi
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from transformers import TrainerCallback

from nlp_ssl.augment.base import Augment
from nlp_ssl.config import DEFAULT_MODEL, TrainConfig
from nlp_ssl.data.arrays import (
    Column,
    InputError,
    is_multilabel,
    labeled_accuracy,
    labeled_table,
    listed_sets,
    read_pairs,
    text_table,
)
from nlp_ssl.data.cleaning import label_name
from nlp_ssl.data.image_store import ImageStore
from nlp_ssl.errors import ConfigError, Interrupted, nearest
from nlp_ssl.experiments.runs import run_one
from nlp_ssl.inference.predict import logits_of_texts, longest_text, predict, probabilities
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.image import ImageNet
from nlp_ssl.nets.text import TextNet, load_text_net
from nlp_ssl.registry import as_method, get_method
from nlp_ssl.task import EncoderChoice, Task, TextSource
from nlp_ssl.training.model_files import save_model
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.training.view_strength import Strongest
from nlp_ssl.types import Kind
from nlp_ssl.utils import atomic
from nlp_ssl.utils.progress import verbosity
from nlp_ssl.utils.ranges import make

_FILE = "nlp_ssl_classifier.json"  # written last: a folder without it holds no whole classifier
_OF_CONFIG = {  # parameters that are settings of the loop: None leaves them to `config`
    "max_steps": "max_steps",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "random_state": "seed",
}


class Pool:
    """Unlabeled texts that scikit-learn's tools hand on whole, also where they are as many as the labeled rows.

    `GridSearchCV` and `cross_val_score` cut every argument of `fit` that is as long as X along with it. A pool in this
    wrapper stays as it is: `GridSearchCV(...).fit(texts, labels, unlabeled=Pool(pool))`.

    Args:
        texts: texts, or pairs of texts.
    """

    def __init__(self, texts: Column) -> None:
        self.texts = texts


class SSLClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
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
        threshold: probability from which a label applies, where rows have several labels.
        random_state: seed of draws, order, noise and initial weights; that of `config` if not given.
        verbose: whether progress is shown.

    Attributes:
        classes_: the classes [C], sorted, in the type of the labels; the saved model has them in the same order.
        net_: the trained net; `net_.model` is the one of transformers.
        notes_: what was dropped, counted or looks doubtful in the texts and labels.

    In `fit`, rows labeled -1, None, NaN or "" are unlabeled. (scikit-learn's own tools sort labels: among strings give
    them "", not None.) Words are classes, also "nan", which NumPy makes of NaN among strings. Where -1 or such a word
    may be meant otherwise there is a warning. `score` is the accuracy on the rows that have a label, so that a grid
    search scores folds with unlabeled rows rightly. A grid reaches the options of a method as `method__threshold`, also
    where `method` is a name, and settings as `config__warm_steps`.

    Raises:
        ConfigError: there is no such parameter; the message names the nearest.

    Example:
        from nlp_ssl import SSLClassifier, TrainConfig

        texts = ["a joy from start to end", "great fun", "dull and far too long", "a waste of time"]
        classifier = SSLClassifier("bundled", max_steps=2, config=TrainConfig(warm_steps=10))
        classifier.fit(texts, ["pos", "pos", "neg", "neg"], unlabeled=["pure joy", "so dull"])
        print(classifier.predict(["great acting"]), classifier.predict_proba(["great acting"]))
    """

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
        **unknown: Never,
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
        _refuse(unknown, self.get_params(deep=False))

    # --- parameters ---

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters; with `deep` also the options of the method and the settings: `method__...`, `config__...`."""
        params: dict[str, Any] = super().get_params(deep=False)
        if deep:
            method = as_method(self.method)
            params |= {f"method__{field.name}": method.__dict__[field.name] for field in fields(method)}
            config = self.config or TrainConfig()
            params |= {f"config__{field.name}": config.__dict__[field.name] for field in fields(config)}
        return params

    def set_params(self, **params: Any) -> Self:
        """Changes parameters; those of the method and of the settings are reached as `get_params` names them.

        Raises:
            ConfigError: there is no such parameter; the message names the nearest.
        """
        known = self.get_params(deep=False)
        nested: dict[str, dict[str, Any]] = {"method": {}, "config": {}}
        for name, value in params.items():
            owner, _, option = name.partition("__")
            if option and owner in nested:
                nested[owner][option] = value
            else:
                _refuse([name] if name not in known else [], known)
        for name, value in params.items():
            if name in known:
                self.__dict__[name] = value
        if nested["method"]:
            self.method = _changed(as_method(self.method), nested["method"])
        if nested["config"]:
            self.config = _changed(self.config or TrainConfig(), nested["config"])
        return self

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        method = self.method if isinstance(self.method, str) else self.method.name
        state = f", classes {list(self.classes_)[:10]}" if "classes_" in self.__dict__ else ", not fitted"
        return f"SSLClassifier({str(self.model)!r}, method={method!r}{state})"

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
            Interrupted: SIGINT or SIGTERM arrived.
        """
        method, config = as_method(self.method), self._config()
        folder = None if output_dir is None else RunFolder(output_dir, resume=resume)
        if folder is None and resume:
            raise ConfigError(213, "resume needs an output folder: give output_dir")
        if folder is not None:
            folder.check()
        with verbosity(self.verbose):
            task, classes = self._task(X, y, unlabeled, dev, config)
            if sample_weight is not None:
                task = _with_weights(task, sample_weight, len(y))
            try:
                module = run_one(method, task, config, folder=folder, callbacks=callbacks).module
            except Interrupted as stop:
                if stop.module is not None:
                    self._fitted(stop.module, classes, task.data.notes)
                raise
        if module is None:  # it was complete before
            assert folder is not None
            module = task.load(folder.path)
        self._fitted(module, classes, task.data.notes)
        return self

    def _fitted(self, module: Module, classes: np.ndarray, notes: tuple[str, ...]) -> None:
        self.net_, self.classes_, self.notes_ = module.eval(), classes, notes

    def _task(
        self, X: Column, y: Column, unlabeled: "Column | Pool | None", dev: tuple[Column, Column] | None,
        config: TrainConfig,
    ) -> tuple[Task, np.ndarray]:  # fmt: skip
        table, classes = labeled_table(X, y, self.class_names)
        pool = unlabeled.texts if isinstance(unlabeled, Pool) else unlabeled
        tables = {
            "labeled": table,
            "unlabeled": None if pool is None else text_table(pool, None, "unlabeled"),
            "dev": None if dev is None else text_table(*dev, "dev", class_names=self.class_names),
            "test": None,
        }
        encoder = EncoderChoice(str(self.model), max_length=self.max_length, strong=self.strong)
        return TextSource(tables, encoder).task(config.seed, None), classes

    def _config(self) -> TrainConfig:
        config = self.config or TrainConfig()
        own = {name: self.__dict__[param] for param, name in _OF_CONFIG.items() if self.__dict__[param] is not None}
        return cast(TrainConfig, _changed(config, own))

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
        if self._kind == "many":
            return [self.classes_[row >= self.threshold].tolist() for row in p]
        labels: np.ndarray = self.classes_[p.argmax(1)]
        return labels

    def score(self, X: Column, y: Column, sample_weight: Column | None = None) -> float:
        """Accuracy on the rows that have a label; where rows have several, the share with all of them right."""
        if not is_multilabel(y):
            return labeled_accuracy(y, cast(np.ndarray, self.predict(X)), sample_weight)
        names = [label_name(value) for value in self.classes_.tolist()]
        rows = [{label_name(value) for value in row} for row in self.predict(X)]
        truth = text_table(X, listed_sets(y), class_names=self.class_names).label_sets or []
        right = [row == set(known) & set(names) for row, known in zip(rows, truth, strict=True) if known is not None]
        return float(np.average(right, weights=sample_weight))

    @property
    def _kind(self) -> Kind:
        return self.net_.kind if isinstance(self.net_, TextNet) else "one"

    def _logits(self, X: Column) -> Tensor:
        net = self.net_
        if isinstance(net, ImageNet):
            images = np.asarray(X)
            return predict(net, ImageStore(images, *net.normalization()), np.arange(len(images)))
        assert isinstance(net, TextNet)
        texts, pairs = read_pairs(X)
        return logits_of_texts(net, texts, longest_text(net), pairs)

    # --- files ---

    @classmethod
    def from_net(cls, net: Module, **params: Any) -> Self:
        """A fitted classifier around a trained net, with these parameters.

        Raises:
            ConfigError: there is no such parameter.
        """
        classifier = cls(**params)
        classifier._fitted(net, np.array(net.classes, dtype=object), ())
        return classifier

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model, which opens with `AutoModelForSequenceClassification`, and a small JSON file beside it.

        Raises:
            NotFittedError: the classifier has not been fitted.
            RunError: the folder cannot be written.
        """
        check_is_fitted(self)
        place, method = Path(folder), as_method(self.method)
        strong = self.strong if self.strong is None or isinstance(self.strong, str) else repr(self.strong)
        params = {
            **self.get_params(deep=False),
            "model": str(self.model),
            "method": {"name": method.name, **asdict(method)},
            "strong": strong,
            "config": None if self.config is None else asdict(self.config),
            "class_names": None if self.class_names is None else list(self.class_names),
        }
        text = json.dumps({"params": params, "classes": self.classes_.tolist()}, indent=1)
        with atomic.writing(place):
            (place / _FILE).unlink(missing_ok=True)
        save_model(self.net_, place)
        atomic.write_text(place / _FILE, text)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """A fitted classifier: one that `save_pretrained` or a run wrote, or any sequence classifier of transformers.

        Args:
            folder: a folder, or a name of the hub.

        Raises:
            ConfigError: the model cannot be opened, or holds no classifier.
            DataError: its settings are damaged.
        """
        place = Path(folder)
        if not (place / _FILE).is_file():
            image = (place / "image_net.json").is_file()
            return cls.from_net(ImageNet.load(place) if image else load_text_net(str(folder)), model=folder)
        try:
            saved = json.loads((place / _FILE).read_text(encoding="utf-8"))
            classifier = cls(**_params(saved["params"]))
            classes = np.array(saved["classes"])
            names = [str(label_name(value)) for value in saved["classes"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise InputError(
                192, f"{place / _FILE} is damaged: save the classifier again, or delete the file: the model opens alone"
            ) from error  # fmt: skip
        net = load_text_net(str(folder))
        if sorted(net.classes) != sorted(names):
            raise InputError(193, f"{place / _FILE} is of a model with other classes: save the classifier again")
        if list(net.classes) != names:  # version 0.1.0 had orders of its own
            net = load_text_net(str(folder), names)
        classifier._fitted(net, classes, ())
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
            repo_id: "owner/name"; it is made where it does not exist.
            private: whether a new repository is private.
            token: of the account; the one that is logged in if not given.
            commit_message: of the upload.
        """
        api = HfApi(token=token)
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
        return str(address)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _params(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as they were saved, by this version or by 0.1.0."""
    params = dict(saved)
    options = dict(params.pop("method"))
    params["method"] = make(get_method(options.pop("name")), options)
    if "seed" in params:
        params["random_state"] = params.pop("seed")
    settings = params.pop("options", None) or params.get("config")
    params["config"] = None if settings is None else make(TrainConfig, settings)
    return params


def _with_weights(task: Task, sample_weight: Column, rows: int) -> Task:
    """The task with the labeled rows weighted; rows that were dropped take their weight with them."""
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (rows,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(188, f"sample_weight should be {rows} numbers of 0 or more: give one for each text")
    assert isinstance(task.source, TextSource)
    table = task.source.tables["labeled"]
    assert table is not None
    of_rows = weights[table.rows[task.data.labeled] - 1]
    return replace(task, data=replace(task.data, weights=of_rows, content_hash=f"{task.data.content_hash} weighted"))


def _changed(value: Any, options: Mapping[str, Any]) -> Any:
    """A dataclass value with other options.

    Raises:
        ConfigError: there is no such option; the message names the nearest.
    """
    return make(type(value), {**{field.name: value.__dict__[field.name] for field in fields(value)}, **options})


def _refuse(unknown: Any, known: Mapping[str, Any]) -> None:
    for name in unknown:
        hint = nearest(name, known)
        if name in {field.name for field in fields(TrainConfig)}:
            hint = f" Give it in config=TrainConfig({name}=...)."
        raise ConfigError(203, f"unknown option {name!r} of SSLClassifier.{hint}")
