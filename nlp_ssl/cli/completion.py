"""`nlp-ssl completion`: the TAB key in bash and zsh.

The script that a shell reads holds all flags: asking the package at every key would import PyTorch each time.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import click

from nlp_ssl.cli import MODULES, index
from nlp_ssl.cli.options import COMMANDS, parse
from nlp_ssl.registry import list_methods

_METHODS = tuple(list_methods())
_OF_METHODS = ("train", "pipeline")  # their flags depend on --method
_SCRIPT = """\
if [ -n "$ZSH_VERSION" ]; then autoload -U +X compinit && compinit; autoload -U +X bashcompinit && bashcompinit; fi
_nlp_ssl() {
    local word="${COMP_WORDS[COMP_CWORD]}" last="${COMP_WORDS[COMP_CWORD-1]}" verb="${COMP_WORDS[1]}" method=uda
    local words="" i
    for ((i = 3; i < COMP_CWORD; i++)); do
        if [ "${COMP_WORDS[i-1]}" = --method ]; then method="${COMP_WORDS[i]}"; fi
    done
    if ((COMP_CWORD == 1)); then
        words="VERBS"
    elif [ "$verb" = index ] && ((COMP_CWORD == 2)); then
        words="INDEX"
    else
        if [ "$verb" = index ]; then verb="index ${COMP_WORDS[2]}"; fi
        case "$verb $last" in
VALUES
        *)
            if [[ "$word" == -* ]]; then
                case "$verb" in
FLAGS
                esac
                case "$verb $method" in
HYPER
                esac
            fi
            ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _nlp_ssl nlp-ssl
"""


@dataclass(frozen=True)
class Options:
    """No options."""


def main(argv: Sequence[str]) -> None:
    """Prints the script."""
    doc = 'Prints what makes the TAB key of bash and zsh complete this command: eval "$(nlp-ssl completion)"'
    parse(argv, Options(), name="nlp-ssl completion", doc=doc)
    click.echo(script(), nl=False)


def script() -> str:
    """Shell code that completes verbs, flags, names of methods and values that are chosen from a few; else files."""
    flags: list[str] = []
    hyper: list[str] = []
    values: dict[str, list[str]] = {}
    for verb in MODULES:
        for name, argv in _verbs(verb):
            options = _options(argv)
            if verb in _OF_METHODS:
                of = {method: _options([*argv, "--method", method]) for method in _METHODS}
                shared = [o for o in options if all(o in other for other in of.values())]
                for method, other in of.items():
                    values |= {f"{name} {flag}": choices for flag, choices in other.items() if choices}
                    hyper.append(_case(f"{name} {method}", [f for f in other if f not in shared], 16, more=True))
                values[f"{name} --method"] = list(_METHODS)
            else:
                shared = list(options)
            flags.append(_case(name, shared, 16))
            values |= {f"{name} {flag}": choices for flag, choices in options.items() if choices}
    parts = {
        "VERBS": " ".join(MODULES),
        "INDEX": " ".join(index.VERBS),
        "VALUES": "\n".join(_case(name, words, 8) for name, words in values.items()),
        "FLAGS": "\n".join(flags),
        "HYPER": "\n".join(hyper),
    }
    made = _SCRIPT
    for word, text in parts.items():
        made = made.replace(word, text)
    return made


def _verbs(verb: str) -> Iterator[tuple[str, list[str]]]:
    """(name, command line) of a verb or of each of its own verbs."""
    if verb == "index":
        yield from ((f"index {name}", ["index", name]) for name in index.VERBS)
    else:
        yield verb, [verb]


def _options(argv: Sequence[str]) -> dict[str, list[str]]:
    """Flags of a command line and the values that each is chosen from, if there are few."""
    found: list[click.Command] = []
    token = COMMANDS.set(found)
    try:
        with suppress(click.exceptions.Exit):
            importlib.import_module(f"nlp_ssl.cli.{MODULES[argv[0]]}").main(list(argv[1:]))
    finally:
        COMMANDS.reset(token)
    made: dict[str, list[str]] = {"--help": []}
    for option in found[0].params:
        choices = list(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else []
        made |= dict.fromkeys([*option.opts, *option.secondary_opts], choices)
    return made


def _case(name: str, words: Sequence[str], indent: int, *, more: bool = False) -> str:
    return f'{" " * indent}"{name}") words{"+" * more}="{" " * more}{" ".join(words)}" ;;'
