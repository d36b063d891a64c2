"""Names of methods, of one training loop and in rounds: a duplicate raises, an unknown name suggests the nearest.

The packages of `BUILT_IN` register theirs when they are imported, which the first question does.
"""

import importlib
from collections.abc import Callable
from typing import TypeVar

from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.utils.documentation import MethodInfo, describe_method, documented

M = TypeVar("M", bound=type[Method] | type[RoundMethod])
BUILT_IN = ("nlp_ssl.methods", "nlp_ssl.rounds")
_METHODS: dict[str, type[Method]] = {}
_ROUND_METHODS: dict[str, type[RoundMethod]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator that files a method under `name`, and lists its fields in its docstring.

    Raises:
        ValueError: the name is taken.
    """

    def add(cls: M) -> M:
        taken = {**_METHODS, **_ROUND_METHODS}.get(name)
        if taken is not None:
            raise ValueError(f"method {name!r} is already registered by {taken.__qualname__}")
        if issubclass(cls, RoundMethod):
            _ROUND_METHODS[name] = cls
        else:
            _METHODS[name] = cls
        cls.name = name
        return documented_method(cls)

    return add


def _import_built_in() -> None:
    for package in BUILT_IN:
        importlib.import_module(package)


def documented_method(cls: M) -> M:
    """Class decorator that lists the fields of a method in its docstring, for one that `register` does not file."""
    return documented(cls, cls.images)


def get_method(name: str) -> type[Method] | type[RoundMethod]:
    """The class of the method of that name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    _import_built_in()
    known: dict[str, type[Method] | type[RoundMethod]] = {**_METHODS, **_ROUND_METHODS}
    if name not in known:
        raise ConfigError(201, f"unknown method {name!r}.{nearest(name, known)}")
    return known[name]


def describe(name: str) -> MethodInfo:
    """What help and docs show of the method of that name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    return describe_method(get_method(name))


def as_method(method: str | Method | RoundMethod) -> Method | RoundMethod:
    """A method as it is, or the one of that name with its defaults.

    Raises:
        ConfigError: there is no such method, or it is neither.
    """
    if isinstance(method, Method | RoundMethod):
        return method
    if isinstance(method, str):
        return get_method(method)()
    raise ConfigError(480, f"method is {method!r}: give a name like 'uda' or a method like UDA()")


def list_methods(*, in_rounds: bool | None = None) -> list[str]:
    """All names of methods, sorted; with `in_rounds` those that work in rounds, or those that do not."""
    _import_built_in()
    one_loop = [] if in_rounds else [*_METHODS]
    rounds = [] if in_rounds is False else [*_ROUND_METHODS]
    return sorted([*one_loop, *rounds])
