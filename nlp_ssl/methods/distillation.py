"""Distillation: a student of a frozen teacher."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean, stat
from nlp_ssl.ops.functional import ce, newest, sharpen, softmax
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.ranges import Share, Temperature, Weight

_DECAY = 0.95  # of the running means of the two losses: about the last 20 batches


@register("distillation")
@dataclass(frozen=True)
class Distillation(Method):
    """Distillation on unlabeled rows (Chen et al. 2020, SimCLRv2, arXiv:2006.10029): a student copies a fixed teacher.

    Loss: (1 - alpha) * mean_B w CE(y, x) + alpha * T^2 * mean_N CE(sg softmax(teacher(u) / T), student(u) / T) +
    mlm_weight * L_mlm, T the `temperature`; without `scale_t2` the factor T^2 is left out.
    Teacher and student see the same view, the teacher without dropout. `normalise` weighs the first two losses by their
    running means E instead (Zoph et al. 2020, arXiv:2006.06882): (L_x + alpha * sg(E_x / E_u) * L_u) / (1 + alpha);
    then T^2 cancels. L_mlm is the mean loss of masked tokens of the unlabeled texts (Devlin et al. 2019,
    arXiv:1810.04805; the joint training of Zoph et al.): at alpha 0 this is supervised training with masked language
    modelling beside it. The teacher is a copy of the student as it starts, or the module given to `fit` for this role.

    Differs from the paper: it trains on the teacher alone (alpha 1) at temperature 1 or below; with few labels these
    stay half of the loss, and soft targets at temperature 2 with the factor T^2 (Hinton et al. 2015, arXiv:1503.02531)
    are the default. After a warm start the teacher's probabilities are aligned to the estimated class shares. The
    running means of `normalise` start from the first batch and look 20 batches back.

    Example:
        from nlp_ssl import Distillation
        method = Distillation(alpha=1.0, temperature=1.0)  # the paper's: the teacher alone
    """

    views = {"x": "weak", "u_w": "weak"}
    nets = {"student": "trained", "teacher": "frozen"}
    temperature: Annotated[
        Temperature,
        "temperature of teacher and student; above 1 the student also learns how the teacher ranks other classes",
    ] = 2.0
    alpha: Annotated[
        Share,
        "share of the teacher in the loss, the rest is that of the labels; "
        "0 is supervised training, 1 the teacher alone",
    ] = 0.5
    scale_t2: Annotated[
        bool, "multiply the teacher's loss by temperature^2, so that its gradient keeps its size at any temperature"
    ] = True
    normalise: Annotated[
        bool, "bring the two losses to one size by their running means, for losses of very different size"
    ] = False
    mlm_weight: Annotated[
        Weight, "weight of masked language modelling on the unlabeled texts; 0 is off, for texts alone"
    ] = 0.0

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"mean_losses": torch.zeros(2), "mass": torch.zeros(())} if self.normalise else {}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        with torch.no_grad():
            (t,) = run.nets["teacher"](batch, "u_w", dropout=False)  # [N, C]
        x, u = run.nets["student"](batch, "x", "u_w")  # [B, C], [N, C]: one forward
        p = run.aligned(softmax(t.detach()))
        run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
        sup = batch["w"] * ce(x, batch["y"])  # [B]
        unsup = ce(u / self.temperature, sharpen(p, self.temperature))  # [N]
        if self.scale_t2:
            unsup = self.temperature**2 * unsup
        losses = {"sup": (1.0 - self.alpha) * mean(sup), "unsup": self.alpha * mean(unsup)}
        if self.normalise:
            ratio = self._ratio(run, sup, unsup)
            losses = {"sup": mean(sup) / (1 + self.alpha), "unsup": self.alpha * ratio * mean(unsup) / (1 + self.alpha)}
        if self.mlm_weight:
            tokens, count = run.nets["student"].masked_tokens(batch, "u_w")  # [N], [N]
            losses["mlm"] = self.mlm_weight * mean(tokens, where=count)
        return losses

    def _ratio(self, run: StepContext, sup: Tensor, unsup: Tensor) -> Tensor:
        """Running mean of the labeled loss over that of the unlabeled one, this batch included."""
        run.state["mass"], newer = newest(run.state["mass"], _DECAY)
        means = run.state["mean_losses"].lerp(torch.stack([stat(sup), stat(unsup)]), newer)
        run.state["mean_losses"] = means
        return means[0] / means[1].clamp(min=1e-8)
