"""MarginMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, leads, softmax
from nlp_ssl.ops.targets import Unused, class_status, classwise, flexible, selection
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import Lowest, TargetDropout, UnlabeledWeight
from nlp_ssl.utils.ranges import Share


@register("marginmatch")
@dataclass(frozen=True)
class MarginMatch(Method):
    """MarginMatch (Sosea & Caragea 2023, arXiv:2308.09037): FlexMatch, without rows the model changed its mind on.

    Loss: mean_B w CE(y, x) + weight * mean_N 1[max p >= thr[argmax p]] 1[a >= g] CE(argmax p, u_s),
    p = sg softmax(u_w), thr [C] FlexMatch's thresholds, g the `quantile` of a over all rows seen so far.
    a [N] is the row's average pseudo-margin for the class argmax p: the mean, over the times the row was seen (this one
    included), of ln p_c - max_{j != c} ln p_j, which is the margin of the logits. In g each row counts with its last
    pseudo-label.

    Differs from the paper: there g is the 95th percentile of rows that carry a class of their own, made for the
    purpose, and comes in late in training. The mean is a plain one: rows are seen a few times only in short runs.
    Thresholds count rows, and end at `lowest`, as in this package's FlexMatch. After a warm start p is aligned to the
    estimated class shares. Labels are computed without dropout by default.

    Example:
        from nlp_ssl import MarginMatch
        method = MarginMatch(quantile=0.5)  # only the half of the rows with the steadiest pseudo-labels
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    images = {"lowest": 0.8}
    threshold: Annotated[
        Share, "threshold of the class learned best, and the confidence from which a row counts as learned"
    ] = 0.95
    weight: UnlabeledWeight = 1.0
    quantile: Annotated[
        Share, "share of the rows, those of the least steady pseudo-labels, that is left out; 0 leaves FlexMatch"
    ] = 0.2
    lowest: Lowest = 0.0
    unused: Unused = "seen"
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {
            "selected": torch.full((spec.pool_size,), -2),  # the class of each row; -2 not seen, -1 not confident
            "times": torch.zeros(spec.pool_size),  # seen
            "margins": torch.zeros(spec.pool_size, spec.num_classes),  # averages so far
            "own": torch.zeros(spec.pool_size),  # the average for the last pseudo-label
        }

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, state, ids = run.nets["student"], run.state, batch["id"]["u"]
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = net(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        p = run.aligned(softmax(w.detach()))
        label, selected, times = p.argmax(-1), state["selected"], state["times"][ids]
        status = class_status(selected, p.shape[-1], self.unused).to(p.dtype)
        keep = classwise(p, flexible(self.threshold, status, self.lowest))
        run.remember("selected", ids, selection(p, self.threshold, selected[ids]))
        margins = state["margins"][ids] + (leads(p) - state["margins"][ids]) / (times + 1)[:, None]  # [N, C]
        run.remember("margins", ids, margins)
        run.remember("own", ids, margins.gather(1, label[:, None]).squeeze(1))
        run.remember("times", ids, times + 1)
        known = torch.where(state["times"] > 0, state["own"], torch.nan)
        limit = known.nanquantile(self.quantile, interpolation="lower")
        keep = keep * (state["own"][ids] >= limit).to(p.dtype)
        run.watch(p, keep, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(keep * ce(s, label)),
        }
