"""Supervised fine-tuning on hard or soft labels with weights."""

from dataclasses import dataclass
from typing import Annotated

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.ranges import Share


@register("supervised")
@dataclass(frozen=True)
class Supervised(Method):
    """Supervised training (no paper): cross-entropy on labeled rows, the baseline, and what every round trains with.

    Loss: mean_B w CE(y', x), y' = (1 - label_smoothing) y + label_smoothing / C.
    Labels are classes [B] or probabilities [B, C]; weights w [B] default to 1.

    Differs from the paper: there is none.

    Example:
        from nlp_ssl import Supervised
        method = Supervised(label_smoothing=0.1)
    """

    kinds = ("single-label", "multi-label")
    label_smoothing: Annotated[
        Share, "share of each label that is spread over all classes; raise it where labels are wrong now and then"
    ] = 0.0

    def step(self, run: StepContext, batch: Batch) -> Losses:
        (x,) = run.nets["student"](batch, "x")  # [B, C]
        loss = ce(x, batch["y"])  # [B]
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * ce(x, x.new_full(x.shape, 1 / x.shape[1]))
        return {"sup": mean(batch["w"] * loss)}
