"""ReMixMatch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops import random
from nlp_ssl.ops.distributed import mean, stat
from nlp_ssl.ops.functional import align, as_probabilities, ce, linear_ramp, sharpen, softmax
from nlp_ssl.ops.mixing import Mixer, mix
from nlp_ssl.ops.pretext import PretextTask, pretext_loss
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Forward, Head, Losses
from nlp_ssl.utils.hyperparameters import MixAlpha, RampUp, TargetDropout
from nlp_ssl.utils.ranges import Range, Temperature, Weight


@register("remixmatch")
@dataclass(frozen=True)
class ReMixMatch(Method):
    """ReMixMatch (Berthelot et al. 2020, arXiv:1911.09785): MixMatch with aligned guesses that anchor strong views.

    Loss: mean_B w CE(y', x') + weight * ramp(t) * mean_{(K+1)N} CE(q', u') + strong_weight * ramp(t) * mean_N CE(q,
    u_s) + pretext_weight * mean_N CE(task, u_s), q = sg sharpen(aligned softmax(u_w), temperature). q is the guess for
    the weak and all K = strong_views strong views; x', u' are these rows mixed with a random order of all, each by lam
    = max(l, 1 - l), l ~ Beta(alpha, alpha). Aligned: times the classes' shares over the mean of the last `queue`
    batches, which starts uniform (or as the started model sees the pool) and takes this batch in afterwards. The ramp
    is linear. The last term is there with `pretext` only.

    Differs from the paper: labeled rows of text stay as they are, K = 2 instead of 8, a queue of 32 instead of 128
    batches (it would stay uniform for most of a short run), weights ramp over a share of training, text is mixed at a
    hidden layer, and its pretext task is off by default.

    Example:
        from nlp_ssl import ReMixMatch
        method = ReMixMatch(strong_views=8, queue=128)  # the paper's, for long runs
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong", "u_s2": "strong"}
    heads = {"pretext": Head("linear", 4)}
    images = {"mixer": "embedding", "pretext": "rotation"}
    weight: Annotated[
        Weight, "weight of the loss on mixed unlabeled rows; 0 leaves the strong view's and the pretext task's"
    ] = 1.5
    strong_weight: Annotated[Weight, "weight of the loss on an unmixed strong view, which keeps training steady"] = 0.5
    pretext_weight: Annotated[Weight, "weight of the pretext task's loss; counts only where `pretext` is not none"] = (
        0.5
    )
    temperature: Annotated[Temperature, "temperature by which guesses are sharpened; 1 leaves them as they are"] = 0.5
    alpha: MixAlpha = 0.75
    strong_views: Annotated[
        int, Range(1, 64), "strong views of each unlabeled row; each costs one more pass over the unlabeled batch"
    ] = 2
    queue: Annotated[
        int, Range(1, 1e6), "batches whose mean prediction alignment looks at; more for runs of thousands of steps"
    ] = 32
    ramp_up: RampUp = 0.4
    mixer: Mixer = "hidden"
    pretext: PretextTask = "none"
    ctaugment: Annotated[
        bool, "learn from labeled rows how strong the strong views may be (CTAugment); off uses the task's strong view"
    ] = True
    target_dropout: TargetDropout = False

    def wanted_views(self) -> Mapping[str, str]:
        kind = "controlled" if self.ctaugment else "strong"
        strong = {name: kind for name in self._strong()}
        return {"x": "weak", "u_w": "weak", **strong, **({"x_p": "probe"} if self.ctaugment else {})}

    def wanted_heads(self) -> Mapping[str, Head]:
        return self.heads if self.pretext != "none" else {}

    def _strong(self) -> list[str]:
        return ["u_s", *(f"u_s{k}" for k in range(2, self.strong_views + 1))]

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"queue": torch.full((self.queue, spec.num_classes), 1.0 / spec.num_classes), "place": torch.tensor(0)}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, views = run.nets["student"], ("x", "u_w", *self._strong())
        with torch.no_grad():
            (w,) = net(batch, "u_w", dropout=self.target_dropout)  # [N, C]
        p = self._aligned(run, softmax(w.detach()))
        q, y = sharpen(p, self.temperature), as_probabilities(batch["y"], p)
        targets = torch.cat([y, *[q] * (len(views) - 1)])  # [B + (K+1)N, C], in the order of the views
        partner = random.permutation(len(targets), p)
        mixed = mix(self.mixer, net, batch, views, targets, self.alpha, partner=partner, per_row=True)
        x, *u = net(batch, *views, edit=mixed.edit)  # [B, C], K + 1 times [N, C]: one forward
        (s,) = net(batch, "u_s")  # [N, C], unmixed
        targets = mixed.of(targets)
        run.watch(p, torch.ones_like(p[:, 0]), batch["true_labels"])
        ramp = linear_ramp(run.progress, self.ramp_up)
        losses = {
            "sup": mean(batch["w"] * ce(x, targets[: len(x)])),
            "unsup": self.weight * ramp * mean(ce(torch.cat(u), targets[len(x) :])),
            "strong": self.strong_weight * ramp * mean(ce(s, q)),
        }
        if self.pretext != "none":
            losses["pretext"] = self.pretext_weight * mean(pretext_loss(net, batch, "u_s", self.pretext))
        if self.ctaugment:
            self._probe(run, net, batch)
        return losses

    def _aligned(self, run: StepContext, p: Tensor) -> Tensor:
        """Aligned predictions [N, C]; afterwards this batch's mean joins the queue."""
        state = run.state
        if run.step == 0 and int(state["place"]) == 0 and "pool_mean" in state:  # as the started model sees the pool
            state["queue"] = state["pool_mean"].to(state["queue"].dtype).expand_as(state["queue"]).clone()
        shares = run.spec.prior or as_probabilities(run.labels, p).mean(0).tolist()
        aligned = align(p, p.new_tensor(shares), state["queue"].mean(0).to(p.dtype))
        at = (state["place"] % self.queue).view(1)
        state["queue"] = state["queue"].index_copy(0, at, stat(p).to(state["queue"].dtype)[None])
        state["place"] = state["place"] + 1
        return aligned

    def _probe(self, run: StepContext, net: Forward, batch: Batch) -> None:
        with torch.no_grad():
            (probe,) = net(batch, "x_p", dropout=False)  # [B, C]
            p = softmax(probe)
            run.steer(batch["keys"]["x_p"], 1 - 0.5 * (p - as_probabilities(batch["y"], p)).abs().sum(-1))
