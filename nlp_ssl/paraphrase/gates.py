"""What a rewriting must be like to take the place of its text."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from nlp_ssl.errors import ConfigError

ACCEPTED = ""


@dataclass(frozen=True)
class Gates:
    """A rewriting that fails gives way to the text itself, and is counted.

    Attributes:
        shortest: characters of the rewriting over those of the text, at least.
        longest: the same, at most: models that lose the thread repeat themselves.
        fewest_words: texts of fewer words stay as they are; so little can only lose its sense.

    Raises:
        ConfigError: the bounds exclude each other.
    """

    shortest: float = 0.5
    longest: float = 2.0
    fewest_words: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.shortest <= 1 <= self.longest:
            raise ConfigError(282, f"gates: shortest is {self.shortest}, longest {self.longest}: put 1 between them")

    def wanted(self, text: str) -> bool:
        """Whether the text is worth rewriting."""
        return len(text.split()) >= self.fewest_words

    def judge(self, text: str, rewriting: str) -> str:
        """`ACCEPTED`, or why not."""
        ratio = len(rewriting.strip()) / max(len(text), 1)
        if not rewriting.strip():
            return "empty"
        if ratio < self.shortest:
            return "too short"
        return "too long" if ratio > self.longest else ACCEPTED


@dataclass
class Report:
    """What came of the rewriting.

    Attributes:
        outcomes: how many views were "changed", "same", or not accepted, by reason.
        examples: some changed texts beside their rewritings.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)
    _ratios: list[float] = field(default_factory=list)

    def add(self, text: str, view: str, outcome: str) -> None:
        """Counts one view."""
        self.outcomes[outcome or ("same" if view == text else "changed")] += 1
        if outcome == ACCEPTED and view != text:
            kept = len(set(text.lower().split()) & set(view.lower().split())) / max(len(set(text.lower().split())), 1)
            self._ratios.append(kept)
            if len(self.examples) < 10:
                self.examples.append((text, view))

    def lines(self) -> list[str]:
        """The report in words, a line for each fact."""
        total = sum(self.outcomes.values())
        shares = ", ".join(f"{name} {100 * n / total:.1f} %" for name, n in self.outcomes.most_common())
        found = [f"{total} views: {shares}" if total else "no views"]
        if self._ratios:
            low, middle, high = 100 * np.quantile(self._ratios, (0.1, 0.5, 0.9))
            found.append(f"words kept in changed views: median {middle:.0f} %, 10-90 % from {low:.0f} to {high:.0f} %")
        return found
