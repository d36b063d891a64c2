"""The `nlp-ssl` command: one module per verb, thin over the library."""

import importlib
import os
import sys

import click

_HELP = """\
Usage: nlp-ssl COMMAND [OPTIONS]

Semi-supervised text classification: few labels, a lot of unlabeled text.

Commands:
  doctor      look at your files before training: what is wrong, what to begin with
  train       train a method on your files
  pipeline    pre-train, fine-tune, learn from the pool, distill: every stage beside the labels alone
  pretrain    make an encoder that knows your domain, from texts without labels
  eval        score a trained model on labeled texts
  predict     label and probability for every text of a file
  export      a trained model as an ONNX graph, checked against the model
  augment     rewrite texts (back-translation, masked words), once, for training on them
  index       build and search a bank of sentences
  select      of a large pool the texts that a model is surest of, or most like the task's own
  report      one HTML page about a training run
  methods     what can be trained
  completion  what makes the TAB key complete all this: eval "$(nlp-ssl completion)"

Example: nlp-ssl train --method uda --model MODEL --labeled l.csv --unlabeled u.txt --output-dir out
Every command explains itself: nlp-ssl train --help
"""
MODULES = {
    "doctor": "doctor", "train": "train", "pipeline": "pipeline", "pretrain": "pretrain", "eval": "evaluate",
    "predict": "predict", "export": "export", "augment": "augment", "index": "index", "select": "select",
    "report": "report",
    "methods": "methods", "completion": "completion",
}  # fmt: skip


def main() -> None:
    """Entry point of the console command; the exit code is documented in `console.guarded`."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        return _run(argv)
    except KeyboardInterrupt:  # while the libraries are imported
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(argv: list[str]) -> int:
    verb, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if verb in ("-h", "--help"):
        click.echo(_HELP, nl=False)
        return 0
    from nlp_ssl.cli.console import check_words, guarded
    from nlp_ssl.errors import ConfigError, nearest

    def command() -> None:
        if verb not in MODULES:
            raise ConfigError(200, f"no command {verb!r}.{nearest(verb, MODULES)}")
        check_words(argv)
        importlib.import_module(f"nlp_ssl.cli.{MODULES[verb]}").main(rest)  # what others need stays unloaded

    return guarded(command)
