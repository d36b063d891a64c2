"""Ways in for those who come from other libraries."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlp_ssl.integrations.hf_trainer import SSLTrainer

_LAZY = {"SSLTrainer": ("nlp_ssl.integrations.hf_trainer", "SSLTrainer")}
__all__ = ["SSLTrainer"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'nlp_ssl.integrations' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return importlib.import_module(module).__dict__[attribute]
