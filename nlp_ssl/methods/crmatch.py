"""CRMatch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, softmax, unit
from nlp_ssl.ops.pretext import PretextTask, pretext_loss
from nlp_ssl.ops.targets import confident
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Head, Losses
from nlp_ssl.utils.hyperparameters import TargetDropout, Threshold, UnlabeledWeight
from nlp_ssl.utils.ranges import Weight


@register("crmatch")
@dataclass(frozen=True)
class CRMatch(Method):
    """CRMatch (Fan et al. 2021, arXiv:2112.05825): views agree on the class while their features tell them apart.

    Loss: mean_B w CE(y, x) + mean_N k (weight * CE(argmax p, u_s) + distance_weight * max(0, cos(g_s, sg g_w))) +
    pretext_weight * mean_N CE(task, u_w), k = 1[max p >= threshold], p = sg softmax(u_w).
    g [N, D] is a trained linear map of the features. The second term pushes g of the two views of a row apart until
    they are orthogonal: the features then still know what the augmentation did. The third is there with `pretext` only.

    Differs from the paper: for text the pretext task is off and `threshold` 0.8. After a warm start p is aligned to the
    estimated class shares. Labels are computed without dropout by default.

    Example:
        from nlp_ssl import CRMatch
        method = CRMatch(pretext="order", pretext_weight=0.5)  # also learn whether the halves of a text were swapped
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    heads = {"projection": Head("linear"), "pretext": Head("mlp", 4)}
    images = {"threshold": 0.95, "pretext": "rotation"}
    threshold: Threshold = 0.8
    weight: UnlabeledWeight = 1.0
    distance_weight: Annotated[
        Weight,
        "weight of the loss that pushes the features of a row's two views apart; 0 without a pretext task is FixMatch",
    ] = 1.0
    pretext_weight: Annotated[Weight, "weight of the pretext task's loss; counts only where `pretext` is not none"] = (
        1.0
    )
    pretext: PretextTask = "none"
    target_dropout: TargetDropout = False

    def wanted_heads(self) -> Mapping[str, Head]:
        return self.heads if self.pretext != "none" else {"projection": self.heads["projection"]}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net = run.nets["student"]
        with torch.no_grad():
            (w,) = net.outputs(batch, "u_w", dropout=self.target_dropout)  # [N, C], [N, D]
        x, s = net.outputs(batch, "x", "u_s")  # one forward
        p = run.aligned(softmax(w["logits"].detach()))
        keep = confident(p, self.threshold)  # [N]
        run.watch(p, keep, batch["true_labels"])
        cosine = (unit(s["projection"]) * unit(w["projection"].detach())).sum(-1)  # [N]
        losses = {
            "sup": mean(batch["w"] * ce(x["logits"], batch["y"])),
            "unsup": self.weight * mean(keep * ce(s["logits"], p.argmax(-1))),
            "distance": self.distance_weight * mean(keep * cosine.relu()),
        }
        if self.pretext != "none":
            losses["pretext"] = self.pretext_weight * mean(pretext_loss(net, batch, "u_w", self.pretext))
        return losses
