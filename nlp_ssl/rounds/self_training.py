"""Self-training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch

from nlp_ssl.graph.propagation import propagate
from nlp_ssl.method import RoundMethod
from nlp_ssl.ops.targets import confident, top_k_per_class
from nlp_ssl.registry import register
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils.ranges import Range, Share

if TYPE_CHECKING:
    from nlp_ssl.rounds.teacher import Teacher


@register("self_training")
@dataclass(frozen=True)
class SelfTraining(RoundMethod):
    """Self-training (Scudder 1965; Yarowsky 1995): a student learns what its teacher is sure of, round after round.

    A row of the pool gets the teacher's most probable class where that reaches `threshold`, and with `per_class` only
    the surest rows of each class, equally many. All labels are made anew each round, so that they can be taken back,
    and every student starts where the first teacher started. With `source` graph the labels flow over the graph of the
    teacher's features instead (Iscen et al. 2019, arXiv:1904.04717), weighted by how sure they are; the threshold then
    counts for nothing. Probabilities are aligned to the pool's estimated class shares.
    """

    threshold: Share = 0.8
    per_class: Annotated[int, Range(0, 1e9)] = 0
    source: Literal["model", "graph"] = "model"

    images = {"threshold": 0.95}

    def label(self, teacher: "Teacher") -> PseudoLabels:
        if self.source == "graph":
            return self._of_graph(teacher)
        keep = confident(teacher.p, max(self.threshold, 1e-12))  # a row without label has probabilities of zero
        if self.per_class:
            keep = keep * top_k_per_class(teacher.p * keep[:, None], self.per_class)
        return PseudoLabels(teacher.p.numpy(), keep.numpy().astype(np.int64), np.ones(len(keep)))

    def _of_graph(self, teacher: "Teacher") -> PseudoLabels:
        data = teacher.data
        z = teacher.features()
        z = z - z.mean(1, keepdim=True)  # what all dimensions of a row share is no direction
        prior = None if teacher.prior is None else teacher.prior.tolist()
        labels = torch.from_numpy(data.labels[data.labeled])
        found = propagate(z, labels, len(data.classes), prior=prior)
        p, sure = found.p[len(labels) :], found.weights[len(labels) :]
        weights = sure * found.class_weights[p.argmax(1)]
        return PseudoLabels(p.numpy(), (sure > 0).numpy().astype(np.int64), weights.double().numpy())
