"""Nearest neighbors by cosine."""

import numpy as np
import pytest
import torch

from nlp_ssl.errors import RunError
from nlp_ssl.graph import knn
from nlp_ssl.graph.knn import neighbors, unit


def random_rows(n, d, seed=0):
    return unit(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


def test_neighbors_are_those_of_the_full_table():
    rows = random_rows(60, 5)
    table = rows @ rows.T
    np.fill_diagonal(table, -np.inf)
    similarity, number = neighbors(rows, 7)
    order = np.argsort(-table, axis=1)[:, :7]
    assert (number == order).all()
    assert similarity == pytest.approx(np.take_along_axis(table, order, 1), abs=1e-6)


def test_among_many_rows_nearly_all_neighbors_are_found(monkeypatch):
    """Fewer lists than there are: some neighbors are missed, of clustered rows few."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 16, generator=generator)
    drawn = torch.randint(40, (3000,), generator=generator)
    rows = unit(centres[drawn] + 0.3 * torch.randn(3000, 16, generator=generator))
    _, exact = neighbors(rows, 10)
    monkeypatch.setattr(knn, "_EXACT", 100)
    monkeypatch.setattr(knn, "_LISTS", 4)
    _, found = neighbors(rows, 10)
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert 0.9 < share < 1.0, share
    monkeypatch.setattr(knn, "_LISTS", 1)
    similarity, number = neighbors(rows, 200)  # more than a list holds
    missing = number == np.arange(3000)[:, None]
    assert missing.any() and (similarity[missing] == 0).all() and (number >= 0).all()


def test_a_row_is_not_its_own_neighbor_even_among_duplicates():
    """Six copies of one row and one other: k = 3 finds three *other* copies, each once."""
    rows = np.array([[1.0, 0.0]] * 6 + [[0.0, 1.0]], dtype=np.float32)
    similarity, number = neighbors(rows, 3)
    for i in range(6):
        found = number[i].tolist()
        assert i not in found and len(set(found)) == 3 and set(found) <= set(range(6))
        assert similarity[i].tolist() == [1.0, 1.0, 1.0]
    assert 6 not in number[6]


@pytest.mark.parametrize(("rows", "k", "wanted"), [(4, 50, 3), (4, 3, 3), (2, 50, 1), (1, 50, 0)])
def test_no_more_neighbors_than_other_rows(rows, k, wanted):
    similarity, number = neighbors(random_rows(rows, 3), k)
    assert similarity.shape == number.shape == (rows, wanted)
    assert all(sorted({*n, i}) == sorted([*n, i]) for i, n in enumerate(number.tolist()))
    assert (number >= 0).all()


def test_unit_centres_and_scales():
    """Mean (2, 1): what is left is (1, 1), (-1, -1), (3, -4), (-3, 4), of lengths 1.414214 and 5."""
    rows = unit(torch.tensor([[3.0, 2.0], [1.0, 0.0], [5.0, -3.0], [-1.0, 5.0]]))
    assert rows.dtype == np.float32
    assert rows == pytest.approx(
        np.array([[0.707107, 0.707107], [-0.707107, -0.707107], [0.6, -0.8], [-0.6, 0.8]]), abs=1e-6
    )


def test_a_large_common_part_does_not_hide_the_differences():
    """Without centring every cosine would be above 0.99999."""
    small = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    plain, shifted = unit(small), unit(small + 1000.0)
    assert shifted == pytest.approx(plain, abs=1e-3)


def test_equal_rows_have_no_direction():
    """What rounding leaves of them must not become a direction of length 1."""
    assert not unit(torch.full((5, 3), 0.1)).any()
    with_one_other = unit(torch.tensor([[0.1, 0.2]] * 2 + [[0.3, 0.2]] * 2 + [[0.2, 0.2]]))
    assert not with_one_other[4].any() and with_one_other[0] == pytest.approx([-1.0, 0.0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_must_be_finite(bad):
    with pytest.raises(RunError, match="SSL320"):
        unit(torch.tensor([[1.0, bad], [0.0, 1.0]]))
