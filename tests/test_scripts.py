"""Scripts: every benchmark starts, and those that compare methods run in small; what they are run with is checked."""

import json
import logging
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny import tiny_bert, tiny_texts

from nlp_ssl import RunFolder, log_to_console
from nlp_ssl.errors import ConfigError
from nlp_ssl.training import launcher

SCRIPTS = Path(__file__).parent.parent / "scripts"
NEEDS = {"setfit_baseline": "setfit", "rewriting": "sentencepiece"}  # beside the packages of the tests


@pytest.fixture
def script(monkeypatch):
    """Runs a file below scripts/ as `python FILE FLAGS` does, in this process, and gives its exit code."""

    def run(name, *flags):
        file = SCRIPTS / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [file.name, *map(str, flags)])
        monkeypatch.syspath_prepend(str(file.parent))
        try:
            runpy.run_path(str(file), run_name="__main__")
        except SystemExit as ended:
            return ended.code or 0
        return 0

    return run


@pytest.mark.parametrize(
    "name", sorted(str(path.relative_to(SCRIPTS).with_suffix("")) for path in SCRIPTS.glob("**/*.py"))
)
def test_every_script_says_what_it_does(script, name, capsys):
    package = NEEDS.get(Path(name).name)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"needs {package}")
    assert script(name, "--help") == 0
    assert "usage" in capsys.readouterr().out.lower()


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    """A folder of train and test rows, and a model; what is cached stays below the folder of the test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "reviews").mkdir()
    rows = [f"{text},{label}" for text, label in zip(*tiny_texts(80, seed=5), strict=True)]
    for name, part in (("train", rows[:60]), ("test", rows[60:])):
        (tmp_path / f"reviews/{name}.csv").write_text("\n".join(["text,label", *part]) + "\n")
    tiny_bert(tmp_path / "model")
    return tmp_path


def test_methods_are_measured_from_one_start_and_not_twice(script, reviews, capsys):
    flags = [
        "--data",
        reviews / "reviews",
        "--model",
        reviews / "model",
        "--labels-per-class",
        "4",
        "--max-length",
        "24",
    ]
    flags += ["--max-steps", "2", "--warm-steps", "2", "--mixed-precision", "no", "--out", reviews / "results.json"]
    names = "supervised,uda,self_training:rounds=1"
    assert script("bench/methods", *flags, "--methods", names, "--seeds", "1") == 0
    measured = json.loads((reviews / "results.json").read_text())
    assert [run["name"] for run in measured["runs"]] == ["start", "supervised", "uda", "self_training:rounds=1"]
    assert {run["seed"] for run in measured["runs"]} == {1} and measured["settings"]["bench"]["max_length"] == "24"
    capsys.readouterr()
    assert script("bench/methods", *flags, "--methods", names, "--seeds", "1") == 0
    assert json.loads((reviews / "results.json").read_text()) == measured
    assert "self_training" in capsys.readouterr().out


def test_log_lines_of_a_script_are_those_of_the_first_process(monkeypatch, capsys):
    log, root = logging.getLogger("nlp_ssl"), logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(log, "level", logging.NOTSET)
    shown = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        log_to_console()
        log.info("a line of process %s", rank)
        shown.append(capsys.readouterr().err)
    assert len(root.handlers) == 1 and shown == ["a line of process 0\n", ""]


def test_the_first_process_checks_the_output_folder(tmp_path, monkeypatch):
    """Others may look when it has already written."""
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="SSL219"):
        RunFolder(tmp_path).check()
    monkeypatch.setenv("RANK", "1")
    RunFolder(tmp_path).check()


def test_fewer_processes_than_asked_for_are_told_once(monkeypatch, caplog):
    monkeypatch.setattr(
        launcher.Path, "read_bytes", lambda path: b"python\0accelerate\0launch\0--num_processes=3\0x.py"
    )
    launcher.check_processes.cache_clear()
    with caplog.at_level("WARNING", "nlp_ssl"):
        for _ in range(2):
            launcher.check_processes()
    launcher.check_processes.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "3 processes were asked for, 1 is running: on CPUs use `torchrun --nproc_per_node 3`"
    ]
    caplog.clear()
    monkeypatch.setenv("WORLD_SIZE", "3")
    launcher.check_processes()
    launcher.check_processes.cache_clear()
    assert not caplog.records
