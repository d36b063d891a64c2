"""The guard speaks when pseudo-labels go wrong, and only then."""

import math

import pytest
import torch

from nlp_ssl.methods import FixMatch
from nlp_ssl.run import StepContext
from nlp_ssl.training.guard import Guard
from nlp_ssl.types import DataSpec

NAMES = ("neg", "pos")
FINE = {"mask_rate": 0.5, "pseudo_entropy": 0.3, "pseudo_hist": [0.55, 0.45]}
COLLAPSED = {**FINE, "pseudo_hist": [0.97, 0.03]}
STARVED = {**FINE, "mask_rate": 0.001}
FLAT = {**FINE, "pseudo_entropy": 0.999 * math.log(2)}


def said(guard, lines, progress=0.5):
    return [guard.check(line, progress) for line in lines]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (COLLAPSED, "97% of the pseudo-labels are one class, 'neg':"),
        (STARVED, "only 0.1% of the pool"),
        (FLAT, "uniform"),
    ],
)
def test_the_third_bad_record_in_a_row_warns_once(line, words):
    first, second, third, *later = said(Guard(NAMES), [line] * 6)
    assert first is None and second is None and later == [None] * 3
    assert words in third and "\n" not in third


@pytest.mark.parametrize("line", [COLLAPSED, STARVED, FLAT])
def test_a_good_record_in_between_starts_the_count_again(line):
    assert said(Guard(NAMES), [line, line, FINE, line, line]) == [None] * 5


def test_good_records_and_methods_without_pseudo_labels_are_silent():
    assert said(Guard(NAMES), [FINE] * 10) == [None] * 10
    assert said(Guard(NAMES), [{"loss": 0.1}] * 10) == [None] * 10


@pytest.mark.parametrize("line", [STARVED, FLAT])
def test_few_or_uniform_labels_are_normal_at_first(line):
    assert said(Guard(NAMES), [line] * 5, progress=0.1) == [None] * 5


def test_collapse_warns_at_once_in_training():
    assert any(said(Guard(NAMES), [COLLAPSED] * 3, progress=0.05))


@pytest.mark.parametrize(("share", "prior", "warns"), [(0.8, None, True), (0.7, None, False), (0.8, (0.7, 0.3), False),
                                                       (0.9, (0.7, 0.3), True)])  # fmt: skip
def test_collapse_is_half_way_between_the_largest_expected_share_and_all(share, prior, warns):
    """Two classes: half-way from 0.5 to 1 is 0.75; with a class of 0.7 in the pool it is 0.85."""
    lines = [{**FINE, "pseudo_hist": [share, 1 - share]}] * 3
    assert any(said(Guard(NAMES, prior), lines)) is warns


def test_counts_can_be_saved_and_restored():
    """`seen` is what a checkpoint keeps: a resumed guard warns where the first one would have."""
    first = Guard(NAMES)
    said(first, [COLLAPSED, COLLAPSED])
    second = Guard(NAMES)
    second.seen = dict(first.seen)
    assert second.check(COLLAPSED, 0.5) == first.check(COLLAPSED, 0.5) is not None


def test_what_the_guard_reads():
    """Three rows: two kept, of which one has a known class and is right; the third is known but not kept.

    Entropies 0.325083, 0.325083 and ln 2 = 0.693147: mean 0.447771.
    """
    run = StepContext(FixMatch(), {}, DataSpec(2))
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    run.watch(p, torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0, -1, 1]))
    found = {name: value.tolist() for name, value in run.flush().items()}
    assert found.pop("pseudo_hist") == pytest.approx([2 / 3, 1 / 3])
    wanted = {"mask_rate": 2 / 3, "pseudo_entropy": 0.447771, "pseudo_known": 1, "pseudo_right": 1}
    assert found == {name: pytest.approx(value, abs=1e-6) for name, value in wanted.items()}


def test_the_log_holds_means_since_the_last_line():
    run = StepContext(FixMatch(), {}, DataSpec(2))
    run.log("loss", torch.tensor(1.0, requires_grad=True))
    run.log("loss", 3.0)
    assert {k: v.item() for k, v in run.flush().items()} == {"loss": 2.0}
    run.log("loss", 5.0)
    assert {k: v.item() for k, v in run.flush().items()} == {"loss": 5.0} and run.flush() == {}
