"""SoftMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean, stat, total
from nlp_ssl.ops.functional import align, ce, newest, softmax
from nlp_ssl.ops.targets import truncated_gaussian
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import Decay, TargetDropout, UnlabeledWeight
from nlp_ssl.utils.ranges import Weight


@register("softmatch")
@dataclass(frozen=True)
class SoftMatch(Method):
    """SoftMatch (Chen et al. 2023, arXiv:2301.10921): all rows count, unsure ones for less.

    Loss: mean_B w CE(y, x) + weight * mean_N g(c) CE(argmax p, u_s), p = sg softmax(u_w),
    g(c) = exp(-min(c - mu, 0)^2 / (2 var / n_sigma^2)).
    c [N] is the largest probability of p after alignment to even class shares, or to the estimated ones where there
    is an estimate; the label is that of p. mu and var are running values of the mean and the unbiased variance of c
    with the decay `decay`, this batch included.

    Differs from the paper: mu, var and the mean of p start with the first batch instead of at 1 / C, 1 and 1 / C, and
    have a decay of 0.9 instead of 0.999: with a variance that starts at 1 nearly every row would count in full for
    the length of a short run. `weight` is 0.3 instead of 1 for images. After a warm start p, and the label with it, is
    aligned to the estimated class shares. Labels are computed without dropout by default.

    Example:
        from nlp_ssl import SoftMatch
        method = SoftMatch(n_sigma=3.0)  # rows of little confidence count for less than by default
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    images = {"weight": 0.3}
    weight: UnlabeledWeight = 1.0
    n_sigma: Annotated[
        Weight,
        "how quickly rows below the mean confidence lose weight; "
        "0 counts all in full, large values only those above it",
    ] = 2.0
    decay: Decay = 0.9
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {
            "mass": torch.zeros(()),
            "mu": torch.zeros(()),
            "var": torch.zeros(()),
            "p": torch.zeros(spec.num_classes),
        }

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, state = run.nets["student"], run.state
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = net(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        p = run.aligned(softmax(w.detach()))
        state["mass"], share = newest(state["mass"], self.decay)
        state["p"] = state["p"].lerp(stat(p), share)
        conf = align(p, run.shares(p), state["p"].to(p.dtype)).amax(-1)  # [N]
        rows = total(torch.ones_like(conf).sum())
        centre = stat(conf)
        var = stat((conf - centre).square()) * (rows / (rows - 1).clamp(min=1)).to(centre.dtype)  # rows of all ranks
        state["mu"] = state["mu"].lerp(centre, share)
        # One row has no variance.
        state["var"] = torch.where(rows > 1, state["var"].lerp(var, share), state["var"])
        weights = truncated_gaussian(conf, state["mu"], state["var"], self.n_sigma)
        run.watch(p, weights, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(weights * ce(s, p.argmax(-1))),
        }
