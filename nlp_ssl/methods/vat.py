"""VAT: virtual adversarial training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops import random
from nlp_ssl.ops.adversary import AddNoise, Measure, exact_logits, power_direction, sized
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce, kl, prediction_entropy, softmax
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.ranges import Range, Weight

_VIEWS = ("x", "u_w")


@register("vat")
@dataclass(frozen=True)
class VAT(Method):
    """VAT (Miyato et al. 2018, arXiv:1704.03976): predictions should withstand the noise that hurts them most.

    Loss: mean_B w CE(y, x) + weight * mean_{B+N} KL(sg p || softmax(z(e + r))) + entropy_weight * mean_N H(p(u_w)),
    p = softmax(z(e)), r = size * |e| * d / |d|.
    e are the inputs: word embeddings [L, H], zero at special tokens and padding, or pixels. d is found by `steps` power
    iterations from a random direction, with gradients taken at the distance `reach` * |e|; |e| is the length of the
    row's inputs around their mean. All passes for p, d and r leave dropout off, the search runs in float32, and the
    running statistics of batch norm do not change.

    Differs from the paper: after a warm start p of unlabeled rows is aligned to the estimated class shares (without, a
    model of few labels runs into one class), noise is relative to the inputs instead of a fixed length on normalised
    embeddings, and the search reaches further than 1e-6, which float32 cannot resolve.

    Example:
        from nlp_ssl import VAT
        method = VAT(steps=2, entropy_weight=0.06)  # a closer search, and sure predictions
    """

    kinds = ("single-label", "multi-label")
    views = {"x": "weak", "u_w": "weak"}
    images = {"size": 0.1}
    weight: Annotated[Weight, "weight of the difference in nats that the noise makes; 0 is supervised training"] = 1.0
    size: Annotated[
        float,
        Range(0.0, 1e3),
        "size of the noise relative to the inputs around their mean; too much of it hides the class",
    ] = 0.02
    reach: Annotated[
        float,
        Range(1e-6, 1e3),
        "distance, relative to the inputs, at which the search takes its gradients; too small a one drowns in rounding",
    ] = 0.01
    steps: Annotated[
        int, Range(1, 100), "power iterations of the search; each costs one more forward and backward pass"
    ] = 1
    entropy_weight: Annotated[
        Weight, "weight of the entropy in nats on unlabeled rows, at one more pass over them; 0 is off"
    ] = 0.0

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, entropy_weight = run.nets["student"], self.entropy_weight
        x, *u = net(batch, *(_VIEWS if entropy_weight else _VIEWS[:1]))  # [B, C], [N, C]
        inputs = Measure()
        with torch.no_grad():
            clean = torch.cat(list(net(batch, *_VIEWS, edit=inputs, dropout=False)))  # [B + N, C]
        noise = self._noise(run, batch, clean, inputs)
        noisy = torch.cat(list(net(batch, *_VIEWS, edit=AddNoise(noise), dropout=False)))  # [B + N, C]
        p = run.aligned(softmax(clean[len(x) :]))  # [N, C]
        run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
        losses = {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(kl(torch.cat([softmax(clean[: len(x)]), p]), noisy)),
        }
        if entropy_weight:
            losses["entropy"] = entropy_weight * mean(prediction_entropy(u[0]))
        return losses

    def _noise(self, run: StepContext, batch: Batch, clean: Tensor, inputs: Measure) -> Tensor:
        """The noise r in the shape of the inputs."""
        net = run.nets["student"]
        # Close to the minimum the gradient is a small difference of predictions, less than half precision rounds off.
        p = softmax(exact_logits(net, batch, *_VIEWS) if inputs.rounded else clean)

        def divergence(logits: Sequence[Tensor]) -> Tensor:
            return kl(p, torch.cat(list(logits))).sum()

        def gradient(noise: Tensor) -> Tensor:
            return net.gradient(batch, *_VIEWS, loss=divergence, noise=noise)

        start = random.normal(inputs.values) * inputs.values  # in proportion to the inputs, as all noise here
        d = power_direction(gradient, start, self.reach * inputs.length, self.steps)
        return sized(d, inputs, self.size, "l2")
