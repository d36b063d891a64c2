"""Pseudo-label policies on probabilities small enough to follow by eye."""

import torch

from nlp_ssl.targets import classwise, confident, relative, top_k_per_class

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
