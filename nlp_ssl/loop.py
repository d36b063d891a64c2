"""The contract of methods that work in rounds: a teacher labels the pool, a student learns from its labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from nlp_ssl.method import Kind, Range, check_ranges

if TYPE_CHECKING:
    from nlp_ssl.loops.teacher import Teacher


@dataclass(frozen=True)
class PseudoLabels:
    """Labels for rows of the pool, from a teacher, a file or people.

    Attributes:
        p: float64 [U, C], probabilities of every row of the pool; zeros where nothing is known.
        copies: int64 [U], how often a row is among those that a student learns from; 0 leaves it out.
        weights: float64 [U], what the loss of a row counts; of rows that are left out it says nothing.
        hard: learn the most probable class instead of the probabilities.
    """

    p: np.ndarray
    copies: np.ndarray
    weights: np.ndarray
    hard: bool = True

    @property
    def label(self) -> np.ndarray:
        """Most probable class [U], -1 where nothing is known."""
        found: np.ndarray = np.where(self.p.sum(1) > 0, self.p.argmax(1), -1)
        return found

    def targets(self) -> np.ndarray:
        """What is to be learned, float64 [U, C]."""
        known = self.p.sum(1, keepdims=True) > 0
        return np.eye(self.p.shape[1])[self.p.argmax(1)] * known if self.hard else self.p

    def same(self, other: "PseudoLabels") -> bool:
        """Whether a student would learn just the same."""
        used = self.copies > 0
        return (
            bool((self.copies == other.copies).all())
            and bool((self.weights[used] == other.weights[used]).all())
            and bool((self.targets()[used] == other.targets()[used]).all())
        )


@dataclass(frozen=True)
class Loop:
    """Base of all methods that work in rounds: fields are hyper-parameters, and so flags and saved settings.

    A round is `label`, then supervised training of a student from the common start on the labels and what it returned;
    the student is the next round's teacher.
    """

    name: ClassVar[str] = ""
    student_view: ClassVar[Literal["weak", "strong"]] = "weak"
    kinds: ClassVar[tuple[Kind, ...]] = ("one",)  # labels of a row that it is defined for
    images: ClassVar[Mapping[str, Any]] = {}  # defaults that suit images better than text
    rounds: Annotated[int, Range(1, 1000)] = 3

    def __post_init__(self) -> None:
        """Checks every field against the `Range` of its type.

        Raises:
            ConfigError: a value lies outside.
        """
        check_ranges(self)

    def defined_for(self) -> tuple[Kind, ...]:
        """`kinds`, where the options do not change them."""
        return self.kinds

    def label(self, teacher: "Teacher") -> PseudoLabels:
        """What the next student learns from the pool."""
        raise NotImplementedError

    @classmethod
    def for_images(cls) -> "Loop":
        """The loop with the defaults that suit images."""
        return cls(**cls.images)
