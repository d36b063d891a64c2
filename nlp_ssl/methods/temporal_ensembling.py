"""Temporal ensembling."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import from_first_values, mean
from nlp_ssl.ops.functional import ce, sigmoid_ramp, softmax, squared_error
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import RampUp, SquaredWeight, TargetDropout
from nlp_ssl.utils.ranges import Range


@register("temporal_ensembling")
@dataclass(frozen=True)
class TemporalEnsembling(Method):
    """Temporal ensembling (Laine & Aila 2017, arXiv:1610.02242): agree with one's earlier predictions for a row.

    Loss: mean_B w CE(y, x) + weight * ramp(t) * mean_{N,C} 1[t_i > 0] (softmax(u_s) - Z_i / (1 - decay^t_i))^2.
    Z [pool, C] starts at zero and takes in each prediction p = sg softmax(u_w) when its row is visited: Z_i = decay *
    Z_i + (1 - decay) p_i, t_i = t_i + 1. It is stored as it is and corrected where it is read only: divided within
    the recursion, the targets would sum to more than 1. Visits are counted row by row, because a short run sees some
    rows of the pool several times and others never. A row without a prediction has no loss. The ramp is a sigmoid.

    Differs from the paper: there one pass gives both the prediction that is compared and the one that is remembered;
    here the strong view is compared with what was predicted for the weak one. After a warm start predictions are
    aligned to the estimated class shares before they are stored. Consistency is on unlabeled rows only, and the
    supervised mean over the labeled rows, not the whole batch, so `weight` is smaller.

    Example:
        from nlp_ssl import TemporalEnsembling
        method = TemporalEnsembling(first="wait", current=True)  # nothing is known of a row before its first visit
    """

    kinds = ("single-label", "multi-label")
    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    weight: SquaredWeight = 10.0
    decay: Annotated[
        float, Range(0.0, 0.9999), "decay of a row's remembered predictions per visit; 0 remembers the last one alone"
    ] = 0.6
    ramp_up: RampUp = 0.4
    first: Annotated[
        Literal["predict", "wait"],
        "predict: the started model predicts the whole pool first, which counts as a visit; wait: it does not",
    ] = "predict"
    current: Annotated[
        bool, "the target takes in the prediction of the same visit; for runs that see a row once or twice"
    ] = False
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"z": torch.zeros(spec.pool_size, spec.num_classes), "visits": torch.zeros(spec.pool_size)}

    def begin_epoch(self, run: StepContext) -> None:
        z, visits = run.state["z"], run.state["visits"]
        if self.first == "predict" and not bool(visits.any()):
            p = run.aligned(from_first_values(run.predict("student", "u")), whole_pool=True)
            run.state["z"] = (1.0 - self.decay) * p.to(z)
            run.state["visits"] = torch.ones_like(visits)

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, ids = run.nets["student"], batch["id"]["u"]
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = net(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        p = run.aligned(softmax(w.detach()))
        z, visits = run.state["z"][ids], run.state["visits"][ids]  # [N, C], [N]
        newer = self.decay * z + (1.0 - self.decay) * p.to(z.dtype)
        known = (visits > 0).to(p.dtype)  # [N]
        target = self._corrected(newer, visits + 1) if self.current else self._corrected(z, visits)
        run.remember("z", ids, newer)
        run.remember("visits", ids, visits + 1)
        run.watch(target, known, batch["true_labels"])
        weight = self.weight * sigmoid_ramp(run.progress, self.ramp_up)
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": weight * mean(known * squared_error(softmax(s), target.to(p.dtype))),
        }

    def _corrected(self, z: Tensor, visits: Tensor) -> Tensor:
        """Z / (1 - decay^visits): the weighted mean of the predictions [N, C], zeros where there are none."""
        return z / (1.0 - self.decay ** visits.clamp(min=1.0))[:, None]
