"""One step of every method once more, from its formula: plain float64 arithmetic that takes nothing from the library.

A formula reads a `World`: logits by role and view, labels, row weights, class shares, and what it remembers from the
steps before. What `seen` gives carries a gradient, what `fixed` gives does not, so that losses and gradients can both
be compared. The net is the identity with a constant "dropout" on top, so that a pass with and one without differ.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

DECAY = 0.95  # of the running mean of pseudo-labels


def dropout(view: str, like: Tensor) -> Tensor:
    """What dropout adds to the logits of a view, the same in every pass."""
    place = torch.arange(like.numel(), dtype=torch.float64) + sum(map(ord, view))
    return 0.6 * torch.sin(2.3 * place).view(like.shape).to(like.dtype)


def moved(view: str, like: Tensor) -> Tensor:
    """What the student's first update of a step adds to its logits of a view."""
    place = torch.arange(like.numel(), dtype=torch.float64) - sum(map(ord, view))
    return 0.5 * torch.cos(1.9 * place).view(like.shape).to(like.dtype)


def lam(alpha: float, n: int) -> Tensor:
    """Shares of mixed rows [n], no two alike; ones at alpha 0."""
    return (
        (0.31 + 0.237 * torch.arange(n, dtype=torch.float64) + 0.05 * alpha) % 1.0 if alpha else torch.ones(n).double()
    )


def partner(n: int, call: int) -> Tensor:
    """The order that call number `call` of a step draws."""
    return torch.arange(n).flip(0).roll(call + 1)


def drawn(p: Tensor) -> Tensor:
    """Class of each row: where the summed probabilities pass 0.6."""
    return (p.cumsum(-1) < 0.6).sum(-1)


def normal(like: Tensor) -> Tensor:
    return torch.cos(1.7 * torch.arange(like.numel(), dtype=torch.float64) ** 2).view(like.shape)


# --- arithmetic


def soft(z: Tensor, temperature: float = 1.0) -> Tensor:
    powers = ((z - z.amax(-1, keepdim=True)) / temperature).exp()
    return powers / powers.sum(-1, keepdim=True)


def log_soft(z: Tensor) -> Tensor:
    return z - z.exp().sum(-1, keepdim=True).log()


def xent(target: Tensor, z: Tensor) -> Tensor:
    return -(target * log_soft(z)).sum(-1)


def xlogx(p: Tensor) -> Tensor:
    return torch.where(p > 0, p * p.clamp(min=1e-300).log(), 0.0)


def divergence(target: Tensor, z: Tensor) -> Tensor:
    return xent(target, z) + xlogx(target).sum(-1)


def entropy(z: Tensor) -> Tensor:
    return xent(soft(z), z)


def sharp(p: Tensor, temperature: float) -> Tensor:
    powers = (p / p.amax(-1, keepdim=True)) ** (1.0 / temperature)
    return powers / powers.sum(-1, keepdim=True)


def scaled(p: Tensor, wanted: Tensor, current: Tensor) -> Tensor:
    q = p * (wanted + 1e-6) / (current + 1e-6)
    return q / q.sum(-1, keepdim=True)


def hot(label: Tensor, classes: int) -> Tensor:
    return (label[:, None] == torch.arange(classes)).double()


def length_one(v: Tensor) -> Tensor:
    return v / v.square().sum(-1, keepdim=True).sqrt()


def linear(t: float, end: float) -> float:
    return min(t / end, 1.0) if end else 1.0


def sigmoid(t: float, end: float) -> float:
    return math.exp(-5 * (1 - linear(t, end)) ** 2)


def both_ways(a: Tensor, b: Tensor) -> Tensor:
    """Half of KL(a || b) + KL(b || a)."""
    return (xent(soft(a), b) - entropy(a) + xent(soft(b), a) - entropy(b)) / 2


def lead(p: Tensor) -> Tensor:
    """ln p_c - ln of the largest other one [N, C]."""
    others = [torch.cat([p[:, :c], p[:, c + 1 :]], 1).amax(1) for c in range(p.shape[1])]
    return (p / torch.stack(others, 1)).log()


# --- what a formula reads


