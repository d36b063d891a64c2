"""nlp_ssl: semi-supervised text classification. Few labels, a lot of unlabeled text.

The names below are the public ones. Each is imported when it is first used, so that `import nlp_ssl` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlp_ssl.augment.tfidf import TfidfReplace
    from nlp_ssl.classifier import Pool, SSLClassifier
    from nlp_ssl.config import TrainConfig
    from nlp_ssl.experiments.compare import Comparison, compare
    from nlp_ssl.experiments.fit import Result, fit
    from nlp_ssl.integrations.frozen import LabelPropagationClassifier, SentenceEmbedding
    from nlp_ssl.integrations.hf_arguments import SSLTrainingArguments
    from nlp_ssl.integrations.hf_model import load_classifier
    from nlp_ssl.integrations.hf_trainer import SSLTrainer
    from nlp_ssl.method import Method, RoundMethod, register
    from nlp_ssl.methods import (
        ICT,
        UDA,
        VAT,
        AdaMatch,
        Adversarial,
        CoMatch,
        CRMatch,
        Dash,
        DebiasPL,
        DeFixMatch,
        Distillation,
        DivideMix,
        EntropyMin,
        FixMatch,
        FlexMatch,
        FreeMatch,
        JointMatch,
        LabelPropagation,
        MarginMatch,
        MeanTeacher,
        MetaPseudoLabels,
        MixMatch,
        MixText,
        MixUpPseudoLabel,
        MultiMatch,
        PiModel,
        PseudoLabel,
        RDrop,
        ReMixMatch,
        SimMatch,
        SoftMatch,
        Supervised,
        TemporalEnsembling,
    )
    from nlp_ssl.registry import get_method, list_methods
    from nlp_ssl.rounds import UST, NoisyStudent, SelfTraining
    from nlp_ssl.task import Task
    from nlp_ssl.training.run_folder import RunFolder
    from nlp_ssl.utils.progress import log_to_console
    from nlp_ssl.utils.ranks import is_main

_MODULES = {  # and their names; every other public name is that of a method
    "nlp_ssl.augment.tfidf": "TfidfReplace",
    "nlp_ssl.classifier": "Pool SSLClassifier",
    "nlp_ssl.config": "TrainConfig",
    "nlp_ssl.experiments.compare": "Comparison compare",
    "nlp_ssl.experiments.fit": "Result fit",
    "nlp_ssl.integrations.frozen": "LabelPropagationClassifier SentenceEmbedding",
    "nlp_ssl.integrations.hf_arguments": "SSLTrainingArguments",
    "nlp_ssl.integrations.hf_model": "load_classifier",
    "nlp_ssl.integrations.hf_trainer": "SSLTrainer",
    "nlp_ssl.method": "Method RoundMethod register",
    "nlp_ssl.registry": "get_method list_methods",
    "nlp_ssl.rounds": "NoisyStudent SelfTraining UST",
    "nlp_ssl.task": "Task",
    "nlp_ssl.training.run_folder": "RunFolder",
    "nlp_ssl.utils.progress": "log_to_console",
    "nlp_ssl.utils.ranks": "is_main",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

__version__ = "0.1.0"
__all__ = [
    "AdaMatch",
    "Adversarial",
    "CRMatch",
    "CoMatch",
    "Comparison",
    "Dash",
    "DeFixMatch",
    "DebiasPL",
    "Distillation",
    "DivideMix",
    "EntropyMin",
    "FixMatch",
    "FlexMatch",
    "FreeMatch",
    "ICT",
    "JointMatch",
    "LabelPropagation",
    "LabelPropagationClassifier",
    "MarginMatch",
    "MeanTeacher",
    "MetaPseudoLabels",
    "Method",
    "MixMatch",
    "MixText",
    "MixUpPseudoLabel",
    "MultiMatch",
    "NoisyStudent",
    "PiModel",
    "Pool",
    "PseudoLabel",
    "RDrop",
    "ReMixMatch",
    "Result",
    "RoundMethod",
    "RunFolder",
    "SSLClassifier",
    "SSLTrainer",
    "SSLTrainingArguments",
    "SelfTraining",
    "SentenceEmbedding",
    "SimMatch",
    "SoftMatch",
    "Supervised",
    "Task",
    "TemporalEnsembling",
    "TfidfReplace",
    "TrainConfig",
    "UDA",
    "UST",
    "VAT",
    "compare",
    "fit",
    "get_method",
    "is_main",
    "list_methods",
    "load_classifier",
    "log_to_console",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'nlp_ssl' has no attribute {name!r}")
    module = importlib.import_module(_MODULE_OF.get(name, "nlp_ssl.methods"))
    globals()[name] = value = module.__dict__[name]  # the next question finds it here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
