"""Whose model a run saves, what it says of that, and how often weights are on the disk."""

import json
import os
import shutil

import pytest
from cli_files import command_files, train
from safetensors.torch import load_file

from nlp_ssl.cli import run
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.saving import Saved, choose, keep
from nlp_ssl.inference.metrics import Scores
from nlp_ssl.report.card import write_card
from nlp_ssl.training.loop import Outcome
from nlp_ssl.training.run_folder import RunFolder

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return command_files(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def two(files, tmp_path_factory):
    """Two seeds with the baseline, and what was said of them."""
    out = tmp_path_factory.mktemp("two") / "out"
    assert train(files, out, "--seeds", "2", "--baseline", "--method", "fixmatch") == 0
    return out


def space(folder):
    """Bytes of weights on the disk, and the files that name them."""
    paths = list(folder.rglob("*.safetensors"))
    return sum({(p.stat().st_dev, p.stat().st_ino): p.stat().st_size for p in paths}.values()), len(paths)


def outcome(dev=None, test=0.5):
    """An outcome with these accuracies."""
    scores = {"test": test} | ({} if dev is None else {"dev": dev})
    return Outcome({split: Scores(accuracy=value, macro_f1=value, nll=1.0, calibration_error=0.1)
                    for split, value in scores.items()}, 1, 1.0)  # fmt: skip


def test_two_seeds_hold_two_models(two):
    total, names = space(two)
    one = (two / "seed-0" / WEIGHTS).stat().st_size
    assert (total, names) == (2 * one, 3)
    assert (two / WEIGHTS).samefile(two / "seed-0" / WEIGHTS)
    for seed in ("seed-0", "seed-1"):
        kept = {path.name for path in (two / seed / "baseline").iterdir()}
        assert {"result.json", "predictions.parquet", "metrics.jsonl"} <= kept and not {WEIGHTS, "config.json"} & kept


def test_a_disk_without_second_names_gets_a_copy(files, two, tmp_path, monkeypatch):
    def refused(*places):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    out = shutil.copytree(two, tmp_path / "out")
    (out / "config.json").unlink()
    assert train(files, out, "--seeds", "2", "--baseline", "--method", "fixmatch", "--resume") == 0
    assert (out / WEIGHTS).read_bytes() == (out / "seed-0" / WEIGHTS).read_bytes()
    assert not (out / WEIGHTS).samefile(out / "seed-0" / WEIGHTS)


def test_the_run_can_be_resumed_reported_and_predicted_with(files, two, tmp_path, capsys):
    out = shutil.copytree(two, tmp_path / "out")
    assert train(files, out, "--seeds", "2", "--baseline", "--method", "fixmatch", "--resume") == 0
    assert "difference" in capsys.readouterr().out
    assert run(["report", str(out)]) == 0 and "label-only" in (out / "report.html").read_text()
    assert run(["predict", str(out), str(files / "u.txt"), "--mixed-precision", "no"]) == 0


def test_the_last_lines_say_what_was_saved_and_how_to_use_it(files, tmp_path, caplog):
    out = tmp_path / "my out"
    with caplog.at_level("INFO"):
        assert train(files, out, "--seed", "3") == 0
    assert caplog.messages[-2:] == [f"model saved to {out}: uda, seed 3", f"use it: nlp-ssl predict '{out}' texts.csv"]


@pytest.mark.parametrize(
    ("method", "labels", "save", "chosen"),
    [
        ([0.7, 0.8], [0.6, 0.7], None, ("fixmatch", 1)),
        ([0.7, 0.8], [0.9, 0.7], None, ("supervised", 0)),
        ([0.7, 0.8], [0.9, 0.7], "best", ("supervised", 0)),
        ([0.7, 0.8], [0.9, 0.7], "method", ("fixmatch", 1)),
        ([0.8, 0.8], [0.8, 0.8], None, ("fixmatch", 0)),
        ([None, None], [None, None], None, ("fixmatch", 0)),
        ([None, None], [None, None], "method", ("fixmatch", 0)),
    ],
)
def test_dev_rows_choose_and_test_rows_do_not(method, labels, save, chosen):
    sides = {
        "supervised": [outcome(dev, test=0.99) for dev in labels],
        "fixmatch": [outcome(dev, test=test) for dev, test in zip(method, (0.1, 0.2), strict=True)],
    }
    saved = choose(sides, (0, 1), "fixmatch", save)
    assert (saved.side, saved.seed) == chosen
    assert ("the best on the dev rows" in str(saved)) == (method[0] is not None)


def test_the_best_side_of_one_seed_is_saved_and_stays_so(files, tmp_path, monkeypatch, capsys):
    """The baseline is best on dev rows here: its model takes the place of the method's."""
    out = tmp_path / "out"
    dev = ["--dev", str(files / "t.csv")]
    seen = {}

    def worst(saved, method, seeds, folder):
        seen["method"], seen["baseline"] = (load_file(place.path / WEIGHTS) for place in (folder, folder.baseline))
        keep(Saved("supervised", 0, "dev"), method, seeds, folder)

    monkeypatch.setattr("nlp_ssl.experiments.compare.keep", worst)
    assert train(files, out, "--baseline", *dev) == 0
    monkeypatch.undo()
    kept = load_file(out / WEIGHTS)
    assert all(bool((kept[name] == value).all()) for name, value in seen["baseline"].items())
    assert any(not bool((kept[name] == value).all()) for name, value in seen["method"].items())
    assert json.loads((out / "saved.json").read_text()) == {"side": "supervised", "seed": 0, "judged_by": "dev"}
    assert json.loads((out / "result.json").read_text())["identity"]["method"] == "uda", "the run is the method's"
    write_card(out)
    assert "The saved model is that of supervised, seed 0, the best on the dev rows." in (out / "README.md").read_text()
    keep(Saved("supervised", 0, "dev"), "uda", [0], RunFolder(out))
    with pytest.raises(ConfigError, match="SSL496"):
        keep(Saved("uda", 0, ""), "uda", [0], RunFolder(out))


def test_the_best_cannot_be_told_without_dev_rows(files, tmp_path, capsys):
    assert train(files, tmp_path / "out", "--save", "best") == 2
    assert "SSL495: --save best needs dev rows" in capsys.readouterr().err
    assert not (tmp_path / "out/metrics.jsonl").exists(), "said before the training"
