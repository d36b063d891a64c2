"""MultiMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops.distributed import mean, stat
from nlp_ssl.ops.functional import ce, leads, newest, softmax
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Head, Losses
from nlp_ssl.utils.hyperparameters import Decay, TargetDropout, UnlabeledWeight
from nlp_ssl.utils.ranges import Range, Share, Weight

_HEADS = ("logits", "second", "third")


@register("multimatch")
@dataclass(frozen=True)
class MultiMatch(Method):
    """MultiMatch (Sirbu et al. 2025, arXiv:2506.07801): three classifiers on one encoder, two label for the third.

    Loss: mean_B w CE(y, x) of the net's own head + heads_weight * the sum of the same for the two others + weight *
    mean_{3,N} f 1[k_a or k_b] CE(t, u_s), k = 1[max p >= thr[argmax p]], p = sg softmax(u_w).
    For each trained head, a and b are the two others, with labels argmax p. One of them passes on
    a row if its average margin there for its label reaches the trained head's cutoff for that class. f = useful_weight
    where one of a, b passes, t being its label; 1 where both pass with the same label; 0 elsewhere. The thresholds are
    FreeMatch's, for each head: thr [3, C] = tau * m / max m, tau [3] and m [3, C] running means of max p and of p with
    the decay `decay`. Average margins [pool, 3, C] are the means of ln p_c - max_{j != c} ln p_j over the times a row
    was seen. The cutoff [3, C] of a trained head is the `quantile` of the margins that a and b together have for the
    class, over the rows that both labeled so last; at least 0, and 0 without such rows; computed anew every `refresh`
    steps.

    Differs from the paper: the net's own head is evaluated and saved instead of the average of three, which are thrown
    away. Cutoffs are 0 before the first refresh, instead of no training on the pool till then, and a class without rows
    does not keep those after it from new cutoffs, as in the authors' code. Margins have a plain mean. Running means
    move once a step (twice in that code, for each of the two heads that ask), start with the first batch and have a
    decay of 0.9 instead of 0.999. The other heads start as noisy copies of the net's own. After a warm start p is
    aligned to the estimated class shares. Labels are computed without dropout by default. For images `weight` is 1
    instead of 3.

    Example:
        from nlp_ssl import MultiMatch
        method = MultiMatch(useful_weight=1.0)  # rows that one head alone vouches for count no more than the others
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    heads = {"second": Head("classifier"), "third": Head("classifier")}
    images = {"weight": 1.0}
    weight: UnlabeledWeight = 3.0
    heads_weight: Annotated[
        Weight, "weight of the labeled losses of the two other heads, which are trained to label alone"
    ] = 1.0
    useful_weight: Annotated[
        Weight,
        "weight of rows for which just one of the two labeling heads passes; 1 treats them as those where both agree",
    ] = 3.0
    quantile: Annotated[
        Share, "quantile of the margins that a head must reach to pass; raise it to ask for steadier labels"
    ] = 0.05
    refresh: Annotated[
        int, Range(0, 10**9), "steps between two computations of the cutoffs; 0 is once per pass over the pool"
    ] = 50
    decay: Decay = 0.9
    target_dropout: TargetDropout = False

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        pool, heads, classes = spec.pool_size, len(_HEADS), spec.num_classes
        return {
            "times": torch.zeros(pool),  # each row was seen
            "labels": torch.full((pool, heads), -1),  # last ones
            "margins": torch.zeros(pool, heads, classes),  # averages so far
            "cutoffs": torch.zeros(heads, classes),
            "mass": torch.zeros(()),
            "tau": torch.zeros(heads),
            "p": torch.zeros(heads, classes),
        }

    def refresh_steps(self, pass_steps: int) -> int:
        return self.refresh or pass_steps

    def begin_epoch(self, run: StepContext) -> None:
        """Makes the cutoffs anew."""
        state, labels = run.state, run.state["labels"].T  # [3, pool]
        own = state["margins"].transpose(0, 1).gather(2, labels.clamp(min=0)[..., None]).squeeze(2)  # [3, pool]
        (a, b), (label_a, label_b) = _others(own), _others(labels)
        agreed = torch.where(label_a == label_b, label_a, -1).repeat(1, 2)  # [3, 2 pool]
        merged = torch.cat([a, b], 1)
        cutoffs = [_quantiles(*rows, run.spec.num_classes, self.quantile) for rows in zip(merged, agreed, strict=True)]
        state["cutoffs"] = torch.stack(cutoffs).clamp(min=0.0)

    def step(self, run: StepContext, batch: Batch) -> Losses:
        net = run.nets["student"]
        with torch.no_grad():
            (w,) = net.outputs(batch, "u_w", dropout=self.target_dropout)  # three times [N, C]
        x, s = net.outputs(batch, "x", "u_s")  # one forward
        p = run.aligned(softmax(torch.cat([w[head].detach() for head in _HEADS])))  # [3N, C]
        p = p.view(len(_HEADS), -1, p.shape[1])
        sure, margin = self._sure(run.state, p), self._margins(run, batch["id"]["u"], p)  # [3, N]
        (sure_a, sure_b), (margin_a, margin_b), (p_a, p_b) = _others(sure), _others(margin), _others(p)
        label_a, label_b = p_a.argmax(-1), p_b.argmax(-1)
        cutoffs = run.state["cutoffs"]  # of the head that is trained: those of the two others are compared with it
        a, b = margin_a >= cutoffs.gather(1, label_a), margin_b >= cutoffs.gather(1, label_b)
        t = torch.where((b & ~a)[..., None], p_b, p_a)  # [3, N, C]: the one with the say
        alike = a & b & (label_a == label_b)
        keep = (sure_a | sure_b) * torch.where(a ^ b, self.useful_weight, alike.to(p.dtype))
        t, keep = t.flatten(0, 1), keep.flatten()  # [3N, C], [3N]
        run.watch(t, keep > 0, batch["true_labels"].repeat(len(_HEADS)))
        own, *others = (mean(batch["w"] * ce(x[head], batch["y"])) for head in _HEADS)
        return {
            "sup": own,
            "heads": self.heads_weight * torch.stack(others).sum(),
            "unsup": self.weight * mean(keep * ce(torch.cat([s[head] for head in _HEADS]), t.argmax(-1))),
        }

    def _sure(self, state: dict[str, Tensor], p: Tensor) -> Tensor:
        """Which rows [3, N] reach the thresholds of their class."""
        conf, label = p.max(-1)
        state["mass"], share = newest(state["mass"], self.decay)
        state["tau"] = state["tau"].lerp(stat(conf.T), share)
        state["p"] = state["p"].lerp(stat(p.transpose(0, 1)), share)
        thresholds = state["tau"][:, None] * state["p"] / state["p"].amax(1, keepdim=True)  # [3, C]
        return conf >= thresholds.gather(1, label)

    def _margins(self, run: StepContext, ids: Tensor, p: Tensor) -> Tensor:
        """Average margins [3, N] of the heads' labels, this time included."""
        state, label = run.state, p.argmax(-1)
        times, old = state["times"][ids], state["margins"][ids]
        margins = old + (leads(p).transpose(0, 1) - old) / (times + 1)[:, None, None]  # [N, 3, C]
        run.remember("times", ids, times + 1)
        run.remember("labels", ids, label.T)
        run.remember("margins", ids, margins)
        return margins.transpose(0, 1).gather(2, label[..., None]).squeeze(2)


def _others(v: Tensor) -> tuple[Tensor, Tensor]:
    """Of v [3, ...], one row for each head, what the one and the other of its two others have."""
    return v.roll(-1, 0), v.roll(-2, 0)


def _quantiles(values: Tensor, label: Tensor, classes: int, quantile: float) -> Tensor:
    """The quantile [C] of each class's values, of values [n] with the classes label [n] or -1; 0 for a class with none.

    Where it falls between two values it is so far between them as well.
    """
    values, label = values[label >= 0], label[label >= 0]
    order = values.argsort()
    order = order[label[order].argsort(stable=True)]  # by class, and within it by value
    count = label.bincount(minlength=classes)
    place = (count.cumsum(0) - count) + quantile * (count - 1).clamp(min=0).double()
    ordered = torch.cat([values[order], values.new_zeros(1)])  # a class without values may come after all of them
    low, high = ordered[place.floor().long()], ordered[place.ceil().long()]
    return torch.where(count > 0, low.lerp(high, place.frac().to(values.dtype)), 0.0)
