"""FreeMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean, shared_mean, stat
from nlp_ssl.ops.functional import ce, newest, softmax
from nlp_ssl.ops.targets import classwise
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import Decay, TargetDropout, UnlabeledWeight
from nlp_ssl.utils.ranges import Weight


@register("freematch")
@dataclass(frozen=True)
class FreeMatch(Method):
    """FreeMatch (Wang et al. 2023, arXiv:2205.07246): thresholds that follow the model's own confidence.

    Loss: mean_B w CE(y, x) + weight * mean_N 1[max p >= thr[argmax p]] CE(argmax p, u_s)
    + fairness_weight * sum_c A_c ln B_c, p = sg softmax(u_w), thr [C] = tau * m / max m.
    tau, m [C] and h [C] are running means of max p, of p and of the histogram of argmax p with the decay `decay`, this
    batch included. A is m / h, B is mean softmax(u_s) / histogram of argmax u_s over the kept rows, both scaled
    to the sum 1. Minimised, the last term is the cross-entropy of B with the sign turned, as in the paper.

    Differs from the paper: the running means start with the first batch instead of at 1 / C and have a decay of 0.9
    instead of 0.999, which takes thousands of steps to leave the start. A and B leave out classes that one of the two
    histograms lacks: there the paper's term has the value ln 1e-12 and no gradient. `fairness_weight` is the paper's
    for text, and `weight` 0.3 instead of 1 for images. After a warm start p is aligned to the estimated class shares.
    Labels are computed without dropout by default.

    Example:
        from nlp_ssl import FreeMatch
        method = FreeMatch(decay=0.999, fairness_weight=0.01)  # for a run of many thousands of steps with large batches
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    images = {"weight": 0.3}
    weight: UnlabeledWeight = 1.0
    fairness_weight: Annotated[
        Weight,
        "weight of the fairness term; 0 where batches are small beside the number of classes, as it needs their shares",
    ] = 0.001
    decay: Decay = 0.9
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        per_class = torch.zeros(spec.num_classes)
        return {"mass": torch.zeros(()), "tau": torch.zeros(()), "p": per_class, "hist": per_class.clone()}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, state = run.nets["student"], run.state
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = net(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        p = run.aligned(softmax(w.detach()))
        conf, label = p.max(-1)
        state["mass"], share = newest(state["mass"], self.decay)
        for name, now in (("tau", conf), ("p", p), ("hist", one_hot(label, p.shape[-1]))):
            state[name] = state[name].lerp(stat(now), share)
        keep = classwise(p, state["tau"] * state["p"] / state["p"].amax())
        run.watch(p, keep, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(keep * ce(s, label)),
            "fairness": self.fairness_weight * _fairness(s, keep, state["p"], state["hist"]),
        }


def _fairness(s: Tensor, keep: Tensor, p: Tensor, hist: Tensor) -> Tensor:
    """sum_c A_c ln B_c of strong logits s [N, C]; the rows of all ranks are one batch. Zero when no row is kept."""
    q = softmax(s)
    average = shared_mean(keep[:, None] * q)  # [C]; the number of kept rows cancels out in the quotient below
    shares = shared_mean(keep[:, None] * one_hot(q.argmax(-1), q.shape[-1]))
    present = (shares > 0) & (hist > 0)
    a = torch.where(present, p / hist, 0.0).to(q.dtype)
    b = torch.where(present, average, 0.0) / torch.where(present, shares, 1.0)
    b = torch.where(present, b / b.sum().clamp(min=1e-12), 1.0)  # ln 1 = 0 where there is nothing
    return (a * b.log()).sum() / a.sum().clamp(min=1e-12)
