"""Random draws inside a step. The engine seeds the generator per (seed, step, part), so they repeat on resume."""

import torch
from torch import Tensor


def beta(alpha: float, n: int, like: Tensor) -> Tensor:
    """Draws [n] from Beta(alpha, alpha), in float32 or wider; ones for alpha 0: no mixing."""
    if alpha == 0:
        return like.new_ones(n)
    a = torch.full((n,), alpha, dtype=torch.float64)
    return torch.distributions.Beta(a, a).sample().to(like)


def permutation(n: int, like: Tensor) -> Tensor:
    """A random order of n rows [n]."""
    return torch.randperm(n).to(like.device)


def normal(like: Tensor) -> Tensor:
    """Standard normal values in the shape of `like`."""
    return torch.randn(like.shape, dtype=like.dtype).to(like.device)


def uniform(like: Tensor) -> Tensor:
    """Values in [0, 1), float32, in the shape of `like`."""
    return torch.rand(like.shape).to(like.device)


def integers(n: int, like: Tensor) -> Tensor:
    """Numbers of 0 .. n - 1 in the shape of `like`."""
    return torch.randint(n, like.shape).to(like.device)


def classes(p: Tensor) -> Tensor:
    """One class per row [N], drawn with probabilities p [N, C]."""
    return torch.multinomial(p.detach().cpu().double(), 1).squeeze(1).to(p.device)


def integer(n: int) -> int:
    """A number of 0 .. n - 1."""
    return int(torch.randint(n, ()))
