"""AdaMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import gather, mean, stat
from nlp_ssl.ops.functional import align, ce, cosine_ramp, softmax
from nlp_ssl.ops.targets import relative
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import RampUp, TargetDropout, UnlabeledWeight
from nlp_ssl.utils.ranges import Share


@register("adamatch")
@dataclass(frozen=True)
class AdaMatch(Method):
    """AdaMatch (Berthelot et al. 2022, arXiv:2106.04732): as sure as the model is of the labeled rows, and aligned.

    Loss: mean_B w (CE(y, x) + CE(y, x_s)) / 2 + weight * ramp(t) * mean_N 1[max q >= thr] CE(argmax q, u_s),
    q = p * m_x / m_u with rows scaled to the sum 1, p = sg softmax(u_w), thr = threshold * mean_B max softmax(x),
    ramp(t) = (1 - cos(pi min(t / ramp_up, 1))) / 2.
    m_x [C] and m_u [C] are running means of softmax(x) and of p with the decay `decay`, this batch included; they start
    at 1 / C.

    Differs from the paper: where class shares of the pool are estimated they take the place of m_x, which assumes that
    the pool has the shares of the labels. Both means have a decay of 0.95, about the last 20 batches, instead of 0.999
    for m_x and the last 128 batches for m_u. Logits are not interpolated between two batch normalisations: a text model
    has none. Labels and thresholds are computed without dropout by default.

    Example:
        from nlp_ssl import AdaMatch
        method = AdaMatch(threshold=0.95, decay=0.999)  # for a run of many thousands of steps
    """

    views = {"x": "weak", "x_s": "strong", "u_w": "weak", "u_s": "strong"}
    threshold: Annotated[
        Share, "least confidence of a pseudo-label that counts, as a share of the mean confidence on labeled rows"
    ] = 0.9
    weight: UnlabeledWeight = 1.0
    decay: Annotated[
        Share,
        "decay of the running means of predictions per step; raise it towards 0.999 for runs of thousands of steps",
    ] = 0.95
    ramp_up: RampUp = 0.5
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        even = torch.full((spec.num_classes,), 1.0 / spec.num_classes)
        return {"labeled": even, "unlabeled": even.clone()}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, state = run.nets["student"], run.state
        with torch.no_grad():
            known, w = net(batch, "x", "u_w", dropout=self.target_dropout)  # [B, C], [N, C]: one measure for both
        x, x_s, s = net(batch, "x", "x_s", "u_s")  # [B, C], [B, C], [N, C]: one forward
        known, p = softmax(known.detach()), softmax(w.detach())
        state["labeled"] = state["labeled"].lerp(stat(known), 1.0 - self.decay)
        state["unlabeled"] = state["unlabeled"].lerp(stat(p), 1.0 - self.decay)
        wanted = p.new_tensor(run.spec.prior) if run.spec.prior else state["labeled"].to(p.dtype)
        q = align(p, wanted, state["unlabeled"].to(p.dtype))
        _, of_all_ranks = gather(batch["id"]["x"], known)
        keep = relative(q, of_all_ranks, self.threshold)
        run.watch(q, keep, batch["true_labels"])
        y, weight = batch["y"], self.weight * cosine_ramp(run.progress, self.ramp_up)
        return {
            "sup": mean(batch["w"] * 0.5 * (ce(x, y) + ce(x_s, y))),
            "unsup": weight * mean(keep * ce(s, q.argmax(-1))),
        }
