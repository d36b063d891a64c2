"""One color a class, the same in every figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nlp_ssl.report.svg import COLORS, Legend

REST = "rest"  # gray: classes beyond the colors, and rows without a class


@dataclass(frozen=True)
class Shades:
    """Colors of classes.

    Attributes:
        names: class names, by class index.
        sizes: rows of each class; where there are more classes than colors the largest have one.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @cached_property
    def shown(self) -> list[int]:
        """Classes with a color of their own, in their order."""
        if len(self.names) <= COLORS:
            return list(range(len(self.names)))
        largest = np.argsort(-np.array(self.sizes), kind="stable")[: COLORS - 1]
        return sorted(int(i) for i in largest)

    @cached_property
    def colors(self) -> list[str]:
        """The CSS class of every class."""
        place = {c: f"c{i}" for i, c in enumerate(self.shown)}
        return [place.get(c, REST) for c in range(len(self.names))]

    @cached_property
    def legend(self) -> tuple[Legend, ...]:
        """Names of the colors."""
        rest = len(self.names) - len(self.shown)
        named = tuple(Legend(self.names[i], self.colors[i]) for i in self.shown)
        return (*named, Legend(f"{rest} other classes", REST)) if rest else named

    def color(self, label: int) -> str:
        """Of a class, or gray for -1."""
        return self.colors[label] if 0 <= label < len(self.colors) else REST

    def name(self, label: int) -> str:
        """Of a class."""
        return self.names[label] if 0 <= label < len(self.names) else "unknown"

    def summed(self, shares: Sequence[float]) -> list[float]:
        """Values by class as values by entry of the legend."""
        values = np.zeros(len(self.names))
        values[: len(shares)] = shares[: len(values)]
        shown = [float(values[i]) for i in self.shown]
        return shown if len(self.shown) == len(self.names) else [*shown, float(values.sum()) - sum(shown)]
