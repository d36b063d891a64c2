"""Names of methods, of one training loop and in rounds: a duplicate raises, an unknown name suggests the nearest.

The packages of `BUILT_IN` register theirs when they are imported, which the first question does.
"""

import importlib

from nlp_ssl import method as contract
from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.utils.documentation import MethodInfo, describe_method

BUILT_IN = ("nlp_ssl.methods", "nlp_ssl.rounds")


def _import_built_in() -> None:
    for package in BUILT_IN:
        importlib.import_module(package)


def get_method(name: str) -> type[Method] | type[RoundMethod]:
    """The class of the method of that name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    _import_built_in()
    known: dict[str, type[Method] | type[RoundMethod]] = {**contract.METHODS, **contract.ROUND_METHODS}
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
    one_loop = [] if in_rounds else [*contract.METHODS]
    rounds = [] if in_rounds is False else [*contract.ROUND_METHODS]
    return sorted([*one_loop, *rounds])
