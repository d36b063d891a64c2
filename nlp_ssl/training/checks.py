"""Refuses what cannot be done, before anything is computed."""

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.loader import Sizes
from nlp_ssl.errors import ConfigError
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.ops.distributed import world_size
from nlp_ssl.ops.multilabel import refuse_multilabel
from nlp_ssl.registry import get_method, list_methods
from nlp_ssl.training.calibration import check_calibration


def check_run(method: Method | RoundMethod, data: Data, config: TrainConfig, *, folder: bool) -> None:
    """Checks method, rows and settings against each other; `folder` says whether the run is written.

    Raises:
        ConfigError: they do not fit together.
    """
    if config.eval_steps and not len(data.dev):
        raise ConfigError(227, "eval_steps and patience need dev rows: give --dev, or leave them out")
    if config.save_steps and not folder:
        raise ConfigError(215, "save_steps needs an output folder")
    check_defined(method, data, config)
    check_calibration(config, data)
    if isinstance(method, RoundMethod):
        if config.calibrate == "labels" and len(data.unlabeled):
            raise ConfigError(401, f"calibrate labels: {method.name} makes labels of its own: use --calibrate dev")
    elif config.dataloader_num_workers and "controlled" in method.wanted_views().values():
        raise ConfigError(
            275, "a view that learns its strength needs the batches in order: use --dataloader-num-workers 0"
        )
    parts = world_size() * config.gradient_accumulation_steps
    Sizes(config.batch_size, config.batch_size * config.unlabeled_ratio, parts)


def check_defined(method: Method | RoundMethod, data: Data, config: TrainConfig) -> None:
    """Checks a method and settings against the kind of labels that the rows have.

    Raises:
        ConfigError: the data is multi-label, and the method or a setting is for single-label data.
    """
    if data.kind == "single-label":
        return
    if "multi-label" not in method.defined_for():
        able = ", ".join(name for name in list_methods(in_rounds=False) if "multi-label" in get_method(name).kinds)
        how = " with these options" if "multi-label" in method.kinds else ""
        raise ConfigError(476, f"{method.name}{how} is not defined for multi-label data; these methods are: {able}")
    settings = {
        "class_weights": config.class_weights != "none",
        "logit_adjustment": config.logit_adjustment > 0,
        "calibrate labels": config.calibrate == "labels",
        "eval_fgsm": config.eval_fgsm > 0,
    }
    for name, used in settings.items():
        if used:
            refuse_multilabel(name)
