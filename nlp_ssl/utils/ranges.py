"""Ranges of settings: written on a field's type, checked in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from nlp_ssl.errors import ConfigError, nearest


@dataclass(frozen=True)
class Range:
    """Limits of a hyper-parameter, as a note on the type of its field."""

    low: float
    high: float


Share = Annotated[float, Range(0.0, 1.0)]


Weight = Annotated[float, Range(0.0, 1e6)]


Temperature = Annotated[float, Range(1e-3, 1e3)]


def field_types(cls: type[Any]) -> dict[str, Any]:
    """The annotation of every field of a dataclass, also where it is kept as a string."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


def check_ranges(value: Any) -> None:
    """Checks every field of a dataclass value against the `Range` of its type.

    Raises:
        ConfigError: a value lies outside.
    """
    for name, kind in field_types(type(value)).items():
        plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        _check_kind(name, value.__dict__[name], plain)
        for note in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
            if isinstance(note, Range):
                check(value.__dict__[name], name, note.low, note.high)


def check(value: float, name: str, low: float, high: float) -> None:
    """Range check of a hyper-parameter.

    Raises:
        ConfigError: value is not a number in [low, high].
    """
    if not isinstance(value, Real) or not low <= value <= high:  # also false for NaN
        raise ConfigError(202, f"{name} must lie in [{low:g}, {high:g}], got {value!r}")


def _check_kind(name: str, value: Any, kind: Any) -> None:
    """Refuses a value outside the choices of a field, or no whole number where one is wanted.

    Raises:
        ConfigError: it is one.
    """
    if get_origin(kind) is Literal and value not in get_args(kind):
        hint = nearest(str(value), [str(a) for a in get_args(kind)])
        raise ConfigError(204, f"{name} cannot be {value!r}.{hint}")
    number = {int: Integral, float: Real}.get(kind)
    if number is not None and (isinstance(value, bool) or not isinstance(value, number)):
        raise ConfigError(204, f"{name} must be a {'whole ' if kind is int else ''}number, not {value!r}")


def from_options(cls: type[Any], options: Mapping[str, Any]) -> Any:
    """A dataclass value from a mapping; unknown keys and choices fail with the nearest name.

    Numbers of other libraries, such as NumPy's, become Python's: settings are saved as JSON.

    Raises:
        ConfigError: unknown key, a value outside the choices of a Literal field, or no number where one is wanted.
    """
    known = field_types(cls)
    options = dict(options)
    for key, value in options.items():
        if key not in known:
            raise ConfigError(203, f"unknown option {key!r} of {cls.__name__}.{nearest(key, known)}")
        kind = get_args(known[key])[0] if get_origin(known[key]) is Annotated else known[key]
        _check_kind(key, value, kind)
        if kind in (int, float) and not isinstance(value, int | float):
            options[key] = kind(value)
    return cls(**options)
