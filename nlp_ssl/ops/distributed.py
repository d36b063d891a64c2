"""All distributed arithmetic. With one process every function is its plain counterpart."""

import atexit

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def close() -> None:
    """Ends the process group, if there is one: the last thing a process does."""
    if world_size() > 1:
        dist.destroy_process_group()


atexit.register(close)


def total(v: Tensor) -> Tensor:
    """Sum of a tensor over the ranks, detached."""
    v = v.detach().clone()
    if world_size() > 1:
        dist.all_reduce(v)
    return v


def from_first(flag: bool) -> bool:
    """The flag of rank 0, on every rank."""
    if world_size() == 1:
        return flag
    tensor = torch.tensor([int(flag)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.broadcast(tensor, src=0)
    return bool(tensor.item())


def mean(v: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean of v [N], or of its rows where `where` [N] is 1: zero (with a graph) when there are none.

    Gradients are averaged over ranks later, so a masked mean divides by the *global* count / world size.
    """
    if where is None:
        return v.mean()
    where = where.detach().to(v.dtype)
    return (v * where).sum() * world_size() / total(where.sum()).clamp(min=1.0)


def stat(v: Tensor) -> Tensor:
    """Mean over the rows of all ranks of v [N, ...], detached: what running statistics are fed with."""
    count = total(torch.tensor(float(v.shape[0]), device=v.device))
    return total(v.float().sum(0)) / count.clamp(min=1.0)


def shared_mean(v: Tensor) -> Tensor:
    """Mean over the rows of all ranks of v [N, ...], with a gradient that is right once ranks average theirs."""
    own = v.mean(0)
    return own + (stat(v).to(v.dtype) - own).detach()


def from_first_values(v: Tensor) -> Tensor:
    """The values of rank 0, on every rank."""
    if world_size() > 1:
        v = v.contiguous()
        dist.broadcast(v, src=0)
    return v


def gather(ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """(ids [N], values [N, ...]) of every rank, in rank order. Ranks may hold different numbers of rows."""
    if world_size() == 1:
        return ids, values
    n = torch.tensor([ids.shape[0]], device=ids.device)
    counts = [torch.zeros_like(n) for _ in range(world_size())]
    dist.all_gather(counts, n)
    longest = int(torch.cat(counts).max())

    def collect(t: Tensor) -> Tensor:
        padded = t.new_zeros((longest, *t.shape[1:]))
        padded[: t.shape[0]] = t.detach()
        parts = [torch.empty_like(padded) for _ in range(world_size())]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(k)] for part, k in zip(parts, counts, strict=True)])

    return collect(ids), collect(values)
