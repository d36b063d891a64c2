"""Pseudo-labels with MixUp."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops import random
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import as_probabilities, ce, prediction_entropy, softmax
from nlp_ssl.ops.mixing import Mixer, mix
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import MixAlpha, UnlabeledWeight
from nlp_ssl.utils.ranges import Range, Share, Weight


@register("mixup_pseudo_label")
@dataclass(frozen=True)
class MixUpPseudoLabel(Method):
    """Pseudo-labels with MixUp (Arazo et al. 2020, arXiv:1908.02983): soft labels made once a round, all rows mixed.

    Loss: mean over all B + N rows of CE(y', z) (unlabeled rows times weight) + prior_weight * sum_c prior_c
    log(prior_c / pbar_c) + entropy_weight * mean_{B+N} H(p), p = softmax(z), pbar its mean over the batch.
    z are the logits of rows mixed with a random order of all rows: lam ~ Beta(alpha, alpha), one per batch. Labels y'
    are y for labeled rows and, for unlabeled ones, the predictions without dropout on the whole pool, renewed every
    `refresh` steps. Every batch holds its full number of labeled rows, which the paper found to be what keeps wrong
    labels from feeding on themselves.

    Differs from the paper: rounds are counted in steps (few hundred steps are less than a pass over most pools),
    prior is the estimated share of the classes where there is one, and text is mixed at a hidden layer by default.
    After a warm start the predictions on the pool are aligned to the estimated class shares.

    Example:
        from nlp_ssl import MixUpPseudoLabel
        method = MixUpPseudoLabel(supervised_until=0.3, refresh=0)  # labels first; soft labels renewed once per pass
    """

    views = {"x": "weak", "u_w": "weak"}
    images = {"mixer": "embedding", "supervised_until": 0.5}
    weight: UnlabeledWeight = 1.0
    alpha: MixAlpha = 1.0
    prior_weight: Annotated[
        Weight, "weight of keeping mean predictions near the class shares; raise it where one class takes over"
    ] = 0.8
    entropy_weight: Annotated[
        Weight, "weight of the entropy in nats of predictions, which makes them sure in spite of soft labels"
    ] = 0.4
    refresh: Annotated[
        int,
        Range(0, 1e9),
        "steps between two predictions for the whole pool; 0 is once per pass over it, more steps save time",
    ] = 25
    supervised_until: Annotated[
        Share, "share of training on the labels alone, before the pool joins; for nets that start at random"
    ] = 0.0
    mixer: Mixer = "hidden"

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"soft": torch.full((spec.pool_size, spec.num_classes), 1.0 / spec.num_classes)}

    def refresh_steps(self, pass_steps: int) -> int:
        return self.refresh or pass_steps

    def begin_epoch(self, run: StepContext) -> None:
        run.state["soft"] = run.aligned(run.predict("student", "u"), whole_pool=True)

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, views = run.nets["student"], ("x", "u_w")
        if run.progress < self.supervised_until:
            (x,) = net(batch, "x")
            return {"sup": mean(batch["w"] * ce(x, batch["y"]))}
        soft = run.state["soft"][batch["id"]["u"]]  # [N, C]
        run.watch(soft, torch.ones_like(soft[:, 0]), batch["true_labels"])
        targets = torch.cat([as_probabilities(batch["y"], soft), soft])  # [B + N, C]
        partner = random.permutation(len(targets), soft)
        mixed = mix(self.mixer, net, batch, views, targets, self.alpha, partner=partner, larger=False)
        x, u = net(batch, *views, edit=mixed.edit)  # [B, C], [N, C]: one forward
        targets, z = mixed.of(targets), torch.cat([x, u])
        p, share = softmax(z), len(x) / len(z)
        return {
            "sup": share * mean(batch["w"] * ce(x, targets[: len(x)])),
            "unsup": (1 - share) * self.weight * mean(ce(u, targets[len(x) :])),
            "prior": self.prior_weight * run.imbalance(p),
            "entropy": self.entropy_weight * mean(prediction_entropy(z)),
        }