@dataclass
class World:
    """One step. `memory` lasts over the steps, `calls` counts the orders drawn in this one.

    A method that updates twice in a step says when the student has been `updated`.
    """

    method: Any
    z: Mapping[str, Mapping[str, Tensor]]  # role -> view -> logits that may want a gradient
    y: Tensor  # [B, C]
    w: Tensor  # [B]
    prior: Tensor | None  # [C]
    progress: float
    ids: Tensor  # [N] numbers in the pool
    x_ids: Tensor  # [B] numbers among the labeled rows
    known: Tensor  # [L, C] labels of all labeled rows
    others: Tensor  # [L, C] logits of those that are not in this batch
    pool: int
    new_round: bool  # whether a round begins with this step
    memory: dict[str, Any]
    calls: Any = field(default_factory=itertools.count)
    updated: bool = False
    watched: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # pseudo-labels and what they count for
    probes: list[Tensor] = field(default_factory=list)

    @property
    def classes(self) -> int:
        return self.y.shape[1]

    def raw(self, *views: str, role: str = "student") -> Tensor:
        rows = [self.z[role][view] for view in views]
        if self.updated and role == "student":
            rows = [z + moved(view, z) for view, z in zip(views, rows, strict=True)]
        return torch.cat(rows)

    def seen(
        self, *views: str, role: str = "student", noisy: bool = True, edit: Callable[[Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        rows = self.raw(*views, role=role)
        rows = rows if edit is None else edit(rows)
        parts = list(rows.split([len(self.z[role][view]) for view in views]))
        return [z + dropout(view, z) if noisy else z for view, z in zip(views, parts, strict=True)]

    def fixed(self, view: str, role: str = "student", noisy: bool = False) -> Tensor:
        return self.seen(view, role=role, noisy=noisy)[0].detach()

    def whole_pool(self, view: str = "u_w", role: str = "student") -> Tensor:
        """Logits [pool, C] without dropout, zeros for the rows that are not in this batch."""
        rows = torch.zeros(self.pool, self.classes, dtype=torch.float64)
        rows[self.ids] = self.z[role][view].detach()
        return rows

    def all_labeled(self, role: str = "student") -> Tensor:
        """Logits [L, C] without dropout."""
        rows = self.others.clone()
        rows[self.x_ids] = self.z[role]["x"].detach()
        return rows

    def head(self, name: str, z: Tensor, width: int = 0) -> Tensor:
        """A fixed linear map of the centred logits, another one for each head."""
        classes, place = z.shape[1], list(self.method.wanted_heads()).index(name)
        width = width or classes
        table = torch.cos(torch.arange(classes * width, dtype=torch.float64) + float(place)).view(classes, width)
        return (z - z.mean(1, keepdim=True)) @ table

    def aligned(self, p: Tensor, whole_pool: bool = False) -> Tensor:
        if self.prior is None:
            return p
        now = p.detach().mean(0)
        self.memory["pool"] = now if whole_pool else DECAY * self.memory["pool"] + (1 - DECAY) * now
        return scaled(p, self.prior, self.memory["pool"])

    def shares(self) -> Tensor:
        return torch.full((self.classes,), 1.0 / self.classes).double() if self.prior is None else self.prior

    def average(self, name: str, now: Tensor, decay: float) -> Tensor:
        """Mean of all values so far, each weighing `decay` times the one after it."""
        values = [*self.memory.get(name, []), now.detach()]
        self.memory[name] = values
        weights = [decay**k for k in range(len(values))][::-1]
        return sum(k * v for k, v in zip(weights, values, strict=True)) / sum(weights)  # type: ignore[return-value]

    def sup(self, x: Tensor) -> Tensor:
        return (self.w * xent(self.y, x)).mean()

    def watch(self, p: Tensor, keep: Tensor | None = None) -> None:
        self.watched.append((p.detach(), torch.ones(len(p)).double() if keep is None else keep.double()))

    def imbalance(self, p: Tensor) -> Tensor:
        return (self.shares() * (self.shares() / p.mean(0)).log()).sum()

    def mixed(
        self, views: tuple[str, ...], targets: Tensor, *, each: bool, larger: bool, order: Tensor, role: str = "student"
    ) -> tuple[list[Tensor], Tensor]:
        """Logits of the views' rows mixed with partner rows, and their targets mixed alike."""
        rows, alpha = len(targets), self.method.alpha
        share = lam(alpha, rows) if each else lam(alpha, 1).expand(rows)
        share = (torch.maximum(share, 1 - share) if larger else share)[:, None]

        def blend(v: Tensor) -> Tensor:
            return share * v + (1 - share) * v[order]

        return self.seen(*views, role=role, edit=blend), blend(targets)


Losses = dict[str, Tensor]


# --- labels alone


def supervised(o: World) -> Losses:
    (x,) = o.seen("x")
    s = o.method.label_smoothing
    return {"sup": (o.w * xent((1 - s) * o.y + s / o.classes, x)).mean()}


def adversarial(o: World) -> Losses:
    (x,) = o.seen("x")
    e = o.raw("x").detach()
    from_mean = e - e.mean(1, keepdim=True)
    gradient = soft(e) - o.y
    if o.method.norm == "l2":
        r = o.method.size * from_mean.square().sum(1, keepdim=True).sqrt() * length_one(gradient)
    else:
        r = o.method.size * from_mean.square().mean(1, keepdim=True).sqrt() * gradient.sign()
    return {"sup": o.sup(x), "adversarial": o.method.weight * o.sup(o.raw("x") + r)}


def r_drop(o: World) -> Losses:
    x, x2, u, u2 = o.seen("x", "x2", "u_w", "u_w2")
    o.watch(soft(u))
    ramp = linear(o.progress, o.method.ramp_up)
    return {
        "sup": (o.sup(x) + o.sup(x2)) / 2,
        "labeled": o.method.labeled_weight * (o.w * both_ways(x, x2)).mean(),
        "unsup": o.method.weight * ramp * both_ways(u, u2).mean(),
    }


# --- one prediction as the target of another


def fixmatch(o: World) -> Losses:
    p = o.aligned(soft(o.fixed("u_w", noisy=o.method.target_dropout)))
    keep = p.amax(1) >= o.method.threshold
    o.watch(p, keep)
    x, s = o.seen("x", "u_s")
    target = hot(p.argmax(1), o.classes)
    return {"sup": o.sup(x), "unsup": o.method.weight * (keep * xent(target, s)).mean()}


def defixmatch(o: World) -> Losses:
    losses = fixmatch(o)
    known = soft(o.fixed("x", noisy=o.method.target_dropout))
    sure = known.amax(1) >= o.method.threshold
    x, x_s = o.seen("x", "x_s")
    again = xent(hot(known.argmax(1), o.classes), x_s)
    return {
        "sup": (o.sup(x) + o.sup(x_s)) / 2,
        "unsup": losses["unsup"],
        "debias": -o.method.weight * (o.w * sure * again).mean(),
    }


def debiaspl(o: World) -> Losses:
    w = o.fixed("u_w", noisy=o.method.target_dropout)
    b = o.memory.get("b", torch.zeros(o.classes).double())  # of the batches before
    p = soft(w - b)
    keep = p.amax(1) >= o.method.threshold
    o.watch(p, keep)
    q = o.average("q", soft(w).mean(0), o.method.decay)
    b = o.memory["b"] = o.method.strength * (q / o.shares()).log()
    x, s = o.seen("x", "u_s")
    return {"sup": o.sup(x), "unsup": o.method.weight * (keep * xent(hot(p.argmax(1), o.classes), s + b)).mean()}


def uda(o: World) -> Losses:
    m = o.method
    p = o.aligned(soft(o.fixed("u_w", noisy=m.target_dropout)))
    keep = p.amax(1) > m.threshold
    o.watch(p, keep)
    x, u, s = o.seen("x", "u_w", "u_s")
    limit = math.inf
    if m.tsa != "none":
        t = {"linear": o.progress, "log": 1 - math.exp(-5 * o.progress), "exp": math.exp(5 * (o.progress - 1))}[m.tsa]
        limit = t * (1 - 1 / o.classes) + 1 / o.classes
    learn = (soft(x.detach()) * o.y).sum(1) <= limit
    losses = {
        "sup": (learn * o.w * xent(o.y, x)).sum() / max(int(learn.sum()), 1),
        "unsup": m.weight * (keep * divergence(sharp(p, m.temperature), s)).mean(),
    }
    return losses | ({"entropy": m.entropy_weight * entropy(u).mean()} if m.entropy_weight else {})


def pseudo_label(o: World) -> Losses:
    x, u = o.seen("x", "u_w")
    p = o.aligned(soft(u.detach()))
    keep = p.amax(1) >= o.method.threshold
    o.watch(p, keep)
    ramp = linear(o.progress, o.method.ramp_up)
    losses = {
        "sup": o.sup(x),
        "unsup": o.method.weight * ramp * (keep * xent(hot(p.argmax(1), o.classes), u)).mean(),
    }
    weight = o.method.entropy_weight
    return losses | ({"entropy": weight * ramp * entropy(u).mean()} if weight else {})


def entropy_min(o: World) -> Losses:
    x, u = o.seen("x", "u_w")
    o.watch(soft(u))
    ramp = linear(o.progress, o.method.ramp_up)
    losses = {"sup": o.sup(x), "unsup": o.method.weight * ramp * entropy(u).mean()}
    weight = o.method.prior_weight
    return losses | ({"prior": weight * ramp * o.imbalance(soft(u))} if weight else {})


def pi_model(o: World) -> Losses:
    x, u, u2 = o.seen("x", "u_w", "u_w2")
    p = o.aligned(soft(u))
    o.watch(p)
    weight = o.method.weight * sigmoid(o.progress, o.method.ramp_up)
    return {"sup": o.sup(x), "unsup": weight * (p - soft(u2)).square().mean()}


def mean_teacher(o: World) -> Losses:
    p = o.aligned(soft(o.fixed("u_w", "teacher", o.method.target_dropout)))
    o.watch(p)
    x, s = o.seen("x", "u_s")
    weight = o.method.weight * sigmoid(o.progress, o.method.ramp_up)
    return {"sup": o.sup(x), "unsup": weight * (soft(s) - p).square().mean()}


def temporal_ensembling(o: World) -> Losses:
    m, decay = o.method, o.method.decay
    history: dict[int, list[Tensor]] = o.memory.setdefault("history", {i: [] for i in range(o.pool)})
    if o.new_round and m.first == "predict" and not any(history.values()):
        for i, p in enumerate(o.aligned(soft(o.whole_pool()), whole_pool=True)):
            history[i].append(p)
    p = o.aligned(soft(o.fixed("u_w", noisy=m.target_dropout)))
    targets, known = [], []
    for i, now in zip(o.ids.tolist(), p, strict=True):
        known.append(float(len(history[i]) > 0))
        values = [*history[i], now] if m.current else history[i]
        weights = [decay**k for k in range(len(values))][::-1]
        blank = torch.zeros(o.classes).double()
        targets.append(sum((k * v for k, v in zip(weights, values, strict=True)), blank) / max(sum(weights), 1e-9))
        history[i].append(now)
    target = torch.stack(targets)
    o.watch(target, torch.tensor(known))
    x, s = o.seen("x", "u_s")
    each = (soft(s) - target).square().mean(1)
    weight = m.weight * sigmoid(o.progress, m.ramp_up)
    return {"sup": o.sup(x), "unsup": weight * (torch.tensor(known).double() * each).mean()}


def distillation(o: World) -> Losses:
    m = o.method
    p = o.aligned(soft(o.fixed("u_w", "teacher")))
    o.watch(p)
    x, u = o.seen("x", "u_w")
    sup, unsup = o.sup(x), xent(sharp(p, m.temperature), u / m.temperature).mean()
    unsup = m.temperature**2 * unsup if m.scale_t2 else unsup
    losses = {"sup": (1 - m.alpha) * sup, "unsup": m.alpha * unsup}
    if m.normalise:
        ratio = o.average("sup", sup, 0.95) / o.average("unsup", unsup, 0.95)
        losses = {"sup": sup / (1 + m.alpha), "unsup": m.alpha * ratio * unsup / (1 + m.alpha)}
    if m.mlm_weight:
        z = o.raw("u_w")
        losses["mlm"] = m.mlm_weight * (z[:, 0] - z.mean(1)).mean()
    return losses


def vat(o: World) -> Losses:
    m, views = o.method, ("x", "u_w")
    e = o.raw(*views).detach()
    from_mean = e - e.mean(1, keepdim=True)
    size = from_mean.square().sum(1, keepdim=True).sqrt()
    d = normal(from_mean) * from_mean
    for _ in range(m.steps):
        d = soft(e + m.reach * size * length_one(d)) - soft(e)
    rows = len(o.y)
    p = o.aligned(soft(e[rows:]))  # labeled rows have shares of their own
    o.watch(p)
    x, u = o.seen(*views)
    noisy = o.raw(*views) + m.size * size * length_one(d)
    losses = {"sup": o.sup(x), "unsup": m.weight * divergence(torch.cat([soft(e[:rows]), p]), noisy).mean()}
    return losses | ({"entropy": m.entropy_weight * entropy(u).mean()} if m.entropy_weight else {})


# --- thresholds that move


def adamatch(o: World) -> Losses:
    m, even = o.method, torch.full((o.classes,), 1 / o.classes).double()
    known, p = (soft(o.fixed(view, noisy=m.target_dropout)) for view in ("x", "u_w"))
    for name, now in (("labeled", known), ("unlabeled", p)):
        o.memory[name] = m.decay * o.memory.get(name, even) + (1 - m.decay) * now.mean(0)
    q = scaled(p, o.memory["labeled"] if o.prior is None else o.prior, o.memory["unlabeled"])
    keep = q.amax(1) >= m.threshold * known.amax(1).mean()
    o.watch(q, keep)
    x, x_s, s = o.seen("x", "x_s", "u_s")
    weight = m.weight * (1 - math.cos(math.pi * linear(o.progress, m.ramp_up))) / 2
    return {
        "sup": (o.sup(x) + o.sup(x_s)) / 2,
        "unsup": weight * (keep * xent(hot(q.argmax(1), o.classes), s)).mean(),
    }


def _flexible(o: World, p: Tensor) -> Tensor:
    """FlexMatch's mask [N], which takes the batch in afterwards."""
    m = o.method
    chosen: list[int] = o.memory.setdefault("chosen", [-2] * o.pool)
    counts = [chosen.count(c) for c in range(o.classes)]
    unused = {"seen": chosen.count(-1), "pool": chosen.count(-1) + chosen.count(-2), "none": 0}[m.unused]
    most = max(*counts, unused)
    status = [c / most if most else 1.0 for c in counts]
    thresholds = [m.lowest + (m.threshold - m.lowest) * s / (2 - s) for s in status]
    conf, label = p.max(1)
    keep = torch.tensor([c >= thresholds[k] for c, k in zip(conf.tolist(), label.tolist(), strict=True)])
    for i, c, k in zip(o.ids.tolist(), conf.tolist(), label.tolist(), strict=True):
        chosen[i] = k if c >= m.threshold else max(chosen[i], -1)
    return keep


def flexmatch(o: World) -> Losses:
    p = o.aligned(soft(o.fixed("u_w", noisy=o.method.target_dropout)))
    keep = _flexible(o, p)
    o.watch(p, keep)
    x, s = o.seen("x", "u_s")
    return {"sup": o.sup(x), "unsup": o.method.weight * (keep * xent(hot(p.argmax(1), o.classes), s)).mean()}


def marginmatch(o: World) -> Losses:
    m = o.method
    p = o.aligned(soft(o.fixed("u_w", noisy=m.target_dropout)))
    keep, label = _flexible(o, p), p.argmax(1)
    leads: dict[int, list[Tensor]] = o.memory.setdefault("leads", {})
    last: dict[int, float] = o.memory.setdefault("last", {})
    for i, row, k in zip(o.ids.tolist(), lead(p), label.tolist(), strict=True):
        leads.setdefault(i, []).append(row)
        last[i] = float(torch.stack(leads[i]).mean(0)[k])
    limit = sorted(last.values())[math.floor(m.quantile * (len(last) - 1))]
    keep = keep & torch.tensor([last[i] >= limit for i in o.ids.tolist()])
    o.watch(p, keep)
    x, s = o.seen("x", "u_s")
    return {"sup": o.sup(x), "unsup": m.weight * (keep * xent(hot(label, o.classes), s)).mean()}


def freematch(o: World) -> Losses:
    m, c = o.method, o.classes
    p = o.aligned(soft(o.fixed("u_w", noisy=m.target_dropout)))
    conf, label = p.max(1)
    tau, mean, histogram = (
        o.average(name, now.mean(0), m.decay) for name, now in (("tau", conf), ("p", p), ("h", hot(label, c)))
    )
    keep = conf >= (tau * mean / mean.max())[label]
    o.watch(p, keep)
    x, s = o.seen("x", "u_s")
    kept = soft(s)[keep]
    found = hot(kept.argmax(1), c).mean(0)
    there = (found > 0) & (histogram > 0)
    a, b = mean[there] / histogram[there], kept.mean(0)[there] / found[there]
    return {
        "sup": o.sup(x),
        "unsup": m.weight * (keep * xent(hot(label, c), s)).mean(),
        "fairness": m.fairness_weight * (a / a.sum() * (b / b.sum()).log()).sum(),
    }


def softmatch(o: World) -> Losses:
    m = o.method
    p = o.aligned(soft(o.fixed("u_w", noisy=m.target_dropout)))
    mean = o.average("p", p.mean(0), m.decay)
    conf = scaled(p, o.shares(), mean).amax(1)
    mu, var = o.average("mu", conf.mean(), m.decay), o.average("var", conf.var(), m.decay)
    g = torch.where(conf >= mu, 1.0, (-((conf - mu) ** 2) * m.n_sigma**2 / (2 * var)).exp())
    o.watch(p, g)
    x, s = o.seen("x", "u_s")
    return {"sup": o.sup(x), "unsup": m.weight * (g * xent(hot(p.argmax(1), o.classes), s)).mean()}


def dash(o: World) -> Losses:
    m = o.method
    if o.new_round and "start" not in o.memory:
        o.memory["start"] = float(xent(o.known, o.all_labeled()).mean())
    p = o.aligned(soft(o.fixed("u_w", noisy=m.target_dropout)))
    rho = o.memory["start"] * m.gamma ** (-m.updates * o.progress)
    q = sharp(p, m.temperature) if rho > m.min_loss else hot(p.argmax(1), o.classes)
    keep = -(q * p.log()).sum(1) <= max(rho, m.min_loss)
    o.watch(p, keep)
    x, s = o.seen("x", "u_s")
    return {"sup": o.sup(x), "unsup": m.weight * (keep * xent(q, s)).mean()}


# --- heads on the features


def crmatch(o: World) -> Losses:
    m = o.method
    w = o.fixed("u_w", noisy=m.target_dropout)
    p = o.aligned(soft(w))
    keep = p.amax(1) >= m.threshold
    o.watch(p, keep)
    x, s = o.seen("x", "u_s")
    cosine = (length_one(o.head("projection", s)) * length_one(o.head("projection", w))).sum(1)
    losses = {
        "sup": o.sup(x),
        "unsup": m.weight * (keep * xent(hot(p.argmax(1), o.classes), s)).mean(),
        "distance": m.distance_weight * (keep * cosine.clamp(min=0)).mean(),
    }
    return losses | _pretext(o, "u_w")


def _pretext(o: World, view: str) -> Losses:
    """Rows turned by as many places as their number says, or by half their width where it is odd."""
    task = o.method.pretext
    if task == "none":
        return {}
    answers = o.ids % {"rotation": 4, "order": 2}[task]
    by = answers if task == "rotation" else answers * (o.classes // 2)

    def turned(rows: Tensor) -> Tensor:
        return torch.stack([row.roll(int(k)) for row, k in zip(rows, by, strict=True)])

    (z,) = o.seen(view, edit=turned)
    return {"pretext": o.method.pretext_weight * xent(hot(answers, 4), o.head("pretext", z, 4)).mean()}


def comatch(o: World) -> Losses:
    m, w = o.method, o.fixed("u_w", noisy=o.method.target_dropout)
    x, s, s2 = o.seen("x", "u_s", "u_s2")
    v_x, v, v_s, v_s2 = (length_one(o.head("projection", z, 64)) for z in (x, w, s, s2))
    p = o.aligned(soft(w))
    remembered: list[tuple[Tensor, Tensor]] = o.memory.setdefault("rows", [])
    q = p
    if remembered:
        features, shares = (torch.stack(part) for part in zip(*remembered, strict=True))
        q = m.alpha * p + (1 - m.alpha) * soft(v @ features.T, m.temperature) @ shares
    order = o.ids.argsort()
    remembered += zip(v[order], p[order], strict=True)
    order = o.x_ids.argsort()
    remembered += zip(v_x.detach()[order], o.y[order], strict=True)
    del remembered[: -m.queue]
    keep = q.amax(1) >= m.threshold
    o.watch(q, keep)
    graph = q @ q.T
    graph = torch.where(graph >= m.graph_threshold, graph, 0.0)
    graph = graph - graph.diag().diag() + torch.eye(len(q)).double()
    graph = graph / graph.sum(1, keepdim=True)
    return {
        "sup": o.sup(x),
        "unsup": m.weight * (keep * xent(q, s)).mean(),
        "contrast": m.contrast_weight * xent(graph, v_s @ v_s2.T / m.temperature).mean(),
    }


def simmatch(o: World) -> Losses:
    m = o.method
    known, w = (o.fixed(view, "teacher", m.target_dropout) for view in ("x", "u_w"))
    features: dict[int, Tensor] = o.memory.setdefault("bank", {})
    features |= zip(o.x_ids.tolist(), length_one(o.head("projection", known, 128)), strict=True)
    bank, labels = torch.stack(list(features.values())), o.known[list(features)]
    p = o.aligned(soft(w))
    near = soft(length_one(o.head("projection", w, 128)) @ bank.T, m.temperature)
    q = m.alpha * p + (1 - m.alpha) * near @ labels
    r = near * (p @ labels.T)
    r = r / r.sum(1, keepdim=True)
    keep = q.amax(1) >= m.threshold
    o.watch(q, keep)
    x, s = o.seen("x", "u_s")
    likeness = length_one(o.head("projection", s, 128)) @ bank.T / m.temperature
    return {
        "sup": o.sup(x),
        "unsup": m.weight * (keep * xent(q, s)).mean(),
        "instance": m.instance_weight * xent(r, likeness).mean(),
    }


def multimatch(o: World) -> Losses:
    m, c, names = o.method, o.classes, ("own", "second", "third")

    def answers(z: Tensor) -> list[Tensor]:
        return [z, o.head("second", z), o.head("third", z)]

    margins: dict[int, list[Tensor]] = o.memory.setdefault("margins", {})  # row -> of each visit [3, C]
    last: dict[int, Tensor] = o.memory.setdefault("last", {})  # row -> labels [3]
    cutoffs = o.memory.setdefault("cutoffs", torch.zeros(3, c).double())
    if o.new_round:
        for h in range(3):
            a, b = (h + 1) % 3, (h + 2) % 3
            for k in range(c):
                agreed = [i for i in last if last[i][a] == last[i][b] == k]
                values = [float(torch.stack(margins[i]).mean(0)[head, k]) for i in agreed for head in (a, b)]
                cutoffs[h, k] = max(float(np.quantile(values, m.quantile)), 0.0) if values else 0.0
    w = torch.cat(answers(o.fixed("u_w", noisy=m.target_dropout)))
    p = o.aligned(soft(w)).view(3, -1, c)
    conf, label = p.max(-1)  # [3, N]
    sure = torch.empty_like(conf, dtype=torch.bool)
    own = torch.empty_like(conf)
    for h, name in enumerate(names):
        tau = o.average(f"tau.{name}", conf[h].mean(), m.decay)
        mean = o.average(f"p.{name}", p[h].mean(0), m.decay)
        sure[h] = conf[h] >= (tau * mean / mean.max())[label[h]]
    for n, i in enumerate(o.ids.tolist()):
        margins.setdefault(i, []).append(torch.stack([lead(p[h])[n] for h in range(3)]))
        last[i] = label[:, n]
        own[:, n] = torch.stack(margins[i]).mean(0)[torch.arange(3), label[:, n]]
    (x,), (s,) = o.seen("x"), o.seen("u_s")
    loss, targets, kept = torch.zeros(()).double(), [], []
    for h, z in enumerate(answers(s)):
        a, b = (h + 1) % 3, (h + 2) % 3
        for n in range(len(s)):
            says = [own[other, n] >= cutoffs[h, label[other, n]] for other in (a, b)]
            teacher = b if says[1] and not says[0] else a
            alike = bool(label[a, n] == label[b, n])
            f = m.useful_weight if says[0] != says[1] else float(says[0] and alike)
            f = f * float(sure[a, n] or sure[b, n])
            targets.append(p[teacher, n])
            kept.append(float(f > 0))
            loss = loss + f * xent(hot(label[teacher, n][None], c), z[n : n + 1])[0]
    o.watch(torch.stack(targets), torch.tensor(kept))
    others = answers(x)[1:]
    return {
        "sup": o.sup(x),
        "heads": m.heads_weight * (o.sup(others[0]) + o.sup(others[1])),
        "unsup": m.weight * loss / (3 * len(s)),
    }


# --- two nets


def jointmatch(o: World) -> Losses:
    m, roles = o.method, ("student", "second")
    p = o.aligned(torch.cat([soft(o.fixed("u_w", role, m.target_dropout)) for role in roles]))
    before = o.memory.get("m", torch.full((o.classes,), 1 / o.classes).double())
    o.memory["m"] = m.decay * before + (1 - m.decay) * p.mean(0)
    thresholds = m.threshold * o.memory["m"] / o.memory["m"].max()
    sure, label = (p.amax(1) >= thresholds[p.argmax(1)]).chunk(2), p.argmax(1).chunk(2)
    losses, kept = {}, []
    for own, (role, end) in enumerate(zip(roles, ("", ".second"), strict=True)):
        other = 1 - own
        d = torch.where(sure[own], 1 - m.disagreement, m.disagreement)
        keep = sure[other] * d
        kept.append(keep > 0)
        x, s = o.seen("x", "u_s", role=role)
        losses["sup" + end] = o.sup(x)
        losses["unsup" + end] = m.weight * (keep * xent(hot(label[other], o.classes), s)).mean()
    o.watch(torch.cat(p.chunk(2)[::-1]), torch.cat(kept))
    return losses


def meta_pseudo_labels(o: World) -> Losses:
    m = o.method
    if m.finetune and o.progress >= 1 - m.finetune:
        return {"student_sup": o.sup(o.seen("x")[0])}
    own = soft(o.fixed("u_w", "teacher"))
    p = o.aligned(own)
    label = {"soft": p, "argmax": hot(p.argmax(1), o.classes), "sampled": hot(drawn(p), o.classes)}[m.labels]
    keep = p.amax(1) > m.threshold
    o.watch(p, keep)
    x, s = o.seen("x", "u_s")
    losses = {"student": xent(label, s).mean(), "student_sup": m.label_weight * o.sup(x)}
    before = float(o.sup(o.fixed("x")))
    o.updated = True
    gain = before - float(o.sup(o.fixed("x")))
    gain = gain if m.sign == "theory" else -gain
    usual = o.memory.get("usual", 0.0)
    h = min(max(gain - usual, -m.clip_h), m.clip_h)
    o.memory["usual"] = m.baseline_decay * usual + (1 - m.baseline_decay) * gain
    t_x, t_w, t_s = o.seen("x", "u_w", "u_s", role="teacher")
    adjusted = t_w + (p / own).log()
    meta = h * xent(label, adjusted).mean()
    if m.labels == "soft":
        way = (o.w[:, None] * (soft(o.fixed("x")) - o.y)).mean(0)  # [C]
        slope = way - (soft(o.fixed("u_s")) * way).sum(1, keepdim=True)
        slope = slope if m.sign == "theory" else -slope
        slope = slope * (m.clip_h / slope.abs().amax(1, keepdim=True)).clamp(max=1)
        meta = (soft(adjusted) * slope).sum(1).mean()
    return losses | {
        "sup": o.sup(t_x),
        "unsup": m.weight * linear(o.progress, m.ramp_up) * (keep * divergence(sharp(p, m.temperature), t_s)).mean(),
        "meta": m.meta_weight * meta,
    }


# --- rows mixed with one another


def ict(o: World) -> Losses:
    m, rows = o.method, len(o.y)
    p = o.aligned(soft(o.fixed("u_w", "teacher", m.target_dropout)))
    o.watch(p)
    order = torch.cat([partner(rows, next(o.calls)), rows + partner(len(p), next(o.calls))])
    targets = torch.cat([o.y, p])
    if m.mix_logits:
        targets = torch.cat([o.y, p.log()])
    (x, u), mixed = o.mixed(("x", "u_w"), targets, each=False, larger=False, order=order)
    target = soft(mixed[rows:]) if m.mix_logits else mixed[rows:]
    weight = m.weight * sigmoid(o.progress, m.ramp_up)
    return {
        "sup": (o.w * xent(mixed[:rows], x)).mean(),
        "unsup": weight * (soft(u) - target).square().mean(),
    }


def mixmatch(o: World) -> Losses:
    m, rows = o.method, len(o.y)
    p = o.aligned(sum(soft(o.fixed(view, noisy=m.target_dropout)) for view in ("u_w", "u_w2")) / 2)
    o.watch(p)
    q = sharp(p, m.temperature)
    targets = torch.cat([o.y, q, q])
    order = partner(len(targets), next(o.calls))
    (x, *u), mixed = o.mixed(("x", "u_w", "u_w2"), targets, each=True, larger=True, order=order)
    weight = m.weight * linear(o.progress, m.ramp_up)
    return {
        "sup": (o.w * xent(mixed[:rows], x)).mean(),
        "unsup": weight * (soft(torch.cat(u)) - mixed[rows:]).square().mean(),
    }


def mixtext(o: World) -> Losses:
    m, rows = o.method, len(o.y)
    w, s = (soft(o.fixed(view, noisy=m.target_dropout)) for view in ("u_w", "u_s"))
    p = o.aligned((1 - m.strong_share) * w + m.strong_share * s)
    o.watch(p)
    q = sharp(p, m.temperature)
    targets = torch.cat([o.y, q, q])
    order = partner(len(targets), next(o.calls))
    (x, *u), mixed = o.mixed(("x", "u_w", "u_s"), targets, each=False, larger=True, order=order)
    losses = {
        "sup": (o.w * xent(mixed[:rows], x)).mean(),
        "unsup": m.weight * linear(o.progress, m.ramp_up) * divergence(mixed[rows:], torch.cat(u)).mean(),
    }
    if m.hinge_weight:
        losses["hinge"] = m.hinge_weight * (entropy(o.seen("u_w")[0]) - m.margin).clamp(min=0).mean()
    return losses


def mixup_pseudo_label(o: World) -> Losses:
    m, rows = o.method, len(o.y)
    if o.new_round:
        o.memory["soft"] = o.aligned(soft(o.whole_pool()), whole_pool=True)
    if o.progress < m.supervised_until:
        return {"sup": o.sup(o.seen("x")[0])}
    guess = o.memory["soft"][o.ids]
    o.watch(guess)
    targets = torch.cat([o.y, guess])
    order = partner(len(targets), next(o.calls))
    (x, u), mixed = o.mixed(("x", "u_w"), targets, each=False, larger=False, order=order)
    z = torch.cat([x, u])
    return {
        "sup": (o.w * xent(mixed[:rows], x)).sum() / len(z),
        "unsup": m.weight * xent(mixed[rows:], u).sum() / len(z),
        "prior": m.prior_weight * o.imbalance(soft(z)),
        "entropy": m.entropy_weight * entropy(z).mean(),
    }


def remixmatch(o: World) -> Losses:
    m, rows, n = o.method, len(o.y), len(o.ids)
    views = ["u_s", "u_s2", "u_s3", "u_s4"][: m.strong_views]
    w = soft(o.fixed("u_w", noisy=m.target_dropout))
    if "queue" not in o.memory:
        even = torch.full((o.classes,), 1 / o.classes).double()
        start = o.memory["pool"] if o.progress == 0 and o.prior is not None else even
        o.memory["queue"] = [start] * m.queue
    p = scaled(w, o.known.mean(0) if o.prior is None else o.prior, sum(o.memory["queue"]) / m.queue)
    o.memory["queue"] = [*o.memory["queue"][1:], w.mean(0)]
    o.watch(p)
    q = sharp(p, m.temperature)
    targets = torch.cat([o.y, *[q] * (1 + len(views))])
    order = partner(len(targets), next(o.calls))
    (x, *u), mixed = o.mixed(("x", "u_w", *views), targets, each=True, larger=True, order=order)
    ramp = linear(o.progress, m.ramp_up)
    losses = {
        "sup": (o.w * xent(mixed[:rows], x)).mean(),
        "unsup": m.weight * ramp * xent(mixed[rows:], torch.cat(u)).sum() / (n * (1 + len(views))),
        "strong": m.strong_weight * ramp * xent(q, o.seen("u_s")[0]).mean(),
    }
    if m.ctaugment:  # 1 where the probe is understood fully, 0 where all of its probability is elsewhere
        o.probes.append(torch.minimum(soft(o.fixed("x_p")), o.y).sum(1))
    return losses | _pretext(o, "u_s")


def dividemix(o: World) -> Losses:
    m, n = o.method, len(o.ids)
    other = {"student": "second", "second": "student"}
    clean: dict[str, Tensor] = o.memory.setdefault("clean", {role: torch.ones(len(o.known)).double() for role in other})
    if o.new_round and o.progress >= m.supervised_until:
        for role, twin in other.items():
            clean[twin] = believed_share(xent(o.known, o.all_labeled(role)), m.least_gap)
    losses = {}
    for role, twin in other.items():
        o.updated = role == "second"
        if o.progress < m.supervised_until:
            (x,) = o.seen("x", role=role)
            losses[f"sup.{role}"] = o.sup(x)
            if m.confidence_penalty:
                losses[f"confidence.{role}"] = -m.confidence_penalty * entropy(x).mean()
            continue
        views = ("x", "x2", "u_w", "u_w2")
        p = {view: soft(o.fixed(view, role, noisy=True)) for view in views}
        q = {view: soft(o.fixed(view, twin)) for view in views}
        c = clean[role][o.x_ids][:, None]
        believed = c[:, 0] > m.threshold
        refined = c * o.y + (1 - c) * (p["x"] + p["x2"]) / 2
        guess = (p["x"] + p["x2"] + q["x"] + q["x2"]) / 4
        target = sharp(torch.where(believed[:, None], refined, guess), m.temperature)
        guess = (p["u_w"] + p["u_w2"] + q["u_w"] + q["u_w2"]) / 4
        o.watch(guess)
        u = sharp(guess, m.temperature)
        targets = torch.cat([target, target, u, u])
        order = partner(len(targets), next(o.calls))
        z, mixed = o.mixed(views, targets, each=False, larger=True, order=order, role=role)
        every, w = torch.cat(z), torch.cat([o.w, o.w, torch.ones(2 * n).double()])
        kept = torch.cat([believed, believed, torch.zeros(2 * n) > 0])
        weight = m.weight * linear(max(o.progress - m.supervised_until, 0.0), m.ramp_up)
        losses |= {
            f"sup.{role}": (w * xent(mixed, every))[kept].sum() / max(int(kept.sum()), 1),
            f"unsup.{role}": weight * (w[:, None] * (soft(every) - mixed).square())[~kept].mean(),
            f"penalty.{role}": m.penalty_weight * o.imbalance(soft(every)),
        }
    return losses


def believed_share(loss: Tensor, least_gap: float = 0.0) -> Tensor:
    """What the lower of two Gaussians has of each loss [L], by at most ten rounds of expectation and maximisation.

    They start as the two heaps with the least spread; 5e-4 is added to every variance, and a round that finds the mean
    log-likelihood within 0.01 of the last round's is the last one.
    """
    values = loss.numpy()
    if len(values) < 4 or values.max() - values.min() <= max(least_gap, 1e-12):
        return torch.ones(len(values)).double()
    v = (values - values.min()) / (values.max() - values.min())

    def fitted(share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = share.sum(0) + 10 * np.finfo(float).eps
        mean = v @ share / size
        return size / len(v), mean, ((v[:, None] - mean) ** 2 * share).sum(0) / size + 5e-4

    def expected(size: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, float]:
        density = size * np.exp(-((v[:, None] - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        return density / density.sum(1, keepdims=True), float(np.log(density.sum(1)).mean())

    spread = {cut: sum(part.var() * len(part) for part in (v[v <= cut], v[v > cut])) for cut in sorted(v)[:-1]}
    low = v <= min(spread, key=spread.__getitem__)
    gaussians, before = fitted(np.stack([low, ~low], 1).astype(float)), -math.inf
    for _ in range(10):
        share, now = expected(*gaussians)
        gaussians = fitted(share)
        if abs(now - before) < 0.01:
            break
        before = now
    return torch.from_numpy(expected(*gaussians)[0][:, gaussians[1].argmin()])


# --- labels over a graph


def label_propagation(o: World) -> Losses:
    m = o.method
    if o.new_round:
        o.memory["told"] = _propagated(o)
    p, sure, rare = o.memory["told"]
    p, sure = p[o.ids], sure[o.ids]
    o.watch(p, sure)
    x, u = o.seen("x", "u_w")
    label = p.argmax(1)
    return {"sup": o.sup(x), "unsup": m.weight * (sure * rare[label] * xent(hot(label, o.classes), u)).mean()}


def _propagated(o: World) -> tuple[Tensor, Tensor, Tensor]:
    """(labels [pool, C], how sure [pool], weights of the classes [C]) over the full graph of all rows."""
    m, rows, c = o.method, len(o.known), o.classes
    features = torch.cat([o.all_labeled(), o.whole_pool()])
    features = features - features.mean(1, keepdim=True)
    features = length_one(features - features.mean(0))
    likeness = (features @ features.T).fill_diagonal_(0.0)
    graph = torch.where(likeness > 0, likeness.clamp(min=0) ** m.gamma, 0.0)
    root = graph.sum(1).sqrt()
    seeds = torch.zeros(len(features), c).double()
    seeds[:rows] = o.known / o.known.sum(0)
    z = torch.linalg.solve(torch.eye(len(features)).double() - m.alpha * graph / root[:, None] / root, seeds)
    pool, wanted = z[rows:].clamp(min=0), o.shares()
    if o.prior is not None:  # columns scaled until softened labels have the shares
        top = pool.log().sort(1, descending=True).values
        leads = sorted((top[:, 0] - top[:, 1]).tolist())
        soften = min(max(0.5 * leads[(len(leads) - 1) // 2], 1e-3), 1.0)
        factors = torch.ones(c).double()
        for _ in range(100):
            labels = (pool * factors) ** (1 / soften)
            labels = labels / labels.sum(1, keepdim=True)
            factors = factors * (wanted / labels.mean(0)) ** soften
        pool = pool * factors / factors.max()
    p = pool / pool.sum(1, keepdim=True)
    sure = 1 + xlogx(p).sum(1) / math.log(c)
    everywhere = z[:rows] if o.prior is None else z[:rows] * factors / factors.max()
    everywhere = everywhere / everywhere.sum(1, keepdim=True)
    most = max(float(sure.max()), float((1 + xlogx(everywhere).sum(1) / math.log(c)).max()))
    counts = o.known.sum(0) + hot(p.argmax(1), c).sum(0)
    return p, sure / most, wanted * counts.sum() / counts


FORMULAS: dict[str, Callable[[World], Losses]] = {
    f.__name__: f
    for f in (
        supervised, adversarial, r_drop, fixmatch, defixmatch, debiaspl, uda, pseudo_label, entropy_min, pi_model,
        mean_teacher, temporal_ensembling, distillation, vat, adamatch, flexmatch, marginmatch, freematch, softmatch,
        dash, crmatch, comatch, simmatch, multimatch, jointmatch, meta_pseudo_labels, ict, mixmatch, mixtext,
        mixup_pseudo_label, remixmatch, dividemix, label_propagation,
    )
}  # fmt: skip
