"""Batches as a pure function of (seed, step, part): resume and sharding need no replay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from nlp_ssl.data.dataset import Data
from nlp_ssl.errors import ConfigError
from nlp_ssl.ops.multilabel import binary_batch
from nlp_ssl.types import Batch
from nlp_ssl.utils.counter_rng import row_keys

_WINDOW = 64  # batches whose unlabeled rows are sorted by length together, so that a batch holds like lengths
_LABELED_STREAM, _POOL_STREAM = 1, 2


@dataclass(frozen=True)
class Sizes:
    """Rows of one optimizer step over all its parts (ranks x accumulated micro-batches)."""

    labeled: int
    unlabeled: int
    parts: int = 1

    def __post_init__(self) -> None:
        for name, rows in (("batch_size", self.labeled), ("unlabeled rows per step", self.unlabeled)):
            if rows % self.parts:
                raise ConfigError(
                    210,
                    f"{name} = {rows} cannot be divided over {self.parts} parts "
                    "(processes x gradient_accumulation_steps)",
                )


class Loader(Dataset[Batch]):
    """Item i is micro-batch i of this rank: step i // accumulate, part (i % accumulate) * world + rank.

    Labeled rows come in seeded passes without replacement, so every batch mixes classes. Unlabeled rows come in
    passes too, sorted by length within windows of 64 batches whose order is then shuffled.
    """

    def __init__(
        self,
        data: Data,
        views: Mapping[str, str],
        augment: Mapping[str, Any],
        sizes: Sizes,
        *,
        seed: int,
        max_steps: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.data, self.views, self.augment, self.sizes = data, views, augment, sizes
        self.seed, self.max_steps = seed, max_steps
        self.rank, self.world = rank, world
        self.accumulate = sizes.parts // world
        self.uses_pool = any(v.startswith("u") for v in views) and len(data.unlabeled) > 0
        self.steps_per_epoch = -(-len(data.unlabeled) // sizes.unlabeled) if self.uses_pool else max_steps
        self._passes: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return self.max_steps * self.accumulate

    def epoch(self, step: int) -> int:
        """Number of the pass over the pool that a step belongs to."""
        return step // self.steps_per_epoch

    def __getitem__(self, i: int) -> Batch:
        step, micro = divmod(i, self.accumulate)
        part = slice(micro * self.world + self.rank, None, self.sizes.parts)
        labeled = self._labeled_rows(step)[part]
        epoch, position = divmod(step, self.steps_per_epoch)
        pool = self._pool_pass(epoch)[position][part] if self.uses_pool else np.zeros(0, dtype=np.int64)
        ids = {"x": labeled, "u": pool}
        positions = {"x": self.data.labeled[labeled], "u": self.data.unlabeled[pool]}
        rows, requests, all_keys, start = {}, [], {}, 0
        # Labeled draws repeat many times per pass over the pool: their noise is keyed by step, not by epoch.
        for salt, (view, kind) in enumerate(self.views.items()):
            block = positions[view[0]]
            all_keys[view] = keys = row_keys(self.seed, step if view[0] == "x" else epoch, block, salt)
            requests.append((block, self.augment[kind], keys))
            rows[view] = slice(start, start + len(block))
            start += len(block)
        inputs, lengths = self.data.store.views(requests)
        batch = Batch(
            inputs=inputs,
            lengths=lengths,
            rows=rows,
            y=self._targets(labeled),
            w=self._weights(labeled),
            id={block: torch.from_numpy(np.ascontiguousarray(at)) for block, at in ids.items()},
            keys=all_keys,
            true_labels=torch.from_numpy(self.data.labels[positions["u"]]),
        )
        return batch if self.data.kind == "single-label" else binary_batch(batch)

    def _targets(self, labeled: np.ndarray) -> torch.Tensor:
        if self.data.targets is not None:
            return torch.from_numpy(self.data.targets[labeled]).float()
        return torch.from_numpy(self.data.labels[self.data.labeled[labeled]])

    def _weights(self, labeled: np.ndarray) -> torch.Tensor:
        if self.data.weights is None:
            return torch.ones(len(labeled))
        return torch.from_numpy(self.data.weights[labeled]).float()

    def _labeled_rows(self, step: int) -> np.ndarray:
        n = len(self.data.labeled)
        if not n:
            return np.zeros(0, dtype=np.int64)
        draws = np.arange(step * self.sizes.labeled, (step + 1) * self.sizes.labeled)
        return np.array([self._labeled_pass(int(d) // n)[int(d) % n] for d in draws])

    def _labeled_pass(self, number: int) -> np.ndarray:
        return self._remembered(_LABELED_STREAM, number, self._make_labeled_pass)

    def _pool_pass(self, number: int) -> np.ndarray:
        return self._remembered(_POOL_STREAM, number, self._make_pool_pass)

    def _remembered(self, stream: int, number: int, make: Callable[[int], np.ndarray]) -> np.ndarray:
        """The order of a pass, made once; the one before the last is forgotten."""
        if (stream, number) not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k[0] != stream or k[1] == number - 1}
            self._passes[stream, number] = make(number)
        return self._passes[stream, number]

    def _make_labeled_pass(self, number: int) -> np.ndarray:
        return np.random.default_rng((self.seed, _LABELED_STREAM, number)).permutation(len(self.data.labeled))

    def _make_pool_pass(self, epoch: int) -> np.ndarray:
        """Numbers of pool rows [steps_per_epoch, rows per step]; the last batch is filled up from the start."""
        rng = np.random.default_rng((self.seed, _POOL_STREAM, epoch))
        batch, window = self.sizes.unlabeled, _WINDOW * self.sizes.unlabeled
        order = np.resize(rng.permutation(len(self.data.unlabeled)), self.steps_per_epoch * batch)
        store = self.data.store
        lengths = np.minimum(store.lengths[self.data.unlabeled[order]], store.max_length)
        within = np.lexsort((np.arange(len(order)), lengths, np.arange(len(order)) // window))
        batches = order[within].reshape(self.steps_per_epoch, batch)
        shuffled = rng.random(self.steps_per_epoch)
        return batches[np.lexsort((shuffled, np.arange(self.steps_per_epoch) // _WINDOW))]
