"""Pi-model."""

from dataclasses import dataclass

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, sigmoid_ramp, softmax, squared_error
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import RampUp, SquaredWeight


@register("pi_model")
@dataclass(frozen=True)
class PiModel(Method):
    """Pi-model (Laine & Aila 2017, arXiv:1610.02242): two noisy passes over a text should agree.

    Loss: mean_B w CE(y, x) + weight * ramp(t) * mean_{N,C} (softmax(u_w) - softmax(u_w2))^2.
    Both passes carry gradient and have their own dropout and weak augmentation (texts have none). The ramp is a
    sigmoid.

    Differs from the paper: after a warm start the first view's probabilities are aligned to the estimated class shares,
    the supervised mean is over the labeled rows, not the whole batch (so `weight` is smaller than the paper's 100), and
    the consistency term is on unlabeled rows only.

    Example:
        from nlp_ssl import PiModel
        method = PiModel(weight=3.0, ramp_up=0.8)  # a gentler pull that grows for most of training
    """

    kinds = ("single-label", "multi-label")
    views = {"x": "weak", "u_w": "weak", "u_w2": "weak"}
    weight: SquaredWeight = 10.0
    ramp_up: RampUp = 0.4

    def step(self, run: StepContext, batch: Batch) -> Losses:
        x, w, w2 = run.nets["student"](batch, "x", "u_w", "u_w2")  # [B, C], [N, C], [N, C]: one forward
        p, q = run.aligned(softmax(w)), softmax(w2)
        run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
        weight = self.weight * sigmoid_ramp(run.progress, self.ramp_up)
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": weight * mean(squared_error(p, q)),
        }
