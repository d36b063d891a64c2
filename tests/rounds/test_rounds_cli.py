"""Rounds, given pseudo-labels and saved teachers through `nlp-ssl train`."""

import json

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from tiny import tiny_bert, tiny_files

from nlp_ssl.cli import run
from nlp_ssl.registry import list_methods


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp("cli"))


def train(files, out, *more):
    return run([
        "train", "--model", str(files / "model"), "--labeled", str(files / "l.csv"), "--unlabeled",
        str(files / "u.txt"), "--test", str(files / "t.csv"), "--max-steps", "3", "--batch-size", "4",
        "--max-length", "24", "--warm-steps", "2", "--mixed-precision", "no", "--cache-dir", str(files / "cache"),
        "--output-dir", str(out), *more,
    ])  # fmt: skip


def same_model(a, b):
    one, two = (load_file(folder / "model.safetensors") for folder in (a, b))
    return all(bool((one[k] == two[k]).all()) for k in one)


def test_a_loop_trains_on_files_and_leaves_its_labels(files, tmp_path, capsys, caplog):
    caplog.set_level("INFO", logger="nlp_ssl")
    out = tmp_path / "out"
    flags = ["--method", "self_training", "--rounds", "2", "--threshold", "0.5", "--baseline"]
    assert train(files, out, *flags) == 0
    shown = capsys.readouterr().out
    assert "self_training" in shown and "difference" in shown
    rows = pq.read_table(out / "round-1/pseudo_labels.parquet").to_pylist()
    assert [row["text"] for row in rows] == (files / "u.txt").read_text().splitlines()
    assert run(["predict", str(out), str(files / "u.txt")]) == 0
    capsys.readouterr()
    assert train(files, out, *flags, "--resume") == 0
    assert "already done" in caplog.text
    assert train(files, out, "--overwrite") == 0 and not (out / "round-1").exists()


def test_labels_of_a_round_can_be_given_back(files, tmp_path):
    """What the student of the first round learned is what they teach; the batch is then that of the method."""
    assert train(files, tmp_path / "a", "--method", "noisy_student", "--rounds", "1") == 0
    labels = str(tmp_path / "a/round-1/pseudo_labels.parquet")
    assert train(files, tmp_path / "b", "--method", "supervised", "--pseudo-labels", labels) == 0
    assert train(files, tmp_path / "c", "--method", "supervised") == 0
    assert not same_model(tmp_path / "b", tmp_path / "c")


def test_noisy_labels_from_elsewhere_go_into_any_method(files, tmp_path, caplog):
    caplog.set_level("INFO", logger="nlp_ssl")
    noisy = ["--pseudo-labels", str(files / "noisy.csv")]
    for method, more in (("supervised", []), ("dividemix", []), ("ust", ["--rounds", "1", "--passes", "2"])):
        out = tmp_path / method
        assert train(files, out, "--method", method, *noisy, *more) == 0
        assert "labels for 40 of 84 pool texts" in caplog.text  # twenty of them are new texts
        assert train(files, tmp_path / "plain" / method, "--method", method, *more) == 0
        assert not same_model(out, tmp_path / "plain" / method)
        caplog.clear()


def test_a_saved_classifier_teaches_a_method_or_a_loop(files, tmp_path):
    assert train(files, tmp_path / "teacher") == 0
    teacher = ["--teacher", str(tmp_path / "teacher")]
    for method in ("distillation", "supervised", "noisy_student"):
        more = ["--rounds", "1"] if method == "noisy_student" else []
        assert train(files, tmp_path / method, "--method", method, *teacher, *more) == 0
        assert train(files, tmp_path / "alone" / method, "--method", method, *more) == 0
        assert not same_model(tmp_path / method, tmp_path / "alone" / method)
    saved = json.loads((tmp_path / "distillation/result.json").read_text())
    assert "frozen_nets" in saved["identity"] and not any("copy of the student" in w for w in saved["warnings"])


def test_students_may_be_another_model(files, tmp_path):
    tiny_bert(tmp_path / "small", dropout=0.0)
    more = ["--method", "self_training", "--rounds", "1", "--threshold", "0", "--student", str(tmp_path / "small")]
    assert train(files, tmp_path / "out", *more) == 0
    assert json.loads((tmp_path / "out/config.json").read_text())["hidden_dropout_prob"] == 0.0
    assert json.loads((tmp_path / "out/round-0/config.json").read_text())["hidden_dropout_prob"] == 0.1


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--method", "uda", "--student", "x"], 2, "SSL237: --student is for noisy_student, self_training, ust"),
        (["--pseudo-labels", "l.csv", "--teacher", "x"], 2, "SSL232: --pseudo-labels and --teacher"),
        (["--method", "self_trainin"], 2, "Did you mean 'self_training'"),
        (["--method", "self_training", "--rounds", "0"], 2, "SSL202: rounds"),
        (["--teacher", "nowhere"], 3, "SSL123: nowhere: no whole trained model"),
        (["--pseudo-labels", "nowhere.csv"], 3, "nowhere.csv"),
    ],
)
def test_errors_are_one_line(files, tmp_path, capsys, more, code, message):
    assert train(files, tmp_path / "out", *more) == code
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown and shown.splitlines()[-1].startswith("SSL")


