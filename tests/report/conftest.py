"""One tiny finished run with a baseline and two seeds, shared by the tests of its report."""

import shutil
from dataclasses import replace

import pytest
from tiny import FAST, tiny_task

from nlp_ssl import FreeMatch, compare


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    task = tiny_task(folder)
    config = replace(FAST, max_steps=6, logging_steps=2)
    compare(FreeMatch(), task, config, seeds=[0, 3], baseline=True, folder=folder / "run")
    return folder / "run"


@pytest.fixture
def finished(trained_run, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(trained_run, tmp_path / "run")


@pytest.fixture
def run(finished, monkeypatch):
    """A copy for tests that do not look at where the map puts rows, which takes a second."""
    monkeypatch.setattr("nlp_ssl.report.map.place", lambda features: features[:, :2])
    return finished
