"""What a run came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlp_ssl.inference.metrics import Scores
from nlp_ssl.utils import atomic


@dataclass
class Outcome:
    """What a finished run came to: scores by split, steps, seconds of training, warnings of the guard."""

    scores: dict[str, Scores]
    steps: int
    seconds: float
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Outcome":
        """An outcome as it was saved.

        Raises:
            KeyError, TypeError, ValueError: something is missing or of another kind.
        """
        if not isinstance(saved["scores"], dict):
            raise TypeError("scores are of another kind")
        outcome = cls(
            {split: Scores.of(values) for split, values in saved["scores"].items()},
            saved["steps"],
            saved["seconds"],
            saved["warnings"],
        )
        numbers = atomic.is_count(outcome.steps) and atomic.is_number(outcome.seconds) and outcome.seconds >= 0
        if (
            not numbers
            or not isinstance(outcome.warnings, list)
            or not all(isinstance(w, str) for w in outcome.warnings)
        ):
            raise ValueError("steps, seconds or warnings are of another kind")
        return outcome
