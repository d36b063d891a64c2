"""Formats: auto is measured once and remembered, fp16 needs a GPU."""

import json
from pathlib import Path

import pytest
import torch

from nlp_ssl.errors import ConfigError
from nlp_ssl.utils import precision

CPU = torch.device("cpu")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(("faster", "chosen"), [(True, "bf16"), (False, "no")])
def test_auto_takes_what_is_measured_and_remembers_it(home, monkeypatch, faster, chosen):
    monkeypatch.setattr(precision, "bf16_is_faster", lambda device: faster)
    assert precision.resolve("auto", CPU) == chosen
    notes = json.loads((home / ".cache/nlp_ssl/precision.json").read_text())
    assert list(notes.values()) == [faster]
    monkeypatch.setattr(precision, "bf16_is_faster", lambda device: not faster)
    assert precision.resolve("auto", CPU) == chosen, "a second measurement would make a resumed run differ"


def test_damaged_notes_are_measured_again(home, monkeypatch):
    (home / ".cache/nlp_ssl").mkdir(parents=True)
    (home / ".cache/nlp_ssl/precision.json").write_text("{")
    monkeypatch.setattr(precision, "bf16_is_faster", lambda device: True)
    assert precision.resolve("auto", CPU) == "bf16"


@pytest.mark.parametrize(("seconds", "faster"), [({"no": 1.0, "bf16": 0.8}, True), ({"no": 1.0, "bf16": 0.9}, False)])
def test_bf16_must_be_15_percent_faster(monkeypatch, seconds, faster):
    def timed(block, rows, context):
        with context():
            return seconds["bf16" if torch.is_autocast_enabled("cpu") else "no"]

    monkeypatch.setattr(precision, "seconds_of", timed)
    assert precision.bf16_is_faster(CPU) is faster


def test_explicit_formats():
    assert precision.resolve("no", CPU) == "no" and precision.resolve("bf16", CPU) == "bf16"
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        precision.resolve("fp16", CPU)
    with precision.autocast("bf16", CPU)():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
