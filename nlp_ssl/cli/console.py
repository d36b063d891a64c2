"""What every command shares: logging, one-line errors, exit codes and the closing table."""

import logging
import os
import sys
from collections.abc import Callable

import click
from rich.console import Console
from rich.table import Table as RichTable

from nlp_ssl.errors import SSLError
from nlp_ssl.experiment import Comparison, table
from nlp_ssl.train import Interrupted


def guarded(command: Callable[[], None]) -> int:
    """Runs a command and returns its exit code: 0 done, 1 run failed, 2 usage, 3 data, 130/143 stopped by a signal."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        command()
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SSLError as error:
        click.echo(str(error), err=True)
        return error.exit_code
    except Interrupted as stop:
        click.echo(f"{stop}: the state is saved where an output folder was given; go on with --resume", err=True)
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def show(comparison: Comparison) -> None:
    """Prints the closing table and the verdict on standard output."""
    split = "test" if any("test" in o.scores for o in comparison.outcomes) else "dev"
    header, *rows = table(comparison, split)
    drawn = RichTable(title=f"{split} accuracy in %")
    for column in header:
        drawn.add_column(column, justify="left" if column == "" else "right")
    for row in rows:
        drawn.add_row(*row)
    console = Console()
    if rows:
        console.print(drawn)
    console.print(comparison.verdict(), soft_wrap=True)
    for outcome in comparison.outcomes:
        for warning in outcome.warnings:
            console.print(f"warning: {warning}", soft_wrap=True, markup=False)
