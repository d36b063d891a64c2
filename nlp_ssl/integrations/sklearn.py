"""A scikit-learn classifier over texts: any method of the package, unlabeled rows among the labeled ones.

Example:
    from nlp_ssl import SSLTextClassifier

    texts = ["a joy from start to end", "great fun", "dull and far too long", "a waste of time", "pure joy", "so dull"]
    labels = ["pos", "pos", "neg", "neg", None, None]
    model = SSLTextClassifier(method="uda", max_steps=2, options={"warm_steps": 10}).fit(texts, labels)
    print(model.predict(["great acting"]), model.predict_proba(["great acting"]))
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Never, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.markers import READ
from nlp_ssl.data.schema import build, log_notes
from nlp_ssl.data.table import memory_table
from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.inference.predict import logits_of_texts, longest_text
from nlp_ssl.integrations.labels import Column, InputError, column, labeled_accuracy, read_labels, read_texts
from nlp_ssl.method import Method
from nlp_ssl.nets.text import TextNet, load_trained
from nlp_ssl.registry import as_method, get_method
from nlp_ssl.task import text_task
from nlp_ssl.training.loop import fit
from nlp_ssl.training.run_folder import save_model
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranges import make

_SETTINGS = "nlp_ssl_classifier.json"  # written last: a folder without it holds no whole classifier
_OWN = ("max_steps", "max_length", "seed")  # settings of the loop that are parameters by themselves


class SSLTextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Fine-tunes an encoder on a few labeled and many unlabeled texts.

    Args:
        model: folder or hub name of a pre-trained encoder; "bundled" for the one of the demo extra.
        method: name of a method, or a method with its hyper-parameters: `UDA(threshold=0.9)`.
        max_steps: steps of the method, after the warm start on the labels.
        max_length: tokens of a text; longer ones are cut.
        seed: of draws, order, noise and initial weights.
        options: further settings by name, as `TrainConfig` has them: `{"batch_size": 16}`.

    Attributes:
        classes_: the classes [C], sorted, in the type of the labels; the saved model has them in the same order.
        class_names_: what the classes are called in the saved model [C].
        net_: the trained net.
        notes_: what was dropped, counted or looks doubtful in the texts and labels.

    In `fit`, rows labeled -1, None, NaN or "" are unlabeled. (scikit-learn's own tools sort labels: among strings give
    them "", not None.) Words are classes, also "nan", which NumPy makes of NaN among strings. Where -1 or such a word
    may be meant otherwise there is a warning. `score` is the accuracy on the rows that have a label, so that a grid
    search scores folds with unlabeled rows rightly.

    Raises:
        ConfigError: there is no such parameter; the message names the nearest.
    """

    def __init__(
        self,
        model: str | Path = "bundled",
        method: str | Method = "fixmatch",
        *,
        max_steps: int = 200,
        max_length: int = 128,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> None:
        self.model = model
        self.method = method
        self.max_steps = max_steps
        self.max_length = max_length
        self.seed = seed
        self.options = options
        _refuse(unknown, self.get_params(deep=False))

    def set_params(self, **params: Any) -> Self:
        """Changes parameters.

        Raises:
            ConfigError: there is no such parameter; the message names the nearest.
        """
        known = self.get_params(deep=False)
        _refuse([name for name in params if name not in known], known)
        super().set_params(**params)
        return self

    def fit(self, X: Column, y: Column) -> Self:
        """Trains on texts X [N] with labels y [N].

        Raises:
            ConfigError: a parameter is unknown or out of range, or the model cannot be opened.
            DataError: a text or label cannot be used, or a class has too few.
            RunError: the loss stopped being finite.
        """
        method, config = as_method(self.method), self._config()
        labels = read_labels(y)
        check_consistent_length(X, labels.number)
        table = memory_table(column(X, "X").tolist(), labels.names, READ)
        names = labels.named(table.rows - 1, table.labels or ())
        ordered = replace(table, classes=tuple(names))  # the model's order is that of `classes_`
        task = text_task(build(ordered), encoder_name(str(self.model)), max_length=self.max_length)
        notes = (*labels.notes, *task.data.notes)
        log_notes(notes)
        found = fit(method, task.data, task.build, config, augment=task.augment, start=SharedStart(task, config))
        assert isinstance(found.module, TextNet)
        self.classes_, self.class_names_, self.net_ = labels.classes, names, found.module
        self.notes_ = notes
        return self

    def predict_proba(self, X: Column) -> np.ndarray:
        """Probabilities [n, C] of the classes, in the order of `classes_`.

        Raises:
            NotFittedError: the classifier has not been fitted.
            InputError: a text is missing.
        """
        check_is_fitted(self)
        logits = logits_of_texts(self.net_, read_texts(X), longest_text(self.net_))
        order = [self.net_.model.config.label2id[name] for name in self.class_names_]
        p: np.ndarray = logits[:, order].double().softmax(-1).numpy()
        return p

    def predict(self, X: Column) -> np.ndarray:
        """The most likely classes [n], in the type of the labels."""
        p = self.predict_proba(X)
        found: np.ndarray = self.classes_[p.argmax(1)]
        return found

    def score(self, X: Column, y: Column, sample_weight: Column | None = None) -> float:
        """Accuracy on the rows that have a label."""
        return labeled_accuracy(y, self.predict(X), sample_weight)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model, which opens with `AutoModelForSequenceClassification`, and a small JSON file beside it.

        Raises:
            NotFittedError: the classifier has not been fitted.
            RunError: the folder cannot be written.
        """
        check_is_fitted(self)
        place, method = Path(folder), as_method(self.method)
        saved = {
            **self.get_params(deep=False),
            "model": str(self.model),
            "method": {"name": method.name, **asdict(method)},
            "options": None if self.options is None else dict(self.options),
        }
        text = json.dumps({"params": saved, "classes": self.classes_.tolist(), "names": self.class_names_}, indent=1)
        with atomic.writing(place):
            (place / _SETTINGS).unlink(missing_ok=True)
        save_model(self.net_, place)
        atomic.write_text(place / _SETTINGS, text)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The fitted classifier that `save_pretrained` wrote.

        Raises:
            DataError: the folder holds no whole classifier.
        """
        place = Path(folder)
        net = load_trained(place)
        try:
            saved = json.loads((place / _SETTINGS).read_text(encoding="utf-8"))
            options = saved["params"].pop("method")
            method = make(get_method(options.pop("name")), options)
            found = cls(**saved["params"], method=method)
            found.classes_, found.class_names_ = np.array(saved["classes"]), saved["names"]
            fits = set(saved["names"]) == net.model.config.label2id.keys()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise InputError(
                192, f"{place / _SETTINGS} is missing or damaged: save the classifier again, or open {place} with "
                "transformers"
            ) from error  # fmt: skip
        if not fits:
            raise InputError(193, f"{place / _SETTINGS} is of a model with other classes: save the classifier again")
        found.net_, found.notes_ = net, ()
        return found

    def _config(self) -> TrainConfig:
        options = dict(self.options or {})
        for name in _OWN:
            if name in options:
                raise ConfigError(483, f"{name} is a parameter of SSLTextClassifier: leave it out of options")
        own = {"max_steps": self.max_steps, "max_length": self.max_length, "seed": self.seed}
        config: TrainConfig = make(TrainConfig, {**options, **own})
        return config

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _refuse(unknown: Any, known: Mapping[str, Any]) -> None:
    for name in unknown:
        hint = nearest(name, known)
        if name in {field.name for field in fields(TrainConfig)}:
            hint = f" Give it in options={{{name!r}: ...}}."
        raise ConfigError(203, f"unknown option {name!r} of SSLTextClassifier.{hint}")
