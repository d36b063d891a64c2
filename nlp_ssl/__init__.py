"""nlp_ssl: semi-supervised text classification. Few labels, a lot of unlabeled text.

The names below are the public ones. What needs transformers, datasets or torchvision is imported when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from nlp_ssl.config import TrainConfig
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.methods import *  # noqa: F403 - every method, as its __all__ names them
from nlp_ssl.methods import __all__ as _methods
from nlp_ssl.registry import get_method, list_methods, register
from nlp_ssl.rounds import UST, NoisyStudent, SelfTraining
from nlp_ssl.run import Run
from nlp_ssl.types import Batch, DataSpec, Losses

if TYPE_CHECKING:
    from nlp_ssl.augment.tfidf import TfidfReplace
    from nlp_ssl.classifier import Pool, SSLClassifier
    from nlp_ssl.data.schema import build as build_data
    from nlp_ssl.data.sources import read_table
    from nlp_ssl.data.table import table_of
    from nlp_ssl.experiments.compare import Comparison, compare
    from nlp_ssl.experiments.fit import Result, fit
    from nlp_ssl.integrations import SSLTrainer
    from nlp_ssl.integrations.frozen import LabelPropagationClassifier, SentenceEmbedding
    from nlp_ssl.task import Task, image_task, text_task
    from nlp_ssl.training.run_folder import RunFolder

_LAZY = {
    "Comparison": ("nlp_ssl.experiments.compare", "Comparison"),
    "LabelPropagationClassifier": ("nlp_ssl.integrations.frozen", "LabelPropagationClassifier"),
    "Pool": ("nlp_ssl.classifier", "Pool"),
    "Result": ("nlp_ssl.experiments.fit", "Result"),
    "RunFolder": ("nlp_ssl.training.run_folder", "RunFolder"),
    "SSLClassifier": ("nlp_ssl.classifier", "SSLClassifier"),
    "SSLTrainer": ("nlp_ssl.integrations.hf_trainer", "SSLTrainer"),
    "SentenceEmbedding": ("nlp_ssl.integrations.frozen", "SentenceEmbedding"),
    "Task": ("nlp_ssl.task", "Task"),
    "TfidfReplace": ("nlp_ssl.augment.tfidf", "TfidfReplace"),
    "build_data": ("nlp_ssl.data.schema", "build"),
    "compare": ("nlp_ssl.experiments.compare", "compare"),
    "fit": ("nlp_ssl.experiments.fit", "fit"),
    "image_task": ("nlp_ssl.task", "image_task"),
    "read_table": ("nlp_ssl.data.sources", "read_table"),
    "table_of": ("nlp_ssl.data.table", "table_of"),
    "text_task": ("nlp_ssl.task", "text_task"),
}

__version__ = "0.1.0"
__all__ = [
    *_methods,
    "Batch",
    "Comparison",
    "DataSpec",
    "LabelPropagationClassifier",
    "RoundMethod",
    "Losses",
    "Method",
    "Pool",
    "Result",
    "RunFolder",
    "NoisyStudent",
    "Run",
    "SSLClassifier",
    "SSLTrainer",
    "SelfTraining",
    "SentenceEmbedding",
    "Task",
    "TfidfReplace",
    "TrainConfig",
    "UST",
    "build_data",
    "compare",
    "fit",
    "get_method",
    "image_task",
    "list_methods",
    "read_table",
    "register",
    "table_of",
    "text_task",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'nlp_ssl' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return importlib.import_module(module).__dict__[attribute]
