"""DeFixMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, softmax
from nlp_ssl.ops.targets import confident
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import TargetDropout, Threshold
from nlp_ssl.utils.ranges import Weight


@register("defixmatch")
@dataclass(frozen=True)
class DeFixMatch(Method):
    """DeFixMatch (Schmutz et al. 2022, arXiv:2203.07512): FixMatch, less what it would cost on the labeled rows.

    Loss: mean_B w (CE(y, x) + CE(y, x_s)) / 2 + weight * (mean_N H(u_w, u_s) - mean_B w H(x, x_s)),
    H(a, b) = 1[max p >= threshold] CE(argmax p, b), p = sg softmax(a).
    On average over labeled and unlabeled rows of one kind the last two means cancel: the loss expects what the
    supervised one does, however wrong the pseudo-labels are. With the paper's `weight` of 1/2 the subtracted term
    takes back no more of CE(y, x_s) than the first one gives where the model fits the labels; above 1/2 the loss has
    no lower bound.

    Differs from the paper: labels are computed without dropout by default, and `threshold` is 0.8 for text. After a
    warm start p of unlabeled rows is aligned to the estimated class shares; that of labeled rows is not.

    Example:
        from nlp_ssl import DeFixMatch
        method = DeFixMatch(threshold=0.95, weight=0.5)  # the paper's, for images
    """

    views = {"x": "weak", "x_s": "strong", "u_w": "weak", "u_s": "strong"}
    images = {"threshold": 0.95}
    threshold: Threshold = 0.8
    weight: Annotated[
        Weight,
        "weight of the pseudo-label loss and of what is subtracted for it; above 0.5 the loss has no lower bound",
    ] = 0.5
    target_dropout: TargetDropout = False

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net = run.nets["student"]
        with torch.no_grad():
            z, w = net(batch, "x", "u_w", dropout=self.target_dropout)  # [B, C], [N, C]
        x, x_s, s = net(batch, "x", "x_s", "u_s")  # [B, C], [B, C], [N, C]: one forward
        known, p = softmax(z.detach()), run.aligned(softmax(w.detach()))
        keep = confident(p, self.threshold)  # [N]
        run.watch(p, keep, batch["true_labels"])
        y = batch["y"]
        again = confident(known, self.threshold) * ce(x_s, known.argmax(-1))  # [B]
        return {
            "sup": mean(batch["w"] * 0.5 * (ce(x, y) + ce(x_s, y))),
            "unsup": self.weight * mean(keep * ce(s, p.argmax(-1))),
            "debias": -self.weight * mean(batch["w"] * again),
        }
