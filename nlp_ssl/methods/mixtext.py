"""MixText."""

from dataclasses import dataclass
from typing import Annotated

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops import random
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import as_probabilities, ce, kl, linear_ramp, prediction_entropy, sharpen, softmax
from nlp_ssl.ops.mixing import Mixer, mix
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import MixAlpha, RampUp, TargetDropout, UnlabeledWeight
from nlp_ssl.utils.ranges import Range, Share, Temperature, Weight

_VIEWS = ("x", "u_w", "u_s")


@register("mixtext")
@dataclass(frozen=True)
class MixText(Method):
    """MixText (Chen et al. 2020, arXiv:2004.12239): texts and their rewritings, mixed at hidden layers (TMix).

    Loss: mean_B w CE(y', x') + weight * ramp(t) * mean_{2N} KL(q' || softmax(u'))
    + hinge_weight * mean_N max(0, H(softmax(u_w)) - margin),
    q = sg sharpen((1 - strong_share) p(u_w) + strong_share p(u_s), temperature).
    The guess q serves both views, and all rows are mixed with a random order of all rows by one lam = max(l, 1 - l), l
    ~ Beta(alpha, alpha), at a layer drawn from the upper half. The hinge looks at unmixed rows. The ramp is linear.

    Differs from the paper: a text has one rewriting instead of two, padding is masked throughout (the official code
    attends to it), guesses are made without dropout, the ramp is over a share of training, and the hinge is off (as in
    its published runs). After a warm start the guess is aligned to the estimated class shares before it is sharpened.

    Example:
        from nlp_ssl import MixText
        method = MixText(strong_share=0.5, hinge_weight=1.0)  # guess from both views, and be sure of it
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    images = {"mixer": "embedding", "alpha": 0.75}
    weight: UnlabeledWeight = 1.0
    temperature: Annotated[Temperature, "temperature by which guesses are sharpened; 1 leaves them as they are"] = 0.5
    alpha: MixAlpha = 16.0
    strong_share: Annotated[
        Share, "share of the strong view in the guess; 0 guesses from the plain text, 0.5 from both alike"
    ] = 0.0
    hinge_weight: Annotated[
        Weight, "weight of the penalty on unsure predictions; 0 is off, as in the published runs"
    ] = 0.0
    margin: Annotated[
        float,
        Range(0.0, 100.0),
        "entropy in nats up to which a prediction has no penalty; counts only with `hinge_weight`",
    ] = 0.7
    ramp_up: RampUp = 0.4
    mixer: Mixer = "hidden"
    target_dropout: TargetDropout = False

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net = run.nets["student"]
        with torch.no_grad():
            w, s = net(batch, "u_w", "u_s", dropout=self.target_dropout)  # [N, C] each
        p = softmax(w.detach()).lerp(softmax(s.detach()), self.strong_share)
        p = run.aligned(p)
        q, y = sharpen(p, self.temperature), as_probabilities(batch["y"], p)
        targets = torch.cat([y, q, q])  # [B + 2N, C], in the order of the views
        partner = random.permutation(len(targets), p)
        mixed = mix(self.mixer, net, batch, _VIEWS, targets, self.alpha, partner=partner)
        x, *u = net(batch, *_VIEWS, edit=mixed.edit)  # [B, C], 2 x [N, C]: one forward
        targets = mixed.of(targets)
        run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
        weight = self.weight * linear_ramp(run.progress, self.ramp_up)
        losses = {
            "sup": mean(batch["w"] * ce(x, targets[: len(x)])),
            "unsup": weight * mean(kl(targets[len(x) :], torch.cat(u))),
        }
        if self.hinge_weight:
            (plain,) = net(batch, "u_w")  # [N, C]
            losses["hinge"] = self.hinge_weight * mean((prediction_entropy(plain) - self.margin).clamp(min=0.0))
        return losses
