"""The command line itself: help, order of words, completion, and the table of flags behind them."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import nlp_ssl
from nlp_ssl.cli import commands, run
from nlp_ssl.cli import index as index_module
from nlp_ssl.cli import predict as predict_module
from nlp_ssl.cli.command import SECTIONS, TABLE, Command, flag_table
from nlp_ssl.cli.methods import rows
from nlp_ssl.cli.options import flags_of
from nlp_ssl.cli.table import written
from nlp_ssl.cli.tasks import TaskOptions
from nlp_ssl.config import TrainConfig
from nlp_ssl.registry import list_methods

NAMES = [*flag_table()["commands"]]
HELPS = [[], ["index"], *(name.replace("--index", "--index b").split() for name in NAMES)]
COST = """
import json, resource, subprocess, sys
command = [sys.executable, "-m", "nlp_ssl", *sys.argv[1:], "--help"]
done = subprocess.run(command, capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, done.stdout, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def shown(*words):
    """What a command line prints; it must not fail."""
    found = CliRunner().invoke(commands, list(words), prog_name="nlp-ssl")
    assert found.exit_code == 0, found.output
    return found.stdout


def test_the_table_of_flags_is_fresh():
    assert TABLE.read_text(encoding="utf-8") == written(), "run `python -m nlp_ssl.cli.table`"


def test_a_stale_table_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr("nlp_ssl.cli.table.TABLE", tmp_path / "flags.json")
    from nlp_ssl.cli.table import main

    assert CliRunner().invoke(main, ["--check"]).exit_code == 1
    assert CliRunner().invoke(main, []).exit_code == 0
    assert CliRunner().invoke(main, ["--check"]).exit_code == 0
    (tmp_path / "flags.json").write_text((tmp_path / "flags.json").read_text().replace("fixmatch", "fixmatsch"))
    assert CliRunner().invoke(main, ["--check"]).exit_code == 1


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_is_quick_and_small(words):
    """Half a second of processor time and 150 MB, for the interpreter and everything in it."""
    found = subprocess.run([sys.executable, "-c", COST, *words], capture_output=True, text=True, check=True)
    code, output, seconds, megabytes = json.loads(found.stdout)
    assert code == 0 and output.startswith("Usage: nlp-ssl")
    assert seconds < 0.5 and megabytes < 150


def test_the_cost_is_measured():
    """What the test above would see if a command was imported."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import nlp_ssl.cli.train"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime > 0.5 and after.ru_maxrss / 1024 > 150


@pytest.mark.parametrize("words", [words for words in HELPS[2:]], ids=" ".join)
def test_help_has_sections_and_an_example(words):
    text = shown(*words, "--help")
    *_, command = [line.strip() for line in text.splitlines() if line.startswith("    nlp-ssl ")]
    assert command.split()[: 1 + len(words[:1])] == ["nlp-ssl", *words[:1]] and "  Example:\n" in text
    heads = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert set(heads) <= {*SECTIONS, "More"}
    assert heads == [name for name in (*SECTIONS, "More") if name in heads], "always in this order"


def test_the_first_help_is_short_and_the_whole_one_has_every_flag():
    short, whole = shown("train", "--help"), shown("train", "--help-all")
    entry = flag_table()["commands"]["train"]
    flags = [f"--{flag['name'].replace('_', '-')}" for flag in entry["flags"]]
    assert len(entry["first"]) == 10 and len(flags) > 60
    listed = [line.split()[0] for line in short.splitlines() if line.startswith("  --")]
    assert len(listed) == 10 + 2 and set(listed) <= {*flags, "--config", "--help-all"}
    assert all(f"{flag} " in whole or f"{flag}\n" in whole for flag in flags)
    assert f"this help with {len(flags) - 10 + len(flag_table()['methods']['uda']['flags'])} more flags" in " ".join(
        short.split()
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_flag_of_a_command_has_its_sentence(name):
    entry = flag_table()["commands"][name]
    assert [flag["name"] for flag in entry["flags"] if not flag["help"]] == []
    assert entry["summary"] and entry["help"].endswith(".") and entry["example"].startswith("nlp-ssl ")


def test_a_flag_has_one_section_and_one_type_in_all_commands():
    """One flag, one meaning: what differs between commands may be its default and its wording alone."""
    kinds = {}
    for entry in flag_table()["commands"].values():
        for flag in entry["flags"]:
            kind = "text" if flag["type"] in ("place", "path") else str(flag["type"])
            kinds.setdefault(flag["name"], set()).add((kind, flag["section"]))
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1} == {}


def test_the_method_decides_on_flags(capsys):
    assert "--tsa" in shown("train", "--method", "uda", "--help") and "--tsa" not in shown("train", "--help")
    assert "--tsa" in shown("train", "--help-all") and "--tsa" not in shown(
        "train", "--help-all", "--method", "fixmatch"
    )
    assert "--rounds" in shown("train", "--method=noisy_student", "--help")
    assert run(["train", "--method", "fixmatch", "--tsa", "linear"]) == 2
    assert "No such option '--tsa'" in capsys.readouterr().err
    assert run(["train", "--method", "fixmath", "--help"]) == 2
    assert "SSL201: unknown method 'fixmath'. Did you mean 'fixmatch'?" in capsys.readouterr().err


def test_a_file_of_flags_decides_on_the_method_too(tmp_path):
    (tmp_path / "f.yaml").write_text("method: fixmatch")
    given = ["--config", str(tmp_path / "f.yaml"), "--help-all"]
    assert "--tsa" not in shown("train", *given) and "--threshold" in shown("train", *given)
    assert "--tsa" in shown("train", *given, "--method", "uda"), "the command line outranks it"


@pytest.mark.parametrize("words", [["--version"], ["-h"], ["--help"], [], ["index"], ["index", "-h"], ["train", "-h"]])
def test_these_end_well(words, capsys):
    assert run(words) == 0
    assert (
        f"nlp-ssl, version {nlp_ssl.__version__}" in (output := capsys.readouterr().out) or "Usage: nlp-ssl" in output
    )


def test_the_package_is_the_command():
    found = subprocess.run([sys.executable, "-m", "nlp_ssl", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"nlp-ssl, version {nlp_ssl.__version__}\n"


def spied(monkeypatch, module, name):
    """A command that notes what it is called with instead of running."""
    calls = []
    spec = dataclasses.replace(module.COMMANDS[name], run=lambda *given: calls.append(given))
    monkeypatch.setitem(module.COMMANDS, name, spec)
    return calls


@pytest.mark.parametrize(
    "words",
    ["out t.csv --json --out p.csv", "--json out t.csv --out p.csv", "--out p.csv out --json t.csv",
     "--json --out=p.csv out t.csv", "--out p.csv --json -- out t.csv"],
)  # fmt: skip
def test_flags_and_arguments_come_in_any_order(monkeypatch, words):
    calls = spied(monkeypatch, predict_module, "predict")
    assert run(["predict", *words.split()]) == 0
    ((model, file, options),) = calls
    assert (model, file, str(options.out), options.json) == ("out", "t.csv", "p.csv", True)


@pytest.mark.parametrize(
    "words",
    [["bank", "-a film", "-k", "3"], ["-k", "3", "bank", "--json", "-a film"], ["bank", "-k3", "--", "-a film"]],
)
def test_search_takes_a_short_flag_and_a_query_with_a_dash_behind_two(monkeypatch, words):
    calls = spied(monkeypatch, index_module, "index search")
    if "--" not in words:
        words = [*(word for word in words if word != "-a film"), "--", "-a film"]
    assert run(["index", "search", *words]) == 0
    ((index, query, flags),) = calls
    assert (index, query, flags.k) == ("bank", "-a film", 3)


@pytest.mark.parametrize(
    ("given", "seed", "seeds"),
    [(None, 4, (4,)), (3, 0, (0, 1, 2)), (3, 5, (5, 6, 7)), ((5, 6), 0, (5, 6)), ((5,), 0, (5,))],
)
def test_seeds_are_a_number_or_a_list(given, seed, seeds):
    assert TaskOptions(seeds=given).chosen_seeds(seed) == seeds


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("5,6", (5, 6)), ("5,", (5,))])
def test_seeds_on_the_command_line(text, value):
    option = next(flag for flag in flags_of(TaskOptions()) if flag.name == "seeds").option()
    assert option.type.convert(text, option, None) == value
    with pytest.raises(click.BadParameter, match="number of seeds"):
        option.type.convert("a", option, None)


@pytest.mark.parametrize("argv", [["trian"], ["index", "serch"]])
def test_an_unknown_command_names_the_nearest(argv, capsys):
    assert run(argv) == 2
    assert f"SSL200: no command '{' '.join(argv)}'. Did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("former", "new"),
    [("--keep", "--save-total-limit"), ("--clip", "--max-grad-norm"), ("--workers", "--dataloader-num-workers")],
)
def test_a_former_flag_names_todays(former, new, capsys):
    assert run(["train", former, "3"]) == 2
    assert f"No such option '{former}': it is {new} now." in capsys.readouterr().err


def test_methods_are_a_line_each(capsys):
    assert run(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [*list_methods(in_rounds=False), *list_methods(in_rounds=True)]
    assert [line.split()[0] for line in lines] == names == [name for name, _, _ in rows()]


def test_a_method_by_its_name_in_detail(capsys):
    assert run(["methods", "fixmatch"]) == 0
    detail = capsys.readouterr().out
    assert "arXiv:2001.07685" in detail and "Differs from the paper" in detail
    assert detail.count("  threshold (float in [0, 1], default 0.8") == 1
    assert "Command line: nlp-ssl train --method fixmatch" in detail
    assert run(["methods", "fixmath"]) == 2 and "Did you mean 'fixmatch'" in capsys.readouterr().err


def test_defaults_are_those_of_the_settings():
    flags = {flag["name"]: flag for flag in flag_table()["commands"]["train"]["flags"]}
    assert {name: flags[name]["default"] for name in vars(TrainConfig())} == vars(TrainConfig())


def offered(*words):
    """What the TAB key offers for the last word, as click's script for bash asks for it."""
    env = {**os.environ, "_NLP_SSL_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("nlp-ssl", *words)),
           "COMP_CWORD": str(len(words))}  # fmt: skip
    found = subprocess.run([sys.executable, "-m", "nlp_ssl"], capture_output=True, text=True, env=env)
    return [line.split(",", 1) for line in found.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["pre"], ["pretrain", "predict"]),
        (["index", "me"], ["merge"]),
        (["index", "build", "--enc"], ["--encoder", "--encoding"]),
        (["index", "build", "--precision", "b"], ["bf16"]),
        (["train", "--labels-p"], ["--labels-per-class"]),
        (["train", "--method", "mixt"], ["mixtext"]),
        (["train", "--method", "self"], ["self_training"]),
        (["train", "--lr-scheduler-type", ""], ["cosine", "linear", "constant"]),
        (["train", "--method", "uda", "--ts"], ["--tsa"]),
        (["train", "--method", "fixmatch", "--ts"], []),
        (["pipeline", "--no-dis"], ["--no-distill"]),
    ],
)
def test_the_tab_key_offers(words, values):
    assert [value for _, value in offered(*words)] == values


@pytest.mark.parametrize("words", [["train", "--labeled", "l"], ["predict", "o"], ["index", "build", "--out", "o"]])
def test_the_tab_key_goes_on_with_files(words):
    assert [kind for kind, _ in offered(*words)] == ["file"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_the_script_as_the_help_says():
    found = subprocess.run(
        [sys.executable, "-m", "nlp_ssl"],
        capture_output=True,
        text=True,
        env={**os.environ, "_NLP_SSL_COMPLETE": "bash_source"},
    )
    done = subprocess.run(
        ["bash", "-c", f"{found.stdout}\ncomplete -p nlp-ssl"], capture_output=True, text=True, check=True
    )
    assert "nlp-ssl" in done.stdout


UNLOADED = """
import sys, nlp_ssl.cli
nlp_ssl.cli.run(["train", "--max-steps", "many"])
print([name for name in ("torch", "nlp_ssl.cli.train", "nlp_ssl.cli.predict") if name in sys.modules])
"""


def test_commands_stay_unloaded_until_they_run():
    done = subprocess.run([sys.executable, "-c", UNLOADED], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n" and "--max-steps" in done.stderr


def test_each_command_is_there():
    assert all(isinstance(Command(name), click.Command) for name in NAMES)
