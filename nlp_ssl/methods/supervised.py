"""Supervised fine-tuning on hard or soft labels with weights."""

from dataclasses import dataclass

from nlp_ssl.method import Method
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce
from nlp_ssl.registry import register
from nlp_ssl.run import Run
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.ranges import Share


@register("supervised")
@dataclass(frozen=True)
class Supervised(Method):
    """Cross-entropy on labeled rows: the baseline, and the second half of every method that works in rounds.

    Loss: mean_B w * CE(y', x), where y' is y with `label_smoothing` spread over the classes.
    Labels are classes [B] or probabilities [B, C]; weights w [B] default to 1.
    """

    kinds = ("one", "many")
    label_smoothing: Share = 0.0

    def step(self, run: Run, batch: Batch) -> Losses:
        (x,) = run.nets["student"](batch, "x")  # [B, C]
        loss = ce(x, batch["y"])  # [B]
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * ce(x, x.new_full(x.shape, 1 / x.shape[1]))
        return {"sup": mean(batch["w"] * loss)}
