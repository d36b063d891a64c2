"""The table of flags: `python -m nlp_ssl.cli.table` writes it anew, with --check it fails where it is stale."""

import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from nlp_ssl.cli.command import SECTIONS, TABLE, Spec, example
from nlp_ssl.cli.options import flags_of
from nlp_ssl.config import TrainConfig
from nlp_ssl.registry import get_method, list_methods

# Where the flags stand in the help. Those of the training loop that are not here are of "Training".
_SECTIONS = {
    "Files": "labeled unlabeled dev test text_column label_column label_separator class_names pair_column encoding "
    "on_bad_lines labels_per_class allow_transductive drop_leaks unlabeled_value minus_one pseudo_labels cache_dir "
    "split texts queries in_domain index sentences duplicates fewest_words most_words part_size",
    "Model": "model pooling max_length teacher student classifier encoder precision mixed_precision kind recall "
    "masked_model cosine_encoder same_label quantize format tolerance",
    "Method": "method replace_words strong views back_translation drop_out_of_scope pretrain pretrain_steps distill "
    "objective how engine there back temperature masked_share samples shortest longest lowest_cosine query_by "
    "per_query per_class near keep floor k append tune folds threshold_precision",
    "Training": "seed seeds baseline budget resume scheduler workers",
    "Output": "output_dir overwrite save json report license trackers dry_run out all guard_formulas",
}
_SECTION_OF = {name: section for section, names in _SECTIONS.items() for name in names.split()}
_MODULES = ("doctor", "train", "pipeline", "pretrain", "evaluate", "predict", "export", "augment", "index", "select",
            "sentaugment", "report", "methods")  # fmt: skip
_GROUPS = {
    "index": {
        "help": "build and search a bank of sentences",
        "epilog": example('nlp-ssl index search bank "a moving film" -k 5'),
    }
}


def written() -> str:
    """The table as it has to be."""
    commands: dict[str, Any] = {}
    for module in _MODULES:
        declared: Mapping[str, Spec] = importlib.import_module(f"nlp_ssl.cli.{module}").COMMANDS
        commands |= {name: _command(module, name, spec) for name, spec in declared.items()}
    names = [*list_methods(in_rounds=False), *list_methods(in_rounds=True)]
    contents = {"groups": _GROUPS, "commands": commands, "methods": {name: _method(name) for name in names}}
    return json.dumps(contents, indent=1) + "\n"


def _command(module: str, name: str, spec: Spec) -> dict[str, Any]:
    flags = [_placed(flag) for value in spec.flags for flag in flags_of(value) if flag.name not in spec.without]
    entry = {
        "name": name,
        "module": module,
        "summary": spec.summary,
        "help": spec.help,
        "example": spec.example,
        "arguments": [dataclasses.asdict(argument) for argument in spec.arguments],
        "flags": flags,
        "first": list(spec.first),
        "of_method": spec.of_method,
        "instead": spec.instead,
    }
    known = [flag["name"] for flag in flags]
    if len({*known}) < len(known) or not {*spec.first} <= {*known}:
        raise ValueError(f"{name}: a flag is there twice, or one of the first is not there")
    return entry


def _placed(flag: Any) -> dict[str, Any]:
    loop = {field.name for field in dataclasses.fields(TrainConfig)}
    section = _SECTION_OF.get(flag.name) or ("Training" if flag.name in loop else "")
    if section not in SECTIONS:
        raise ValueError(f"--{flag.name} has no section: add it to _SECTIONS")
    return dataclasses.asdict(dataclasses.replace(flag, section=section))


def _method(name: str) -> dict[str, Any]:
    cls = get_method(name)
    doc = inspect.getdoc(cls) or ""
    flags = [dataclasses.asdict(dataclasses.replace(flag, section="Method")) for flag in flags_of(cls())]
    return {"summary": doc.splitlines()[0], "doc": doc, "flags": flags}


@click.command()
@click.option("--check", is_flag=True, help="fail where the table is stale, and write nothing")
def main(check: bool) -> None:
    """Writes the table of flags."""
    if not check:
        TABLE.write_text(written(), encoding="utf-8")
    elif not TABLE.exists() or TABLE.read_text(encoding="utf-8") != written():
        click.echo("flags.json is stale: python -m nlp_ssl.cli.table", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
