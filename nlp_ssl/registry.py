"""Names of methods, of one loop and in rounds: a duplicate raises, an unknown name suggests the nearest.

The packages of `BUILT_IN` register theirs when they are imported, which the first question does.
"""

import importlib
from collections.abc import Callable
from typing import TypeVar

from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.method import Method, RoundMethod

M = TypeVar("M", bound=type[Method] | type[RoundMethod])
BUILT_IN = ("nlp_ssl.methods", "nlp_ssl.rounds")
_METHODS: dict[str, type[Method]] = {}
_LOOPS: dict[str, type[RoundMethod]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator that files a method or a loop under `name`.

    Raises:
        ValueError: the name is taken.
    """

    def add(cls: M) -> M:
        taken = {**_METHODS, **_LOOPS}.get(name)
        if taken is not None:
            raise ValueError(f"method {name!r} is already registered by {taken.__qualname__}")
        if issubclass(cls, RoundMethod):
            _LOOPS[name] = cls
        else:
            _METHODS[name] = cls
        cls.name = name
        return cls

    return add


def _import_built_in() -> None:
    for package in BUILT_IN:
        importlib.import_module(package)


def get_method(name: str) -> type[Method]:
    """The method class of that name.

    Raises:
        ConfigError: no such method; the message names the nearest.
    """
    _import_built_in()
    if name in _LOOPS:
        raise ConfigError(201, f"{name} works in rounds: run it with nlp_ssl.compare or `nlp-ssl train`")
    if name not in _METHODS:
        raise ConfigError(201, f"unknown method {name!r}.{nearest(name, _METHODS)}")
    return _METHODS[name]


def get(name: str) -> type[Method] | type[RoundMethod]:
    """The class of the method or loop of that name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    _import_built_in()
    known: dict[str, type[Method] | type[RoundMethod]] = {**_METHODS, **_LOOPS}
    if name not in known:
        raise ConfigError(201, f"unknown method {name!r}.{nearest(name, known)}")
    return known[name]


def as_method(method: str | Method) -> Method:
    """A method as it is, or the one of that name with its defaults.

    Raises:
        ConfigError: there is no such method, or it is neither.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        return get_method(method)()
    raise ConfigError(480, f"method is {method!r}: give a name like 'uda' or a method like UDA()")


def list_methods() -> list[str]:
    """All names of methods, sorted."""
    _import_built_in()
    return sorted(_METHODS)


def list_loops() -> list[str]:
    """All names of methods that work in rounds, sorted."""
    _import_built_in()
    return sorted(_LOOPS)
