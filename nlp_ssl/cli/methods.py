"""`nlp-ssl methods`: the registry as a table."""

import dataclasses
import inspect
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nlp_ssl.cli.options import parse
from nlp_ssl.registry import get_method, list_methods


@dataclasses.dataclass(frozen=True)
class Options:
    """No options."""


def rows() -> list[tuple[str, str, str]]:
    """(name, first line of the docstring, hyper-parameters with defaults) of every method, then of every loop."""
    found = []
    for name in list_methods():
        cls = get_method(name)
        summary = (inspect.getdoc(cls) or "").splitlines()[0]
        fields = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(cls))
        found.append((name, summary, fields))
    return found


def markdown() -> str:
    """The table as it stands in the README."""
    lines = ["| name | method | hyper-parameters |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {summary} | {fields} |" for name, summary, fields in rows()]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    parse(argv, Options(), name="nlp-ssl methods", doc="Every method that `train` knows, with its hyper-parameters.")
    table = Table("name", "method", "hyper-parameters")
    for row in rows():
        table.add_row(*row)
    Console().print(table)
