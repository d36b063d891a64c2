"""Entropy minimisation."""

from dataclasses import dataclass
from typing import Annotated

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, linear_ramp, prediction_entropy, softmax
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Kind, Losses
from nlp_ssl.utils.hyperparameters import RampUp
from nlp_ssl.utils.ranges import Weight


@register("entropy_min")
@dataclass(frozen=True)
class EntropyMin(Method):
    """Entropy minimisation (Grandvalet & Bengio 2004, not on arXiv): be sure of something on unlabeled rows.

    Loss: mean_B w CE(y, x) + weight * ramp(t) * mean_N H(softmax(u)) + prior_weight * ramp(t) * KL(prior || pbar),
    H(p) = -sum_c p_c ln p_c, pbar = mean_N softmax(u).
    The gradient runs through all of it. The ramp is linear. prior are the estimated shares of the classes, or even
    ones.

    Differs from the paper: the second term is new with `prior_weight`, off by default. Where classes are far from even
    and labels are few, entropy alone is least when all rows go to one class.

    Example:
        from nlp_ssl import EntropyMin
        method = EntropyMin(weight=0.1, prior_weight=1.0)  # keeps the predictions on the pool off a single class
    """

    kinds = ("single-label", "multi-label")
    views = {"x": "weak", "u_w": "weak"}
    weight: Annotated[
        Weight, "weight of the entropy in nats on unlabeled rows; lower it where predictions go to one class"
    ] = 0.1
    prior_weight: Annotated[
        Weight, "weight of keeping mean predictions near the class shares; 0 is off, raise it where one class takes all"
    ] = 0.0
    ramp_up: RampUp = 0.4

    def defined_for(self) -> tuple[Kind, ...]:
        return ("single-label",) if self.prior_weight else self.kinds  # shares of labels are no shares of classes

    def step(self, run: StepContext, batch: Batch) -> Losses:
        x, u = run.nets["student"](batch, "x", "u_w")  # [B, C], [N, C]: one forward
        p = softmax(u)
        run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
        ramp = linear_ramp(run.progress, self.ramp_up)
        losses = {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * ramp * mean(prediction_entropy(u)),
        }
        if self.prior_weight:
            losses["prior"] = self.prior_weight * ramp * run.imbalance(p)
        return losses
