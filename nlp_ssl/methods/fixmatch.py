"""FixMatch."""

from dataclasses import dataclass

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, softmax
from nlp_ssl.ops.targets import confident
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import TargetDropout, Threshold, UnlabeledWeight


@register("fixmatch")
@dataclass(frozen=True)
class FixMatch(Method):
    """FixMatch (Sohn et al. 2020, arXiv:2001.07685): hard pseudo-labels from the weak view, kept where confident.

    Loss: mean_B w CE(y, x) + weight * mean_N 1[max p >= threshold] CE(argmax p, u_s), p = sg softmax(u_w).
    The mean divides by all N rows.

    Differs from the paper: labels are computed without dropout by default, and `threshold` is 0.8 for text: from few
    labels a model is seldom sure, and aligned labels are right more often than its confidence says. After a warm start
    p is aligned to the estimated class shares.

    Example:
        from nlp_ssl import FixMatch
        method = FixMatch(threshold=0.95, target_dropout=True)  # the paper's
    """

    kinds = ("single-label", "multi-label")
    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    images = {"threshold": 0.95}
    threshold: Threshold = 0.8
    weight: UnlabeledWeight = 1.0
    target_dropout: TargetDropout = False

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net = run.nets["student"]
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = net(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        p = run.aligned(softmax(w.detach()))
        keep = confident(p, self.threshold)  # [N]
        run.watch(p, keep, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(keep * ce(s, p.argmax(-1))),
        }
