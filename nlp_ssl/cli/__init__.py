"""The `nlp-ssl` command: one module per verb, thin over the library."""

import sys

import click

import nlp_ssl
from nlp_ssl.cli.command import Commands, example
from nlp_ssl.cli.console import guarded

_HELP = "Semi-supervised text classification: few labels, a lot of unlabeled text."
_EPILOG = f"""{example("nlp-ssl train --method uda --labeled l.csv --unlabeled u.txt --test t.csv --output-dir out")}

Every command explains itself: nlp-ssl train --help

\b
The TAB key completes commands, flags and values (zsh_source in zsh, fish_source in fish) after
  eval "$(_NLP_SSL_COMPLETE=bash_source nlp-ssl)"
"""

commands = Commands("nlp-ssl", help=_HELP, epilog=_EPILOG)
click.version_option(nlp_ssl.__version__, prog_name="nlp-ssl", help="the version")(commands)


def main() -> None:
    """Entry point of the console command; the exit code is documented in `console.guarded`."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""

    def command() -> None:
        if code := commands.main(argv, prog_name="nlp-ssl", standalone_mode=False):
            raise click.exceptions.Exit(code)  # which click has caught

    return guarded(command)
