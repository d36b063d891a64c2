"""Given pseudo-labels in tables, reports and warnings: what is said of them is true."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import FAST, tiny_task

from nlp_ssl import SelfTraining, Supervised
from nlp_ssl.experiments.compare import compare
from nlp_ssl.report.card import card
from nlp_ssl.report.collect import collect
from nlp_ssl.rounds.engine import fit_rounds
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import PseudoLabels


@pytest.fixture
def task(tmp_path):
    return tiny_task(tmp_path)


def true_pseudo_labels(task, rows):
    """Labels for the first `rows` pool rows, the hidden true ones."""
    truth = task.data.labels[task.data.unlabeled]
    copies = (np.arange(len(truth)) < rows).astype(int)
    return PseudoLabels(np.eye(2)[truth], copies, np.ones(len(truth)), hard=True)


def test_supervised_training_on_them_is_held_against_the_labels_alone(task, tmp_path):
    given = replace(task, pseudo_labels=true_pseudo_labels(task, 80))
    found = compare(Supervised(), given, FAST, seeds=[0], baseline=True, folder=tmp_path / "out")
    assert list(found.results) == ["supervised", "pseudo_labels"]
    assert found.method == "pseudo_labels"
    assert "pseudo_labels" in found.verdict()
    alone = compare(Supervised(), task, FAST, seeds=[0], baseline=True)
    assert list(alone.results) == ["supervised"]
    assert alone.results["supervised"][0].scores == found.results["supervised"][0].scores
    assert list(collect(tmp_path / "out").comparison.results) == ["supervised", "pseudo_labels"]


def test_reports_count_labels_of_their_own_once_and_the_others_apart(task, tmp_path):
    given = replace(task, pseudo_labels=true_pseudo_labels(task, 80))
    compare(Supervised(), given, FAST, seeds=[0], baseline=False, folder=tmp_path / "out")
    facts = collect(tmp_path / "out").first.predictions.facts
    assert facts["rows"] == {"labeled": 16, "pseudo_labeled": 80, "unlabeled": 96, "dev": 0, "test": 40}
    assert facts["labels"] == [8, 8]
    assert "| unlabeled rows | 96 (80 pseudo-labeled) |" in card(collect(tmp_path / "out"), "mit")


def test_a_student_of_a_loop_knows_what_was_labeled(task, tmp_path):
    fit_rounds(SelfTraining(rounds=1, threshold=0.0), task, FAST, folder=RunFolder(tmp_path / "out"))
    facts = collect(tmp_path / "out").first.predictions.facts
    assert (facts["rows"]["labeled"], facts["rows"]["unlabeled"], facts["labels"]) == (16, 96, [8, 8])


def of_one_class(teacher):
    p = np.tile([0.1, 0.9], (96, 1))
    return PseudoLabels(p, np.ones(96, dtype=int), np.ones(96), hard=True)


def test_rounds_whose_labels_are_one_class_are_warned_of(task, monkeypatch):
    assert not fit_rounds(
        SelfTraining(rounds=1), replace(task, pseudo_labels=true_pseudo_labels(task, 96)), FAST
    ).warnings
    monkeypatch.setattr(SelfTraining, "label", lambda self, teacher: of_one_class(teacher))
    found = fit_rounds(SelfTraining(rounds=1), task, FAST)
    assert found.warnings == [
        "round 1: 100% of the pseudo-labels are one class, 'pos': they have collapsed or the pool is not of this task; "
        "add labels or steps"
    ]
    assert not fit_rounds(SelfTraining(rounds=1), task, replace(FAST, guard=False)).warnings
