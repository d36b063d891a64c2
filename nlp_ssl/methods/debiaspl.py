"""DebiasPL."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method
from nlp_ssl.ops.distributed import mean, stat
from nlp_ssl.ops.functional import as_logits, ce, newest, softmax
from nlp_ssl.ops.targets import confident
from nlp_ssl.registry import register
from nlp_ssl.run import Run
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.ranges import Range, Share, Weight


@register("debiaspl")
@dataclass(frozen=True)
class DebiasPL(Method):
    """DebiasPL (Wang et al. 2022, arXiv:2201.01490): pseudo-labels less what the model says whatever it sees.

    Loss: mean_B w CE(y, x) + weight * mean_N 1[max p >= threshold] CE(argmax p, u_s + b'), p = sg softmax(u_w - b).
    b [C] = strength * ln(q / shares) before this batch, b' with it, q [C] a running mean of softmax(u_w) and shares
    those of the classes estimated on the pool, or even ones: with b a class that is predicted too often makes fewer
    labels, and with b' the strong view must exceed the rest by a wider margin for the labels it makes.

    Differs from the paper: shares are even there, where here after a warm start they are estimated. q starts with the
    first batch, whose labels have b = 0, instead of at 1 / C, and has a `decay` of 0.95, about the last 20 batches,
    instead of 0.999. `threshold` is 0.8 for text. Labels are made without dropout by default.
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    images = {"threshold": 0.95}
    threshold: Share = 0.8
    weight: Weight = 1.0
    strength: Weight = 0.5
    decay: Annotated[float, Range(0.0, 0.9999)] = 0.95
    target_dropout: bool = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"mass": torch.zeros(()), "q": torch.zeros(spec.num_classes)}

    def step(self, run: Run, batch: Batch) -> Losses:
        net, state = run.nets["student"], run.state
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = net(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        w = w.detach()
        p = softmax(w - self._bias(run, w))
        state["mass"], share = newest(state["mass"], self.decay)
        state["q"] = state["q"].lerp(stat(softmax(w)), share)
        keep = confident(p, self.threshold)  # [N]
        run.watch(p, keep, batch["hidden"])
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(keep * ce(s + self._bias(run, w), p.argmax(-1))),
        }

    def _bias(self, run: Run, like: Tensor) -> Tensor:
        """By how much the logits [N, C] of each class exceed what its share calls for [C]; 0 before the first batch."""
        shares = run.shares(like)
        q = torch.where(run.state["mass"] > 0, run.state["q"].to(shares.dtype), shares)
        return self.strength * (as_logits(q) - as_logits(shares)).to(like.dtype)
