"""Ways in for those who come from other libraries."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlp_ssl.integrations.hf_arguments import SSLTrainingArguments
    from nlp_ssl.integrations.hf_model import load_classifier
    from nlp_ssl.integrations.hf_trainer import SSLTrainer

_LAZY = {
    "SSLTrainer": ("nlp_ssl.integrations.hf_trainer", "SSLTrainer"),
    "SSLTrainingArguments": ("nlp_ssl.integrations.hf_arguments", "SSLTrainingArguments"),
    "load_classifier": ("nlp_ssl.integrations.hf_model", "load_classifier"),
}
__all__ = ["SSLTrainer", "SSLTrainingArguments", "load_classifier"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'nlp_ssl.integrations' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return importlib.import_module(module).__dict__[attribute]
