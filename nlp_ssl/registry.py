"""Names of methods: a duplicate raises, an unknown name suggests the nearest."""

from collections.abc import Callable
from typing import TypeVar

from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.method import Method

M = TypeVar("M", bound=type[Method])
_METHODS: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator that files a method under `name`.

    Raises:
        ValueError: the name is taken.
    """

    def add(cls: M) -> M:
        if name in _METHODS:
            raise ValueError(f"method {name!r} is already registered by {_METHODS[name].__qualname__}")
        _METHODS[name] = cls
        cls.name = name
        return cls

    return add


def get_method(name: str) -> type[Method]:
    """The method class of that name.

    Raises:
        ConfigError: no such method; the message names the nearest.
    """
    if name not in _METHODS:
        raise ConfigError(201, f"unknown method {name!r}.{nearest(name, _METHODS)}")
    return _METHODS[name]


def list_methods() -> list[str]:
    """All registered names, sorted."""
    return sorted(_METHODS)
