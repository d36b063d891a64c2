"""Commands of `nlp-ssl`: what each module declares, and what click makes of it from the table of flags.

`python -m nlp_ssl.cli.table` writes the table, `flags.json`, from the declarations. With it help and completion know
every flag without importing a command: its module, and with it PyTorch, is imported when the command runs.
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from nlp_ssl.cli.options import Flag, config_option, config_values, filled, mapping_of, probed, with_former
from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.utils.paths import check_utf8, is_utf8

TABLE = Path(__file__).with_name("flags.json")
SECTIONS = ("Files", "Model", "Method", "Training", "Output")
_WORDS, _EVERYTHING, _FLAGS = (f"nlp_ssl.cli.{name}" for name in ("words", "everything", "flags"))


@dataclass(frozen=True)
class Argument:
    """A word of a command line that is no flag; `count` is 1, or -1 for one or more."""

    name: str
    count: int = 1
    required: bool = True


@dataclass(frozen=True)
class Spec:
    """A command, as its module declares it under `COMMANDS`.

    Attributes:
        run: is called with the arguments, then with the dataclass values.
        summary: a line in the list of commands.
        help: what it does.
        example: a command line.
        flags: dataclass values whose fields are the flags.
        arguments: words that are no flags, in their order.
        first: names of the flags that --help shows; all of them if there are none.
        without: names of fields that are no flags here, since they would change nothing.
        of_method: there are also the flags of the method that --method names, and its value is the last one.
        instead: a flag with which the command is another one, and the name of that in its module's `COMMANDS`.
    """

    run: Callable[..., None]
    summary: str
    help: str
    example: str
    flags: tuple[Any, ...] = ()
    arguments: tuple[Argument, ...] = ()
    first: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    of_method: bool = False
    instead: tuple[str, str] | None = None


@cache
def flag_table() -> dict[str, Any]:
    """The table of flags: "commands" and "methods" by their names."""
    flags: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return flags


class Command(click.Command):
    """A command by its entry in the table."""

    def __init__(self, name: str) -> None:
        self.entry = flag_table()["commands"][name]
        self.full_name = name
        super().__init__(name.split()[-1], help=self.entry["help"], short_help=self.entry["summary"],
                         epilog=example(self.entry["example"]), add_help_option=False,
                         context_settings={"help_option_names": ["--help"]})  # fmt: skip

    def get_help_option(self, ctx: click.Context) -> click.Option:
        """The flag that messages about a wrong command line name."""
        return _help_flags()[0]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its arguments and flags; those of the method come with --method, once that is known."""
        entry, more = ctx.meta.get(_FLAGS, (self.entry, []))
        arguments = [_argument(**one) for one in entry["arguments"]]
        flags = [Flag(**one) for one in [*entry["flags"], *more]]
        complete = {"method": _method_names}
        return [*arguments, *(flag.option(complete.get(flag.name)) for flag in flags), config_option(), *_help_flags()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Finds out which flags there are, then parses."""
        ctx.meta[_WORDS] = tuple(args)
        asked = probed(self, args)
        ctx.meta[_FLAGS] = self._entry(ctx, asked)
        try:
            ctx.default_map = config_values(asked.get("config") or (), self.get_params(ctx))
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise with_former(error) from None

    def _entry(self, ctx: click.Context, asked: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The entry that the command line is for, and the flags of its method."""
        entry = self.entry
        if entry["instead"] is not None and asked.get(entry["instead"][0]) is not None:
            entry = flag_table()["commands"][entry["instead"][1]]
        if not entry["of_method"]:
            return entry, []
        default = next(flag["default"] for flag in entry["flags"] if flag["name"] == "method")
        named = asked.get("method") or _method_of_files(asked.get("config") or ())
        methods = flag_table()["methods"]
        if (named or default) not in methods:
            if ctx.resilient_parsing:
                return entry, []
            raise ConfigError(201, f"unknown method {named!r}.{nearest(str(named), methods)}")
        flags = methods[named or default]["flags"]
        return {**entry, "first": [*entry["first"], *(f["name"] for f in flags if named)]}, flags

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Sections of flags: those that matter first, or all."""
        entry, more = ctx.meta.get(_FLAGS, (self.entry, []))
        shown = None if ctx.meta.get(_EVERYTHING) or not entry["first"] else {*entry["first"]}
        params = {param.name: param for param in self.get_params(ctx)}
        flags = [Flag(**one) for one in [*entry["flags"], *more]]
        for section in SECTIONS:
            names = [f.name for f in flags if f.section == section and (shown is None or f.name in shown)]
            _section(formatter, section, [params[name].get_help_record(ctx) for name in names])
        left = 0 if shown is None else sum(flag.name not in shown for flag in flags)
        more_help = [("--help-all", f"this help with {left} more flags")] if left else []
        _section(formatter, "More", [*(params[name].get_help_record(ctx) for name in ("config", "help")), *more_help])

    def invoke(self, ctx: click.Context) -> None:
        """Imports the module of the command and runs it."""
        for name, value in ctx.params.items():
            if name != "query":  # which may be anything
                _check_place(value)
        spec = self._spec(ctx)
        spec.run(*(ctx.params[argument.name] for argument in spec.arguments), *values(ctx))

    def _spec(self, ctx: click.Context) -> Spec:
        entry, _ = ctx.meta[_FLAGS]
        spec: Spec = importlib.import_module(f"nlp_ssl.cli.{entry['module']}").COMMANDS[entry["name"]]
        return spec


def values(ctx: click.Context) -> tuple[Any, ...]:
    """The dataclass values of a command line that was parsed.

    Raises:
        ConfigError: a value is out of range, or two exclude each other.
    """
    assert isinstance(ctx.command, Command)
    spec = ctx.command._spec(ctx)
    defaults = spec.flags
    if spec.of_method:
        from nlp_ssl.registry import get_method

        defaults = (*defaults, get_method(ctx.params["method"])())
    return filled(defaults, ctx.params)


def values_with(more: Sequence[str]) -> tuple[Any, ...]:
    """The dataclass values of the command line that is being run, with more flags.

    Raises:
        ConfigError: as `values`, or a flag is unknown.
    """
    ctx = click.get_current_context()
    again = ctx.command.make_context(ctx.info_name, [*ctx.meta[_WORDS], *more])
    return values(again)


class Commands(click.Group):
    """Commands whose names begin alike, by the table."""

    def __init__(self, name: str, prefix: str = "", *, help: str, epilog: str) -> None:
        @click.pass_context
        def alone(ctx: click.Context) -> None:
            if ctx.invoked_subcommand is None:
                click.echo(ctx.get_help())

        super().__init__(name, help=help, epilog=epilog, callback=alone, invoke_without_command=True,
                         add_help_option=False)  # fmt: skip
        self.prefix = prefix
        self.params += _help_flags(everything=False)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        names = [name.removeprefix(self.prefix) for name in flag_table()["commands"] if name.startswith(self.prefix)]
        return list(dict.fromkeys(name.split()[0] for name in names if " --" not in name))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """A command, or a group of those of its own."""
        full = self.prefix + name
        if full in flag_table()["groups"]:
            return Commands(name, f"{full} ", **flag_table()["groups"][full])
        return Command(full) if full in flag_table()["commands"] and name in self.list_commands(ctx) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names.

        Raises:
            ConfigError: there is none; the message names the nearest.
        """
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise ConfigError(200, f"no command {self.prefix + args[0]!r}.{nearest(args[0], known)}")
        return super().resolve_command(ctx, args)


def example(command: str) -> str:
    """The end of a help: a command line that is shown as it is, in one line."""
    return f"\b\nExample:\n  {command}"


def _help_flags(everything: bool = True) -> list[click.Option]:
    def show(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
        if asked and not ctx.resilient_parsing:
            ctx.meta[_EVERYTHING] = param.name == "help_all"
            click.echo(ctx.get_help())
            ctx.exit()

    def flag(words: list[str], sentence: str) -> click.Option:
        return click.Option(words, is_flag=True, is_eager=True, expose_value=False, callback=show, help=sentence)

    short = flag(["-h", "--help"], "this help")
    return [short, flag(["--help-all"], "every flag")] if everything else [short]


def _argument(name: str, count: int, required: bool) -> click.Argument:
    return click.Argument([name], nargs=count, required=required, shell_complete=_files)


def _files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _method_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in flag_table()["methods"] if name.startswith(incomplete)]


def _method_of_files(paths: Sequence[str]) -> str | None:
    named = [values["method"] for path in paths if "method" in (values := mapping_of(Path(path)))]
    return str(named[-1]) if named else None


def _section(formatter: click.HelpFormatter, title: str, records: Sequence[tuple[str, str] | None]) -> None:
    if rows := [record for record in records if record is not None]:
        with formatter.section(title):
            formatter.write_dl(rows)


def _check_place(value: Any) -> None:
    """Refuses places whose names are not UTF-8, but for files that Python reads by itself: libraries cannot open them.

    Raises:
        ConfigError: the value is such a place.
    """
    for word in value if isinstance(value, tuple) else (value,):
        if isinstance(word, str | Path) and not is_utf8(word):
            from nlp_ssl.data.readers import is_text_file

            if not is_text_file(Path(word)):
                check_utf8(word)
