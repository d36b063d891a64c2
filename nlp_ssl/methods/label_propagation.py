"""Label propagation."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.graph.propagation import propagate
from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import from_first_values, mean
from nlp_ssl.ops.functional import ce
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Losses
from nlp_ssl.utils.hyperparameters import UnlabeledWeight
from nlp_ssl.utils.ranges import Range


@register("label_propagation")
@dataclass(frozen=True)
class LabelPropagation(Method):
    """Label propagation (Iscen et al. 2019, arXiv:1904.04717): rows take the labels of those they lie next to.

    Loss: mean_B w CE(y, x) + weight * mean_N w_i zeta[c_i] CE(c_i, u), c_i = argmax P_i.
    Every `refresh` steps the features of all rows, computed without dropout, are linked to their `neighbors` nearest by
    max(cosine, 0)^gamma, and the labels flow over that graph: with W its symmetric weights, scaled by the degrees,
    P [pool, C] are the rows of (I - alpha W)^-1 Y, scaled to the sum 1. Y is 1 / (labels of the class) at the labeled
    rows. w_i = 1 - H(P_i) / ln C, over the largest one; zeta = (rows / C) / rows of the class. A row that no label
    reaches has weight 0 and does not count.

    Differs from the paper: Y is 1 there (the authors' code divides, as here, so that no class sends out more than
    another). Where class shares of the pool are estimated, the columns of P are scaled until labels have these shares,
    and zeta is share * rows / rows of the class: with even ones, rare classes take far too many rows. Similarities
    below zero are no edges, features are centred before, the labeled rows' own loss is not scaled by zeta, and the
    started model takes the place of a stage of training on the labels alone. Rounds are counted in steps: a short run
    is less than a pass over most pools.

    Example:
        from nlp_ssl import LabelPropagation
        method = LabelPropagation(neighbors=20, refresh=0)  # a sparser graph, renewed once per pass over the pool
    """

    views = {"x": "weak", "u_w": "weak"}
    weight: UnlabeledWeight = 1.0
    neighbors: Annotated[
        int, Range(1, 1e6), "nearest rows that each row is linked to; fewer for a small pool or small classes"
    ] = 50
    gamma: Annotated[
        float, Range(0.0, 100.0), "power of the similarities; the higher, the more the nearest rows alone count"
    ] = 3.0
    alpha: Annotated[
        float, Range(0.0, 0.999), "how far labels flow over the graph; 0 leaves them with the labeled rows"
    ] = 0.99
    refresh: Annotated[
        int,
        Range(0, 1e9),
        "steps between two graphs of the whole pool; 0 is once per pass over it, more steps save time",
    ] = 50

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {
            "p": torch.zeros(spec.pool_size, spec.num_classes),
            "weights": torch.zeros(spec.pool_size),
            "class_weights": torch.ones(spec.num_classes),
        }

    def refresh_steps(self, pass_steps: int) -> int:
        return self.refresh or pass_steps

    def begin_epoch(self, run: StepContext) -> None:
        features = torch.cat([run.features("student", block) for block in ("x", "u")])  # [L + pool, D]
        # What all dimensions of a row share is no direction: rows are compared by correlation.
        features = features - features.mean(1, keepdim=True)
        propagated = propagate(
            features,
            run.labels,
            run.spec.num_classes,
            k=self.neighbors,
            gamma=self.gamma,
            alpha=self.alpha,
            prior=run.spec.prior,
        )
        pool = slice(len(run.labels), None)
        new = {"p": propagated.p[pool], "weights": propagated.weights[pool], "class_weights": propagated.class_weights}
        # Neighbors at the same distance may come in another order on another machine: the first rank decides.
        run.state |= {name: from_first_values(v.to(run.state[name])) for name, v in new.items()}
        run.log("reached", (run.state["weights"] > 0).float().mean())

    def step(self, run: StepContext, batch: Batch) -> Losses:
        x, u = run.nets["student"](batch, "x", "u_w")  # [B, C], [N, C]: one forward
        state, ids = run.state, batch["id"]["u"]
        p, sure = state["p"][ids], state["weights"][ids]  # [N, C], [N]
        label = p.argmax(-1)
        run.watch(p, sure, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x, batch["y"])),
            "unsup": self.weight * mean(sure * state["class_weights"][label] * ce(u, label)),
        }
