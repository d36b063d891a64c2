"""Pure tensor maths: per-sample values first, reduction by the caller. All arithmetic is float32 or wider."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.functional import jvp
from torch.nn import functional as F

Tsa = Literal["none", "linear", "log", "exp"]


def wide(x: Tensor) -> Tensor:
    """Float32, or float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy per row [N] of logits [N, C] against classes [N] or probabilities [N, C]."""
    log_p = F.log_softmax(wide(logits), dim=-1)
    if target.dim() == 1:
        return -log_p.gather(1, target[:, None]).squeeze(1)
    return -(target.to(log_p.dtype) * log_p).sum(-1)


def as_probabilities(y: Tensor, like: Tensor) -> Tensor:
    """Labels as probabilities [N, C] for logits like [N, C]: classes [N] become one-hot rows."""
    if y.dim() == 2:
        return y.to(like.dtype)
    return F.one_hot(y, like.shape[-1]).to(like.dtype)


def as_logits(p: Tensor) -> Tensor:
    """Logarithms of probabilities, finite for zeros: softmax(as_logits(p)) = p."""
    return wide(p).clamp(min=torch.finfo(torch.float32).tiny).log()


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Values [R] in a shape that multiplies rows [R, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """KL(target || softmax(logits)) per row [N]; target [N, C] are probabilities and may hold zeros."""
    target = wide(target)
    return ce(logits, target) + torch.xlogy(target, target).sum(-1)


def entropy(p: Tensor) -> Tensor:
    """Entropy in nats per row [N] of probabilities [N, C]."""
    p = wide(p)
    return -torch.xlogy(p, p).sum(-1)


def prediction_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats per row [N] of softmax(logits [N, C]), with a finite gradient however large the logits are."""
    log_p = F.log_softmax(wide(logits), dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities [N, C] of logits / temperature. A temperature below 1 sharpens."""
    return F.softmax(wide(logits) / temperature, dim=-1)


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """p^(1 / temperature) [N, C], rows normalised again: softmax(logits / temperature) where p = softmax(logits)."""
    return F.softmax(as_logits(p) / temperature, dim=-1)


def squared_error(p: Tensor, q: Tensor) -> Tensor:
    """Mean over the classes of (p - q)^2, per row [N]."""
    return (p - q).square().mean(-1)


def align(p: Tensor, wanted: Tensor, current: Tensor, eps: float = 1e-6) -> Tensor:
    """Distribution alignment: p [N, C] * wanted [C] / current [C], rows normalised again."""
    q = p * ((wanted + eps) / (current + eps))
    return q / q.sum(-1, keepdim=True)


def sigmoid_ramp(progress: float, end: float) -> float:
    """exp(-5 (1 - t)^2) with t = progress / end clipped to [0, 1]; 1 when `end` is 0."""
    t = 1.0 if end <= 0 else min(max(progress / end, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - t) ** 2)


def linear_ramp(progress: float, end: float) -> float:
    """Progress / end clipped to [0, 1]; 1 when `end` is 0."""
    return 1.0 if end <= 0 else min(max(progress / end, 0.0), 1.0)


_TSA: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "log": lambda t: 1.0 - math.exp(-5.0 * t),
    "exp": lambda t: math.exp(5.0 * (t - 1.0)),
}


def tsa_threshold(schedule: Tsa, progress: float, num_classes: int) -> float:
    """Training signal annealing: the probability above which a labeled row is left out of the loss.

    Goes from 1 / C at progress 0 to 1 ("log" ends at 0.9949); infinity for "none".
    """
    if schedule == "none":
        return math.inf
    return _TSA[schedule](progress) * (1.0 - 1.0 / num_classes) + 1.0 / num_classes


def cosine_ramp(progress: float, end: float) -> float:
    """(1 - cos(pi t)) / 2 with t = progress / end clipped to [0, 1]; 1 when `end` is 0."""
    return 0.5 - 0.5 * math.cos(math.pi * linear_ramp(progress, end))


def newest(mass: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """One step of a running average that has no starting value: (new mass, share of the newest value).

    The mass starts at 0 and tends to 1; `average.lerp(value, share)` is then the mean of all values so far, each
    weighted `decay` times the one after it.
    """
    mass = decay * mass + (1.0 - decay)
    return mass, (1.0 - decay) / mass


def early_decay(decay: float, step: int) -> float:
    """Decay of an average of weights after update number `step` (from 1), min(1 - 1 / (step + 1), decay).

    The start loses its share quickly: after the first updates the average is a plain mean.
    """
    return min(1.0 - 1.0 / (step + 1), decay)


def label_gradient(
    student: Callable[[Tensor, Tensor], Tensor],
    theta: Tensor,
    u: Tensor,
    target: Tensor,
    x: Tensor,
    y: Tensor,
    rate: float,
) -> Tensor:
    """Gradient [N, C] of the labeled loss after an update on soft labels, with respect to these: how to better them.

    One step of gradient descent, theta' = theta - rate * grad mean CE(target, student(theta, u)), gives the loss mean
    CE(y, student(theta', x)); `student(theta, rows)` are logits. The update is linear in target [N, C], so that the
    derivative is rate / N times that of log softmax(student(theta, u)) along the loss's gradient at theta'.
    """
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        (step,) = torch.autograd.grad(ce(student(theta, u), target.detach()).mean(), [theta])
        after = (theta - rate * step).detach().requires_grad_()
        (wanted,) = torch.autograd.grad(ce(student(after, x), y).mean(), [after])
    along: Tensor
    _, along = jvp(lambda t: F.log_softmax(wide(student(t, u)), -1), theta.detach(), wanted)  # type: ignore[no-untyped-call]
    return rate / len(u) * along


def unit(v: Tensor) -> Tensor:
    """Rows [N, D] scaled to length 1; zeros stay zeros."""
    v = wide(v)
    length: Tensor = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return v / length.clamp(min=1e-12)


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """(KL(p || q) + KL(q || p)) / 2 per row [N], p = softmax(a), q = softmax(b): gradient into both logits [N, C]."""
    log_p, log_q = F.log_softmax(wide(a), dim=-1), F.log_softmax(wide(b), dim=-1)
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def leads(p: Tensor) -> Tensor:
    """By how much each class leads or trails, ln p_c - max_{j != c} ln p_j: [..., C]."""
    log_p = as_logits(p)
    first, second = torch.split(log_p.topk(2, dim=-1).values, 1, dim=-1)
    return log_p - torch.where(log_p < first, first, second)
