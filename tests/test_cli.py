"""The console command: every verb on files, exit codes, one-line errors."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from cli_files import command_files, train
from safetensors.torch import load_file, save_file
from tiny import tiny_bert
from transformers import AutoModelForSequenceClassification, pipeline

from nlp_ssl.cli import run
from nlp_ssl.cli.methods import rows
from nlp_ssl.experiments import runs
from nlp_ssl.nets.text import load_text_net
from nlp_ssl.registry import get_method, list_methods
from nlp_ssl.training import model_files
from nlp_ssl.utils.lock import exclusive


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return command_files(tmp_path_factory.mktemp("cli"))


@pytest.fixture(scope="module")
def once(files, tmp_path_factory):
    """A finished run of `train(files, out)`."""
    out = tmp_path_factory.mktemp("once") / "out"
    assert train(files, out) == 0
    return out


@pytest.fixture
def out(once, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(once, tmp_path / "out")


def test_train_predict_and_open_with_transformers(files, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(files, out, "--method", "uda", "--threshold", "0.5", "--save-steps", "2", "--baseline") == 0
    shown = capsys.readouterr().out
    assert "supervised" in shown and "difference" in shown and "best label-only model" in shown and "start" in shown
    assert (out / "checkpoints/step-4/manifest.json").exists()
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.id2label == {0: "neg", 1: "pos"}
    text = (files / "u.txt").read_text().splitlines()[0]
    expected = pipeline("text-classification", str(out))(text)[0]
    (tmp_path / "some.txt").write_text(f"{text}\n\n{text}\n")
    assert run(["predict", str(out), str(tmp_path / "some.txt"), "--mixed-precision", "no"]) == 0
    lines = capsys.readouterr().out.split("\n")
    label, probability = lines[0].split("\t")
    assert label == expected["label"] and abs(float(probability) - expected["score"]) < 1e-3
    assert lines[1:4] == ["\t", lines[0], ""], "a blank line keeps its place"


def test_method_flags_reach_the_method(files, tmp_path):
    for name, threshold in (("a", "0.0"), ("b", "1.0")):
        assert train(files, tmp_path / name, "--method", "fixmatch", "--threshold", threshold) == 0
    saved = json.loads((tmp_path / "a/result.json").read_text())["identity"]
    assert saved["method"] == "fixmatch" and saved["options"]["threshold"] == 0.0
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert any(not bool((a[k] == b[k]).all()) for k in a)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--method", "udaa"], 2, "Did you mean 'uda'"),
        (["--treshold", "0.9"], 2, "--threshold"),
        (["--threshold", "1.5"], 2, "threshold must lie in [0, 1]"),
        (["--threshold", "nan"], 2, "threshold must lie in [0, 1]"),
        (["--learning-rate", "-1"], 2, "learning_rate"),
        (["--max-steps", "many"], 2, "--max-steps"),
        (["--lr-scheduler-type", "cosinus"], 2, "cosine"),
        (["--labeled", "nowhere.csv"], 3, "nowhere.csv"),
        (["--model", "no/such-model"], 2, "HF_HUB_OFFLINE"),
        (["--label-column", "klass"], 3, "klass"),
        (["--patience", "2"], 2, "eval_steps"),
        (["--seeds", "a,b"], 2, "whole numbers"),
        (["--seeds", "0,0"], 2, "differ and not be negative"),
        (["--seeds=-1"], 2, "SSL209: --seeds -1: ask for 1 or more"),
        (["--eval-steps", "1"], 2, "--dev"),
        (["--resume", "--overwrite"], 2, "one of the two"),
    ],
)
def test_errors_are_one_line_with_the_documented_exit_code(files, tmp_path, capsys, more, code, message):
    assert train(files, tmp_path / "out", *more) == code
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    if ": No such option" not in captured.err and "Usage" not in captured.err:  # the usage errors of click have a hint
        assert len([line for line in captured.err.splitlines() if line.startswith("SSL")]) == 1
        assert captured.err.splitlines()[-1].startswith("SSL"), "the error is one line, the last one"
    assert not (tmp_path / "out/result.json").exists()


def test_a_folder_in_use_is_refused_and_overwrite_removes_the_run_alone(files, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("x")
    assert train(files, out) == 2
    assert "is not empty" in capsys.readouterr().err and (out / "precious.txt").exists()
    assert train(files, out, "--overwrite", "--save-steps", "2") == 0
    assert (out / "precious.txt").exists() and (out / "checkpoints").exists()
    (out / "embeddings.safetensors").write_text("x")
    assert train(files, out, "--overwrite") == 0
    assert (out / "precious.txt").exists() and (out / "embeddings.safetensors").exists()
    assert not (out / "checkpoints").exists()


def test_overwrite_removes_nothing_before_all_input_is_read(files, out):
    assert train(files, out, "--overwrite", "--labeled", "nowhere.csv") == 3
    assert train(files, out, "--overwrite", "--model", "no/such-model") == 2
    assert (out / "result.json").exists() and (out / "model.safetensors").exists()


def test_overwrite_takes_no_folder_of_other_people(files, tmp_path, capsys):
    """Neither one with names of a run but no run, nor that of the model to begin with."""
    notes = tmp_path / "mine/baseline/notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("x")
    assert train(files, tmp_path / "mine", "--overwrite") == 2
    assert "holds no run, but a baseline" in capsys.readouterr().err and notes.exists()
    copied = shutil.copytree(files / "model", tmp_path / "model")
    assert train(files, copied, "--overwrite", "--model", str(copied)) == 2
    assert "SSL219" in capsys.readouterr().err and (copied / "model.safetensors").exists()
    assert train(files, tmp_path / "run", "--baseline") == 0
    for model in (tmp_path / "run", tmp_path / "run/baseline"):
        assert train(files, tmp_path / "run", "--overwrite", "--model", str(model)) == 2
        assert "is among what --overwrite removes" in capsys.readouterr().err and (model / "result.json").exists()


def test_overwrite_leaves_a_run_that_is_going_on(files, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(files, out, "--baseline") == 0
    with exclusive(out / "baseline"):
        assert train(files, out, "--overwrite") == 2
    assert "another run is using" in capsys.readouterr().err and (out / "result.json").exists()


REPLACED = ["--save-steps", "2", "--replace-words", "0.1"]


@pytest.fixture(scope="module")
def replaced(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("replaced") / "out"
    assert train(files, out, *REPLACED) == 0
    return out


@pytest.mark.parametrize(
    "more", [["--model", "other"], ["--pooling", "stock"], ["--replace-words", "0.9"]], ids=lambda m: m[0]
)
@pytest.mark.parametrize("kind", ["finished", "interrupted"])
def test_resume_refuses_another_model_pooling_or_view(files, replaced, tmp_path, capsys, more, kind):
    out = shutil.copytree(replaced, tmp_path / "out")
    if kind == "interrupted":
        (out / "result.json").unlink()
    if more[1] == "other":
        more = ["--model", str(tiny_bert(tmp_path / "other"))]
    assert train(files, out, *REPLACED, *more, "--resume") == 2
    assert "SSL214" in capsys.readouterr().err


def test_a_comparison_that_was_interrupted_keeps_the_row_of_its_start(files, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    honest = runs.train

    def killed(method, *given, **more):
        done = honest(method, *given, **more)
        if method.name == "uda":  # its checkpoints are there: the start is not run again when it is resumed
            (out / "result.json").unlink()
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(runs, "train", killed)
    assert train(files, out, "--baseline", "--save-steps", "2") == 130
    monkeypatch.undo()
    capsys.readouterr()
    assert train(files, out, "--baseline", "--save-steps", "2", "--resume") == 0
    resumed = capsys.readouterr().out
    assert train(files, tmp_path / "whole", "--baseline") == 0
    assert resumed == capsys.readouterr().out and "start " in resumed


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "\x00"])
def test_a_damaged_result_is_one_line(files, out, capsys, text):
    (out / "result.json").write_text(text)
    assert train(files, out, "--resume") == 1
    assert "result.json is damaged" in capsys.readouterr().err


def test_a_refused_start_does_not_block_the_next(files, tmp_path):
    assert train(files, tmp_path / "out", "--gradient-accumulation-steps", "3") == 2
    assert train(files, tmp_path / "out") == 0


def test_leaked_test_texts_stop_the_run(files, tmp_path, capsys):
    leaking = tmp_path / "t.csv"
    leaking.write_text((files / "l.csv").read_text())
    assert train(files, tmp_path / "out", "--test", str(leaking)) == 3
    assert "SSL137" in capsys.readouterr().err


def test_seeds_get_a_folder_each_and_the_table_a_column_each(files, tmp_path, capsys):
    assert train(files, tmp_path / "out", "--seeds", "0,1", "--baseline") == 0
    shown = capsys.readouterr().out
    assert "seed 0" in shown and "seed 1" in shown and "interval" in shown
    assert (tmp_path / "out/seed-1/baseline/result.json").exists()
    first, root = (load_file(tmp_path / place / "model.safetensors") for place in ("out/seed-0", "out"))
    assert all(bool((root[k] == first[k]).all()) for k in first), "out itself opens: it holds the first seed's model"
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.id2label[1] == "pos"
    assert not (tmp_path / "out/result.json").exists()


def test_methods_lists_the_registry(capsys):
    assert run(["methods"]) == 0
    assert sorted(name for name, _, _ in rows()) == list_methods()
    shown = capsys.readouterr().out
    assert "fixmatch" in shown and "uda" in shown


@pytest.mark.parametrize("argv", [[], ["--help"], ["train", "--help"], ["predict", "--help"], ["methods", "--help"]])
def test_help_exits_0(argv, capsys):
    assert run(argv) == 0
    assert "sage" in capsys.readouterr().out


def test_unknown_command_names_the_nearest(capsys):
    assert run(["trian"]) == 2
    assert "Did you mean 'train'" in capsys.readouterr().err


def test_closed_pipe_is_quiet(out, tmp_path):
    many = tmp_path / "many.txt"
    many.write_text("a film\n" * 20000)
    script = f"{sys.executable} -m nlp_ssl.cli predict {out} {many} | head -1"
    done = subprocess.run(script, shell=True, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr and "Broken" not in done.stderr


def test_unknown_tracker_is_refused(files, tmp_path, capsys):
    assert train(files, tmp_path / "out", "--trackers", "tensorbord") == 2
    assert "tensorboard" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["none", "supervised", "contrastive"])
def test_every_warm_start_runs(files, tmp_path, capsys, start):
    assert train(files, tmp_path / "out", "--method", "uda", "--warm-start", start, "--baseline") == 0
    shown = capsys.readouterr().out
    assert "supervised" in shown and ("start " in shown) == (start != "none")


def small(files, out, *more):
    return run(["train", "--model", str(files / "model"), "--max-steps", "2", "--batch-size", "4", "--max-length", "24",
                "--warm-steps", "2", "--mixed-precision", "no", "--cache-dir", str(files / "cache"),
                "--output-dir", str(out), *more])  # fmt: skip


def test_own_column_names_beside_a_plain_text_pool(files, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text((files / "l.csv").read_text().replace("text,label", "complaint,kind", 1))
    names = ["--text-column", "complaint", "--label-column", "kind"]
    assert small(files, tmp_path / "out", "--labeled", str(own), "--unlabeled", str(files / "u.txt"), *names) == 0


NEEDS_POOL = [
    name
    for name in list_methods(in_rounds=False)
    if any(v.startswith("u") for v in get_method(name)().wanted_views()) and not get_method(name).pool_optional
]


@pytest.fixture(scope="module")
def supervised(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("supervised") / "out"
    assert small(files, out, "--method", "supervised", "--labeled", str(files / "l.csv"), "--no-report") == 0
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("method", NEEDS_POOL)
def test_without_a_pool_a_method_that_needs_one_is_supervised_training(files, supervised, tmp_path, method):
    """No unlabeled text falls back to the labels alone, with a warning."""
    argv = ["--method", method, "--labeled", str(files / "l.csv"), "--no-report"]
    assert small(files, tmp_path / "out", *argv) == 0
    found = load_file(tmp_path / "out/model.safetensors")
    assert all(bool((found[k] == supervised[k]).all()) for k in supervised)


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda d: (d / "tokenizer.json").unlink(), 3, "tokenizer.json is missing"),
        (lambda d: (d / "model.safetensors").unlink(), 3, "model.safetensors is missing"),
        (lambda d: (d / "model.safetensors").write_bytes(b"x" * 99), 2, "SSL220"),
        (lambda d: save_file({}, d / "model.safetensors", metadata={"format": "pt"}), 2, "do not fit together"),
        (lambda d: save_file({k: v * float("nan") for k, v in load_file(d / "model.safetensors").items()},
                             d / "model.safetensors", metadata={"format": "pt"}), 1, "not numbers"),
    ],
)  # fmt: skip
def test_predict_refuses_a_damaged_model(files, out, capsys, damage, code, message):
    damage(out)
    assert run(["predict", str(out), str(files / "u.txt")]) == code
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and "\t" not in captured.out


def test_texts_beyond_the_positions_of_the_model(files, out, tmp_path, capsys):
    """The tiny BERT has 64 positions."""
    assert train(files, tmp_path / "no", "--max-length", "65") == 2
    assert "positions for 64 tokens" in capsys.readouterr().err
    (tmp_path / "long.txt").write_text("good " * 500 + "\n")
    assert run(["predict", str(out), str(tmp_path / "long.txt")]) == 0, "cut as in training"
    assert run(["predict", str(out), str(tmp_path / "long.txt"), "--max-length", "65"]) == 2
    assert run(["predict", str(out), str(tmp_path / "long.txt"), "--max-length", "-5"]) == 2


def test_a_model_that_is_half_written_is_not_taken_for_whole(files, out, monkeypatch):
    moved = []

    def killed(source, target):
        moved.append(target.name)
        if len(moved) > 2:
            raise KeyboardInterrupt
        honest(source, target)

    honest = os.replace
    monkeypatch.setattr(model_files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        model_files.save_model(load_text_net(str(out)), out)
    monkeypatch.undo()
    assert run(["predict", str(out), str(files / "u.txt")]) == 3
    model_files.save_model(load_text_net(str(files / "model")), out)
    assert not list(out.glob(".model-*")) and run(["predict", str(out), str(files / "u.txt")]) == 0


def test_closed_or_full_output_is_no_traceback(tmp_path):
    for command in ("methods | true", "--help | true", "methods > /dev/full"):
        script = f"{sys.executable} -m nlp_ssl.cli {command}"
        done = subprocess.run(script, shell=True, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, command
