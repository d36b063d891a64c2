"""Batches: a pure function of (seed, step, part), fair to every row."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stores import views
from tiny import tiny_task

from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.data.loader import Loader, Sizes
from nlp_ssl.errors import ConfigError
from nlp_ssl.methods import FixMatch

VIEWS = {"x": "weak", "u_w": "weak", "u_s": "strong"}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """16 labeled and 96 unlabeled rows."""
    return tiny_task(tmp_path_factory.mktemp("loader"), strong=TfidfReplace(0.5))


def loader(task, *, views=VIEWS, labeled=4, unlabeled=8, accumulate=1, rank=0, world=1, steps=48, seed=0, length=24):
    sizes = Sizes(labeled, unlabeled, accumulate * world)
    task.data.store.max_length = length
    return Loader(task.data, views, task.augment, sizes, seed=seed, max_steps=steps,
                  rank=rank, world=world)  # fmt: skip


def at(task, batch, block):
    """Positions in the data of a block's rows."""
    return {"x": task.data.labeled, "u": task.data.unlabeled}[block][batch["id"][block].numpy()]


def rows(batch):
    """Per view, the set of (number in its block, tokens of the row without padding)."""
    ids = batch["inputs"]["input_ids"]
    out = {}
    for view, span in batch["rows"].items():
        at = batch["id"][view[0]].tolist()
        out[view] = {
            (a, *ids[r, : batch["lengths"][r]].tolist()) for a, r in zip(at, range(span.start, span.stop), strict=True)
        }
    return out


def equal(a, b):
    return rows(a) == rows(b) and torch.equal(a["y"], b["y"]) and torch.equal(a["true_labels"], b["true_labels"])


def test_shape_of_a_batch(task):
    batch = loader(task)[3]
    block = batch["inputs"]["input_ids"]
    assert block.shape == (4 + 8 + 8, batch["lengths"].max())
    assert batch["rows"] == {"x": slice(0, 4), "u_w": slice(4, 12), "u_s": slice(12, 20)}
    assert torch.equal(batch["inputs"]["attention_mask"].sum(1), torch.from_numpy(batch["lengths"]).long())
    assert torch.equal(batch["y"], torch.from_numpy(task.data.labels[at(task, batch, "x")]))
    assert torch.equal(batch["true_labels"], torch.from_numpy(task.data.labels[at(task, batch, "u")]))
    assert torch.equal(batch["w"], torch.ones(4))


def test_weak_rows_are_the_texts_themselves_and_strong_rows_are_not(task):
    batch = loader(task)[0]
    plain, _ = views(task.data.store, [(at(task, batch, "u"), None, np.zeros(8, dtype=np.uint64))], 24)
    weak, strong = rows(batch)["u_w"], rows(batch)["u_s"]
    assert {(a, *r[r > 0].tolist()) for a, r in zip(batch["id"]["u"].tolist(), plain["input_ids"], strict=True)} == weak
    assert {row[0] for row in weak} == {row[0] for row in strong} and weak != strong


def test_an_item_depends_on_seed_and_number_alone(task):
    """Any order, any number of readers, on a fresh loader or a used one."""
    used = loader(task)
    forward = [used[i] for i in range(30)]
    assert all(equal(used[i], forward[i]) for i in (29, 3, 17, 0))
    assert equal(loader(task)[17], forward[17])
    assert not equal(loader(task, seed=1)[17], forward[17])
    torch.manual_seed(1)
    assert equal(loader(task)[5], forward[5])


def test_the_seed_changes_labeled_rows_pool_rows_and_noise_each(task):
    """In a pass over the pool: which rows come together, and what the noise makes of each."""
    one, other = ([loader(task, seed=seed)[i] for i in range(12)] for seed in (0, 1))
    for block in ("x", "u"):
        together = [[set(batch["id"][block].tolist()) for batch in batches] for batches in (one, other)]
        assert together[0] != together[1], block
        assert sorted(map(sorted, together[0])) != sorted(map(sorted, together[1])), block
    noisy = [dict((at, r) for batch in batches for at, *r in rows(batch)["u_s"]) for batches in (one, other)]
    assert noisy[0].keys() == noisy[1].keys() and sum(noisy[0][at] != noisy[1][at] for at in noisy[0]) > 48


def test_length_of_the_run_changes_no_item(task):
    assert equal(loader(task, steps=48)[11], loader(task, steps=12)[11])


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_parts_are_disjoint_and_together_the_whole_step(task, world, accumulate):
    views = {"x": "strong", "u_w": "weak", "u_s": "strong"}  # the noise is the same too, whoever makes it
    whole = loader(task, views=views)
    ranks = [loader(task, views=views, rank=r, world=world, accumulate=accumulate) for r in range(world)]
    for step in (0, 5, 13):  # 13 lies in the second pass over the pool
        parts = [rows(part[step * accumulate + m]) for part in ranks for m in range(accumulate)]
        for view, wanted in rows(whole[step]).items():
            assert sum(len(part[view]) for part in parts) == len(wanted)
            assert set().union(*(part[view] for part in parts)) == wanted


