"""Self-training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch

from nlp_ssl.graph.propagation import propagate
from nlp_ssl.method import RoundMethod, register
from nlp_ssl.ops.targets import confident, top_k_per_class
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils.ranges import Range, Share

if TYPE_CHECKING:
    from nlp_ssl.rounds.teacher import Teacher


@register("self_training")
@dataclass(frozen=True)
class SelfTraining(RoundMethod):
    """Self-training (Scudder 1965, Yarowsky 1995, not on arXiv): students learn what their teacher is sure of.

    Loss: mean of w CE(y, x) over the labeled rows and the rows of the pool with max p >= threshold, y = argmax p for
    these, p the teacher's probabilities.
    With `per_class` only the surest rows of each class count, equally many. All labels are computed anew each round, so
    that they can be taken back, and every student starts where the first teacher started. With `source` graph the
    labels flow over the graph of the teacher's features instead (Iscen et al. 2019, arXiv:1904.04717), weighted by how
    sure they are; the threshold then counts for nothing. Probabilities are aligned to the pool's estimated class
    shares.

    Differs from the paper: both are older than neural classifiers of text; the net, `per_class`, the alignment and the
    graph are not theirs.

    Example:
        from nlp_ssl import SelfTraining
        method = SelfTraining(threshold=0.9, per_class=200)  # the 200 surest rows of each class, if they reach 0.9
    """

    threshold: Annotated[
        Share,
        "least probability of a pseudo-label that is learned; "
        "lower it where few rows reach it, raise it where labels are wrong",
    ] = 0.8
    per_class: Annotated[
        int,
        Range(0, 1e9),
        "most rows learned of each class in a round, its surest; 0 has no limit, set it where one class takes over",
    ] = 0
    source: Annotated[
        Literal["model", "graph"],
        "labels are the teacher's predictions, "
        "or flow over a graph of its features: where rows of a class lie together",
    ] = "model"

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
        propagated = propagate(z, labels, len(data.classes), prior=prior)
        p, sure = propagated.p[len(labels) :], propagated.weights[len(labels) :]
        weights = sure * propagated.class_weights[p.argmax(1)]
        return PseudoLabels(p.numpy(), (sure > 0).numpy().astype(np.int64), weights.double().numpy())
