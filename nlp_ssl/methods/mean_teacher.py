"""Mean Teacher."""

from dataclasses import dataclass

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, early_decay, sigmoid_ramp, softmax, squared_error
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import EmaDecay, RampUp, SquaredWeight, TargetDropout


@register("mean_teacher")
@dataclass(frozen=True)
class MeanTeacher(Method):
    """Mean Teacher (Tarvainen & Valpola 2017, arXiv:1703.01780): agree with the running average of oneself.

    Loss: mean_B w CE(y, x) + weight * ramp(t) * mean_{N,C} (softmax(student(u_s)) - sg softmax(teacher(u_w)))^2.
    The teacher starts as a copy and follows after every optimizer step with decay min(1 - 1/(t+1), ema_decay). The ramp
    is a sigmoid.

    Differs from the paper: after a warm start the teacher's probabilities are aligned to the estimated class shares,
    consistency is on unlabeled rows only, with means instead of sums, `weight` is 50 instead of 100, and the trained
    student is the model that is saved (weight averaging for evaluation is the engine's `eval_ema_decay`).

    Example:
        from nlp_ssl import MeanTeacher
        method = MeanTeacher(ema_decay=0.999, target_dropout=True)  # for a run of many thousands of steps
    """

    kinds = ("single-label", "multi-label")
    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    nets = {"student": "trained", "teacher": "ema"}
    weight: SquaredWeight = 50.0
    ema_decay: EmaDecay = 0.99
    ramp_up: RampUp = 0.4
    target_dropout: TargetDropout = False

    def ema(self, step: int) -> float:
        return early_decay(self.ema_decay, step)

    def step(self, run: StepContext, batch: Batch) -> Losses:
        with torch.no_grad():
            (t,) = run.nets["teacher"](batch, "u_w", dropout=self.target_dropout)  # [N, C]
        x, s = run.nets["student"](batch, "x", "u_s")  # [B, C], [N, C]
        p = run.aligned(softmax(t.detach()))
        run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
        weight = self.weight * sigmoid_ramp(run.progress, self.ramp_up)
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": weight * mean(squared_error(softmax(s), p)),
        }
