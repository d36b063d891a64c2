"""The model card, and what `train` leaves beside a model."""

import json
import logging

import pytest
from cli_files import command_files, train
from huggingface_hub import ModelCard
from pages import rename

from nlp_ssl.errors import RunError
from nlp_ssl.report.card import write_card
from nlp_ssl.training.run_folder import CARD_MARK, RunFolder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return command_files(tmp_path_factory.mktemp("card"))


def test_the_hub_reads_the_front_matter(run):
    text = write_card(run, "apache-2.0").read_text()
    data = ModelCard(text).data
    assert data.license == "apache-2.0" and data.pipeline_tag == "text-classification"
    accuracy = json.loads((run / "seed-0/result.json").read_text())["scores"]["test"]["accuracy"]
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found["accuracy"] == round(accuracy, 4) and set(found) == {"accuracy", "f1"}
    identity = json.loads((run / "seed-0/result.json").read_text())["identity"]
    assert identity["data"] in text and "| labeled rows | 16 (8, 8 by class) |" in text
    assert "| seeds | 0, 3 |" in text and "| supervised |" in text and "best label-only model" in text


def test_class_names_hide_nothing(run):
    rename(run / "seed-0", ["a`|\n# <script>", "---\nlicense: evil"])
    text = write_card(run).read_text()
    assert "<script" not in text and "\n# <" not in text and ModelCard(text).data.license == "unknown"


def test_a_readme_of_another_kind_stays_and_ours_goes_with_the_run(run, caplog):
    (run / "README.md").write_text("mine")
    with caplog.at_level(logging.WARNING):
        assert write_card(run) is None
    assert (run / "README.md").read_text() == "mine" and "is not ours" in caplog.text
    RunFolder(run).clear()
    assert (run / "README.md").read_text() == "mine"
    (run / "README.md").write_text(f"{CARD_MARK} old")
    for name in ("report.html", "result.json"):
        (run / name).write_text("old")
    RunFolder(run).clear()
    assert list(run.iterdir()) == []


def test_train_leaves_report_and_card(files, tmp_path, capsys):
    assert train(files, tmp_path / "out", "--license", "mit", "--calibrate", "labels") == 0
    assert "license: mit" in (tmp_path / "out/README.md").read_text()
    assert "labels held out in turn" in (tmp_path / "out/README.md").read_text()
    assert "<h1" in (tmp_path / "out/report.html").read_text()
    assert train(files, tmp_path / "bare", "--no-report", "--warm-start", "none") == 0
    assert not (tmp_path / "bare/report.html").exists() and not (tmp_path / "bare/README.md").exists()
    assert train(files, tmp_path / "no", "--license", "My license") == 2 and not (tmp_path / "no").exists()
    assert "SSL404" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_fails_no_run(files, tmp_path, caplog, monkeypatch):
    def full(*given):
        raise RunError(303, "no space")

    monkeypatch.setattr("nlp_ssl.report.page.write_report", full)
    with caplog.at_level(logging.WARNING):
        assert train(files, tmp_path / "out", "--warm-start", "none") == 0
    assert "no report" in caplog.text and "no space" in caplog.text


@pytest.mark.parametrize("flags", [["--calibrate", "dev"]])
def test_calibration_without_rows_is_refused(files, tmp_path, capsys, flags):
    assert train(files, tmp_path / "out", *flags) == 2
    assert "SSL400" in capsys.readouterr().err
