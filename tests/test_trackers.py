"""Trackers: one that would not track is refused before anything is trained, one that is there gets every line."""

from contextlib import nullcontext

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType
from tiny import FAST, tiny_files, tiny_task

from nlp_ssl import SelfTraining, Supervised, fit
from nlp_ssl.cli import run
from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.experiments.compare import compare
from nlp_ssl.rounds.engine import fit_rounds
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.training.trackers import NAMES, check_trackers


class Memory(tracking.GeneralTracker):
    """Keeps what it is given."""

    name, requires_logging_directory, broken, kept = "wandb", False, False, []

    def __init__(self, run_name, **settings):
        super().__init__()

    @property
    def tracker(self):
        return self.kept

    def start(self):
        if self.broken:
            raise OSError("no login\nsecond line")

    def store_init_configuration(self, values):
        self.kept.append(values)

    def log(self, values, step=None, **settings):
        self.kept.append(values)


class InFiles(Memory):
    requires_logging_directory = True


@pytest.fixture
def installed(monkeypatch):
    """wandb alone is installed."""
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.WANDB])
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Memory)
    monkeypatch.setattr(Memory, "kept", [])


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny_task(tmp_path_factory.mktemp("trackers"))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "wandb"])
def test_a_tracker_without_its_package_is_refused(installed, name):
    with pytest.raises(ConfigError, match=f"^SSL258: tracker '{name}' needs a package .*: pip install '{name}"):
        check_trackers(["wandb", name], folder=True)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["wandbb"], "SSL207.*Did you mean 'wandb'"), ([""], "SSL207"), (["all"], "SSL207"), ("wandb", "SSL207.*a tuple")],
)
def test_names_that_are_none_are_refused(installed, names, message):
    with pytest.raises(ConfigError, match=message):
        check_trackers(names, folder=True)


@pytest.mark.parametrize("way", ["fit", "fit_rounds", "compare", "command"])
def test_nothing_is_trained_and_nothing_removed(installed, task, tmp_path, monkeypatch, capsys, way):
    monkeypatch.setattr("nlp_ssl.training.engine.Engine.__init__", lambda *_, **__: pytest.fail("a training began"))
    with pytest.raises(ConfigError, match="SSL258.*mlflow") if way != "command" else nullcontext():
        if way == "fit":
            fit(Supervised(), task, FAST, folder=RunFolder(tmp_path / "out", trackers=("mlflow",)))
        elif way == "fit_rounds":
            fit_rounds(SelfTraining(), task, FAST, folder=RunFolder(tmp_path / "out", trackers=("mlflow",)))
        elif way == "compare":
            monkeypatch.setattr(RunFolder, "clear", lambda folder: pytest.fail("a run was removed"))
            compare(
                Supervised(),
                task,
                FAST,
                seeds=[0],
                baseline=True,
                overwrite=True,
                folder=RunFolder(tmp_path / "out", trackers=("wandb", "mlflow")),
            )
        else:
            files = tiny_files(tmp_path)
            argv = ["train", "--model", str(files / "model"), "--labeled", str(files / "l.csv"), "--output-dir",
                    str(tmp_path / "out"), "--trackers", "wandb, mlflow"]  # fmt: skip
            assert run(argv) == 2
            assert "SSL258: tracker 'mlflow'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not Memory.kept


def test_a_tracker_that_is_there_gets_the_settings_and_every_line(installed, task, tmp_path):
    fit(Supervised(), task, FAST, folder=RunFolder(tmp_path, trackers=("wandb",)))
    settings, *lines = Memory.kept
    assert settings["method"] == "supervised" and lines and all("loss" in line for line in lines)


def test_a_tracker_that_cannot_start_is_one_line(installed, task, tmp_path, monkeypatch):
    monkeypatch.setattr(Memory, "broken", True)
    with pytest.raises(RunError, match=r"^SSL307: wandb cannot start \(OSError: no login\).*$"):
        fit(Supervised(), task, FAST, folder=RunFolder(tmp_path, trackers=("wandb",)))
