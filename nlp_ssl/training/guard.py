"""Watches pseudo-labels for the ways in which they go wrong, and says so."""

import math
from collections.abc import Mapping, Sequence

FEW = 0.01  # share of the pool in use below which it hardly counts
_PATIENCE = 3  # records in a row before a warning: single batches are noisy
_EARLY = 0.2  # share of training in which few or uniform pseudo-labels are normal


def collapse(largest: float) -> float:
    """Share of one class above which pseudo-labels have collapsed: half-way from the largest one expected to all."""
    return 0.5 + 0.5 * largest


class Guard:
    """Feeds on the written metrics and answers with a warning, once per kind."""

    def __init__(self, classes: Sequence[str], prior: Sequence[float] | None = None) -> None:
        self.classes = classes
        self.largest = max(prior) if prior else 1.0 / len(classes)
        self.uniform = math.log(len(classes))
        self.seen: dict[str, int] = {}

    def check(self, metrics: Mapping[str, object], progress: float) -> str | None:
        """A one-line warning if something has been wrong for several records in a row, else None."""
        rate, entropy, histogram = (metrics.get(k) for k in ("mask_rate", "pseudo_entropy", "pseudo_hist"))
        if not isinstance(rate, float) or not isinstance(entropy, float) or not isinstance(histogram, list):
            return None
        top = max(histogram)
        name = self.classes[histogram.index(top)]
        collapsed = top > collapse(self.largest)
        starved = progress > _EARLY and rate < FEW
        flat = progress > _EARLY and entropy > 0.98 * self.uniform
        messages = {
            "collapse": (collapsed, f"{top:.0%} of the pseudo-labels are one class, {name!r}: they have collapsed or "
                         "the pool is not of this task; raise the threshold or lower the weight"),
            "starved": (starved, f"only {rate:.1%} of the pool passes the threshold: the unlabeled text hardly counts; "
                        "lower the threshold or add labels"),
            "flat": (flat, "pseudo-labels are close to uniform: the model knows nothing of the pool yet"),
        }  # fmt: skip
        for kind, (wrong, message) in messages.items():
            self.seen[kind] = self.seen.get(kind, 0) + 1 if wrong else 0
            if self.seen[kind] == _PATIENCE:
                return message
        return None
