"""`nlp-ssl methods`: what can be trained, from the table of flags."""

from typing import Any

import click

from nlp_ssl.cli.command import Argument, Spec, flag_table
from nlp_ssl.errors import ConfigError, nearest


def rows() -> list[tuple[str, str, str]]:
    """(name, first line of the docstring, hyper-parameters with defaults) of every method, those in rounds last."""
    return [
        (name, method["summary"], ", ".join(f"{flag['name']}={flag['default']}" for flag in method["flags"]))
        for name, method in flag_table()["methods"].items()
    ]


def markdown() -> str:
    """The table as it stands in the README."""
    lines = ["| name | method | hyper-parameters |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {summary} | {fields} |" for name, summary, fields in rows()]
    return "\n".join(lines) + "\n"


def main(name: str | None) -> None:
    """Prints a line for each method, or all about one of them."""
    methods = flag_table()["methods"]
    if name is None:
        width = max(map(len, methods))
        for each, method in methods.items():
            click.echo(f"{each:{width}}  {method['summary']}")
    elif name in methods:
        _show(name, methods[name])
    else:
        raise ConfigError(201, f"unknown method {name!r}.{nearest(name, methods)}")


def _show(name: str, method: dict[str, Any]) -> None:
    click.echo(method["doc"])
    click.echo(f"\nCommand line: nlp-ssl train --method {name} --labeled l.csv --unlabeled u.txt --output-dir out")


COMMANDS = {
    "methods": Spec(
        main,
        "what can be trained",
        "A line for each method that train knows; with NAME its loss, its hyper-parameters and where it differs from "
        "the paper.",
        "nlp-ssl methods fixmatch",
        arguments=(Argument("name", required=False),),
    )
}
