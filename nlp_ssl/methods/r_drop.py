"""R-Drop."""

from dataclasses import dataclass
from typing import Annotated

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, linear_ramp, softmax, symmetric_kl
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import RampUp
from nlp_ssl.utils.ranges import Weight


@register("r_drop")
@dataclass(frozen=True)
class RDrop(Method):
    """R-Drop (Liang et al. 2021, arXiv:2106.14448): two passes with different dropout give one prediction.

    Loss: mean_B w (CE(y, x) + CE(y, x2)) / 2 + labeled_weight * mean_B w D(x, x2) + weight * ramp(t) * mean_N D(u_w,
    u_w2), D(a, b) = (KL(p || q) + KL(q || p)) / 2 with p = softmax(a), q = softmax(b). Gradient through both passes.
    The two views of a text are the same tokens twice in one forward, so that only dropout tells them apart; those of
    an image are augmented each on its own. The ramp is linear. Works without a pool: the paper's method.

    Differs from the paper: the two cross-entropies are averaged instead of added, so that the paper's alpha is twice
    `labeled_weight`; unlabeled rows have the second term too, and means are over rows, where the authors' code adds up.

    Example:
        from nlp_ssl import RDrop
        method = RDrop(weight=0.0, labeled_weight=2.5)  # the paper's, on labeled rows alone, with its alpha of 5
    """

    kinds = ("single-label", "multi-label")
    views = {"x": "weak", "x2": "weak", "u_w": "weak", "u_w2": "weak"}
    pool_optional = True
    weight: Annotated[
        Weight, "weight of the difference in nats between two passes over unlabeled rows; 0 is the paper's method"
    ] = 1.0
    labeled_weight: Annotated[
        Weight, "weight of the difference in nats between two passes over labeled rows, half of the paper's alpha"
    ] = 1.0
    ramp_up: RampUp = 0.0

    def step(self, run: StepContext, batch: Batch) -> Losses:
        x, x2, u, u2 = run.nets["student"](batch, "x", "x2", "u_w", "u_w2")  # twice [B, C] and [N, C]: one forward
        y, w = batch["y"], batch["w"]
        losses = {
            "sup": mean(w * 0.5 * (ce(x, y) + ce(x2, y))),
            "labeled": self.labeled_weight * mean(w * symmetric_kl(x, x2)),
        }
        if len(u):  # there is a pool
            p = softmax(u.detach())
            run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
            losses["unsup"] = self.weight * linear_ramp(run.progress, self.ramp_up) * mean(symmetric_kl(u, u2))
        return losses
