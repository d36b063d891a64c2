"""MultiMatch."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from nlp_ssl.functional import ce, leads, newest, softmax
from nlp_ssl.method import Batch, DataSpec, Head, Losses, Method, Range, Share, Weight
from nlp_ssl.reduce import mean, stat
from nlp_ssl.registry import register
from nlp_ssl.run import Run

_HEADS = ("logits", "second", "third")


@register("multimatch")
@dataclass(frozen=True)
class MultiMatch(Method):
    """MultiMatch (Sirbu et al. 2025, arXiv:2506.07801): three classifiers on one encoder, two label for the third.

    Loss: mean_B w CE(y, x) of the net's own head + heads_weight * the sum of the same for the two others + weight *
    mean_{3,N} f 1[k_a or k_b] CE(t, u_s).
    For each head, a and b are the two others. A head with p = sg softmax(u_w) passes on a row if its average margin
    there for argmax p reaches its cutoff for that class. f = useful_weight where one of a, b passes, t being its label;
    1 where both pass with the same label; 0 elsewhere. k = 1[max p >= thr[argmax p]] with FreeMatch's thresholds for
    each head: thr [3, C] = tau * m / max m, tau [3] and m [3, C] running means of max p and of p.
    Average margins [pool, 3, C] are the means of ln p_c - max_{j != c} ln p_j over the times a row was seen. The cutoff
    [3, C] is their `quantile` over the rows whose last labels of the two other heads are this class, at least 0, made
    anew every `refresh` steps (0: once a pass); a class without such rows keeps its cutoff.

    Differs from the paper: the net's own head is evaluated and saved instead of the average of three, which are thrown
    away. Cutoffs are 0 before the first refresh, instead of no training on the pool till then. Margins have a plain
    mean; running means start with the first batch and have a `decay` of 0.9 instead of 0.999. The other heads start as
    noisy copies of the net's own. Labels are made without dropout by default.
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    heads = {"second": Head("classifier"), "third": Head("classifier")}
    images = {"weight": 1.0}
    weight: Weight = 3.0
    heads_weight: Weight = 1.0
    useful_weight: Weight = 3.0
    quantile: Share = 0.05
    refresh: Annotated[int, Range(0, 10**9)] = 50
    decay: Annotated[float, Range(0.0, 0.9999)] = 0.9
    target_dropout: bool = False

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

    def begin_epoch(self, run: Run) -> None:
        """Makes the cutoffs anew."""
        state = run.state
        a, b = _others(state["labels"].T)  # [3, pool]
        agreed = torch.where(a == b, a, -1)
        found = [_quantiles(state["margins"][:, h], agreed[h], self.quantile) for h in range(len(_HEADS))]
        cutoffs = torch.stack(found)
        state["cutoffs"] = torch.where(cutoffs.isnan(), state["cutoffs"], cutoffs.clamp(min=0.0))

    def step(self, run: Run, batch: Batch) -> Losses:
        net = run.nets["student"]
        with torch.no_grad():
            (w,) = net.outputs(batch, "u_w", dropout=self.target_dropout)  # three times [N, C]
        x, s = net.outputs(batch, "x", "u_s")  # one forward
        p = run.aligned(softmax(torch.cat([w[head].detach() for head in _HEADS])))  # [3N, C]
        p = p.view(len(_HEADS), -1, p.shape[1])
        sure, passes = self._sure(run.state, p), self._passes(run, batch["id"]["u"], p)  # [3, N]
        (sure_a, sure_b), (a, b), (p_a, p_b) = _others(sure), _others(passes), _others(p)
        t = torch.where((b & ~a)[..., None], p_b, p_a)  # [3, N, C]: the one with the say
        alike = a & b & (p_a.argmax(-1) == p_b.argmax(-1))
        keep = (sure_a | sure_b) * torch.where(a ^ b, self.useful_weight, alike.to(p.dtype))
        t, keep = t.flatten(0, 1), keep.flatten()  # [3N, C], [3N]
        run.watch(t, keep > 0, batch["hidden"].repeat(len(_HEADS)))
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

    def _passes(self, run: Run, ids: Tensor, p: Tensor) -> Tensor:
        """On which rows [3, N] the average margin for the label reaches the cutoff, this time included."""
        state, label = run.state, p.argmax(-1)
        times, old = state["times"][ids], state["margins"][ids]
        margins = old + (leads(p).transpose(0, 1) - old) / (times + 1)[:, None, None]  # [N, 3, C]
        run.remember("times", ids, times + 1)
        run.remember("labels", ids, label.T)
        run.remember("margins", ids, margins)
        own = margins.transpose(0, 1).gather(2, label[..., None]).squeeze(2)  # [3, N]
        return own >= state["cutoffs"].gather(1, label)


def _others(v: Tensor) -> tuple[Tensor, Tensor]:
    """Of v [3, ...], one row for each head, what the one and the other of its two others have."""
    return v.roll(-1, 0), v.roll(-2, 0)


def _quantiles(margins: Tensor, agreed: Tensor, quantile: float) -> Tensor:
    """For each class the quantile [C] of its margins [pool, C] over rows agreed [pool] to be of it; NaN without any."""
    of_class = agreed[:, None] == torch.arange(margins.shape[1], device=margins.device)  # [pool, C]
    ordered = torch.where(of_class, margins, torch.nan).sort(dim=0).values  # NaN last
    last = (of_class.sum(0) - 1).clamp(min=0)
    return ordered.gather(0, (quantile * last.double()).long()[None]).squeeze(0)
