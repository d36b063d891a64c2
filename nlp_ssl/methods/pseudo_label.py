"""Pseudo-Label."""

from dataclasses import dataclass
from typing import Annotated

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, linear_ramp, prediction_entropy, softmax
from nlp_ssl.ops.targets import confident
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import RampUp, UnlabeledWeight
from nlp_ssl.utils.ranges import Share, Weight


@register("pseudo_label")
@dataclass(frozen=True)
class PseudoLabel(Method):
    """Pseudo-Label (Lee 2013, not on arXiv): the model's own argmax on unlabeled rows, where confident, as the label.

    Loss: mean_B w CE(y, x) + weight * ramp(t) * mean_N 1[max p >= threshold] CE(argmax p, u) +
    entropy_weight * ramp(t) * mean_N H(p), p = softmax(u).
    The gradient runs through u in the same pass; the mean divides by all N rows. The ramp is linear. The entropy acts
    on all rows, confident or not.

    Differs from the paper: Lee has no threshold (`threshold=0`), a weight of 3 and a ramp by epochs. After a warm start
    the p that labels are read from is aligned to the estimated class shares.

    Example:
        from nlp_ssl import PseudoLabel
        method = PseudoLabel(threshold=0.0, weight=3.0)  # the paper's: every row counts
    """

    kinds = ("single-label", "multi-label")
    views = {"x": "weak", "u_w": "weak"}
    threshold: Annotated[
        Share, "least probability of a pseudo-label that counts; without one (0) predictions easily go to one class"
    ] = 0.95
    weight: UnlabeledWeight = 1.0
    entropy_weight: Annotated[
        Weight, "weight of the entropy in nats on all unlabeled rows, confident or not; 0 is off"
    ] = 0.0
    ramp_up: RampUp = 0.4

    def step(self, run: StepContext, batch: Batch) -> Losses:
        x, u = run.nets["student"](batch, "x", "u_w")  # [B, C], [N, C]: one forward
        p = run.aligned(softmax(u.detach()))
        keep = confident(p, self.threshold)  # [N]
        run.watch(p, keep, batch["true_labels"])
        ramp = linear_ramp(run.progress, self.ramp_up)
        losses = {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * ramp * mean(keep * ce(u, p.argmax(-1))),
        }
        if self.entropy_weight:
            losses["entropy"] = self.entropy_weight * ramp * mean(prediction_entropy(u))
        return losses
