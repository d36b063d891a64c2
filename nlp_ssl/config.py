"""Settings of a training run. Every field is a flag of the command line and of the recipes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nlp_ssl.errors import ConfigError
from nlp_ssl.utils.documentation import documented
from nlp_ssl.utils.ranges import Range, check, check_ranges

MixedPrecision = Literal["auto", "no", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant"]
ClassWeights = Literal["none", "inverse", "effective"]
WarmStart = Literal["auto", "none", "supervised", "contrastive"]
Calibrate = Literal["none", "dev", "labels"]
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def cache_folder() -> Path:
    """Where tokenized corpora and measurements of this machine are kept."""
    return Path.home() / ".cache" / "nlp_ssl"


@documented
@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop.

    Batch sizes are rows per optimizer step over all processes and accumulated micro-batches, so that a run does the
    same arithmetic on one process or on many.
    """

    max_steps: Annotated[int, Range(1, 1e12), "optimizer steps of the method, without the warm start"] = 200
    batch_size: Annotated[int, Range(1, 1e6), "labeled rows per optimizer step"] = 8
    unlabeled_ratio: Annotated[
        int, Range(1, 1e12), "unlabeled rows per labeled row; more of them steady the unlabeled loss and cost time"
    ] = 3
    learning_rate: Annotated[float, Range(0.0, 10.0), "highest learning rate of the encoder; 0 leaves it as it is"] = (
        2e-5
    )
    head_learning_rate: Annotated[
        float, Range(0.0, 10.0), "highest learning rate of layers that start untrained, such as the classifier"
    ] = 5e-4
    layer_decay: Annotated[
        float,
        Range(0.0, 1.0),
        "factor of the learning rate from each layer of the encoder to the one below; 1 trains all alike",
    ] = 1.0
    weight_decay: Annotated[float, Range(0.0, 1.0), "weight decay of AdamW, for all weights but biases and norms"] = (
        0.01
    )
    warmup_steps: Annotated[
        float, Range(0.0, 1e12), "steps in which the learning rate rises; below 1 a share of all steps"
    ] = 0.1
    lr_scheduler_type: Annotated[Schedule, "how the learning rate falls after the warm-up, to 0 or not at all"] = (
        "linear"
    )
    max_grad_norm: Annotated[
        float, Range(0.0, 1e6), "largest gradient norm of a net, longer gradients are scaled down; 0 is off"
    ] = 1.0
    gradient_accumulation_steps: Annotated[
        int, Range(1, 1e12), "micro-batches that an optimizer step is divided into; more of them save memory"
    ] = 1
    mixed_precision: Annotated[
        MixedPrecision,
        "number format of forward and backward passes; auto takes bf16 where it is measured to be faster",
    ] = "auto"
    eval_ema_decay: Annotated[
        float,
        Range(0.0, 1.0),
        "decay per step of the average of weights that is evaluated and saved; 0 is off, 0.99 averages about 100 steps",
    ] = 0.0
    warm_start: Annotated[
        WarmStart,
        "stage before the method, on the labels alone; auto is contrastive for pre-trained text encoders, else none",
    ] = "auto"
    warm_steps: Annotated[
        int,
        Range(0, 2**31),
        "steps of the warm start; 0 goes by the number of labels (contrastive) or takes max_steps (supervised)",
    ] = 0
    eval_steps: Annotated[int, Range(0, 2**31), "steps between evaluations on dev rows; 0 is off"] = 0
    patience: Annotated[
        int, Range(0, 2**31), "evaluations on dev rows without improvement before training stops; 0 is off"
    ] = 0
    eval_fgsm: Annotated[
        float,
        Range(0.0, 1e3),
        "size of the noise of one more test score, under the fast gradient sign method; 0 is off",
    ] = 0.0
    calibrate: Annotated[
        Calibrate,
        "rows that the saved model's temperature is fitted on: dev rows, or labels held out in folds; none is off",
    ] = "none"
    align: Annotated[
        bool, "align pseudo-labels to class shares that are estimated on the pool after the warm start"
    ] = True
    class_weights: Annotated[
        ClassWeights,
        "weights of classes in the labeled loss, by inverse frequency or effective number; for uneven classes",
    ] = "none"
    effective_beta: Annotated[
        float, Range(0.0, 1 - 1e-9), "beta of effective numbers; the nearer to 1, the more a rare class counts"
    ] = 0.99
    logit_adjustment: Annotated[
        float, Range(0.0, 10.0), "strength of correcting the logits for uneven classes, 1 in full; 0 is off"
    ] = 0.0
    guard: Annotated[bool, "warn where pseudo-labels collapse into few classes"] = True
    logging_steps: Annotated[int, Range(1, 1e12), "steps between lines of metrics.jsonl"] = 10
    save_steps: Annotated[int, Range(0, 2**31), "steps between checkpoints; 0 is off"] = 0
    save_total_limit: Annotated[int, Range(1, 1e12), "checkpoints kept, the newest ones"] = 2
    dataloader_num_workers: Annotated[
        int, Range(0, 2**31), "processes that prepare batches beside the one that trains; 0 prepares them there"
    ] = 0
    seed: Annotated[int, Range(0, 2**31), "seed of draws, order, noise and initial weights"] = 0

    def __post_init__(self) -> None:
        """Checks every field against the `Range` of its type, and those that go together.

        Raises:
            ConfigError: a value lies outside, or two do not go together.
        """
        check_ranges(self)
        check(self.batch_size * self.unlabeled_ratio, "batch_size x unlabeled_ratio", 1, 1e7)
        if self.class_weights != "none" and self.logit_adjustment:
            raise ConfigError(450, "class_weights and logit_adjustment both make up for unequal classes: choose one")
        if self.patience and not self.eval_steps:
            raise ConfigError(211, "patience needs eval_steps: say how often to evaluate on the dev rows")
