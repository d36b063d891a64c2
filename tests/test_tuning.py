"""Settings chosen by held-out labels: the choice by hand, and `train --tune` end to end."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import FAST, tiny_task

from nlp_ssl import FixMatch, Supervised
from nlp_ssl.cli import run
from nlp_ssl.data.folds import folds
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments import tuning
from nlp_ssl.experiments.compare import run_one
from nlp_ssl.experiments.tuning import (
    Candidate,
    Judged,
    _kappa,
    best,
    held_out_start,
    threshold_for,
    tune,
)
from nlp_ssl.inference.predict import predict
from nlp_ssl.rounds.self_training import SelfTraining
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils.lock import exclusive


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny_task(tmp_path_factory.mktemp("tuning"))


@pytest.fixture(scope="module")
def many(task):
    """So many labels that a net can learn from a part of them what the others are."""
    data = task.data
    known, pool = data.test[:60], data.unlabeled[:20]
    return replace(task, data=replace(data, labeled=known, unlabeled=pool, test=data.test[60:]))


def judged(right, agreement, rows=100):
    return Judged("", np.arange(rows) < right, agreement)


def test_the_one_that_is_right_most_often_is_taken():
    assert best([judged(60, 0.9), judged(90, 0.1), judged(70, 0.8)]) == 1


def test_of_those_that_nothing_tells_apart_the_one_that_agrees_most_is_taken():
    # 90 and 88 of 100 differ in two labels: by 0.02, with a standard error of sqrt(0.02 * 0.98 / 99) = 0.0141.
    assert best([judged(90, 0.5), judged(88, 0.9)]) == 0
    # One label is a difference of 0.01 with a standard error of sqrt(0.01 * 0.99 / 99) = 0.01.
    assert best([judged(90, 0.5), judged(89, 0.9)]) == 1
    # Now one label of theirs is right where the other is wrong, and two the other way round: 0.01 +- 0.0173.
    other = np.arange(100) < 88
    other[99] = True
    assert best([judged(90, 0.5), Judged("", other, 0.9)]) == 1


def test_the_first_of_equals_is_taken():
    assert best([judged(50, 0.3), judged(50, 0.3)]) == 0


def test_agreement_is_what_chance_does_not_explain():
    # 3 of 4 agree; chance: 0.5 * 0.75 + 0.5 * 0.25 = 0.5.
    assert _kappa(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), 2) == pytest.approx(0.5)
    assert _kappa(np.array([1, 1]), np.array([1, 1]), 2) == 0.0
    assert _kappa(np.array([0, 1]), np.array([0, 1]), 2) == 1.0


def test_a_threshold_is_the_lowest_that_is_precise_enough():
    p = torch.tensor([[0.95, 0.05], [0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 0, 0])  # the fourth is wrong
    # (right + 1) / (n + 2), surest first: 2/3, 3/4, 4/5, 4/6, 5/7.
    assert threshold_for(p, labels, 0.8) == pytest.approx(0.8)
    assert threshold_for(p, labels, 0.7) == pytest.approx(0.6)
    assert threshold_for(p, labels, 0.9) is None


def test_folds_hold_out_every_label_once_and_never_train_on_it(task):
    parts = list(folds(task.data, 3, 0))
    assert sorted(np.concatenate([out for _, out in parts])) == list(range(len(task.data.labeled)))
    for part, out in parts:
        held = task.data.labeled[out]
        assert not np.isin(held, np.concatenate([part.labeled, part.unlabeled, part.dev, part.test])).any()
        assert set(task.data.labels[held]) == {0, 1}


def test_weights_stay_with_their_rows_and_another_seed_holds_out_others(task):
    data = replace(task.data, weights=np.arange(len(task.data.labeled), dtype=float))
    (part, out), *_ = folds(data, 2, 0)
    assert sorted([*part.weights, *out]) == list(range(len(data.labeled)))
    assert out.tolist() != next(folds(data, 2, 1))[1].tolist()


def test_students_do_not_know_the_label_either(task, tmp_path, monkeypatch):
    known, stores = [], []

    def watched(method, part, *given, **more):
        known.append((part.data.labeled, part.student.data.labeled))
        return run_one(method, part, *given, **more)

    def noted(net, store, *given, **more):
        stores.append(store)
        return predict(net, store, *given, **more)

    monkeypatch.setattr(tuning, "run_one", watched)
    monkeypatch.setattr(tuning, "predict", noted)
    other = tiny_task(tmp_path / "other")
    tune([Candidate("one", SelfTraining(rounds=1), FAST)], replace(task, student=other), 2, RunFolder(tmp_path))
    for own, students in known:
        assert len(own) == len(task.data.labeled) // 2 and students.tolist() == own.tolist()
    assert all(store is other.data.store for store in stores) and len(stores) == 2


def test_runs_of_a_choice_have_no_dev_rows_to_look_at(task, tmp_path):
    data = replace(task.data, dev=task.data.test)
    looking = replace(FAST, eval_steps=1, patience=1, calibrate="dev", save_steps=1)
    assert tune([Candidate("one", FixMatch(), looking)], replace(task, data=data), 2, RunFolder(tmp_path))


def test_a_candidate_is_judged_by_runs_that_do_not_know_the_label(many, tmp_path):
    good = replace(FAST, max_steps=120, learning_rate=3e-3)
    bad = replace(FAST, max_steps=1, learning_rate=1e-8)
    several = [Candidate("bad", Supervised(), bad), Candidate("good", Supervised(), good)]
    found = tune(several, many, 2, RunFolder(tmp_path))
    assert found[1].right.mean() > found[0].right.mean() + 0.2
    assert best(found) == 1
    assert not (tmp_path / "tuning").exists()


def test_a_choice_goes_on_where_it_stopped(task, tmp_path, caplog):
    several = [Candidate("one", FixMatch(), FAST), Candidate("rounds", SelfTraining(rounds=1), FAST)]
    before = tune(several, task, 2, RunFolder(tmp_path))
    lines = (tmp_path / "tuning.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 4
    (tmp_path / "tuning.jsonl").write_text("".join(lines[:3]) + lines[3][:20])  # killed while it wrote
    with caplog.at_level(logging.INFO, "nlp_ssl"):
        after = tune(several, task, 2, RunFolder(tmp_path))
    assert [r.getMessage().rsplit(",", 1)[0] for r in caplog.records] == ["choosing settings, run 4 of 4: rounds"]
    for a, b in zip(before, after, strict=True):
        assert (a.right == b.right).all()
        assert a.agreement == b.agreement


def test_other_settings_of_the_same_name_are_run_again(task, tmp_path):
    tune([Candidate("one", FixMatch(), FAST)], task, 2, RunFolder(tmp_path))
    tune([Candidate("one", FixMatch(weight=0.5), FAST)], task, 2, RunFolder(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "tuning.jsonl").read_text().splitlines()]
    assert len({(line["key"], line["fold"]) for line in lines}) == 4


def test_other_parts_and_labels_from_elsewhere_are_run_again(task, tmp_path):
    one = [Candidate("one", FixMatch(), FAST)]
    tune(one, task, 2, RunFolder(tmp_path))
    pseudo_labels = PseudoLabels(
        np.tile([0.9, 0.1], (len(task.data.unlabeled), 1)), *np.ones((2, len(task.data.unlabeled)), int)
    )
    for number, of in ((3, task), (2, replace(task, pseudo_labels=pseudo_labels))):
        assert len(tune(one, of, number, RunFolder(tmp_path))[0].right) == len(task.data.labeled)
    lines = [json.loads(line) for line in (tmp_path / "tuning.jsonl").read_text().splitlines()]
    assert len({(line["key"], line["fold"]) for line in lines}) == len(lines) == 7


def test_two_choices_in_one_folder_are_refused(task, tmp_path):
    with exclusive(tmp_path), pytest.raises(ConfigError, match="SSL217"):
        tune([Candidate("one", FixMatch(), FAST)], task, 2, RunFolder(tmp_path))


def test_one_label_of_a_class_is_too_few(task, tmp_path):
    few = replace(task, data=replace(task.data, labeled=task.data.labeled[:1]))
    with pytest.raises(ConfigError, match="SSL405"):
        tune([Candidate("one", FixMatch(), FAST)], few, 2, RunFolder(tmp_path))


def test_the_start_is_held_out_too(many):
    p = held_out_start(many, replace(FAST, warm_start="supervised", warm_steps=60, learning_rate=3e-3), 2)
    assert p.sum(1).numpy() == pytest.approx(1.0)
    assert (p.argmax(1).numpy() == many.data.labels[many.data.labeled]).mean() > 0.7


# --- the command ---

QUICK = ("--max-steps=2", "--batch-size=4", "--warm-start=none", "--mixed-precision=no", "--max-length=24")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from tiny import BAD, GOOD, tiny_bert

    folder = tmp_path_factory.mktemp("files")
    tiny_bert(folder / "model")
    rows = [f"{GOOD[i]} {GOOD[i - 1]} plot,pos\n{BAD[i]} {BAD[i - 1]} plot,neg\n" for i in range(8)]
    (folder / "l.csv").write_text("text,label\n" + "".join(rows))
    (folder / "u.txt").write_text("".join(f"a {GOOD[i % 8]} scene {i}\na {BAD[i % 8]} story {i}\n" for i in range(20)))
    return [f"--model={folder / 'model'}", f"--labeled={folder / 'l.csv'}", f"--unlabeled={folder / 'u.txt'}", *QUICK]


def test_train_uses_what_was_chosen(files, tmp_path, caplog):
    out = tmp_path / "out"
    argv = ["train", "--method=fixmatch", *files, f"--output-dir={out}", "--tune=weight=0.25,0.5", "--folds=2"]
    with caplog.at_level(logging.INFO, "nlp_ssl"):
        assert run(argv) == 0
    chosen = next(m for r in caplog.records if (m := r.getMessage()).startswith("chosen: "))
    made = json.loads((out / "result.json").read_text())["identity"]
    assert f"--weight={made['options']['weight']}" in chosen
    assert made["options"]["weight"] in (0.25, 0.5)
    assert len((out / "tuning.jsonl").read_text().splitlines()) == 4
    assert run([*argv, "--overwrite"]) == 0
    assert len((out / "tuning.jsonl").read_text().splitlines()) == 4  # of an earlier choice nothing is left


def test_methods_can_be_chosen_among(files, tmp_path):
    out = tmp_path / "out"
    argv = ["train", "--method=fixmatch", *files, f"--output-dir={out}", "--tune=method=supervised,uda", "--folds=2"]
    assert run(argv) == 0
    assert json.loads((out / "result.json").read_text())["identity"]["method"] in ("supervised", "uda")


def test_a_threshold_is_chosen_by_precision(files, tmp_path, caplog):
    start = ["--warm-start=supervised", "--warm-steps=80", "--learning-rate=3e-3"]
    argv = ["train", "--method=fixmatch", *files, *start, f"--output-dir={tmp_path / 'out'}"]
    with caplog.at_level(logging.INFO, "nlp_ssl"):
        assert run([*argv, "--threshold-precision=0.6"]) == 0
    made = json.loads((tmp_path / "out" / "result.json").read_text())["identity"]["options"]["threshold"]
    assert f"chosen: --threshold={made:.3f}" in caplog.messages


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tune=threshold"], "SSL407"),
        (["--tune=labeled=a.csv,b.csv"], "SSL407"),
        (["--tune=threshhold=0.5,0.9"], "--threshold"),
        (["--tune=threshold=2,3"], "threshold"),
        (["--tune=threshold=0.5,0.9", "--budget=1"], "SSL409"),
        (["--folds=1", "--tune=threshold=0.5"], "folds"),
        (["--folds=2"], "--folds is of --tune"),
        (["--tune="], "SSL407"),
        (["--tune=threshold=0.5 threshold=0.9"], "names threshold twice"),
        (["--tune=seed=0,1"], "SSL407"),
        (["--tune=threshold=0.5", "--threshold-precision=0.9"], "SSL409"),
        (["--tune=thresholds=0.5", "--dry-run"], "--threshold"),
    ],
)
def test_what_cannot_be_chosen_is_refused(files, tmp_path, capfd, flags, said):
    assert run(["train", "--method=fixmatch", *files, f"--output-dir={tmp_path / 'out'}", *flags]) == 2
    assert said in capfd.readouterr().err


def test_a_wrong_wish_removes_no_run(files, tmp_path):
    argv = ["train", "--method=fixmatch", *files, f"--output-dir={tmp_path / 'out'}"]
    assert run(argv) == 0
    assert run([*argv, "--overwrite", "--tune=threshold=abc"]) == 2
    assert (tmp_path / "out/model.safetensors").exists()


def test_methods_without_a_threshold_say_so(files, tmp_path, capfd):
    argv = ["train", "--method=pi_model", *files, f"--output-dir={tmp_path / 'out'}", "--threshold-precision=0.9"]
    assert run(argv) == 2
    assert "SSL408" in capfd.readouterr().err


def test_a_dry_run_tells_what_the_choice_takes(files, tmp_path, capsys):
    argv = ["train", "--method=fixmatch", *files, f"--output-dir={tmp_path / 'out'}", "--tune=weight=0.25,0.5"]
    assert run([*argv, "--dry-run"]) == 0
    assert "to choose settings in 6 runs" in capsys.readouterr().out
    assert run([*argv, "--dry-run", "--folds=50"]) == 0
    assert "in 16 runs" in capsys.readouterr().out  # there are eight labels a class
    assert not (tmp_path / "out").exists()
