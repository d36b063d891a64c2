"""The contract: a method is a frozen value with a `step`; the engine owns nets, state, optimizer and ranks.

What a method is written with is here and in `nlp_ssl.ops`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from torch import Tensor

from nlp_ssl.types import Batch, DataSpec, Head, Kind, Losses, PseudoLabels, Role
from nlp_ssl.utils.documentation import documented
from nlp_ssl.utils.ranges import Range, Share, Temperature, Weight, check_ranges

if TYPE_CHECKING:
    from nlp_ssl.rounds.teacher import Teacher
    from nlp_ssl.run import StepContext

__all__ = [
    "Batch",
    "DataSpec",
    "Head",
    "Kind",
    "Losses",
    "Method",
    "PseudoLabels",
    "Range",
    "Role",
    "RoundMethod",
    "Share",
    "Temperature",
    "Weight",
    "documented_method",
    "register",
]


@dataclass(frozen=True)
class Method:
    """Base of all methods: fields are hyper-parameters, and so flags of the command line and the saved config."""

    name: ClassVar[str] = ""
    views: ClassVar[Mapping[str, str]] = {"x": "weak"}
    nets: ClassVar[Mapping[str, Role]] = {"student": "trained"}
    heads: ClassVar[Mapping[str, Head]] = {}
    pool_optional: ClassVar[bool] = False  # also worth training without unlabeled rows
    kinds: ClassVar[tuple[Kind, ...]] = ("single-label",)  # see `nlp_ssl.ops.multilabel`
    images: ClassVar[Mapping[str, Any]] = {}  # defaults that suit images better than text

    def __post_init__(self) -> None:
        """Checks every field against the `Range` of its type.

        Raises:
            ConfigError: a value lies outside.
        """
        check_ranges(self)

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        """Named tensors the method keeps between steps: the only mutable thing it has."""
        return {}

    def wanted_views(self) -> Mapping[str, str]:
        """`views`, where the options do not change them."""
        return self.views

    def wanted_heads(self) -> Mapping[str, Head]:
        """`heads`, where the options do not change them."""
        return self.heads

    def defined_for(self) -> tuple[Kind, ...]:
        """`kinds`, where the options do not change them."""
        return self.kinds

    def refresh_steps(self, pass_steps: int) -> int:
        """Steps between two calls of `begin_epoch`; `pass_steps` are those of a pass over the pool."""
        return pass_steps

    def begin_epoch(self, run: "StepContext") -> None:
        """Called before the first step and then every `refresh_steps`."""

    def ema(self, step: int) -> float:
        """Decay of the nets whose role is `ema`, after update number `step` (from 1)."""
        raise NotImplementedError(f"{type(self).__name__} declares an ema net and must define ema()")

    def step(self, run: "StepContext", batch: Batch) -> Losses | Iterator[Losses]:
        """Named scalar losses of one batch; a generator yields once per optimizer update."""
        raise NotImplementedError

    @classmethod
    def for_images(cls) -> "Method":
        """The method with the defaults that suit images."""
        return cls(**cls.images)

    @classmethod
    def default_net(cls) -> str:
        """The net that is evaluated and saved: the first one declared."""
        return next(iter(cls.nets))


@dataclass(frozen=True)
class RoundMethod:
    """Base of all methods that work in rounds: fields are hyper-parameters, and so flags and saved settings.

    A round is `label`, then supervised training of a student from the common start on the labels and what it returned;
    the student is the next round's teacher.
    """

    name: ClassVar[str] = ""
    student_view: ClassVar[Literal["weak", "strong"]] = "weak"
    kinds: ClassVar[tuple[Kind, ...]] = ("single-label",)
    images: ClassVar[Mapping[str, Any]] = {}  # defaults that suit images better than text
    rounds: Annotated[
        int, Range(1, 1000), "students trained one after the other; fewer are trained where the labels stay the same"
    ] = 3

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
    def for_images(cls) -> "RoundMethod":
        """The loop with the defaults that suit images."""
        return cls(**cls.images)


M = TypeVar("M", bound=type[Method] | type[RoundMethod])
METHODS: dict[str, type[Method]] = {}
ROUND_METHODS: dict[str, type[RoundMethod]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator that files a method under `name`, and lists its fields in its docstring.

    Raises:
        ValueError: the name is taken.
    """

    def add(cls: M) -> M:
        taken = {**METHODS, **ROUND_METHODS}.get(name)
        if taken is not None:
            raise ValueError(f"method {name!r} is already registered by {taken.__qualname__}")
        if issubclass(cls, RoundMethod):
            ROUND_METHODS[name] = cls
        else:
            METHODS[name] = cls
        cls.name = name
        return documented_method(cls)

    return add


def documented_method(cls: M) -> M:
    """Class decorator that lists the fields of a method in its docstring, for one that `register` does not file."""
    return documented(cls, cls.images)
