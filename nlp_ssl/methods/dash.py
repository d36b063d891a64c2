"""Dash."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import as_logits, as_probabilities, ce, sharpen, softmax
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import TargetDropout, UnlabeledWeight
from nlp_ssl.utils.ranges import Range, Temperature


@register("dash")
@dataclass(frozen=True)
class Dash(Method):
    """Dash (Xu et al. 2021, arXiv:2109.00650): rows whose pseudo-label has a small loss, by a limit that falls.

    Loss: mean_B w CE(y, x) + weight * mean_N 1[CE(q, u_w) <= rho] CE(q, u_s), p = sg softmax(u_w),
    rho = max(rho_0 * gamma^(-updates * t), min_loss).
    t is the share of training done and rho_0 the mean loss of all labeled rows at the start, without dropout. q =
    softmax(u_w / temperature) while rho > min_loss, then argmax p: from there on the rule is max p >= exp(-min_loss):
    0.80 for text, 0.951 for images.

    Differs from the paper: rho falls evenly with the share of training, as often as `updates` says, instead of every
    nine epochs, and without the constant 1.0001. There is no stage of labels alone before it: that is what a warm
    start is for, after which rho_0 is below `min_loss` already and this is FixMatch at that threshold. `min_loss` is
    0.22 for text, FixMatch's 0.8 here: with the paper's 0.05 AG News ended below the labels alone. After a warm start
    p is aligned to the estimated class shares. Labels are computed without dropout by default.

    Example:
        from nlp_ssl import Dash
        method = Dash(min_loss=0.05)  # the paper's: in the end only labels with a confidence of 0.951
    """

    images = {"min_loss": 0.05}
    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    weight: UnlabeledWeight = 1.0
    gamma: Annotated[
        float,
        Range(1.0, 1e3),
        "factor by which the limit on the loss falls with each update; 1 keeps it where it starts",
    ] = 1.27
    updates: Annotated[
        int, Range(0, 10**6), "updates of the limit over the whole of training; more of them make it strict earlier"
    ] = 25
    min_loss: Annotated[
        float,
        Range(0.0, 1e3),
        "lowest limit on a pseudo-label's loss in nats; exp(-min_loss) is the confidence asked for in the end",
    ] = 0.22
    temperature: Annotated[
        Temperature, "temperature of pseudo-labels while the limit is above min_loss; below 1 sharpens them"
    ] = 0.5
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"start": torch.tensor(-1.0)}  # the labeled loss at the start, -1 before it is known

    def begin_epoch(self, run: StepContext) -> None:
        if float(run.state["start"]) < 0:
            run.state["start"] = ce(as_logits(run.predict("student", "x")), run.labels).mean().float()

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net = run.nets["student"]
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = net(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        p = run.aligned(softmax(w.detach()))
        rho = run.state["start"] * self.gamma ** (-self.updates * run.progress)
        hard = as_probabilities(p.argmax(-1), p)
        q = torch.where(rho > self.min_loss, sharpen(p, self.temperature).to(p.dtype), hard)
        keep = (ce(as_logits(p), q) <= rho.clamp(min=self.min_loss)).to(p.dtype)  # [N]
        run.watch(p, keep, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(keep * ce(s, q)),
        }
