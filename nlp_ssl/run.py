"""What a method sees while it runs: nets, state, progress and a log."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.method import Method
from nlp_ssl.ops.distributed import gather, shared_mean, stat
from nlp_ssl.ops.functional import align, entropy
from nlp_ssl.types import DataSpec, Forward

_POOL_DECAY = 0.95  # of the running mean of pseudo-labels: about the last 20 batches


class Policy(Protocol):
    """An augmentation that learns how strong it may be, as a method that steers it sees it (CTAugment)."""

    def updated(self, rates: Tensor, keys: np.ndarray, match: Tensor) -> Tensor:
        """New rates of the strengths after probes with these keys [n] were understood to the degree match [n], 0..1."""
        ...


def _no_data(role: str, block: str) -> Tensor:
    raise RuntimeError("this run has no data to predict on")


@dataclass
class StepContext:
    """The state of one training run. `state` and the weights of the nets are all that changes."""

    method: Method
    nets: Mapping[str, Forward]
    spec: DataSpec
    max_steps: int = 1
    step: int = 0  # optimizer steps done
    epoch: int = 0  # passes over the pool done
    state: dict[str, Tensor] = field(default_factory=dict)
    predict: Callable[[str, str], Tensor] = _no_data  # (net role, block) -> probabilities of all its rows [n, C]
    features: Callable[[str, str], Tensor] = _no_data  # (net role, block) -> features of all its rows [n, D]
    labels: Tensor = field(default_factory=lambda: torch.empty(0))  # of all labeled rows, [n] classes or [n, C]
    policy: Policy | None = None  # of the views "controlled" and "probe"; its rates are `state["rates"]`
    log_sums: dict[str, Tensor] = field(default_factory=dict)  # of what was logged since the last line of metrics
    log_counts: dict[str, int] = field(default_factory=dict)  # values in each of these sums

    @property
    def progress(self) -> float:
        """Share of the steps already done, 0 to 1."""
        return min(self.step / max(self.max_steps, 1), 1.0)

    def log(self, name: str, value: Tensor | float) -> None:
        """Adds a value to the mean that is written every `logging_steps` steps. Costs no host sync."""
        value = value.detach().float() if isinstance(value, Tensor) else torch.tensor(float(value))
        self.log_sums[name] = self.log_sums[name] + value if name in self.log_sums else value
        self.log_counts[name] = self.log_counts.get(name, 0) + 1

    def aligned(self, p: Tensor, *, whole_pool: bool = False) -> Tensor:
        """Pseudo-label probabilities [N, C] whose average over the run is the class shares estimated on the pool.

        Without an estimate (no `spec.prior` or no `state["pool_mean"]`) p as it is. The running mean of p over all
        ranks lies in `state["pool_mean"]`: distribution alignment (Berthelot et al. 2020, arXiv:1911.09785). Rows are
        those of the pool alone: labeled ones have shares of their own. With `whole_pool` p holds every row of the pool,
        and its mean takes the place of the running one.
        """
        mean = self.state.get("pool_mean")
        if self.spec.prior is None or mean is None:
            return p
        newest = stat(p).to(mean.dtype)
        mean = newest if whole_pool else mean.lerp(newest, 1.0 - _POOL_DECAY)
        self.state["pool_mean"] = mean
        return align(p, p.new_tensor(self.spec.prior), mean.to(p.dtype))

    def shares(self, like: Tensor) -> Tensor:
        """Class shares [C] of the pool for probabilities like [N, C]: the estimated ones, or even ones without."""
        classes = like.shape[-1]
        return like.new_tensor(self.spec.prior or [1.0 / classes] * classes)

    def imbalance(self, p: Tensor) -> Tensor:
        """KL(shares || mean of p [N, C] over the rows of all ranks): least where predictions have the pool's shares."""
        shares = self.shares(p)
        return (torch.xlogy(shares, shares) - shares * shared_mean(p).clamp(min=1e-12).log()).sum()

    def remember(self, name: str, ids: Tensor, values: Tensor) -> None:
        """Writes values [n, ...] into the rows `ids` [n] of `state[name]`, those of all ranks on every rank.

        Of a row that is there twice the last value counts: the last batch of a pass is filled up from its start.
        """
        ids, values = gather(ids, values.detach())
        ordered, at = ids.sort(stable=True)
        last = at[torch.cat([ordered[1:] != ordered[:-1], ordered.new_ones(1) > 0])[: len(at)]]
        self.state[name].index_copy_(0, ids[last], values[last].to(self.state[name].dtype))

    def steer(self, keys: np.ndarray, match: Tensor) -> None:
        """Tells the learned augmentation how well probes with these keys [n] were understood: match [n] in 0..1."""
        if self.policy is not None:
            at, values = gather(torch.from_numpy(keys.astype(np.int64)).to(match.device), match.detach().float())
            rates = self.policy.updated(self.state["rates"].cpu(), at.cpu().numpy().astype(np.uint64), values.cpu())
            self.state["rates"] = rates.to(self.state["rates"].device)

    def watch(self, p: Tensor, keep: Tensor, true_labels: Tensor) -> None:
        """Logs the health of pseudo-labels: p [N, C], kept rows keep [N] (0..1), true_labels [N] classes or -1.

        The collapse guard and the report read these: share kept, entropy, class histogram, accuracy where known.
        Rows of zeros have no pseudo-label yet and count for the share alone.
        """
        if not len(p):
            return
        p, keep = p.detach(), keep.detach().float()
        label, has_target = p.argmax(-1), (p.sum(-1) > 0).float()
        rows = has_target.sum().clamp(min=1.0)
        known = (keep * has_target > 0) & (true_labels >= 0)
        self.log("mask_rate", keep.mean())
        self.log("pseudo_entropy", (entropy(p) * has_target).sum() / rows)
        self.log("pseudo_hist", torch.bincount(label, weights=has_target, minlength=p.shape[-1]) / rows)
        self.log("pseudo_known", known.sum())
        self.log("pseudo_right", (known & (label == true_labels)).sum())

    def flush(self) -> dict[str, Tensor]:
        """Means of what was logged since the last call, still on their device."""
        means = {name: total / self.log_counts[name] for name, total in self.log_sums.items()}
        self.log_sums, self.log_counts = {}, {}
        return means
