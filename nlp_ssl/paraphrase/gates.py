"""Which rewritings are accepted as views of their texts, and a report on all of them."""

import json
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, NamedTuple

import numpy as np

from nlp_ssl.errors import ConfigError

ACCEPTED = ""
_SAMPLE = 2000  # changed views for the report
_EXAMPLES = 10


class View(NamedTuple):
    """A text, the number of its sample, its view, and why the view is the text itself where no rewriting was accepted.

    The cosine is that of the text and its rewriting, accepted or not, where it was computed.
    """

    text: str
    sample: int
    view: str
    outcome: str
    cosine: float | None = None

    @property
    def changed(self) -> bool:
        """Whether the view is another text."""
        return self.view != self.text


@dataclass(frozen=True)
class Gates:
    """Conditions on rewritings: one that fails is replaced by the text itself, and counted.

    Attributes:
        shortest: characters of the rewriting over those of the text, at least.
        longest: the same, at most: models that go astray repeat themselves.
        fewest_words: texts of fewer words stay as they are: they can hardly be said in another way.
        lowest_cosine: cosine of the embeddings of text and rewriting, at least, where it is computed.

    Raises:
        ConfigError: the bounds exclude each other.
    """

    shortest: Annotated[float, "characters of a rewriting over those of its text, at least"] = 0.5
    longest: Annotated[float, "the same, at most: models that lose the thread repeat themselves"] = 2.0
    fewest_words: Annotated[int, "texts of fewer words stay as they are; so little can only lose its sense"] = 3
    lowest_cosine: Annotated[float, "cosine of the embeddings of text and rewriting, at least, where measured"] = -1.0

    def __post_init__(self) -> None:
        if not 0 <= self.shortest <= 1 <= self.longest:
            raise ConfigError(282, f"gates: shortest is {self.shortest}, longest {self.longest}: put 1 between them")
        if not -1 <= self.lowest_cosine <= 1:
            raise ConfigError(282, f"gates: lowest_cosine is {self.lowest_cosine}: choose it between -1 and 1")

    def wanted(self, text: str) -> bool:
        """Whether the text has enough words."""
        return len(text.split()) >= self.fewest_words

    def view(self, text: str, sample: int, rewriting: str) -> View:
        """The rewriting, or the text with the reason, by their lengths alone."""
        ratio = len(rewriting.strip()) / max(len(text), 1)
        if not self.wanted(text):
            outcome = "too few words"
        elif not rewriting.strip():
            outcome = "empty"
        elif ratio < self.shortest:
            outcome = "too short"
        else:
            outcome = "too long" if ratio > self.longest else ACCEPTED
        return View(text, sample, rewriting if outcome == ACCEPTED else text, outcome)


@dataclass
class Report:
    """Outcomes of the rewriting.

    Attributes:
        outcomes: how many views are "changed", "same", or not accepted, by reason.
        cosines: how many rewritings have which cosine to their text, by its first digit; -1 for all below 0.
        sample: some changed views beside their texts, drawn evenly from all.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    cosines: Counter[int] = field(default_factory=Counter)
    sample: list[tuple[str, str]] = field(default_factory=list)
    _random: Random = field(default_factory=lambda: Random(0), repr=False)

    def add(self, view: View) -> None:
        """Counts one view."""
        self.outcomes[view.outcome or ("changed" if view.changed else "same")] += 1
        if view.cosine is not None:
            self.cosines[max(int(np.floor(10 * min(view.cosine, 0.999))), -1)] += 1
        if view.changed and len(self.sample) < _SAMPLE:
            self.sample.append((view.text, view.view))
        elif view.changed:  # reservoir sampling: each of n changed views stays with the same probability
            place = self._random.randrange(self.outcomes["changed"])
            if place < _SAMPLE:
                self.sample[place] = (view.text, view.view)

    def merge(self, other: "Report") -> None:
        """Adds the counts of another report. Each sample keeps the share that its changed views have."""
        ours, theirs = self.outcomes["changed"], other.outcomes["changed"]
        room = min(_SAMPLE, len(self.sample) + len(other.sample))
        taken = max(min(round(room * ours / max(ours + theirs, 1)), len(self.sample)), room - len(other.sample))
        drawn = self._random.sample(self.sample, taken), self._random.sample(other.sample, room - taken)
        self.sample = [*drawn[0], *drawn[1]]
        self.outcomes += other.outcomes
        self.cosines += other.cosines

    def to_json(self) -> str:
        """Everything that `of_json` needs."""
        return json.dumps([dict(self.outcomes), list(self.cosines.items()), self.sample])

    @classmethod
    def of_json(cls, text: str) -> "Report":
        outcomes, cosines, sample = json.loads(text)
        return cls(Counter(outcomes), Counter(dict(map(tuple, cosines))), [(a, b) for a, b in sample])

    @property
    def examples(self) -> list[tuple[str, str]]:
        """Up to ten changed texts with their rewritings."""
        return Random(0).sample(self.sample, min(_EXAMPLES, len(self.sample)))

    def lines(self) -> list[str]:
        """The report as text, a line for each fact."""
        total = sum(self.outcomes.values())
        shares = ", ".join(f"{name} {100 * n / total:.1f} %" for name, n in self.outcomes.most_common())
        lines = [f"{total} views: {shares}" if total else "no views"]
        if self.sample:
            kept = [_kept(text, view) for text, view in self.sample]
            low, middle, high = 100 * np.quantile(kept, (0.1, 0.5, 0.9))
            lines.append(f"words kept in changed views: median {middle:.0f} %, 10-90 % from {low:.0f} to {high:.0f} %")
            lines.append(_likeness(self.sample))
        if self.cosines:
            drawn = ", ".join(f"{_bin(at)} {100 * n / self.cosines.total():.1f} %" for at, n in _sorted(self.cosines))
            lines.append(f"cosine to the text: {drawn}")
        return lines


def _kept(text: str, view: str) -> float:
    """Share of the text's distinct words that the view has too."""
    words = set(text.lower().split())
    return len(words & set(view.lower().split())) / max(len(words), 1)


def _likeness(pairs: list[tuple[str, str]]) -> str:
    """ChrF (Popović 2015) and BLEU (Papineni et al. 2002) of the views against their texts."""
    try:
        from sacrebleu import corpus_bleu, corpus_chrf
    except ImportError:
        return "chrF and BLEU against the texts: not measured, pip install '.[translate]'"
    texts, views = [text for text, _ in pairs], [view for _, view in pairs]
    chrf, bleu = corpus_chrf(views, [texts]).score, corpus_bleu(views, [texts], force=True).score
    return f"against the texts: chrF {chrf:.0f}, BLEU {bleu:.0f} (100 is the text itself; {len(pairs)} changed views)"


def _sorted(cosines: Counter[int]) -> list[tuple[int, int]]:
    return sorted(cosines.items(), reverse=True)


def _bin(at: int) -> str:
    return "below 0" if at < 0 else f"from {at / 10:.1f}"
