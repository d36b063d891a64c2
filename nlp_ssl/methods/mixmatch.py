"""MixMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops import random
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import as_probabilities, ce, linear_ramp, sharpen, softmax, squared_error
from nlp_ssl.ops.mixing import Mixer, mix
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import MixAlpha, RampUp, SquaredWeight
from nlp_ssl.utils.ranges import Temperature

_VIEWS = ("x", "u_w", "u_w2")


@register("mixmatch")
@dataclass(frozen=True)
class MixMatch(Method):
    """MixMatch (Berthelot et al. 2019, arXiv:1905.02249): guess, sharpen, and mix all rows with each other.

    Loss: mean_B w CE(y', x') + weight * ramp(t) * mean_{2N,C} (softmax(u') - q')^2,
    q = sg sharpen(mean of the predictions for two weak views, temperature).
    q is the guess for both views, and x', u', y', q' are all rows mixed with a random order of all rows, each with its
    own lam = max(l, 1 - l), l ~ Beta(alpha, alpha). The ramp is linear.

    Differs from the paper: a text's rows are mixed at a hidden layer by default, and the weight, 10 instead of 75, and
    its ramp, a share of training, suit hundreds of steps. After a warm start the mean prediction is aligned to the
    estimated class shares.

    Example:
        from nlp_ssl import MixMatch
        method = MixMatch(weight=75.0, mixer="embedding")  # the paper's, for long runs
    """

    views = {"x": "weak", "u_w": "weak", "u_w2": "weak"}
    images = {"mixer": "embedding"}
    weight: SquaredWeight = 10.0
    temperature: Annotated[Temperature, "temperature by which guesses are sharpened; 1 leaves them as they are"] = 0.5
    alpha: MixAlpha = 0.75
    ramp_up: RampUp = 0.4
    mixer: Mixer = "hidden"
    target_dropout: Annotated[
        bool, "dropout stays on in the pass that makes the guesses; for text it is all that tells the two views apart"
    ] = True

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net = run.nets["student"]
        with torch.no_grad():
            w1, w2 = net(batch, "u_w", "u_w2", dropout=self.target_dropout)  # [N, C] each
        p = run.aligned((softmax(w1.detach()) + softmax(w2.detach())) / 2)
        q, y = sharpen(p, self.temperature), as_probabilities(batch["y"], p)
        targets = torch.cat([y, q, q])  # [B + 2N, C], in the order of the views
        partner = random.permutation(len(targets), p)
        mixed = mix(self.mixer, net, batch, _VIEWS, targets, self.alpha, partner=partner, per_row=True)
        x, *u = net(batch, *_VIEWS, edit=mixed.edit)  # [B, C], 2 x [N, C]: one forward
        targets = mixed.of(targets)
        run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
        weight = self.weight * linear_ramp(run.progress, self.ramp_up)
        return {
            "sup": mean(batch["w"] * ce(x, targets[: len(x)])),
            "unsup": weight * mean(squared_error(softmax(torch.cat(u)), targets[len(x) :])),
        }
