"""Settings of a training run. Every field is a flag of the command line and of the recipes."""

from dataclasses import dataclass
from typing import Literal

from nlp_ssl.errors import ConfigError
from nlp_ssl.method import check

Precision = Literal["auto", "no", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant"]
WarmStart = Literal["auto", "none", "supervised", "contrastive"]


@dataclass(frozen=True)
class TrainConfig:
    """Loop settings. Batch sizes are rows per optimizer step over all processes and accumulated micro-batches,
    so that a run does the same arithmetic on one process or on many."""

    max_steps: int = 200
    batch_size: int = 8  # labeled rows per optimizer step
    unlabeled_ratio: int = 3  # unlabeled rows per labeled row
    max_length: int = 128  # tokens; longer texts are cut
    learning_rate: float = 2e-5  # of the encoder
    head_learning_rate: float = 5e-4  # of layers that start untrained
    layer_decay: float = 1.0  # learning-rate factor per encoder layer from top to bottom
    weight_decay: float = 0.01
    warmup: float = 0.1  # share of the steps
    schedule: Schedule = "linear"  # decay after the warm-up
    clip: float = 1.0  # largest gradient norm of a net; 0 switches clipping off
    accumulate: int = 1  # micro-batches per optimizer step
    mixed_precision: Precision = "auto"  # auto takes bf16 where it is measured to be faster
    ema_decay: float = 0.0  # weight averaging for evaluation and saving; 0 is off
    warm_start: WarmStart = "auto"  # stage before the method
    warm_steps: int = 0  # steps of the warm start; 0 chooses by the number of labels
    eval_every: int = 0  # steps between evaluations on dev rows; 0 is off
    patience: int = 0  # evaluations without improvement before stopping; 0 is off
    guard: bool = True  # warn on collapsing pseudo-labels
    log_every: int = 10
    save_every: int = 0  # steps between checkpoints; 0 is off
    keep: int = 2  # checkpoints kept
    workers: int = 0  # processes that prepare batches
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "unlabeled_ratio", "accumulate", "log_every", "keep"):
            check(self.__dict__[name], name, 1, 1e12)
        for name in ("warm_steps", "eval_every", "patience", "save_every", "workers", "seed"):
            check(self.__dict__[name], name, 0, 2**31)
        check(self.max_length, "max_length", 3, 1e6)
        for name in ("learning_rate", "head_learning_rate"):
            check(self.__dict__[name], name, 0.0, 10.0)
        for name in ("weight_decay", "warmup", "layer_decay", "ema_decay"):
            check(self.__dict__[name], name, 0.0, 1.0)
        check(self.clip, "clip", 0.0, 1e6)
        if self.patience and not self.eval_every:
            raise ConfigError(211, "patience needs eval_every: say how often to evaluate on the dev rows")
