"""UDA: unsupervised data augmentation."""

from dataclasses import dataclass
from typing import Annotated

import torch

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import Tsa, ce, kl, prediction_entropy, sharpen, softmax, tsa_threshold
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.hyperparameters import TargetDropout, Threshold, UnlabeledWeight
from nlp_ssl.utils.ranges import Temperature, Weight


@register("uda")
@dataclass(frozen=True)
class UDA(Method):
    """UDA (Xie et al. 2020, arXiv:1904.12848): the strong view should predict what the plain text predicts.

    Loss: sup + weight * mean_N 1[max softmax(u_w) > threshold] KL(sg softmax(u_w / temperature) || softmax(u_s)) +
    entropy_weight * mean_N H(softmax(u_w)).
    The mask looks at the untempered probability; the mean divides by all N rows.
    sup is the mean of w CE(y, x) over the labeled rows that training signal annealing keeps: those whose correct
    class has probability at most the threshold `tsa` reaches at this point of training. The last term, which the
    authors' code has and leaves off as well, carries gradient and costs a pass over the plain texts.

    Differs from the paper: its text runs use neither temperature nor threshold, but tsa="linear", and its targets have
    dropout on. After a warm start the labeled rows are fitted already: annealing would leave them all out at first.
    After a warm start the prediction for u_w is aligned to the estimated class shares, before mask and temperature.

    Example:
        from nlp_ssl import UDA
        method = UDA(threshold=0.0, temperature=1.0, tsa="linear")  # the paper's text runs; use it without a warm start
    """

    kinds = ("single-label", "multi-label")
    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    threshold: Threshold = 0.8
    temperature: Annotated[
        Temperature, "temperature of the targets; below 1 sharpens them, 1 leaves them as they are"
    ] = 0.4
    weight: UnlabeledWeight = 1.0
    entropy_weight: Annotated[
        Weight, "weight of the entropy in nats on unlabeled rows, at one more pass over them; 0 is off"
    ] = 0.0
    tsa: Annotated[
        Tsa,
        "leaves out labeled rows that are learned already: exp for few labels, log for many, linear between; "
        "not after a warm start",
    ] = "none"
    target_dropout: TargetDropout = False

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net = run.nets["student"]
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        more = ["u_w"] if self.entropy_weight else []
        x, s, *plain = net(batch, "x", "u_s", *more)  # [B, C], [N, C], [N, C]: one forward
        p = run.aligned(softmax(w.detach()))
        keep = (p.amax(-1) > self.threshold).to(p.dtype)  # [N]
        run.watch(p, keep, batch["true_labels"])
        limit = tsa_threshold(self.tsa, run.progress, x.shape[-1])
        y = batch["y"]
        right = (softmax(x.detach()) * (y if y.dim() == 2 else torch.eye(x.shape[-1]).to(x)[y])).sum(-1)  # [B]
        losses = {
            "sup": mean(batch["w"] * ce(x, y), where=right <= limit),
            "unsup": self.weight * mean(keep * kl(sharpen(p, self.temperature), s)),
        }
        if plain:
            losses["entropy"] = self.entropy_weight * mean(prediction_entropy(plain[0]))
        return losses
