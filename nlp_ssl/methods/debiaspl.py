"""DebiasPL."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean, stat
from nlp_ssl.ops.functional import as_logits, ce, newest, softmax
from nlp_ssl.ops.targets import confident
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import Decay, TargetDropout, Threshold, UnlabeledWeight
from nlp_ssl.utils.ranges import Weight


@register("debiaspl")
@dataclass(frozen=True)
class DebiasPL(Method):
    """DebiasPL (Wang et al. 2022, arXiv:2201.01490): pseudo-labels less what the model says whatever it sees.

    Loss: mean_B w CE(y, x) + weight * mean_N 1[max p >= threshold] CE(argmax p, u_s + b'), p = sg softmax(u_w - b),
    b [C] = strength * ln(q / shares) before this batch, b' the same with it.
    q [C] is a running mean of softmax(u_w) with the decay `decay`, and shares are those of the classes estimated on the
    pool, or even ones: with b a class that is predicted too often gets fewer labels, and with b' the strong view must
    exceed the rest by a wider margin for the labels it gets.

    Differs from the paper: shares are even there, where here after a warm start they are estimated. q starts with the
    first batch, whose labels have b = 0, instead of at 1 / C, and has a decay of 0.95, about the last 20 batches,
    instead of 0.999. `threshold` is 0.8 for text. Labels are computed without dropout by default.

    Example:
        from nlp_ssl import DebiasPL
        method = DebiasPL(strength=1.0)  # the full correction, where a few classes take most pseudo-labels
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    images = {"threshold": 0.95}
    threshold: Threshold = 0.8
    weight: UnlabeledWeight = 1.0
    strength: Annotated[
        Weight,
        "how far predictions are corrected for classes predicted too often, 1 in full; 0 is FixMatch without alignment",
    ] = 0.5
    decay: Decay = 0.95
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"mass": torch.zeros(()), "q": torch.zeros(spec.num_classes)}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, state = run.nets["student"], run.state
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = net(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        w = w.detach()
        p = softmax(w - self._bias(run, w))
        state["mass"], share = newest(state["mass"], self.decay)
        state["q"] = state["q"].lerp(stat(softmax(w)), share)
        keep = confident(p, self.threshold)  # [N]
        run.watch(p, keep, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(keep * ce(s + self._bias(run, w), p.argmax(-1))),
        }

    def _bias(self, run: StepContext, like: Tensor) -> Tensor:
        """By how much the logits [N, C] of each class exceed what its share calls for [C]; 0 before the first batch."""
        shares = run.shares(like)
        q = torch.where(run.state["mass"] > 0, run.state["q"].to(shares.dtype), shares)
        return self.strength * (as_logits(q) - as_logits(shares)).to(like.dtype)
