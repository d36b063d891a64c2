"""Command lines from dataclasses: fields are flags, defaults are defaults, annotations are help."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVarTuple, get_args, get_origin, get_type_hints

import click

from nlp_ssl.errors import ConfigError

Ts = TypeVarTuple("Ts")
# Where a list is set, `parse` adds what it would parse with and does no more: how completion gets to know all flags.
COMMANDS: ContextVar[list[click.Command] | None] = ContextVar("COMMANDS", default=None)


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


def with_config(argv: Sequence[str]) -> list[str]:
    """The command line with `--config FILE` replaced by the flags in that YAML file; flags beside it outrank them.

    A file is a mapping of flag names, with dashes or underscores, to values; lists are joined by commas.

    Raises:
        ConfigError: the file cannot be read, or is no such mapping.
    """
    words, flags = list(argv), []
    while places := [i for i, word in enumerate(words) if word == "--config" or word.startswith("--config=")]:
        at = places[0]
        joined = words[at].startswith("--config=")
        if not joined and at + 1 == len(words):
            raise ConfigError(253, "--config needs a YAML file of flags")
        path = Path(words[at].removeprefix("--config=") if joined else words[at + 1])
        del words[at : at + (1 if joined else 2)]
        flags += _flags(path)
    first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return [*words[:first], *flags, *words[first:]]


def _flags(path: Path) -> list[str]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(253, f"{path} cannot be read as YAML ({str(error).splitlines()[0]}): mend it") from error
    if not isinstance(found, dict):
        raise ConfigError(253, f"{path}: write flags and their values, e.g. `max_steps: 200`")
    flags = []
    for key, value in found.items():
        name = str(key).replace("_", "-")
        if isinstance(value, dict):
            raise ConfigError(253, f"{path}: {key} has settings of its own: write all flags on one level")
        if isinstance(value, bool):
            flags.append(f"--{'' if value else 'no-'}{name}")
        elif value is not None:
            flags.append(f"--{name}={','.join(map(str, value)) if isinstance(value, list) else value}")
    return flags


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
    config = click.Option(["--config"], expose_value=False, help="YAML file of flags; those beside it outrank it")
    command = click.Command(
        name, params=[*(o for v in values for o in options(v)), config], help=doc, callback=lambda **given: given,
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    if (known := COMMANDS.get()) is not None:
        known.append(command)
        raise click.exceptions.Exit(0)
    given: dict[str, Any] = command.main(with_config(argv), prog_name=name, standalone_mode=False)
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
