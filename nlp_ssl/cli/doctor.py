"""`nlp-ssl doctor`: what is wrong with the files, and what to begin with, before training."""

import json
import logging
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated

import click

from nlp_ssl.cli.command import Spec
from nlp_ssl.cli.files import ROLES, Files, Tables, read
from nlp_ssl.config import DEFAULT_MODEL
from nlp_ssl.data.table import Table, in_roles
from nlp_ssl.doctor import Advice, Diagnosis, Finding, TaskOptions, diagnose
from nlp_ssl.errors import BadLineError, ConfigError, DataError, EncodingError
from nlp_ssl.ops.multilabel import refuse_multilabel
from nlp_ssl.utils.ranges import check

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class DoctorOptions:
    """Flags of `doctor` beside those of the files."""

    model: Annotated[str, "encoder to look at the texts with: folder, hub name or bundled"] = DEFAULT_MODEL
    max_length: Annotated[int, "tokens of a text that training will read"] = 128
    seed: Annotated[int, "draws the texts that are looked at, and labels"] = 0
    json: Annotated[bool, "print JSON instead"] = False

    def __post_init__(self) -> None:
        check(self.max_length, "max_length", 3, 1e6)
        check(self.seed, "seed", 0, 2**31)


def main(options: DoctorOptions, files: Files) -> None:
    """Reads what can be read, prints what was found and ends with exit code 3 where training would stop."""
    if files.labeled is None:
        raise ConfigError(490, "doctor needs labels: nlp-ssl doctor --labeled l.csv --unlabeled u.txt --test t.csv")
    tables, errors = readable_tables(files)
    if any(table is not None and table.label_sets is not None for table in tables.values()):
        refuse_multilabel("doctor")
    checks = TaskOptions(files.labels_per_class, options.seed, files.allow_transductive, files.drop_leaks)
    log.info("looking at the texts ...")
    diagnosis = diagnose(tables, options.model, max_length=options.max_length, options=checks, known=errors)
    command = None if diagnosis.advice is None else train_command(diagnosis.advice, files, options)
    if options.json:
        click.echo(json.dumps(as_json(diagnosis, command), indent=1))
    else:
        for line in lines(diagnosis, command):
            click.echo(line)
    if diagnosis.errors:
        raise click.exceptions.Exit(3)


def readable_tables(files: Files) -> tuple[Tables, list[Finding]]:
    """The tables as far as they can be read, and one error for each that cannot be read as it is."""
    tables: Tables = dict.fromkeys(ROLES)
    errors: list[Finding] = []
    for role in ROLES:
        tables[role] = _readable(files, role, tables["labeled"], errors)
    try:
        return in_roles(tables), errors
    except DataError as error:
        errors.append(Finding("error", str(error), error.code))
        return tables, errors


def _readable(files: Files, role: str, labeled: Table | None, errors: list[Finding]) -> Table | None:
    """One table, read past what is wrong with it as far as that goes."""
    try:
        return read(files, role, labeled)
    except DataError as error:
        refused = error
    rest: Table | None = None
    for other in _other_ways(files, refused):
        try:
            rest = read(other, role, labeled)
            break
        except DataError:
            continue
    skipped = [note for note in (rest.notes if rest is not None else ()) if note.startswith("bad lines skipped")]
    more = f" ({skipped[0].replace('skipped', 'in all')})" if skipped and isinstance(refused, BadLineError) else ""
    errors.append(Finding("error", str(refused) + more, refused.code))
    return rest


def _other_ways(files: Files, error: DataError) -> list[Files]:
    if isinstance(error, BadLineError):
        return [replace(files, on_bad_lines="skip")]
    if isinstance(error, EncodingError):
        return [replace(files, encoding=name, on_bad_lines="skip") for name in ("cp1252", "utf-16", "latin-1")]
    return []


def train_command(advice: Advice, files: Files, options: DoctorOptions) -> str:
    """The line that trains as advised, on the files as they were named here."""
    words = ["nlp-ssl", "train", "--method", advice.method, "--model", options.model]
    values = asdict(files)
    for field in fields(files):
        flag, value = f"--{field.name.replace('_', '-')}", values[field.name]
        if value is True:
            words.append(flag)
        elif value != field.default:
            words += [flag, str(value)]
    words += ["--max-length", str(options.max_length), "--seeds", "3"]
    words += ["--baseline"] if advice.method != "supervised" else []
    return shlex.join([*words, "--output-dir", "out"])


def lines(diagnosis: Diagnosis, command: str | None) -> Iterator[str]:
    """What to do first comes first: errors, warnings, facts, advice."""
    if diagnosis.errors:
        yield f"ERRORS: training stops until these are fixed ({len(diagnosis.errors)})"
        yield from (f"  {number}. {error.text}" for number, error in enumerate(diagnosis.errors, 1))
        yield ""
    if diagnosis.warnings:
        yield f"WARNINGS: training runs, but look at these ({len(diagnosis.warnings)})"
        yield from (f"  - {one.text}" for one in diagnosis.warnings)
        yield ""
    if diagnosis.facts:
        yield "FACTS" + (", the errors left aside" if diagnosis.errors else "")
        width = max(len(fact.name) for fact in diagnosis.facts)
        yield from (f"  {fact.name:{width}}  {fact.text}" for fact in diagnosis.facts)
        yield ""
    if diagnosis.advice is None or command is None:
        yield "NEXT: fix the errors and run this command again; it then says what to train."
        return
    yield f"NEXT: {'look at the warnings, then ' if diagnosis.warnings else ''}train with {diagnosis.advice.method}"
    yield from (f"  {reason}" for reason in diagnosis.advice.reasons)
    yield f"\n  {command}"


def as_json(diagnosis: Diagnosis, command: str | None) -> dict[str, object]:
    """The same for machines."""
    return {
        "errors": [{"code": one.code, "text": one.text} for one in diagnosis.errors],
        "warnings": [one.text for one in diagnosis.warnings],
        "facts": {fact.name.replace(" ", "_"): fact.value for fact in diagnosis.facts},
        "advice": None if diagnosis.advice is None else {**asdict(diagnosis.advice), "command": command},
    }


COMMANDS = {
    "doctor": Spec(
        main,
        "look at your files before training: what is wrong, what to begin with",
        "Looks at your files in less than a minute, on drawn texts where there are many, and says what to fix first "
        "and what to begin with. Exit code 3 if something would stop training.",
        "nlp-ssl doctor --labeled l.csv --unlabeled u.txt --test t.csv",
        flags=(DoctorOptions(), Files()),
        first=("labeled", "unlabeled", "dev", "test", "text_column", "label_column", "labels_per_class", "model",
               "max_length", "json"),
    )
}  # fmt: skip
