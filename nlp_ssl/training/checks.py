"""Refuses what is not defined for the labels of a task, before anything is computed."""

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.errors import ConfigError
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.ops.multilabel import refuse
from nlp_ssl.registry import get_method, list_methods


def check_defined(method: Method | RoundMethod, data: Data, config: TrainConfig) -> None:
    """Checks a method and settings against the kind of labels that the rows have.

    Raises:
        ConfigError: rows have several labels, and the method or a setting is for one label a row.
    """
    if data.kind == "one":
        return
    if "many" not in method.defined_for():
        able = ", ".join(name for name in list_methods(in_rounds=False) if "many" in get_method(name).kinds)
        how = " with these options" if "many" in method.kinds else ""
        raise ConfigError(476, f"{method.name}{how} is not defined for several labels a row; these are: {able}")
    settings = {
        "class_weights": config.class_weights != "none",
        "logit_adjustment": config.logit_adjustment > 0,
        "calibrate labels": config.calibrate == "labels",
        "eval_fgsm": config.eval_fgsm > 0,
    }
    for name, used in settings.items():
        if used:
            refuse(name)
