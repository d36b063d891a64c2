"""What every command shares: logging, one-line errors, exit codes and the closing table."""

import codecs
import io
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table as RichTable

from nlp_ssl.errors import Interrupted, SSLError
from nlp_ssl.utils.progress import ConsoleHandler, bar
from nlp_ssl.utils.ranks import is_main

if TYPE_CHECKING:
    from nlp_ssl.experiments.compare import Comparison

log = logging.getLogger("nlp_ssl")


def guarded(command: Callable[[], None]) -> int:
    """Runs a command and returns its exit code: 0 done, 1 run failed, 2 usage, 3 data, 130/143 stopped by a signal."""
    _set_up_streams()
    try:
        command()
        if sys.stdout is not None:  # closed from the start (`>&-`)
            sys.stdout.flush()  # a closed pipe or a full disk shows here, not when the interpreter ends
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SSLError as error:
        click.echo(str(error), err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stop:
        signal = stop.__cause__ if isinstance(stop, click.Abort) else stop
        if not isinstance(signal, Interrupted):
            return 130
        click.echo(f"{signal}: the state is saved where an output folder was given; go on with --resume", err=True)
        return signal.exit_code
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        click.echo(f"SSL305: cannot write the output: {error.strerror}", err=True)
        return 1
    finally:
        if "torch" in sys.modules:  # not for help, which is to be quick
            from nlp_ssl.ops.distributed import close

            close()
    return 0


def _set_up_streams() -> None:
    level = logging.INFO if is_main() else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", handlers=[ConsoleHandler()])
    for talkative in ("httpx", "sentence_transformers", "faiss"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        codecs.register_error("nlp_ssl.shown", _shown)
        sys.stdout.reconfigure(errors="nlp_ssl.shown")


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is written for a character that the encoding of the output lacks: the byte of a path as it was given, or
    else an escape in ASCII.
    """
    assert isinstance(error, UnicodeEncodeError)
    error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(error)


def show(comparison: "Comparison", *, as_json: bool = False) -> None:
    """Prints the closing table and the verdict on standard output, once however many processes there are."""
    from nlp_ssl.experiments.compare import score_table

    if not is_main():
        return
    if as_json:
        results = {name: [asdict(outcome) for outcome in side] for name, side in comparison.results.items()}
        shown = {"method": comparison.method, "seeds": comparison.seeds, "results": results}
        click.echo(json.dumps(shown | {"verdict": comparison.verdict()}, indent=1))
        return
    split = "test" if any("test" in o.scores for o in comparison.outcomes) else "dev"
    header, *rows = score_table(comparison, split)
    drawn = RichTable(title=f"{split} {comparison.score_name(split)} in %")
    for column in header:
        drawn.add_column(column, justify="left" if column == "" else "right")
    for row in rows:
        drawn.add_row(*row)
    console = Console()
    if rows:
        console.print(drawn)
    console.print(comparison.verdict(split), soft_wrap=True)
    for outcome in comparison.outcomes:
        for warning in outcome.warnings:
            console.print(f"warning: {warning}", soft_wrap=True, markup=False)


def leave_report(folder: Path, license: str = "unknown") -> None:
    """Writes report and model card beside a trained model; that they cannot be written fails no run."""
    if not is_main():
        return
    from nlp_ssl.report.card import write_card
    from nlp_ssl.report.page import write_report

    try:
        with bar("report", 2) as advance:
            write_card(folder, license)
            advance()
            place = write_report(folder)
        log.info("report saved to %s", place)
    except (SSLError, OSError) as error:
        log.warning("no report: %s", error)