def test_parts_that_do_not_divide_a_batch():
    with pytest.raises(ConfigError, match="SSL210: batch_size = 4 cannot be divided over 3 parts"):
        Sizes(4, 9, 3)
    with pytest.raises(ConfigError, match="SSL210: unlabeled rows per step = 10"):
        Sizes(9, 10, 3)


@pytest.mark.parametrize("labeled", [4, 6, 20])
def test_labeled_rows_come_equally_often(task, labeled):
    """16 labeled rows: after whole passes every one has been seen as often as any other, in between one time more."""
    found = loader(task, labeled=labeled)
    seen = np.concatenate([found[i]["id"]["x"].numpy() for i in range(12)])
    for stop in range(16, len(seen) + 1, 16):
        _, counts = np.unique(seen[:stop], return_counts=True)
        assert len(counts) == 16 and set(counts) == {stop // 16}
    assert sorted(seen[:16]) == list(range(16)) and list(seen[:16]) != list(seen[16:32])


@pytest.mark.parametrize("unlabeled", [8, 32])
def test_every_pool_row_comes_once_per_pass(task, unlabeled):
    found = loader(task, unlabeled=unlabeled)
    steps = 96 // unlabeled
    assert found.steps_per_epoch == steps
    passes = [np.concatenate([found[e * steps + i]["id"]["u"].numpy() for i in range(steps)]) for e in range(3)]
    assert all(sorted(rows) == list(range(96)) for rows in passes)
    assert list(passes[0]) != list(passes[1])
    assert [found.epoch(s) for s in (0, steps - 1, steps, 2 * steps)] == [0, 0, 1, 2]


def test_a_pass_that_does_not_divide_is_filled_up(task):
    """96 rows in batches of 20: five full batches, of which four rows come twice."""
    found = loader(task, unlabeled=20)
    seen = np.concatenate([found[i]["id"]["u"].numpy() for i in range(5)])
    _, counts = np.unique(seen, return_counts=True)
    assert len(counts) == 96 and counts.sum() == 100 and counts.max() == 2


def test_a_batch_may_be_larger_than_the_pool(task):
    small = replace(task, data=replace(task.data, unlabeled=task.data.unlabeled[:5]))
    batch = loader(small, unlabeled=12)[3]
    assert len(batch["id"]["u"]) == 12 and set(batch["id"]["u"].tolist()) == set(range(5))


def test_lengths_within_a_batch_are_alike(task):
    """The pool is read in windows sorted by length: the range within a batch is far below that of shuffled rows."""
    found, lengths = loader(task), task.data.store.lengths
    inside = [np.ptp(lengths[at(task, found[i], "u")]) for i in range(found.steps_per_epoch)]
    assert np.mean(inside) < 0.3 * np.ptp(lengths[task.data.unlabeled])
    means = [lengths[at(task, found[i], "u")].mean() for i in range(found.steps_per_epoch)]
    assert means != sorted(means) and means != sorted(means, reverse=True)  # batches themselves are in no order


def test_truncation(task):
    batch = loader(task, length=6)[0]
    assert batch["inputs"]["input_ids"].shape[1] == batch["lengths"].max() == 6


def test_noise_of_a_pool_row_changes_between_passes(task):
    """12 steps are a pass: strong views of the same row differ from pass to pass, weak ones do not."""
    found = loader(task)
    one, two = ([rows(found[e * 12 + i]) for i in range(12)] for e in range(2))
    weak, strong = ((set().union(*(b[v] for b in one)), set().union(*(b[v] for b in two))) for v in ("u_w", "u_s"))
    assert weak[0] == weak[1]
    assert len(strong[0] & strong[1]) < 40


def test_two_strong_views_of_a_row_differ(task):
    batch = rows(loader(task, views={**VIEWS, "u_s2": "strong"})[0])
    assert batch["u_s"] != batch["u_s2"]
    assert batch["u_s"] == rows(loader(task)[0])["u_s"]  # a further view leaves the others as they are


def test_without_a_pool_or_without_unlabeled_views(task):
    for found in (
        loader(task, views={"x": "weak"}),
        loader(replace(task, data=task.data.without_pool()), views={"x": "weak"}),
    ):
        batch = found[2]
        assert len(batch["id"]["u"]) == 0 == len(batch["true_labels"]) and set(batch["rows"]) == {"x"}
        assert equal(batch, found[2]) and found.steps_per_epoch == 48
    assert rows(loader(task)[2])["x"] == rows(loader(task, views={"x": "weak"})[2])["x"]


def test_soft_targets_and_weights_go_with_their_rows(task):
    soft = np.stack([np.arange(16), 15 - np.arange(16)], 1) / 15
    data = replace(task.data, targets=soft, weights=np.arange(16) / 4)
    batch = loader(replace(task, data=data))[1]
    at = [list(data.labeled).index(i) for i in batch["id"]["x"].tolist()]
    assert torch.allclose(batch["y"], torch.from_numpy(soft[at]).float()) and batch["y"].dtype == torch.float32
    assert batch["w"].tolist() == [i / 4 for i in at]


def test_views_of_the_methods_are_served(task):
    assert set(loader(task, views=FixMatch.views)[0]["rows"]) == set(FixMatch.views)
