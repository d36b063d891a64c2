"""Settings of a training run. Every field is a flag of the command line and of the recipes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nlp_ssl.errors import ConfigError
from nlp_ssl.utils.ranges import check

Precision = Literal["auto", "no", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant"]
ClassWeights = Literal["none", "inverse", "effective"]
WarmStart = Literal["auto", "none", "supervised", "contrastive"]
Calibrate = Literal["none", "dev", "labels"]


def cache_folder() -> Path:
    """Where tokenized corpora and measurements of this machine are kept."""
    return Path.home() / ".cache" / "nlp_ssl"


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop. Batch sizes are rows per optimizer step over all processes and accumulated
    micro-batches, so that a run does the same arithmetic on one process or on many.
    """

    max_steps: Annotated[int, "optimizer steps of the method"] = 200
    batch_size: Annotated[int, "labeled rows per optimizer step"] = 8
    unlabeled_ratio: Annotated[int, "unlabeled rows per labeled row"] = 3
    max_length: Annotated[int, "tokens; longer texts are cut"] = 128
    learning_rate: Annotated[float, "of the encoder"] = 2e-5
    head_learning_rate: Annotated[float, "of layers that start untrained"] = 5e-4
    layer_decay: Annotated[float, "learning-rate factor per encoder layer from top to bottom"] = 1.0
    weight_decay: Annotated[float, "of AdamW, for all weights but biases and norms"] = 0.01
    warmup_steps: Annotated[float, "steps in which the rate rises; below 1 a share of all"] = 0.1
    lr_scheduler_type: Annotated[Schedule, "decay after the warm-up"] = "linear"
    max_grad_norm: Annotated[float, "largest gradient norm of a net; 0 switches clipping off"] = 1.0
    gradient_accumulation_steps: Annotated[int, "micro-batches per optimizer step"] = 1
    mixed_precision: Annotated[Precision, "auto takes bf16 where it is measured to be faster"] = "auto"
    eval_ema_decay: Annotated[float, "weight averaging for evaluation and saving; 0 is off"] = 0.0
    warm_start: Annotated[WarmStart, "stage before the method"] = "auto"
    warm_steps: Annotated[int, "steps of the warm start; 0 chooses by the number of labels"] = 0
    eval_steps: Annotated[int, "steps between evaluations on dev rows; 0 is off"] = 0
    patience: Annotated[int, "evaluations without improvement before stopping; 0 is off"] = 0
    eval_fgsm: Annotated[float, "size of the noise of one more test score (fast gradient sign); 0 is off"] = 0.0
    calibrate: Annotated[Calibrate, "temperature of the saved model: fitted on dev rows, or on held-out labels"] = (
        "none"
    )
    align: Annotated[bool, "align pseudo-labels to class shares estimated on the pool after the warm start"] = True
    class_weights: Annotated[ClassWeights, "of the labeled loss: by inverse frequency or effective number"] = "none"
    effective_beta: Annotated[float, "of effective numbers; the nearer to 1, the more a rare class counts"] = 0.99
    logit_adjustment: Annotated[float, "strength of correcting for unequal classes, 1 in full; 0 is off"] = 0.0
    guard: Annotated[bool, "warn on collapsing pseudo-labels"] = True
    logging_steps: Annotated[int, "steps between lines of metrics.jsonl"] = 10
    save_steps: Annotated[int, "steps between checkpoints; 0 is off"] = 0
    save_total_limit: Annotated[int, "checkpoints kept"] = 2
    dataloader_num_workers: Annotated[int, "processes that prepare batches"] = 0
    seed: Annotated[int, "seed of draws, order, noise and initial weights"] = 0

    def __post_init__(self) -> None:
        for name in (
            "max_steps",
            "batch_size",
            "unlabeled_ratio",
            "gradient_accumulation_steps",
            "logging_steps",
            "save_total_limit",
        ):
            check(self.__dict__[name], name, 1, 1e12)
        check(self.batch_size, "batch_size", 1, 1e6)
        check(self.batch_size * self.unlabeled_ratio, "batch_size x unlabeled_ratio", 1, 1e7)
        for name in ("warm_steps", "eval_steps", "patience", "save_steps", "dataloader_num_workers", "seed"):
            check(self.__dict__[name], name, 0, 2**31)
        check(self.max_length, "max_length", 3, 1e6)
        for name in ("learning_rate", "head_learning_rate"):
            check(self.__dict__[name], name, 0.0, 10.0)
        for name in ("weight_decay", "layer_decay", "eval_ema_decay"):
            check(self.__dict__[name], name, 0.0, 1.0)
        check(self.max_grad_norm, "max_grad_norm", 0.0, 1e6)
        check(self.warmup_steps, "warmup_steps", 0.0, 1e12)
        check(self.eval_fgsm, "eval_fgsm", 0.0, 1e3)
        check(self.effective_beta, "effective_beta", 0.0, 1 - 1e-9)
        check(self.logit_adjustment, "logit_adjustment", 0.0, 10.0)
        if self.class_weights != "none" and self.logit_adjustment:
            raise ConfigError(450, "class_weights and logit_adjustment both make up for unequal classes: choose one")
        if self.patience and not self.eval_steps:
            raise ConfigError(211, "patience needs eval_steps: say how often to evaluate on the dev rows")
