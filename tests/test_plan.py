"""--config, --dry-run, --budget and --json of the command line."""

import json

import pytest
from click import BadParameter
from tiny import tiny_files

from nlp_ssl.cli import estimate, run
from nlp_ssl.cli.estimate import Estimate
from nlp_ssl.cli.files import Files
from nlp_ssl.cli.options import parse
from nlp_ssl.cli.tasks import TaskOptions
from nlp_ssl.config import TrainConfig


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tiny_files(tmp_path_factory.mktemp("cli"))
    (folder / "run.yaml").write_text(
        f"method: uda\nmodel: {folder / 'model'}\nlabeled: {folder / 'l.csv'}\nunlabeled: {folder / 'u.txt'}\n"
        f"test: {folder / 't.csv'}\nmax_steps: 4\nbatch-size: 4\nmax_length: 24\nwarm_steps: 3\nbaseline: true\n"
        f"mixed_precision: 'no'\ncache_dir: {folder / 'cache'}\nthreshold: 0.5\nseeds: [0]\ndev: null\n"
    )
    return folder


def test_a_file_of_flags_stands_for_them_and_is_outranked(files, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["train", "--config", str(files / "run.yaml"), "--output-dir", str(out), "--threshold", "0.6"]) == 0
    saved = json.loads((out / "result.json").read_text())["identity"]
    assert saved["method"] == "uda" and saved["config"]["max_steps"] == 4 and saved["options"]["threshold"] == 0.6
    assert (out / "baseline/result.json").exists()
    assert run(["train", f"--config={files / 'run.yaml'}", "--output-dir", str(out), "--no-baseline"]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treshold: 0.5", "SSL203: .*: unknown flag 'treshold'. Did you mean 'threshold'"),
        ("method: udaa", "Did you mean 'uda'"),
        ("- a\n- b", "SSL253.*write flags and their values"),
        ("model:\n  max_steps: 3", "SSL253.*model has settings of its own"),
        ("a: [", "SSL253.*cannot be read as YAML"),
        (None, "SSL253.*cannot be read"),
        ("!!python/object/apply:os.system ['true']", "SSL253"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path, capsys, text, message):
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text)
    assert run(["train", "--config", str(path), "--output-dir", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    import re

    assert re.search(message, shown) and "Traceback" not in shown
    assert run(["train", "--config"]) == 2


def test_values_of_files_are_as_on_the_command_line(tmp_path):
    (tmp_path / "f.yaml").write_text(
        "max-steps: 3\nalign: no\nmixed_precision: no\nseeds: [4, 5]\nlabeled: 7\ndev: null"
    )
    (tmp_path / "g.yaml").write_text("max_steps: 9")
    words = ["--config", str(tmp_path / "f.yaml"), "--config", str(tmp_path / "g.yaml"), "--batch-size", "2"]
    options, files, config = parse(words, TaskOptions(), Files(), TrainConfig(batch_size=3), name="some.py", doc="")
    assert (config.max_steps, config.batch_size, config.align, config.mixed_precision) == (9, 2, False, "no")
    assert (options.seeds, files.labeled, files.dev) == ((4, 5), "7", None)
    (tmp_path / "f.yaml").write_text("max_steps: 2.5")
    with pytest.raises(BadParameter, match="2.5"):
        parse(words[:2], TrainConfig(), name="some.py", doc="")


def test_a_dry_run_prints_the_plan_and_writes_nothing(files, tmp_path, capsys):
    for more in ([], ["--method", "self_training", "--rounds", "2", "--config", str(tmp_path / "none.yaml")]):
        (tmp_path / "none.yaml").write_text("threshold: 0.5")
        out = tmp_path / "out"
        assert run(["train", "--config", str(files / "run.yaml"), *more, "--output-dir", str(out), "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert "max_steps: 4" in shown and "rows: 16 labeled, 64 unlabeled, 0 dev, 40 test" in shown
        assert "labeled rows a step: 4, 1.0 passes in 4 steps" in shown
        assert "unlabeled rows a step: 12, 0.75 passes" in shown and "for 1 seed, with the baseline" in shown
        assert ("2 rounds" in shown) == bool(more)
        assert not (out / "result.json").exists() and not (out / "metrics.jsonl").exists()


def test_times_add_up():
    """Two seeds, ten steps: 2 x (5 + 10 x 2 + 10 x 1); in three rounds 2 x (5 + 10 x 2 x 3 + 2 x 10 x 1)."""
    once, rounds = Estimate(warm=5.0, step=2.0, baseline_step=1.0), Estimate(5.0, 2.0, 1.0, rounds=3)
    assert once.seconds(10, 2, True) == 70.0 and once.seconds(10, 2, False) == 50.0
    assert rounds.seconds(10, 2, True) == 170.0 and rounds.seconds(10, 2, False) == 150.0
    for one in (once, rounds):
        for baseline in (True, False):
            steps = one.steps(500.0, 2, baseline)
            assert one.seconds(steps, 2, baseline) <= 500.0 < one.seconds(steps + 1, 2, baseline)
    assert once.steps(1.0, 1, False) == 1


def test_a_budget_chooses_the_steps(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(estimate, "measure", lambda *given: Estimate(warm=1.0, step=0.5, baseline_step=0.5))
    out = tmp_path / "out"
    flags = ["train", "--config", str(files / "run.yaml"), "--output-dir", str(out), "--budget", "0.1"]
    assert run([*flags, "--json"]) == 0
    assert json.loads((out / "result.json").read_text())["steps"] == 5  # 6 s less 1 s for the start, two sides of .5 s
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "uda" and set(found["results"]) == {"start", "supervised", "uda"}
    assert "label-only" in found["verdict"]
    assert run([*flags, "--resume"]) == 2 and "SSL254" in capsys.readouterr().err
