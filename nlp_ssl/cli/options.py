"""Flags from dataclasses: fields are flags, defaults are defaults, annotations are help."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVarTuple, get_args, get_origin, get_type_hints

import click
from click.shell_completion import CompletionItem

from nlp_ssl.errors import ConfigError, nearest

Ts = TypeVarTuple("Ts")
Seeds = int | tuple[int, ...]  # so many seeds from --seed on, or these
_PLACES = frozenset(("labeled", "unlabeled", "dev", "test", "model", "student", "encoder", "pseudo_labels"))
# What 0.1.0 called otherwise; for one release the message about an unknown flag names the new one.
_FORMER = {
    "--accumulate": "--gradient-accumulation-steps",
    "--clip": "--max-grad-norm",
    "--eval-every": "--eval-steps",
    "--keep": "--save-total-limit",
    "--log-every": "--logging-steps",
    "--save-every": "--save-steps",
    "--schedule": "--lr-scheduler-type",
    "--warmup": "--warmup-steps",
    "--workers": "--dataloader-num-workers",
}


class _Numbers(click.ParamType[tuple[int, ...]]):
    """Comma-separated whole numbers: `0,1,2`."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers like 0,1,2", param, ctx)


class _Seeds(click.ParamType[Seeds]):
    """A number of seeds, or a list of them: `3`, `5,6`."""

    name = "N or N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Seeds:
        if isinstance(value, int | tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).removesuffix(",").split(","))
        except ValueError:
            self.fail(f"{value!r}: give a number of seeds, or a list of whole numbers like 5,6", param, ctx)
        return numbers if "," in str(value) else numbers[0]


class _Place(click.ParamType[str]):
    """A file or folder, or a name on the hub: any text."""

    name = "PLACE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


_TYPES: dict[str, Any] = {
    "text": click.STRING,
    "int": click.INT,
    "float": click.FLOAT,
    "path": click.Path(path_type=Path),
    "place": _Place(),
    "numbers": _Numbers(),
    "seeds": _Seeds(),
}


@dataclass(frozen=True)
class Flag:
    """A flag of a command line, as the table of flags holds it.

    Attributes:
        name: of the field.
        type: "switch", a name of `_TYPES`, or the values it is chosen from.
        default: its value where it is not given.
        help: its sentence.
        section: of the help.
    """

    name: str
    type: str | list[str]
    default: Any
    help: str
    section: str = ""

    @property
    def flag(self) -> str:
        """As it is written: `--max-steps`, `-k`."""
        return f"-{self.name}" if len(self.name) == 1 else f"--{self.name.replace('_', '-')}"

    def option(self, complete: Callable[..., Any] | None = None) -> click.Option:
        """The flag for click; it goes by the name of the field."""
        shown = {"default": self.default, "show_default": self.default is not None, "help": self.help}
        if self.type == "switch":
            return click.Option([self.name, f"{self.flag}/--no-{self.flag[2:]}"], **shown)
        kind = click.Choice(self.type) if isinstance(self.type, list) else _TYPES[self.type]
        return click.Option([self.name, self.flag], type=kind, shell_complete=complete, **shown)


def flags_of(default: Any) -> list[Flag]:
    """One flag for each field of a dataclass value, whose fields give the defaults.

    Flags are the field names with dashes. A bool is `--name/--no-name`, `Literal` a choice, `X | None` optional.
    """
    hints = get_type_hints(type(default), include_extras=True)
    flags = []
    for field in dataclasses.fields(default):
        kind, sentence = _annotated(hints[field.name])
        value = default.__dict__[field.name]
        value = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        flags.append(Flag(field.name, _type_of(field.name, kind), value, sentence))
    return flags


def filled(defaults: Sequence[Any], given: Mapping[str, Any]) -> tuple[Any, ...]:
    """The dataclass values with what was given for their fields.

    Raises:
        ConfigError: a value is out of range, or two exclude each other.
    """
    return tuple(
        dataclasses.replace(value, **{f.name: given[f.name] for f in dataclasses.fields(value) if f.name in given})
        for value in defaults
    )


