"""AdaMatch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nlp_ssl.method import Method
from nlp_ssl.ops.distributed import gather, mean, stat
from nlp_ssl.ops.functional import align, ce, cosine_ramp, softmax
from nlp_ssl.ops.targets import relative
from nlp_ssl.registry import register
from nlp_ssl.run import Run
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.ranges import Share, Weight


@register("adamatch")
@dataclass(frozen=True)
class AdaMatch(Method):
    """AdaMatch (Berthelot et al. 2022, arXiv:2106.04732): as sure as the model is of the labeled rows, and aligned.

    Loss: mean_B w (CE(y, x) + CE(y, x_s)) / 2 + weight * ramp(t) * mean_N 1[max q >= thr] CE(argmax q, u_s).
    q = p * m_x / m_u, rows scaled to the sum 1, p = sg softmax(u_w); m_x [C] and m_u [C] are running means of
    softmax(x) and of p, this batch included, and start at 1 / C. thr = threshold * mean_B max softmax(x).
    ramp(t) = (1 - cos(pi min(t / ramp_up, 1))) / 2.

    Differs from the paper: where class shares of the pool are estimated they take the place of m_x, which supposes
    that the pool's shares are those of the labels. Both means have a `decay` of 0.95, about the last 20 batches,
    instead of 0.999 for m_x and the last 128 batches for m_u. Logits are not interpolated between two batch
    normalisations: a text model has none. Labels and thresholds are made without dropout by default.
    """

    views = {"x": "weak", "x_s": "strong", "u_w": "weak", "u_s": "strong"}
    threshold: Share = 0.9
    weight: Weight = 1.0
    decay: Share = 0.95
    ramp_up: Share = 0.5
    target_dropout: bool = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        even = torch.full((spec.num_classes,), 1.0 / spec.num_classes)
        return {"labeled": even, "unlabeled": even.clone()}

    def step(self, run: Run, batch: Batch) -> Losses:
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
        run.watch(q, keep, batch["hidden"])
        y, weight = batch["y"], self.weight * cosine_ramp(run.progress, self.ramp_up)
        return {
            "sup": mean(batch["w"] * 0.5 * (ce(x, y) + ce(x_s, y))),
            "unsup": weight * mean(keep * ce(s, q.argmax(-1))),
        }
