"""The contract: a method is a frozen value with a `step`; the engine owns nets, state, optimizer and ranks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict, get_args, get_origin

import numpy as np
from torch import Tensor

from nlp_ssl.errors import ConfigError, nearest

if TYPE_CHECKING:
    from nlp_ssl.run import Run


@dataclass(frozen=True)
class Range:
    """Limits of a hyper-parameter, as a note on the type of its field."""

    low: float
    high: float


Share = Annotated[float, Range(0.0, 1.0)]
Weight = Annotated[float, Range(0.0, 1e6)]
Temperature = Annotated[float, Range(1e-3, 1e3)]
Losses = dict[str, Tensor]
Role = Literal["trained", "ema", "frozen"]
Kind = Literal["one", "many"]  # labels of a row


class Batch(TypedDict):
    """One step's rows. Blocks are "x" (labeled) and "u" (unlabeled); views are "x", "u_w", "u_s", "u_s2", ..."""

    inputs: dict[str, Tensor]  # one padded block of rows [R, ...]
    lengths: np.ndarray  # [R] on the host: tokens of each row (1 for images)
    rows: dict[str, slice]  # view name -> its rows in the block
    y: Tensor  # [B] classes or [B, C] probabilities; with several labels a row B, N and C are those of `nlp_ssl.many`
    w: Tensor  # [B] weights of the labeled rows
    id: dict[str, Tensor]  # block -> number of each row among the labeled ("x") or unlabeled ("u") rows
    keys: dict[str, np.ndarray]  # view -> key of each row's augmentation, uint64
    hidden: Tensor  # [N] true classes of the unlabeled rows, -1 where unknown: for logging only


@dataclass(frozen=True)
class DataSpec:
    """What a method may know of the data before training.

    With several labels a row ("many") rows are (row, label) and classes no and yes: see `nlp_ssl.many`.
    """

    num_classes: int
    pool_size: int = 0
    labeled_size: int = 0
    prior: tuple[float, ...] | None = None  # estimated share of each class in the pool
    kind: Kind = "one"


@dataclass(frozen=True)
class Head:
    """One more output on the pooled features, trained with the net and left out of the saved model.

    "linear" and "mlp" (one hidden layer) start at random, "classifier" as a noisy copy of the net's own, behind a
    dropout of its own. Width 0 is the features' own width, or the number of classes.
    """

    kind: Literal["linear", "mlp", "classifier"]
    width: int = 0


@dataclass(frozen=True)
class Method:
    """Base of all methods: fields are hyper-parameters, and so flags of the command line and the saved config."""

    name: ClassVar[str] = ""
    views: ClassVar[Mapping[str, str]] = {"x": "weak"}
    nets: ClassVar[Mapping[str, Role]] = {"student": "trained"}
    heads: ClassVar[Mapping[str, Head]] = {}
    pool_optional: ClassVar[bool] = False  # also worth training without unlabeled rows
    kinds: ClassVar[tuple[Kind, ...]] = ("one",)  # labels of a row that it is defined for: see `nlp_ssl.many`
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

    def begin_epoch(self, run: "Run") -> None:
        """Called before the first step and then every `refresh_steps`."""

    def ema(self, step: int) -> float:
        """Decay of the nets whose role is `ema`, after update number `step` (from 1)."""
        raise NotImplementedError(f"{type(self).__name__} declares an ema net and must define ema()")

    def step(self, run: "Run", batch: Batch) -> Losses | Iterator[Losses]:
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


def check_ranges(value: Any) -> None:
    """Checks every field of a dataclass value against the `Range` of its type.

    Raises:
        ConfigError: a value lies outside.
    """
    for field in fields(value):
        for note in get_args(field.type)[1:] if get_origin(field.type) is Annotated else ():
            if isinstance(note, Range):
                check(value.__dict__[field.name], field.name, note.low, note.high)


def check(value: float, name: str, low: float, high: float) -> None:
    """Range check of a hyper-parameter.

    Raises:
        ConfigError: value is not a number in [low, high].
    """
    if not low <= value <= high:  # also false for NaN
        raise ConfigError(202, f"{name} must lie in [{low:g}, {high:g}], got {value!r}")


def make(cls: type[Any], options: Mapping[str, Any]) -> Any:
    """A dataclass value from a mapping; unknown keys and choices fail with the nearest name.

    Raises:
        ConfigError: unknown key, a value outside the choices of a Literal field, or no number where one is wanted.
    """
    known = {f.name: f for f in fields(cls)}
    for key, value in options.items():
        if key not in known:
            raise ConfigError(203, f"unknown option {key!r} of {cls.__name__}.{nearest(key, known)}")
        kind: Any = known[key].type
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if get_origin(kind) is Literal and value not in get_args(kind):
            hint = nearest(str(value), [str(a) for a in get_args(kind)])
            raise ConfigError(204, f"{key} cannot be {value!r}.{hint}")
        number = {int: Integral, float: Real}.get(kind)
        if number is not None and (isinstance(value, bool) or not isinstance(value, number)):
            raise ConfigError(204, f"{key} must be a {'whole ' if kind is int else ''}number, not {value!r}")
    return cls(**options)
