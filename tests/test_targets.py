"""Pseudo-label policies on probabilities small enough to follow by eye."""

import pytest
import torch

from nlp_ssl.methods import FixMatch
from nlp_ssl.ops.targets import classwise, confident, estimate_prior, relative, top_k_per_class
from nlp_ssl.run import StepContext
from nlp_ssl.types import DataSpec

P = torch.tensor(
    [
        [0.90, 0.05, 0.05],
        [0.50, 0.30, 0.20],
        [0.10, 0.80, 0.10],
        [0.05, 0.25, 0.70],
        [0.60, 0.20, 0.20],
        [0.20, 0.60, 0.20],
    ]
)


def test_confident_keeps_what_reaches_the_threshold():
    assert confident(P, 0.7).tolist() == [1, 0, 1, 1, 0, 0]
    assert confident(P, float(P[3].max())).tolist() == [1, 0, 1, 1, 0, 0]  # a row on the threshold stays
    assert confident(P, 0.0).sum() == 6 and confident(P, 1.01).sum() == 0
    assert confident(P, torch.tensor(0.85)).tolist() == [1, 0, 0, 0, 0, 0]


def test_a_higher_threshold_keeps_fewer():
    kept = [confident(P, t / 20) for t in range(21)]
    assert all(bool((b <= a).all()) for a, b in zip(kept, kept[1:], strict=False))


def test_relative_to_the_labeled_rows():
    """Mean confidence of the labeled rows (0.9 + 0.7) / 2 = 0.8; 0.8 x 0.8 = 0.64."""
    labeled = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7]])
    assert relative(P, labeled, 0.8).tolist() == [1, 0, 1, 1, 0, 0]


def test_classwise_takes_the_threshold_of_the_predicted_class():
    assert classwise(P, torch.tensor([0.55, 0.7, 0.9])).tolist() == [1, 0, 1, 0, 1, 0]
    assert torch.equal(classwise(P, torch.full((3,), 0.7)), confident(P, 0.7))


def test_top_k_per_class():
    """Class 0 has rows 0, 4, 1 in falling confidence, class 1 rows 2 and 5, class 2 row 3."""
    assert top_k_per_class(P, 1).tolist() == [1, 0, 1, 1, 0, 0]
    assert top_k_per_class(P, 2).tolist() == [1, 0, 1, 1, 1, 1]
    assert top_k_per_class(P, 9).sum() == 6 and top_k_per_class(P, 0).sum() == 0


def test_top_k_ties_go_to_the_first_row():
    assert top_k_per_class(torch.tensor([[0.4, 0.6], [0.4, 0.6], [0.4, 0.6]]), 2).tolist() == [1, 1, 0]


def test_weights_carry_no_gradient_and_have_the_type_of_p():
    p = P.double().requires_grad_()
    made = [confident(p, 0.5), relative(p, p[:2], 0.9), classwise(p, torch.full((3,), 0.5)), top_k_per_class(p, 1)]
    assert all(not w.requires_grad and w.dtype == torch.float64 and w.shape == (6,) for w in made)


# --- class shares of the pool ---


def test_class_shares_of_certain_predictions():
    """Three rows of four are surely class 0. Half-way from even shares: sqrt(0.75) : sqrt(0.25) = 0.634 : 0.366."""
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert estimate_prior(p, torch.tensor([0.5, 0.5])) == pytest.approx((0.633975, 0.366025), abs=1e-6)


def test_class_shares_stay_where_predictions_say_nothing():
    trained = torch.tensor([0.5, 0.3, 0.2])
    assert estimate_prior(trained.expand(10, 3), trained) == pytest.approx(trained.tolist(), abs=1e-6)


def test_expectation_maximisation_recovers_a_shift_of_shares():
    """A model that is right about p(text | class) and was trained on even shares, on a pool of 80 : 20.

    Its mean prediction (0.65) is nearer to even than the truth; the estimate before damping is the truth.
    """
    rng = torch.Generator().manual_seed(0)
    first = torch.rand(20_000, generator=rng) < 0.8
    x = torch.randn(20_000, generator=rng) + torch.where(first, 0.7, -0.7)
    p = torch.sigmoid(2 * 0.7 * x)  # even shares, unit variance, means at 0.7 and -0.7
    found = estimate_prior(torch.stack([p, 1 - p], 1), torch.tensor([0.5, 0.5]))
    assert p.mean() < 0.7
    assert found[0] / found[1] == pytest.approx((0.8 / 0.2) ** 0.5, rel=0.05)


def running(prior, mean):
    state = {} if mean is None else {"pool_mean": torch.tensor(mean)}
    return StepContext(FixMatch(), {}, DataSpec(2, prior=prior), state=state)


def test_pseudo_labels_are_aligned_to_the_shares():
    """Running mean 0.95 x (0.75, 0.25) + 0.05 x (0.75, 0.25): as it was. Wanted even, so p (0.6, 0.4) is weighed
    0.5 / 0.75 : 0.5 / 0.25, that is 0.4 : 0.8, and (0.9, 0.1) 0.6 : 0.2.
    """
    run = running((0.5, 0.5), [0.75, 0.25])
    found = run.aligned(torch.tensor([[0.6, 0.4], [0.9, 0.1]]))
    assert found.flatten().tolist() == pytest.approx([1 / 3, 2 / 3, 0.75, 0.25], abs=1e-4)


def test_the_mean_follows_the_predictions():
    """0.95 x 0.5 + 0.05 x 0.9 = 0.52 after one batch of 0.9, and 0.9 in the end; then p is pulled to the shares."""
    run, p = running((0.7, 0.3), [0.5, 0.5]), torch.tensor([[0.9, 0.1]] * 4)
    run.aligned(p)
    assert run.state["pool_mean"].tolist() == pytest.approx([0.52, 0.48])
    for _ in range(200):
        found = run.aligned(p)
    assert run.state["pool_mean"].tolist() == pytest.approx([0.9, 0.1], abs=1e-3)
    assert found[0].tolist() == pytest.approx([0.7, 0.3], abs=1e-3)


@pytest.mark.parametrize(("prior", "mean"), [(None, None), (None, [0.5, 0.5]), ((0.5, 0.5), None)])
def test_nothing_is_aligned_without_an_estimate(prior, mean):
    p = torch.tensor([[0.9, 0.1]])
    assert running(prior, mean).aligned(p) is p


def test_the_last_of_two_values_for_a_row_counts():
    run = StepContext(FixMatch(), {}, DataSpec(2), state={"seen": torch.zeros(4, 2)})
    run.remember(
        "seen", torch.tensor([2, 0, 2]), torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], requires_grad=True)
    )
    assert run.state["seen"].tolist() == [[2, 2], [0, 0], [3, 3], [0, 0]] and not run.state["seen"].requires_grad
    run.remember("seen", torch.zeros(0, dtype=torch.long), torch.zeros(0, 2))
    assert run.state["seen"][2].tolist() == [3, 3]


def test_rows_without_a_pseudo_label_yet_are_of_no_class():
    """Three of four rows are zeros, one is class 1, kept and right: mask rate 1/2, histogram (0, 1), entropy 0."""
    run = StepContext(FixMatch(), {}, DataSpec(2))
    p = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    run.watch(p, torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0, 1, 0, -1]))
    found = run.flush()
    assert found["pseudo_hist"].tolist() == [0.0, 1.0] and found["mask_rate"] == 0.5 and found["pseudo_entropy"] == 0
    assert found["pseudo_known"] == 1 and found["pseudo_right"] == 1
    run.watch(p[:0], torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert run.flush() == {}
