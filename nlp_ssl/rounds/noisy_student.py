"""Noisy Student."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch

from nlp_ssl.method import RoundMethod, register
from nlp_ssl.ops.functional import sharpen
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils.ranges import Range, Share, Temperature

if TYPE_CHECKING:
    from nlp_ssl.rounds.teacher import Teacher


@register("noisy_student")
@dataclass(frozen=True)
class NoisyStudent(RoundMethod):
    """Noisy Student (Xie et al. 2020, arXiv:1911.04252): a clean teacher, a noised student as large or larger.

    Loss: mean of CE(y, x_s) over the labeled rows and the copies of rows of the pool with max p >= floor,
    y = softmax(ln p / temperature) for these, or argmax p with `hard`, p the teacher's probabilities.
    The teacher labels the pool without dropout or augmentation; the student sees strong views of all rows, with
    dropout. Of every class `per_class` rows are wanted: of more the surest are taken, fewer are repeated.

    Differs from the paper: without `per_class` the classes get the shares estimated on the pool (evenly without an
    estimate), as many rows in all as the pool has. Labeled rows are repeated, instead of having batches of their own,
    and the loss is the mean over the whole batch. Noise in the net is its dropout; there is no stochastic depth.

    Example:
        from nlp_ssl import NoisyStudent
        method = NoisyStudent(per_class=500, hard=True)  # 500 rows of each class, with classes as labels
    """

    student_view = "strong"
    floor: Annotated[Share, "least probability of a pseudo-label that is learned; 0 leaves none out"] = 0.3
    per_class: Annotated[
        int,
        Range(0, 1e9),
        "rows that every class has in a round, its surest, repeated where it has fewer; 0 takes as many as the pool",
    ] = 0
    temperature: Annotated[
        Temperature, "temperature of the teacher's probabilities as targets; below 1 sharpens them, 1 leaves them"
    ] = 1.0
    hard: Annotated[bool, "learn the teacher's likeliest class instead of its probabilities"] = False

    def label(self, teacher: "Teacher") -> PseudoLabels:
        p = teacher.p
        conf, label = p.max(1)
        classes = p.shape[1]
        shares = teacher.prior if teacher.prior is not None else torch.full((classes,), 1 / classes)
        copies = np.zeros(len(p), dtype=np.int64)
        for c in range(classes):
            sure = conf.where((label == c) & (conf >= max(self.floor, 1e-12)), -1.0).numpy()
            rows = np.argsort(-sure, kind="stable")[: (sure >= 0).sum()]
            wanted = self.per_class or round(float(shares[c]) * len(p))
            copies[rows] = _copies(len(rows), wanted)
        known = p.sum(1, keepdim=True) > 0
        return PseudoLabels((sharpen(p, self.temperature) * known).numpy(), copies, np.ones(len(p)), hard=self.hard)


def _copies(rows: int, wanted: int) -> np.ndarray:
    """How often each of the rows [rows], the surest first, is taken so that there are `wanted` of them."""
    each, more = divmod(wanted, max(rows, 1))
    copies = np.full(rows, each, dtype=np.int64)
    copies[:more] += 1
    return copies
