"""Adversarial training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.adversary import AddNoise, Measure, Norm, sized
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.ranges import Range, Weight


@register("adversarial")
@dataclass(frozen=True)
class Adversarial(Method):
    """Adversarial training (Miyato et al. 2017, arXiv:1605.07725): also classify labeled rows under the worst noise.

    Loss: mean_B w CE(y, z(e)) + weight * mean_B w CE(y, z(e + r)), r along g, the gradient of CE(y, z(e)) in e.
    e are the inputs: word embeddings [L, H], zero at special tokens and padding, or pixels. `norm` "l2" gives r = size
    * |e| * g / |g|, "linf" gives r = size * deviation * sign(g) (FGSM, Goodfellow et al. 2015, arXiv:1412.6572); |e|
    and the deviation are those of the row's inputs around their mean. The passes for g and for r leave dropout off and
    do not change the running statistics of batch norm. Uses labeled rows only.

    Differs from the paper: noise is relative to the inputs instead of a fixed length on normalised embeddings.

    Example:
        from nlp_ssl import Adversarial
        method = Adversarial(norm="linf", size=0.05)  # the fast gradient sign method
    """

    kinds = ("single-label", "multi-label")
    images = {"size": 0.1}
    weight: Annotated[
        Weight, "weight of the loss under noise relative to the loss without; 0 is supervised training"
    ] = 1.0
    size: Annotated[
        float,
        Range(0.0, 1e3),
        "size of the noise relative to the inputs around their mean; too much of it hides the class",
    ] = 0.02
    norm: Annotated[
        Norm, "l2 spreads the noise along the gradient, linf moves every number of the inputs by the same amount"
    ] = "l2"

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, y, inputs = run.nets["student"], batch["y"], Measure()
        (x,) = net(batch, "x", edit=inputs)  # [B, C]

        def loss(logits: Sequence[Tensor]) -> Tensor:
            return ce(logits[0], y).sum()

        noise = sized(net.gradient(batch, "x", loss=loss), inputs, self.size, self.norm)
        (noisy,) = net(batch, "x", edit=AddNoise(noise), dropout=False)  # [B, C]
        return {
            "sup": mean(batch["w"] * ce(x, y)),
            "adversarial": self.weight * mean(batch["w"] * ce(noisy, y)),
        }
