"""Parameters of estimators that reach into a method and into settings, as scikit-learn's searches name them."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any, Self, TypeVar, cast

from sklearn.base import BaseEstimator

from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.registry import as_method
from nlp_ssl.utils.ranges import from_options

T = TypeVar("T")


class NestedParams(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator with the parameters `method` and `config`, whose fields are parameters, too."""

    method: str | Method | RoundMethod
    config: TrainConfig | None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters; with `deep` also the options of the method and the settings: `method__...`, `config__...`."""
        params: dict[str, Any] = super().get_params(deep=False)
        if deep:
            for name, value in self._nested().items():
                params |= {f"{name}__{field.name}": value.__dict__[field.name] for field in fields(value)}
        return params

    def set_params(self, **params: Any) -> Self:
        """Changes parameters; those of the method and of the settings are reached as `get_params` names them.

        Raises:
            ConfigError: there is no such parameter; the message names the nearest.
        """
        own, nested = super().get_params(deep=False), dict[str, dict[str, Any]]()
        for name, value in params.items():
            owner, _, option = name.partition("__")
            if name in own:
                self.__dict__[name] = value
            elif owner in ("method", "config") and option:
                nested.setdefault(owner, {})[option] = value
            else:
                raise ConfigError(203, f"unknown option {name!r} of {type(self).__name__}.{nearest(name, own)}")
        for owner, options in nested.items():  # last: the method may be one of the parameters
            value = as_method(self.method) if owner == "method" else self._settings()
            self.__dict__[owner] = changed(value, options)
        return self

    def _nested(self) -> dict[str, Any]:
        """The values whose fields are parameters, too; none of what `fit` will refuse."""
        values: dict[str, Any] = {}
        with suppress(ConfigError):
            values["method"] = as_method(self.method)
        with suppress(ConfigError):
            values["config"] = self._settings()
        return values

    def _settings(self) -> TrainConfig:
        config = TrainConfig() if self.config is None else self.config
        if not isinstance(config, TrainConfig):
            raise ConfigError(492, f"config is {config!r}: give settings as TrainConfig(warm_steps=10)")
        return config


def changed(value: T, options: Mapping[str, Any]) -> T:
    """A dataclass value with other options.

    Raises:
        ConfigError: there is no such option; the message names the nearest.
    """
    own = {field.name: value.__dict__[field.name] for field in fields(cast(Any, value))}
    return cast(T, from_options(type(value), {**own, **options}))


def short(method: Any) -> str:
    """A method with the options that differ from its defaults."""
    if not isinstance(method, Method | RoundMethod):
        return repr(method)
    options = {field.name: (method.__dict__[field.name], field.default) for field in fields(method)}
    given = (f"{name}={value!r}" for name, (value, default) in options.items() if value != default)
    return f"{type(method).__name__}({', '.join(given)})"
