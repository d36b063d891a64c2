"""Nearest neighbors by cosine."""

import numpy as np
import pytest
import torch

from nlp_ssl.errors import RunError
from nlp_ssl.graph import knn
from nlp_ssl.graph.knn import neighbors, unit_vectors


def random_rows(n, d, seed=0):
    return unit_vectors(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


def test_neighbors_are_those_of_the_full_table():
    rows = random_rows(60, 5)
    table = rows @ rows.T
    np.fill_diagonal(table, -np.inf)
    similarity, number = neighbors(rows, 7)
    order = np.argsort(-table, axis=1)[:, :7]
    assert (number == order).all()
    assert similarity == pytest.approx(np.take_along_axis(table, order, 1), abs=1e-6)


def clustered(n=3000):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 16, generator=generator)
    return unit_vectors(
        centres[torch.randint(40, (n,), generator=generator)] + 0.3 * torch.randn(n, 16, generator=generator)
    )


def shared(exact, found):
    return np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(exact.tolist(), found.tolist(), strict=True)])


@pytest.mark.parametrize("rows", [clustered(), random_rows(3000, 16)], ids=["clustered", "without structure"])
def test_among_many_rows_the_wanted_share_of_neighbors_is_found(rows, monkeypatch):
    """With or without structure: in the latter, more lists are looked at."""
    _, exact = neighbors(rows, 10)
    table = rows @ rows.T
    np.fill_diagonal(table, 0.0)
    for wanted in (0.8, 0.95):
        similarity, number = neighbors(rows, 10, exact=100, recall=wanted)
        assert wanted - 0.02 < shared(exact, number) < 1.0
        assert similarity == pytest.approx(np.take_along_axis(table, number, 1), abs=1e-6)
        assert (np.diff(similarity, axis=1) <= 0).all()
    monkeypatch.setattr(knn, "_SAMPLE", 3000)
    assert (neighbors(rows, 10, exact=100, recall=1.0)[1] == exact).all()


def test_small_blocks_find_the_same(monkeypatch):
    rows = clustered(1000)
    whole = neighbors(rows, 10, exact=100)[1]
    monkeypatch.setattr(knn, "_CELLS", 300)
    assert (neighbors(rows, 10, exact=100)[1] == whole).all()


def test_lists_shorter_than_the_neighbors_wanted():
    """A row looks at its own list alone: what is missing is the row itself, without similarity."""
    similarity, number = neighbors(clustered(), 200, exact=100, recall=0.0)
    missing = number == np.arange(3000)[:, None]
    assert missing.any() and not missing.all(1).all()
    assert (similarity[missing] == 0).all() and (number >= 0).all()
    assert all(len(set(row[~gone])) == (~gone).sum() for row, gone in zip(number, missing, strict=True))


def test_many_copies_of_one_row_among_many():
    """All copies lie in one list, most others stay empty: no list but that one is as long as the rows."""
    rows = np.zeros((500, 4), dtype=np.float32)
    rows[:, 0] = 1.0
    rows[490:] = np.eye(4, dtype=np.float32)[np.arange(10) % 4]
    similarity, number = neighbors(rows, 3, exact=100)
    assert (number != np.arange(500)[:, None]).all()
    assert (similarity[:490] == 1.0).all()


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
    rows = unit_vectors(torch.tensor([[3.0, 2.0], [1.0, 0.0], [5.0, -3.0], [-1.0, 5.0]]))
    assert rows.dtype == np.float32
    assert rows == pytest.approx(
        np.array([[0.707107, 0.707107], [-0.707107, -0.707107], [0.6, -0.8], [-0.6, 0.8]]), abs=1e-6
    )


def test_a_large_common_part_does_not_hide_the_differences():
    """Without centring every cosine would be above 0.99999."""
    small = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    plain, shifted = unit_vectors(small), unit_vectors(small + 1000.0)
    assert shifted == pytest.approx(plain, abs=1e-3)


def test_equal_rows_have_no_direction():
    """What rounding leaves of them must not become a direction of length 1."""
    assert not unit_vectors(torch.full((5, 3), 0.1)).any()
    with_one_other = unit_vectors(torch.tensor([[0.1, 0.2]] * 2 + [[0.3, 0.2]] * 2 + [[0.2, 0.2]]))
    assert not with_one_other[4].any() and with_one_other[0] == pytest.approx([-1.0, 0.0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_must_be_finite(bad):
    with pytest.raises(RunError, match="SSL320"):
        unit_vectors(torch.tensor([[1.0, bad], [0.0, 1.0]]))
