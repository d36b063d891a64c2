"""DivideMix."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops import random
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import (
    as_logits,
    as_probabilities,
    ce,
    linear_ramp,
    prediction_entropy,
    sharpen,
    softmax,
    squared_error,
)
from nlp_ssl.ops.mixing import Mixer, mix
from nlp_ssl.ops.targets import clean_probability
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import MixAlpha, RampUp
from nlp_ssl.utils.ranges import Range, Share, Temperature, Weight

_VIEWS = ("x", "x2", "u_w", "u_w2")
_OTHER = {"student": "second", "second": "student"}


@register("dividemix")
@dataclass(frozen=True)
class DivideMix(Method):
    """DivideMix (Li et al. 2020, arXiv:2002.07394): two nets tell each other which labels to believe.

    Loss: per net, mean over believed rows of CE(t', x') + weight * ramp(t) * mean_{other rows,C} (softmax(z') - t')^2 +
    penalty_weight * KL(prior || mean_batch softmax(z')).
    Every `refresh` steps each net's losses on the labeled rows are scaled to 0..1 and split by a mixture of two
    Gaussians; what lies in the lower one has probability c of a right label, and the *other* net believes rows with c >
    threshold. Their target is sharpen(c y + (1 - c) mean of its own predictions for two views, temperature); that of
    all other rows, those of the pool among them, is sharpen(mean over two views and both nets, temperature). All rows
    are mixed with a random order of all by one lam = max(l, 1 - l), l ~ Beta(alpha, alpha). Before `supervised_until`
    both nets learn all labels: mean_B w CE(y, x) - confidence_penalty * mean_B H(softmax(x)). The nets are updated one
    after the other; `student` is evaluated and saved. Works without a pool.

    Differs from the paper: rows come in their natural proportion instead of two streams of one size, the rounds are
    counted in steps, `weight` is 5 (10 for images) instead of 25, the saved model is one net instead of the sum of two,
    and the prior is the estimated share of the classes where there is one.

    Example:
        from nlp_ssl import DivideMix
        method = DivideMix(threshold=0.7, supervised_until=0.3)  # many wrong labels: believe fewer, after a longer look
    """

    views = {"x": "weak", "x2": "weak", "u_w": "weak", "u_w2": "weak"}
    nets = {"student": "trained", "second": "trained"}
    pool_optional = True
    images = {"mixer": "embedding", "supervised_until": 0.4, "weight": 10.0}
    weight: Annotated[
        Weight,
        "weight of the squared difference on rows that are not believed and on the pool; more where labels are worse",
    ] = 5.0
    penalty_weight: Annotated[
        Weight, "weight of the penalty for predictions that depart from the class shares; keeps a net off one class"
    ] = 1.0
    threshold: Annotated[
        Share, "least probability of being right with which a label is believed; raise it where many labels are wrong"
    ] = 0.5
    temperature: Annotated[Temperature, "temperature by which targets are sharpened; 1 leaves them as they are"] = 0.5
    alpha: MixAlpha = 4.0
    supervised_until: Annotated[
        Share, "share of training on all labels as they are; long enough to learn the classes, not the wrong labels"
    ] = 0.1
    ramp_up: RampUp = 0.4
    refresh: Annotated[
        int, Range(0, 1e9), "steps between two divisions of the labels; 0 is once per pass over the pool"
    ] = 25
    confidence_penalty: Annotated[
        Weight, "weight that keeps predictions unsure while all labels are learned; for errors that favor a class"
    ] = 0.0
    least_gap: Annotated[
        Weight,
        "least difference of losses in nats that divides labels; "
        "below it all are believed, as nothing tells them apart",
    ] = 1.0
    mixer: Mixer = "hidden"

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {f"clean.{role}": torch.ones(spec.labeled_size) for role in self.nets}

    def refresh_steps(self, pass_steps: int) -> int:
        return self.refresh or pass_steps

    def begin_epoch(self, run: StepContext) -> None:
        """Splits the labels by each net's losses, for the other net; not yet while both learn all labels."""
        if run.progress < self.supervised_until:
            return
        for role, other in _OTHER.items():
            p = run.predict(role, "x")  # [L, C]
            loss = ce(as_logits(p), as_probabilities(run.labels, p))  # [L]
            clean = clean_probability(loss, self.least_gap)
            run.state[f"clean.{other}"] = clean.to(run.state[f"clean.{other}"])
            run.log(f"believed.{other}", (clean > self.threshold).float().mean())

    def step(self, run: StepContext, batch: Batch) -> Iterator[Losses]:
        learn = self._warm if run.progress < self.supervised_until else self._divided
        for role in self.nets:
            yield learn(run, batch, role)

    def _warm(self, run: StepContext, batch: Batch, role: str) -> Losses:
        (x,) = run.nets[role](batch, "x")  # [B, C]
        losses = {f"sup.{role}": mean(batch["w"] * ce(x, batch["y"]))}
        if self.confidence_penalty:
            losses[f"confidence.{role}"] = -self.confidence_penalty * mean(prediction_entropy(x))
        return losses

    def _divided(self, run: StepContext, batch: Batch, role: str) -> Losses:
        net, twin = run.nets[role], run.nets[_OTHER[role]]
        with torch.no_grad():
            own = [softmax(z.detach()) for z in net(batch, *_VIEWS)]
            other = [softmax(z.detach()) for z in twin(batch, *_VIEWS, dropout=False)]
        mine, theirs = _two_views(own), _two_views(other)  # [B + N, C]
        b, n = len(batch["y"]), len(mine) - len(batch["y"])
        clean = run.state[f"clean.{role}"][batch["id"]["x"]].to(mine)[:, None]  # [B, 1]
        believed = (clean > self.threshold).squeeze(1)  # [B]
        refined = clean * as_probabilities(batch["y"], mine) + (1 - clean) * mine[:b]
        guess = (mine + theirs) / 2
        t = sharpen(torch.where(believed[:, None], refined, guess[:b]), self.temperature)
        u = sharpen(guess[b:], self.temperature)
        run.watch(guess[b:], torch.ones_like(guess[b:, 0]), batch["true_labels"])
        targets = torch.cat([t, t, u, u])  # [2B + 2N, C], in the order of the views
        partner = random.permutation(len(targets), targets)
        mixed = mix(self.mixer, net, batch, _VIEWS, targets, self.alpha, partner=partner)
        z = torch.cat(list(net(batch, *_VIEWS, edit=mixed.edit)))  # [2B + 2N, C]: one forward
        targets = mixed.of(targets)
        p = softmax(z)
        kept = torch.cat([believed, believed, believed.new_zeros(2 * n)])
        w = torch.cat([batch["w"], batch["w"], batch["w"].new_ones(2 * n)])
        weight = self.weight * linear_ramp(run.progress - self.supervised_until, self.ramp_up)
        return {
            f"sup.{role}": mean(w * ce(z, targets), where=kept),
            f"unsup.{role}": weight * mean(w * squared_error(p, targets), where=~kept),
            f"penalty.{role}": self.penalty_weight * run.imbalance(p),
        }


def _two_views(p: list[Tensor]) -> Tensor:
    """Mean of the predictions for the two views of every row [B + N, C], labeled rows first."""
    return torch.cat([(p[0] + p[1]) / 2, (p[2] + p[3]) / 2])