@pytest.mark.parametrize("name", list_methods(in_rounds=True))
def test_every_loop_explains_its_flags(name, capsys):
    """Which fails where one of them has the name of a flag of the files or of the training loop."""
    assert run(["train", "--method", name, "--help"]) == 0 and run(["pipeline", "--method", name, "--help"]) == 0
    assert "--rounds" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_with_the_same_settings_alone(files, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--method", "self_training", "--rounds", "2", "--threshold", "0.5"]
    assert train(files, out, *flags) == 0
    (out / "result.json").unlink()  # as if it had been killed
    capsys.readouterr()
    for more in (["--threshold", "0.6"], ["--seed", "1"]):
        assert train(files, out, *flags, *more, "--resume") == 2
        assert "SSL214" in capsys.readouterr().err
    assert train(files, out, "--method", "fixmatch", "--resume") == 2
    assert "method: self_training -> fixmatch" in capsys.readouterr().err
    assert train(files, out, *flags, "--resume") == 0


def test_a_resumed_run_keeps_the_warnings_of_earlier_rounds(files, tmp_path):
    flags = ["--method", "self_training", "--rounds", "1", "--threshold", "1"]
    assert train(files, tmp_path / "out", *flags) == 0
    result = tmp_path / "out/result.json"
    before = json.loads(result.read_text())["warnings"]
    assert any("round 1: 0.0% of the pool have a pseudo-label" in warning for warning in before)
    result.unlink()
    lines = (tmp_path / "out/rounds.jsonl").read_text().splitlines(keepends=True)
    warned = json.dumps(json.loads(lines[0]) | {"warnings": ["of the teacher"]})
    (tmp_path / "out/rounds.jsonl").write_text(f"{warned}\n{lines[1][:20]}")  # the last line is cut
    assert train(files, tmp_path / "out", *flags, "--resume") == 0
    assert json.loads(result.read_text())["warnings"] == ["of the teacher", *before]


def test_rows_of_a_file_that_count(files, tmp_path, capsys):
    """A list of probabilities in CSV does; a file without a label that does is refused, as parts of copies are."""
    text = (files / "u.txt").read_text().splitlines()[0]
    noisy = tmp_path / "noisy.csv"
    flags = ["--method", "ust", "--rounds", "1", "--passes", "2", "--pseudo-labels", str(noisy)]
    noisy.write_text(f'text,label,probabilities\n{text},pos,"[0.25, 0.75]"\n')
    assert train(files, tmp_path / "out", *flags) == 0
    assert [0.25, 0.75] in pq.read_table(tmp_path / "out/round-1/pseudo_labels.parquet")["probabilities"].to_pylist()
    for rows, said in (("text,label,weight\n{},pos,0\n", "SSL185"), ("text,label,copies\n{},pos,0.4\n", "whole number"),
                       ('text,label,probabilities\n{},pos,"[0.25, x]"\n', "SSL146")):  # fmt: skip
        noisy.write_text(rows.format(text))
        assert train(files, tmp_path / "none", *flags) == 3
        assert said in capsys.readouterr().err


def test_answers_of_a_teacher_that_are_damaged_on_disk_are_computed_again(files, tmp_path):
    assert train(files, tmp_path / "teacher") == 0
    flags = ["--method", "supervised", "--teacher", str(tmp_path / "teacher"), "--cache-dir", str(tmp_path / "cache")]
    assert train(files, tmp_path / "a", *flags) == 0
    (kept,) = (tmp_path / "cache/teachers").glob("*.npy")
    kept.write_bytes(kept.read_bytes()[:100])
    assert train(files, tmp_path / "b", *flags) == 0 and same_model(tmp_path / "a", tmp_path / "b")


def test_test_rows_of_a_label_file_do_not_join_the_pool(files, tmp_path):
    noisy = tmp_path / "noisy.csv"
    noisy.write_text("text,label,split\na film of its own,pos,train\na film to be tested on,pos,test\n")
    flags = ["--method", "self_training", "--rounds", "1", "--pseudo-labels", str(noisy)]
    assert train(files, tmp_path / "out", *flags) == 0
    pool = pq.read_table(tmp_path / "out/round-1/pseudo_labels.parquet")["text"].to_pylist()
    assert "a film of its own" in pool and "a film to be tested on" not in pool