def config_values(paths: Sequence[str | Path], params: Sequence[click.Parameter]) -> dict[str, Any]:
    """Values of the parameters in YAML files, for click's `default_map`; later files take precedence.

    A file is a mapping of flag names, with dashes or underscores, to values; lists are joined by commas, nothing stands
    for the default.

    Raises:
        ConfigError: a file cannot be read, is no such mapping, or names an unknown flag.
    """
    known = {str(p.name): p for p in params if isinstance(p, click.Option)}
    values: dict[str, Any] = {}
    for path in paths:
        for key, value in mapping_of(Path(path)).items():
            name = str(key).replace("-", "_")
            if name not in known or name == "config":
                hint = nearest(str(key).replace("_", "-"), [n.replace("_", "-") for n in known if n != "config"])
                raise ConfigError(203, f"{path}: unknown flag {str(key)!r}.{hint}")
            if isinstance(value, dict):
                raise ConfigError(253, f"{path}: {key} has settings of its own: write all flags on one level")
            if value is not None:
                listed = isinstance(value, list) and isinstance(known[name].type, _Numbers | _Seeds)
                values[name] = _as_written(value, commas=listed)
    return values


def config_option() -> click.Option:
    """--config FILE, once or several times."""
    sentence = "YAML file of flags; those on the command line take precedence"
    return click.Option(["--config"], multiple=True, expose_value=False, type=_TYPES["place"], help=sentence)


def with_former(error: click.NoSuchOption) -> click.NoSuchOption:
    """The message about an unknown flag, with today's name of one that version 0.1.0 had."""
    known = _FORMER.get(error.option_name)
    if known is None:
        return error
    return click.NoSuchOption(
        error.option_name, f"No such option {error.option_name!r}: it is {known} now.", ctx=error.ctx
    )


def parse(argv: Sequence[str], *defaults: *Ts, name: str, doc: str) -> tuple[*Ts]:
    """Dataclass values from the command line of a script, starting from the given ones.

    An unknown flag fails with the nearest name (exit code 2); `--help` lists all flags.

    Raises:
        ConfigError: a value is out of range.
    """
    values: list[Any] = list(defaults)
    params: list[click.Parameter] = [flag.option() for value in values for flag in flags_of(value)]
    command = click.Command(
        name, params=[*params, config_option()], help=doc, callback=lambda **given: given,
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    asked = probed(command, argv)
    defaults_of_files = config_values(asked.get("config") or (), params)
    given = command.main(list(argv), prog_name=name, standalone_mode=False, default_map=defaults_of_files)
    if not isinstance(given, dict):  # --help was shown
        raise click.exceptions.Exit(0)
    return typing.cast("tuple[*Ts]", filled(values, given))


def probed(command: click.Command, argv: Sequence[str]) -> dict[str, Any]:
    """What a command line says for the parameters that the command has by now, as it is written; the rest is not looked
    at.
    """
    context = click.Context(command, ignore_unknown_options=True, allow_extra_args=True, resilient_parsing=True)
    return dict(command.make_parser(context).parse_args(list(argv))[0])


def mapping_of(path: Path) -> dict[Any, Any]:
    """What a YAML file of flags holds.

    Raises:
        ConfigError: it cannot be read, or is no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(253, f"{path} cannot be read as YAML ({str(error).splitlines()[0]}): fix it") from error
    if not isinstance(values, dict):
        raise ConfigError(253, f"{path}: write flags and their values, e.g. `max_steps: 200`")
    return values


def _as_written(value: Any, *, commas: bool = False) -> str:
    """A value of a file as one would write it on the command line; YAML reads a bare `no` as false.

    With `commas` a list is one even where it has a single value.
    """
    if isinstance(value, list):
        return ",".join(map(str, value)) + "," * (commas and len(value) == 1)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _annotated(hint: Any) -> tuple[Any, str]:
    """Type and sentence of a field."""
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        return kind, next((n for n in notes if isinstance(n, str)), "")
    return hint, ""


def _type_of(name: str, kind: Any) -> str | list[str]:
    if kind == Seeds | None:
        return "seeds"
    if get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if get_origin(kind) is tuple:
        return "numbers"
    if kind is str and name in _PLACES:
        return "place"
    return {bool: "switch", str: "text", int: "int", float: "float", Path: "path"}[kind]
