"""ICT: interpolation consistency training."""

from dataclasses import dataclass
from typing import Annotated

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops import random
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import as_logits, as_probabilities, ce, early_decay, sigmoid_ramp, softmax, squared_error
from nlp_ssl.ops.mixing import Mixer, mix
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import EmaDecay, MixAlpha, RampUp, SquaredWeight, TargetDropout


@register("ict")
@dataclass(frozen=True)
class ICT(Method):
    """ICT (Verma et al. 2019, arXiv:1903.03825): between two texts predict what lies between the teacher's predictions.

    Loss: mean_B w CE(mixed y, mixed x) + weight * ramp(t) * mean_{N,C} (softmax(student(mixed u)) - target)^2,
    target = lam t_i + (1 - lam) t_j, t = sg softmax(teacher(u)), lam ~ Beta(alpha, alpha), one per batch, j a random
    order. Labeled rows mix with labeled ones, unlabeled with unlabeled. The teacher sees unmixed rows and is a running
    average of the student with decay min(1 - 1/(t+1), ema_decay). The ramp is a sigmoid.

    Differs from the paper: after a warm start the teacher's probabilities are aligned to the estimated class shares,
    `weight` is 10 instead of 100, the decay suits hundreds of steps, alpha is 0.2 for text (most mixes stay close to
    one of the two texts), and `mixer` may blend hidden layers or swap spans.

    Example:
        from nlp_ssl import ICT
        method = ICT(weight=100.0, ema_decay=0.999, mix_logits=True)  # as the official code, for long runs
    """

    views = {"x": "weak", "u_w": "weak"}
    nets = {"student": "trained", "teacher": "ema"}
    images = {"alpha": 1.0}
    weight: SquaredWeight = 10.0
    alpha: MixAlpha = 0.2
    ema_decay: EmaDecay = 0.99
    ramp_up: RampUp = 0.4
    mixer: Mixer = "embedding"
    mix_logits: Annotated[bool, "mix the teacher's logits instead of its probabilities, as the official code does"] = (
        False
    )
    target_dropout: TargetDropout = False

    def ema(self, step: int) -> float:
        return early_decay(self.ema_decay, step)

    def step(self, run: StepContext, batch: Batch) -> Losses:
        with torch.no_grad():
            (t,) = run.nets["teacher"](batch, "u_w", dropout=self.target_dropout)  # [N, C]
        t = t.detach()
        p, y = run.aligned(softmax(t)), as_probabilities(batch["y"], t)
        b, n = len(y), len(p)
        order = torch.cat([random.permutation(b, t), b + random.permutation(n, t)])
        net, views = run.nets["student"], ("x", "u_w")
        mixed = mix(
            self.mixer, net, batch, views, torch.cat([y, p]), self.alpha, partner=order, larger=False
        )  # of B + N rows
        x, u = net(batch, *views, edit=mixed.edit)  # [B, C], [N, C]: one forward
        wanted = mixed.of(torch.cat([y, p]))  # [B + N, C]
        target = softmax(mixed.of(torch.cat([y, as_logits(p)]))[b:]) if self.mix_logits else wanted[b:]
        run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
        weight = self.weight * sigmoid_ramp(run.progress, self.ramp_up)
        return {
            "sup": mean(batch["w"] * ce(x, wanted[:b])),
            "unsup": weight * mean(squared_error(softmax(u), target)),
        }
