"""SimMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import as_probabilities, ce, early_decay, softmax, unit
from nlp_ssl.ops.targets import confident
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Head, Losses
from nlp_ssl.utils.hyperparameters import EmaDecay, TargetDropout, Threshold, UnlabeledWeight
from nlp_ssl.utils.ranges import Share, Temperature, Weight

_WIDTH = 128  # of the projection
_NEVER = -1e4  # stands for minus infinity in a softmax, but times zero is zero


@register("simmatch")
@dataclass(frozen=True)
class SimMatch(Method):
    """SimMatch (Zheng et al. 2022, arXiv:2203.06915): strong views should be near the labeled rows weak views are near.

    Loss: mean_B w CE(y, x) + weight * mean_N 1[max q >= threshold] CE(q, u_s) + instance_weight * mean_N CE(r, v_s),
    q = alpha p + (1 - alpha) * (n added up by class), r_k = n_k p[class of k] with rows scaled to the sum 1,
    p = sg softmax(teacher(u_w)).
    The bank [K, 128] holds a feature of every labeled row, from the teacher, scaled to length 1. With v . bank_k /
    temperature over the labeled rows k: n = softmax for the teacher's u_w, v_s the logits of the student's u_s. The
    teacher is a running average of the student with decay min(1 - 1/(t+1), ema_decay).

    Differs from the paper: this batch's labeled rows join the bank before its use, and rows that never did count for
    nothing, so that training on the pool can start at once. After a warm start p is aligned to the estimated class
    shares. `threshold` is 0.8 for text: with a projection that has not learned yet q takes a tenth of the confidence,
    and nothing would reach 0.95. `ema_decay` suits hundreds of steps. The teacher has no dropout by default.

    Example:
        from nlp_ssl import SimMatch
        method = SimMatch(threshold=0.95, ema_decay=0.999)  # for a run of many thousands of steps
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    nets = {"student": "trained", "teacher": "ema"}
    heads = {"projection": Head("mlp", _WIDTH)}
    images = {"threshold": 0.95}
    threshold: Threshold = 0.8
    weight: UnlabeledWeight = 1.0
    instance_weight: Annotated[
        Weight, "weight of the loss on similarities to single labeled rows; 0 leaves the classes alone"
    ] = 1.0
    alpha: Annotated[
        Share,
        "share of the teacher's own prediction in the pseudo-label, the rest comes from near labeled rows; "
        "1 is no smoothing",
    ] = 0.9
    temperature: Annotated[
        Temperature, "temperature of similarities to labeled rows; lower values look at the nearest ones alone"
    ] = 0.1
    ema_decay: EmaDecay = 0.99
    target_dropout: TargetDropout = False

    def ema(self, step: int) -> float:
        return early_decay(self.ema_decay, step)

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"bank": torch.zeros(spec.labeled_size, _WIDTH)}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        with torch.no_grad():
            known, w = run.nets["teacher"].outputs(batch, "x", "u_w", dropout=self.target_dropout)
        x, s = run.nets["student"].outputs(batch, "x", "u_s")  # one forward
        run.remember("bank", batch["id"]["x"], unit(known["projection"].detach()))
        p = run.aligned(softmax(w["logits"].detach()))  # [N, C]
        bank, labels = run.state["bank"].to(p.dtype), as_probabilities(run.labels, p)  # [K, 128], [K, C]
        near = softmax(self._likeness(w["projection"].detach(), bank))  # [N, K]
        q = self.alpha * p + (1 - self.alpha) * near @ labels
        r = near * (p @ labels.T)  # [N, K]
        r = r / r.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        keep = confident(q, self.threshold)  # [N]
        run.watch(q, keep, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x["logits"], batch["y"])),
            "unsup": self.weight * mean(keep * ce(s["logits"], q)),
            "instance": self.instance_weight * mean(ce(self._likeness(s["projection"], bank), r)),
        }

    def _likeness(self, v: Tensor, bank: Tensor) -> Tensor:
        """Logits [N, K] of features [N, 128] over the rows of the bank."""
        return (unit(v) @ bank.T / self.temperature).masked_fill(~bank.any(1), _NEVER)
