"""Distributed arithmetic: two ranks together give what one process gives with all rows."""

import json

import pytest
import ranks
import torch

from nlp_ssl.ops import distributed


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank got, see `ranks.reduce_all`."""
    folder = tmp_path_factory.mktemp("reduce")
    ranks.spawn(ranks.reduce_all, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks.WORLD)]


def gradient(kept):
    """Of the mean of (w v)^2 over the kept rows at w = 1: the mean of 2 v^2."""
    rows = ranks.VALUES[torch.tensor(kept) > 0]
    return (2 * rows.square()).mean().item() if len(rows) else 0.0


@pytest.mark.ddp
@pytest.mark.parametrize("name", ranks.KEPT)
def test_masked_mean_has_the_gradient_of_one_process(name, found):
    """The average over ranks must be the mean over all rows kept.

    "some": 1, 2 on one rank and 32 on the other: 2 (1 + 4 + 1024) / 3 = 686. Each rank dividing by its own count would
    give (2 (1 + 4) / 2 + 2 * 1024) / 2 = 1026.5.
    """
    local = [f[f"gradient {name}"] for f in found]
    assert sum(local) / ranks.WORLD == pytest.approx(gradient(ranks.KEPT[name]), rel=1e-6)


@pytest.mark.ddp
def test_totals_and_means_are_the_same_on_all_ranks(found):
    """Ranks hold 2 and 4 of the rows 1 2 4 8 16 32: the mean is 63 / 6."""
    for rank in found:
        assert rank["world"] == 2
        assert rank["total"] == [1 + 8, 2 + 16, 4 + 32]
        assert rank["stat"] == [10.5, -10.5]


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("name", "rows"), [("uneven", [(0, 0), (1, 0), (10, 1)]), ("one side", [(10, 1), (11, 1)]), ("nothing", [])]
)
def test_gather_of_any_sizes_in_rank_order(name, rows, found):
    expected = [[i for i, _ in rows], [[float(v)] * 2 for _, v in rows]]
    assert [rank[f"gather {name}"] for rank in found] == [expected, expected]


def test_one_process():
    v = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert distributed.world_size() == 1
    assert distributed.mean(v).item() == 3.0
    assert distributed.mean(v, where=torch.tensor([True, False, True])).item() == 3.5
    assert distributed.mean(v, where=torch.tensor([0.0, 1.0, 0.0])).item() == 2.0
    assert distributed.total(v).tolist() == [1.0, 2.0, 6.0] and not distributed.total(v).requires_grad
    assert distributed.stat(torch.stack([v, -v], 1)).tolist() == [3.0, -3.0]
    ids, values = distributed.gather(torch.tensor([4, 2, 9]), v)
    assert ids.tolist() == [4, 2, 9] and values is v


def test_empty_mask_is_zero_with_a_graph():
    v = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = distributed.mean(v, where=torch.zeros(2, dtype=torch.bool))
    assert loss.item() == 0.0
    loss.backward()
    assert v.grad.tolist() == [0.0, 0.0]


def test_a_mask_carries_no_gradient():
    v = torch.tensor([1.0, 2.0], requires_grad=True)
    where = torch.tensor([1.0, 1.0], requires_grad=True)
    distributed.mean(v, where=where).backward()
    assert where.grad is None and v.grad.tolist() == [0.5, 0.5]
