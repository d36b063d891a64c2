"""Command lines from dataclasses: fields are flags, defaults are defaults, annotations are help."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVarTuple, get_args, get_origin, get_type_hints

import click

from nlp_ssl.errors import ConfigError

Ts = TypeVarTuple("Ts")


class Numbers(click.ParamType[tuple[int, ...]]):
    """Comma-separated whole numbers: `0,1,2`."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers like 0,1,2", param, ctx)


def options(default: Any) -> list[click.Option]:
    """One option per field of a dataclass value, whose fields give the defaults.

    Flags are the field names with dashes. A bool is `--name/--no-name`, `Literal` a choice, `X | None` optional.
    """
    hints = get_type_hints(type(default), include_extras=True)
    made = []
    for field in dataclasses.fields(default):
        kind, help_text = _help(hints[field.name])
        flag = "--" + field.name.replace("_", "-")
        value = default.__dict__[field.name]
        if kind is bool:
            made.append(click.Option([f"{flag}/--no-{flag[2:]}"], default=value, show_default=True, help=help_text))
        else:
            made.append(
                click.Option([flag], type=_param_type(kind), default=value, show_default=value is not None,
                             help=help_text)
            )  # fmt: skip
    return made


def parse(argv: Sequence[str], *defaults: *Ts, name: str, doc: str) -> tuple[*Ts]:
    """Dataclass values from a command line, starting from the given ones.

    An unknown flag fails with the nearest name (exit code 2); `--help` lists all flags.

    Raises:
        ConfigError: two of the dataclasses have a field of the same name, or a value is out of range.
    """
    values: list[Any] = list(defaults)
    owner: dict[str, int] = {}
    for i, value in enumerate(values):
        for field in dataclasses.fields(value):
            if field.name in owner:
                raise ConfigError(205, f"two options are called --{field.name.replace('_', '-')}")
            owner[field.name] = i
    command = click.Command(
        name, params=[o for value in values for o in options(value)], help=doc, callback=lambda **given: given,
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    given: dict[str, Any] = command.main(list(argv), prog_name=name, standalone_mode=False)
    if not isinstance(given, dict):  # --help was shown
        raise click.exceptions.Exit(0)
    return tuple(
        dataclasses.replace(value, **{k: v for k, v in given.items() if owner[k] == i})
        for i, value in enumerate(values)
    )


def _help(hint: Any) -> tuple[Any, str | None]:
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        return kind, next((n for n in notes if isinstance(n, str)), None)
    return hint, None


def _param_type(kind: Any) -> Any:
    if get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_origin(kind) is tuple:
        return Numbers()
    if kind is Path:
        return click.Path(path_type=Path)
    return kind
