"""JointMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean, stat
from nlp_ssl.ops.functional import ce, softmax
from nlp_ssl.ops.targets import classwise
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import Decay, TargetDropout, UnlabeledWeight
from nlp_ssl.utils.ranges import Share


@register("jointmatch")
@dataclass(frozen=True)
class JointMatch(Method):
    """JointMatch (Zou & Caragea 2023, arXiv:2310.14583): two nets label for each other, most where one alone is sure.

    Loss: sum over both nets of mean_B w CE(y, x) + weight * mean_N k' d CE(argmax p', u_s), p' = sg softmax(u_w) and k'
    of the *other* net, k = 1[max p >= thr[argmax p]], thr [C] = threshold * m / max m.
    d [N] = `disagreement` where exactly one net has k = 1, 1 - disagreement where both have. m [C] is a running mean of
    both nets' p with the decay `decay`, this batch included. `student` is evaluated and saved.

    Differs from the paper: one update per batch, of both nets, instead of one for the labeled and one for the unlabeled
    rows; m, which starts at 1 / C, takes in both nets at once. One net is evaluated and saved instead of the mean of
    both nets' averages over the steps. The threshold is FixMatch's, 0.8 for text, instead of 0.98. After a warm start p
    is aligned to the estimated class shares. Labels are computed without dropout by default.

    Example:
        from nlp_ssl import JointMatch
        method = JointMatch(threshold=0.98)  # the paper's threshold, with its weights for disagreement
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    nets = {"student": "trained", "second": "trained"}
    images = {"threshold": 0.95}
    threshold: Annotated[
        Share, "least confidence of a pseudo-label in the class predicted most; lower it where mask_rate stays near 0"
    ] = 0.8
    weight: UnlabeledWeight = 1.0
    disagreement: Annotated[
        Share,
        "weight of rows of which one net alone is sure; "
        "those of which both are sure get the rest, 0.5 treats both alike",
    ] = 0.9
    decay: Decay = 0.9
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"p": torch.full((spec.num_classes,), 1.0 / spec.num_classes)}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        one, two, state = run.nets["student"], run.nets["second"], run.state
        with torch.no_grad():
            w = torch.cat([net(batch, "u_w", dropout=self.target_dropout)[0] for net in (one, two)])  # [2N, C]
        x, s = one(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        x2, s2 = two(batch, "x", "u_s")
        p = run.aligned(softmax(w.detach()))
        state["p"] = state["p"].lerp(stat(p), 1 - self.decay)
        sure = classwise(p, self.threshold * state["p"] / state["p"].amax())  # [2N]
        both, other = sure * _swapped(sure), _swapped(p)
        alone = sure + _swapped(sure) - 2 * both
        keep = _swapped(sure) * (self.disagreement * alone + (1 - self.disagreement) * both)  # [2N]
        run.watch(other, keep > 0, batch["true_labels"].repeat(2))
        first, second = (keep * ce(torch.cat([s, s2]), other.argmax(-1))).chunk(2)
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(first),
            "sup.second": mean(batch["w"] * ce(x2, batch["y"])),
            "unsup.second": self.weight * mean(second),
        }


def _swapped(v: Tensor) -> Tensor:
    """Rows [2N, ...] of the two nets in the other order."""
    return v.roll(len(v) // 2, 0)
