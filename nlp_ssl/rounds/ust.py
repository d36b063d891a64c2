"""Uncertainty-aware self-training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.method import RoundMethod, register
from nlp_ssl.ops.functional import entropy
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils.ranges import Range, Share, Weight

if TYPE_CHECKING:
    from nlp_ssl.rounds.teacher import Teacher

_LEAST_VARIANCE = 1e-10


@register("ust")
@dataclass(frozen=True)
class UST(RoundMethod):
    """Uncertainty-aware self-training (Mukherjee and Awadallah 2020, arXiv:2006.15315): learn what the teacher knows.

    Loss: mean of w CE(y, x) over the labeled rows and the drawn rows of the pool, for these y = argmax p and
    w = -alpha ln(variance of the probability of y over `passes` passes with dropout).
    The passes over `sample` rows of the pool give each row's mutual information between label and net, BALD = H(mean p)
    - mean H(p) (Houlsby et al. 2011, arXiv:1112.5745). A `share` of the rows is drawn, equally many of each predicted
    class, with probabilities in proportion to 1 - BALD, or to BALD without `easy`.

    Differs from the paper: the variance is that of the predicted class (in the authors' code of the first class, which
    is the same for two), students start afresh each round as in self-training, and labeled rows stay among those
    learned. Ten passes over 4,096 rows instead of 30 over 16,384: on a CPU they would take far longer than training.

    Example:
        from nlp_ssl import UST
        method = UST(passes=30, sample=16384)  # as the authors' code, for a GPU
    """

    passes: Annotated[
        int,
        Range(2, 10_000),
        "predictions with dropout of each sampled row; more give steadier estimates and cost as much more",
    ] = 10
    sample: Annotated[
        int, Range(1, 1e9), "rows of the pool that a round considers; the time of labeling grows with it"
    ] = 4096
    share: Annotated[Share, "share of the sampled rows that is learned in a round"] = 0.25
    alpha: Annotated[
        Weight, "scale of the weight that a row has by the teacher's certainty; lower it to give labeled rows more say"
    ] = 0.1
    easy: Annotated[bool, "prefer rows that the teacher is certain of; off prefers the hardest ones"] = True

    def label(self, teacher: "Teacher") -> PseudoLabels:
        p, rng = teacher.p, teacher.rng()
        labeled = (p.sum(1) > 0).nonzero().squeeze(1).numpy()
        rows = np.sort(rng.permutation(labeled)[: self.sample])
        if not len(rows):
            return PseudoLabels(p.numpy(), np.zeros(len(p), dtype=np.int64), np.ones(len(p)))
        label = p.argmax(1).numpy()[rows]
        bald, variance = uncertainty(teacher.samples(rows, self.passes), torch.from_numpy(label))
        chance = (1.0 - bald).clamp(min=0.0) if self.easy else bald
        drawn = draw(chance.numpy(), label, max(round(self.share * len(rows)), 1), p.shape[1], rng)
        copies, weights = np.zeros(len(p), dtype=np.int64), np.ones(len(p))
        np.add.at(copies, rows[drawn], 1)
        weights[rows] = (-self.alpha * (variance + _LEAST_VARIANCE).log()).numpy()
        return PseudoLabels(p.numpy(), copies, weights)


def uncertainty(passes: Iterable[Tensor], label: Tensor) -> tuple[Tensor, Tensor]:
    """(BALD in nats [n], variance of the probability of `label` [n]) over passes of probabilities [n, C]."""
    count, mean, spread, noise = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for p in passes:
        count += 1
        off = p - mean
        mean = mean + off / count
        spread = spread + off * (p - mean)
        noise = noise + entropy(p)
    variance = spread.gather(1, label[:, None]).squeeze(1) / count
    return (entropy(mean) - noise / count).clamp(min=0.0), variance


def draw(chance: np.ndarray, label: np.ndarray, wanted: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Rows drawn in proportion to their chance [n], equally many of each class; with repeats where a class is small."""
    each, drawn = math.ceil(wanted / classes), []
    for c in range(classes):
        members = np.flatnonzero(label == c)
        if not len(members):
            continue
        odds = chance[members] + 1e-12
        few = len(members) < each
        drawn.append(rng.choice(members, each, replace=few, p=odds / odds.sum()))
    return np.concatenate(drawn)
