"""`SSLTrainingArguments`: what a `transformers.Trainer` is told, and what there is to tell about unlabeled texts."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from transformers import SchedulerType, TrainingArguments

from nlp_ssl.config import ClassWeights, Schedule, TrainConfig, WarmStart
from nlp_ssl.errors import ConfigError
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.registry import as_method, get_method
from nlp_ssl.utils.documentation import describe_fields
from nlp_ssl.utils.ranges import check, from_options

# Settings of `TrainConfig` that TrainingArguments have no word for, and those that they have the same word for.
_OWN = (
    "unlabeled_ratio", "head_learning_rate", "layer_decay", "warm_start", "warm_steps", "align", "class_weights",
    "effective_beta", "logit_adjustment", "guard",
)  # fmt: skip
_SHARED = (
    "learning_rate", "weight_decay", "warmup_steps", "max_grad_norm", "gradient_accumulation_steps",
    "dataloader_num_workers", "seed",
)  # fmt: skip


def _as_in_config(name: str) -> Any:
    """A field with the default and the sentence that it has in `TrainConfig`."""
    known = next(known for known in describe_fields(TrainConfig) if known.name == name)
    return field(default=known.default, metadata={"help": known.sentence})


@dataclass
class SSLTrainingArguments(TrainingArguments):
    """`TrainingArguments` for `SSLTrainer`.

    What changes the result has the defaults of `TrainConfig`, so that the same settings give the same weights as
    `nlp_ssl.fit`: learning_rate 2e-5 (and `head_learning_rate` 5e-4), weight_decay 0.01, warmup_steps 0.1 (a share of
    all steps), seed 0, logging_steps 10, and max_steps 200 unless `num_train_epochs` or `max_steps` is given. The
    schedules "linear", "cosine" and "constant" are those of `TrainConfig`, too: the first step has a rate above zero,
    and "constant" rises in the warm-up. All else is as in `TrainingArguments`: float32 unless `bf16` or `fp16` is set,
    and a checkpoint at the end unless `save_strategy="no"`. An epoch is a pass over the unlabeled texts.

    Args:
        method: name of a method that runs in one loop: `nlp_ssl.list_methods(in_rounds=False)`.
        method_args: its hyper-parameters, a dict or the same as JSON: `{"threshold": 0.9}`.
        max_length: tokens of a text; longer ones are cut.
        unlabeled_ratio, head_learning_rate, layer_decay, warm_start, warm_steps, align, class_weights, effective_beta,
            logit_adjustment, guard: as in `TrainConfig`; there is no warm start "supervised".

    Raises:
        ConfigError: there is no such method or hyper-parameter, or a value is out of range.

    Example:
        from nlp_ssl import SSLTrainingArguments

        args = SSLTrainingArguments("out", method="fixmatch", method_args={"threshold": 0.9}, unlabeled_ratio=7)
        print(args.learning_rate, args.max_steps)
    """

    per_device_train_batch_size: int = _as_in_config("batch_size")
    num_train_epochs: float = field(
        default=0.0, metadata={"help": "passes over the unlabeled texts; 0 leaves it to max_steps"}
    )
    max_steps: int = field(default=-1, metadata={"help": "steps in all; 200 where no epochs are given either"})
    learning_rate: float = _as_in_config("learning_rate")
    weight_decay: float = _as_in_config("weight_decay")
    warmup_steps: float = _as_in_config("warmup_steps")
    logging_steps: float = _as_in_config("logging_steps")
    seed: int = _as_in_config("seed")

    method: str | None = field(default=None, metadata={"help": "name of a method that runs in one loop"})
    method_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "its hyper-parameters as JSON: '{\"threshold\": 0.9}'"}
    )
    max_length: int = field(default=128, metadata={"help": "tokens of a text; longer ones are cut"})
    unlabeled_ratio: int = _as_in_config("unlabeled_ratio")
    head_learning_rate: float = _as_in_config("head_learning_rate")
    layer_decay: float = _as_in_config("layer_decay")
    warm_start: WarmStart = _as_in_config("warm_start")
    warm_steps: int = _as_in_config("warm_steps")
    align: bool = _as_in_config("align")
    class_weights: ClassWeights = _as_in_config("class_weights")
    effective_beta: float = _as_in_config("effective_beta")
    logit_adjustment: float = _as_in_config("logit_adjustment")
    guard: bool = _as_in_config("guard")

    def __post_init__(self) -> None:
        """Checks the settings and the method, if one is named."""
        if self.max_steps < 0 and not self.num_train_epochs:
            self.max_steps = TrainConfig.max_steps
        if isinstance(self.method_args, str):
            self.method_args = _parsed(self.method_args)
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.loop_config()
        check(self.max_length, "max_length", 1, 1e6)
        if self.warm_start == "supervised":
            raise ConfigError(472, 'no warm start "supervised" here: train with method="supervised" first, then again')
        self.named_method()

    def named_method(self) -> Method | RoundMethod | None:
        """The method that is named, with its hyper-parameters.

        Raises:
            ConfigError: there is no such method or hyper-parameter.
        """
        if self.method is None:
            if self.method_args:
                raise ConfigError(487, "method_args without a method: name it, as in method='uda'")
            return None
        assert not isinstance(self.method_args, str)
        if not isinstance(self.method, str):
            as_method(self.method)  # refuses what is none
            raise ConfigError(
                487, "method is a value, these arguments take its name and method_args: give the value to SSLTrainer"
            )
        method: Method | RoundMethod = from_options(get_method(self.method), self.method_args or {})
        return method

    def own_config(self) -> TrainConfig:
        """The settings that TrainingArguments have no word for, all others with their defaults."""
        config: TrainConfig = from_options(TrainConfig, {name: vars(self)[name] for name in _OWN})
        return config

    def loop_config(self) -> TrainConfig:
        """The settings of the loop, but for the number of steps, the size of batches and the precision.

        Raises:
            ConfigError: one of them is out of range.
        """
        shared = {name: vars(self)[name] for name in _SHARED}
        if self.has_own_schedule():
            shared["lr_scheduler_type"] = SchedulerType(self.lr_scheduler_type).value
        return replace(self.own_config(), **shared)

    def has_own_schedule(self) -> bool:
        """Whether the rate goes as in `TrainConfig`."""
        return SchedulerType(self.lr_scheduler_type).value in get_args(Schedule) and not self.lr_scheduler_kwargs


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(487, f"method_args is {text!r}, no object of JSON: write it like '{{\"threshold\": 0.9}}'")
    return value
