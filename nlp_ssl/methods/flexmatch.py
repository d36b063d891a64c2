"""FlexMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, softmax
from nlp_ssl.ops.targets import Unused, class_status, classwise, flexible, selection
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import Lowest, TargetDropout, UnlabeledWeight
from nlp_ssl.utils.ranges import Share


@register("flexmatch")
@dataclass(frozen=True)
class FlexMatch(Method):
    """FlexMatch (Zhang et al. 2021, arXiv:2110.08263): FixMatch with lower thresholds for classes learned less well.

    Loss: mean_B w CE(y, x) + weight * mean_N 1[max p >= thr[argmax p]] CE(argmax p, u_s), p = sg softmax(u_w),
    thr [C] = lowest + (threshold - lowest) M(beta), M(b) = b / (2 - b).
    beta = rows of the pool selected for the class / the most that any class has, or the `unused` rows if they are more.
    A row is selected for the last class in which it reached the fixed `threshold`; a step uses the thresholds of the
    steps before it.

    Differs from the paper: there all rows of the pool that are not selected yet are unused (`unused="pool"`); a short
    run never sees most of a large pool, and its thresholds would stay near zero. Here rows are unused when they were
    seen and not confident. With "seen" the first step has `threshold` for all classes, with "pool" `lowest`. That is
    0 in the paper; a net that starts at random would learn its first guesses, so that images have 0.8. After a
    warm start p is aligned to the estimated class shares. Labels are computed without dropout by default.

    Example:
        from nlp_ssl import FlexMatch
        method = FlexMatch(unused="pool")  # the paper's, for runs of several passes over the pool
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    images = {"lowest": 0.8}
    threshold: Annotated[
        Share, "threshold of the class learned best, and the confidence from which a row counts as learned"
    ] = 0.95
    weight: UnlabeledWeight = 1.0
    lowest: Lowest = 0.0
    unused: Unused = "seen"
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"selected": torch.full((spec.pool_size,), -2)}  # the class of each row; -2 not seen, -1 not confident

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, ids = run.nets["student"], batch["id"]["u"]
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = net(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        p = run.aligned(softmax(w.detach()))
        selected = run.state["selected"]
        status = class_status(selected, p.shape[-1], self.unused).to(p.dtype)
        keep = classwise(p, flexible(self.threshold, status, self.lowest))
        run.remember("selected", ids, selection(p, self.threshold, selected[ids]))
        run.watch(p, keep, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(keep * ce(s, p.argmax(-1))),
        }
