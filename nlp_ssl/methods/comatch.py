"""CoMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import gather, mean, world_size
from nlp_ssl.ops.functional import as_probabilities, ce, softmax, unit
from nlp_ssl.ops.targets import confident
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Head, Losses
from nlp_ssl.utils.hyperparameters import TargetDropout, Threshold, UnlabeledWeight
from nlp_ssl.utils.ranges import Range, Share, Temperature, Weight

_WIDTH = 64  # of the projection


@register("comatch")
@dataclass(frozen=True)
class CoMatch(Method):
    """CoMatch (Li et al. 2021, arXiv:2011.11183): rows with like pseudo-labels should lie close to one another.

    Loss: mean_B w CE(y, x) + weight * mean_N 1[max q >= threshold] CE(q, u_s) + contrast_weight * mean_N CE(G_i, S_i),
    q = alpha p + (1 - alpha) * the mean of the remembered rows' probabilities, weighted by softmax(v_w . v_k /
    temperature) over them, p = sg softmax(u_w).
    v is the projection [., 64] scaled to length 1. S [N, N] = softmax of v_s . v_s2 / temperature over the second
    strong views; G [N, N] = q_i . q_j, 1 on the diagonal, 0 where below `graph_threshold`, rows scaled to the sum 1.
    The memory holds the last `queue` rows, those of the pool with p and labeled ones with their labels; the batch joins
    it after its use. All ranks are one batch, in G and S as well.

    Differs from the paper: after a warm start p is aligned to the estimated class shares, otherwise not at all, instead
    of to equal ones. Rows are smoothed as soon as something is remembered, and the memory counts rows, not batches.
    `threshold` is 0.8 for text: with a projection that has not learned yet the smoothing takes a tenth of the
    confidence, and nothing would reach 0.95. `contrast_weight` is 0.1 for text: at 1 the contrast of features that have
    not learned yet moves a started encoder more than the labels hold it. Labels are computed without dropout by
    default.

    Example:
        from nlp_ssl import CoMatch
        method = CoMatch(threshold=0.95, contrast_weight=1.0, queue=4096)  # a long run from a random start
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong", "u_s2": "strong"}
    heads = {"projection": Head("mlp", _WIDTH)}
    images = {"threshold": 0.95, "queue": 4096}
    threshold: Threshold = 0.8
    weight: UnlabeledWeight = 1.0
    contrast_weight: Annotated[
        Weight, "weight of the loss that pulls rows of like pseudo-labels together; 1 for nets that start at random"
    ] = 0.1
    alpha: Annotated[
        Share,
        "share of a row's own prediction in its pseudo-label, the rest comes from remembered rows; 1 is no smoothing",
    ] = 0.9
    temperature: Annotated[
        Temperature, "temperature of similarities between features; lower values look at the nearest rows alone"
    ] = 0.2
    graph_threshold: Annotated[
        float, Range(0.0, 2.0), "least agreement of two pseudo-labels that makes their rows neighbors; above 1 none are"
    ] = 0.8
    queue: Annotated[
        int, Range(1, 10**7), "rows that the memory holds; many more than a batch, and more for many classes"
    ] = 512
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        """Remembered rows, feature and probabilities side by side, and how many were ever written."""
        return {"memory": torch.zeros(self.queue, _WIDTH + spec.num_classes), "count": torch.tensor(0)}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net, ids = run.nets["student"], batch["id"]
        with torch.no_grad():
            (w,) = net.outputs(batch, "u_w", dropout=self.target_dropout)  # [N, C], [N, 64]
        x, s, s2 = net.outputs(batch, "x", "u_s", "u_s2")  # one forward
        p, v = run.aligned(softmax(w["logits"].detach())), unit(w["projection"].detach())
        q = self._smoothed(run.state, v, p)
        known = torch.cat([unit(x["projection"].detach()), as_probabilities(batch["y"], p)], 1)
        remembered = [_in_order(ids["u"], torch.cat([v, p], 1)), _in_order(ids["x"], known)]
        self._remember(run.state, torch.cat(remembered))
        keep = confident(q, self.threshold)  # [N]
        run.watch(q, keep, batch["true_labels"])
        return {
            "sup": mean(batch["w"] * ce(x["logits"], batch["y"])),
            "unsup": self.weight * mean(keep * ce(s["logits"], q)),
            "contrast": self.contrast_weight * self._contrast(q, unit(s["projection"]), unit(s2["projection"])),
        }

    def _smoothed(self, state: dict[str, Tensor], v: Tensor, p: Tensor) -> Tensor:
        """Probabilities [N, C] with a part from the remembered rows near v [N, 64]."""
        features, shares = torch.split(state["memory"].to(p.dtype), [_WIDTH, p.shape[1]], 1)
        filled = torch.arange(self.queue, device=p.device) < state["count"]
        near = softmax((v @ features.T).masked_fill(~filled, -torch.inf), self.temperature)  # [N, queue]
        return torch.where(state["count"] > 0, self.alpha * p + (1 - self.alpha) * near @ shares, p)

    def _remember(self, state: dict[str, Tensor], rows: Tensor) -> None:
        """Writes rows [n, 64 + C] over the oldest ones."""
        new = torch.arange(len(rows), device=rows.device)[-self.queue :]
        at = (state["count"] + new) % self.queue
        state["memory"] = state["memory"].index_copy(0, at, rows[new].to(state["memory"].dtype))
        state["count"] = state["count"] + len(rows)

    def _contrast(self, q: Tensor, s: Tensor, s2: Tensor) -> Tensor:
        """Cross-entropy of the graph of labels q [N, C] and the likeness of features s, s2 [N, 64], over all ranks."""
        widths = [q.shape[1], _WIDTH, _WIDTH]
        q, s, s2 = torch.split(_of_all_ranks(torch.cat([q, s, s2], 1)), widths, 1)  # [M, .]
        graph = q @ q.T
        graph = torch.where(graph >= self.graph_threshold, graph, 0.0).fill_diagonal_(1.0)
        graph = graph / graph.sum(1, keepdim=True)
        loss = ce(s @ s2.T / self.temperature, graph).mean()
        # Every rank computes all of it, but has the gradient of its own rows alone, and ranks average theirs.
        return loss + (world_size() - 1) * (loss - loss.detach())


def _in_order(ids: Tensor, rows: Tensor) -> Tensor:
    """Rows [n, .] of all ranks by number, so that the memory does not depend on how they were divided."""
    ids, rows = gather(ids, rows)
    return rows[ids.argsort(stable=True)]


def _of_all_ranks(rows: Tensor) -> Tensor:
    """Rows [M, .] of all ranks, of which this rank's own [N, .] carry their gradient."""
    if world_size() == 1:
        return rows
    _, every = gather(torch.arange(len(rows), device=rows.device), rows)
    own = (rows.detach()[:, None] == every).all(-1)  # [N, M]; rows that are equal have equal gradients
    return every.index_copy(0, own.int().argmax(1), rows)
