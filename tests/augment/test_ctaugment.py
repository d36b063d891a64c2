"""CTAugment: draws and updates by hand, views that are pure functions of keys and rates, and a policy that moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from stores import views
from tiny import tiny_images, tiny_task

from nlp_ssl.augment.base import Vocabulary
from nlp_ssl.augment.ctaugment import ImagePolicy, TextPolicy
from nlp_ssl.augment.image import GRADED, OPS, Cutout, FlipShift
from nlp_ssl.errors import ConfigError
from nlp_ssl.utils.counter_rng import row_keys
from nlp_ssl.utils.ragged import Ragged

SIZE = 60
VOCABULARY = Vocabulary(
    Ragged(np.arange(SIZE, dtype=np.int32), np.arange(SIZE + 1)), np.ones(SIZE, dtype=np.int64), np.arange(SIZE) % 7.0
)
POLICIES = [TextPolicy(), ImagePolicy(), TextPolicy(bins=3, depth=1), ImagePolicy(ops=("rotate",), bins=1, depth=3)]


def keys(count, epoch=0):
    return row_keys(5, epoch, np.arange(count))


def rows(count=100):
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 25, count)
    return Ragged.from_lengths(rng.integers(0, SIZE, lengths.sum()).astype(np.int32), lengths)


def lists(words):
    return [words.values[a:b].tolist() for a, b in zip(words.offsets, words.offsets[1:], strict=False)]


def images(count=24, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, 12, 10, generator=generator)


def some_rates(policy, seed=0):
    shape = policy.initial_rates().shape
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 1.0, shape)).float()


# --- the arithmetic


def test_bins_by_hand():
    """Rates 1 and .9: 1.01 / (1.01 + .91) = .526042 and .91 / 1.92 = .473958.

    Of rates 1, .5 and .8 the second goes: .51 / 1.01 < .8, .81 / 1.01 = .801980. What is left is 1.01 / 1.82 = .554945
    and .81 / 1.82 = .445055. Of rates 1 and .79 both are near the limit: .80 / 1.01 = .792079 goes. All zero: even.
    """
    policy = TextPolicy(ops=("cutoff",))
    assert policy.shares(np.array([[1.0, 0.9]]))[0] == pytest.approx([0.526042, 0.473958], abs=5e-7)
    assert policy.shares(np.array([[1.0, 0.5, 0.8]]))[0] == pytest.approx([1.01 / 1.82, 0.0, 0.81 / 1.82])
    assert policy.shares(np.array([[1.0, 0.79], [0.0, 0.0]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    loose = replace(policy, threshold=0.5).shares(np.array([[1.0, 0.5]]))[0]
    assert loose == pytest.approx([1.01 / 1.52, 0.51 / 1.52])  # .51 / 1.01 = .504950 stays


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_update_by_hand(dtype):
    """The paper's decay: .99 * .7 + .01 * .2 = .695. Here one probe uses one bin; every other rate stays."""
    policy = TextPolicy(depth=1, decay=0.99)
    key = keys(1)
    (((op,),), ((used,),)) = policy.choices(key)
    assert policy.initial_rates().dtype == torch.float32 and (policy.initial_rates() == 1).all()
    rates = torch.full_like(policy.initial_rates(), 0.7, dtype=dtype)
    new = policy.updated(rates, key, torch.tensor([0.2]))
    assert new.shape == (4, 8) and new.dtype == dtype
    assert new[op, used].item() == pytest.approx(0.695, abs=1e-6)
    assert (rates == rates[0, 0]).all()  # the old rates stay
    new[op, used] = 0.7
    assert torch.equal(new, rates)


def test_all_operations_of_a_probe_share_its_match():
    """One bin in all, three operations a probe: each row counts three times, .9^3 + (1 - .9^3) .2 = .7832."""
    policy = ImagePolicy(ops=("rotate",), bins=1, depth=3)
    new = policy.updated(policy.initial_rates(), keys(1), torch.tensor([0.2]))
    assert new.item() == pytest.approx(0.729 + 0.271 * 0.2)


def test_probes_are_taken_in_the_order_of_their_keys():
    """One bin: after matches a then b of the sorted keys the rate is .81 + .09 a + .1 b."""
    policy = TextPolicy(ops=("cutoff",), bins=1, depth=1)
    low, high = sorted(keys(2))
    expected = 0.81 + 0.09 * 0.0 + 0.1 * 0.5
    for order, match in (([low, high], [0.0, 0.5]), ([high, low], [0.5, 0.0])):
        new = policy.updated(policy.initial_rates(), np.array(order, dtype=np.uint64), torch.tensor(match))
        assert new.item() == pytest.approx(expected)
    twice = [policy.updated(policy.initial_rates(), np.array([low, low]), torch.tensor(m)) for m in ([0, 1], [1, 0])]
    assert torch.equal(*twice)  # the same row twice, scored by two ranks: rounding must not tell them apart


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_order_of_rows_does_not_matter(policy):
    rates, match = some_rates(policy), torch.rand(64, generator=torch.Generator().manual_seed(0))
    order = np.random.default_rng(0).permutation(64)
    one = policy.updated(rates, keys(64), match)
    assert torch.equal(one, policy.updated(rates, keys(64)[order], match[order])) and not torch.equal(one, rates)
    assert torch.equal(policy.updated(rates, keys(0), match[:0]), rates)


def test_match_carries_no_graph():
    policy = TextPolicy()
    new = policy.updated(policy.initial_rates(), keys(3), torch.ones(3, requires_grad=True) * 0.5)
    assert not new.requires_grad


# --- draws


@pytest.mark.parametrize("policy", [TextPolicy(), ImagePolicy()], ids=["text", "image"])
def test_draws_follow_the_rates(policy):
    """Operations evenly, bins by their shares, strengths evenly within a bin; none from a bin without a share."""
    count, rates = 20_000, some_rates(policy).numpy()
    ops, bins, strength = policy.drawn(keys(count), rates)
    assert ops.shape == bins.shape == strength.shape == (count, policy.depth)
    shares = policy.shares(rates)
    assert 0 < (shares == 0).sum() < shares.size
    for turn in range(policy.depth):
        seen = np.zeros(shares.shape)
        np.add.at(seen, (ops[:, turn], bins[:, turn]), 1)
        assert seen[shares == 0].sum() == 0
        assert chisquare(seen.sum(1)).pvalue > 1e-3
        expected = count * shares[shares > 0] / len(shares)
        assert chisquare(seen[shares > 0], expected).pvalue > 1e-3
    within = strength * policy.bins - bins
    assert within.min() >= 0 and within.max() < 1
    assert chisquare(np.histogram(within, bins=20, range=(0, 1))[0]).pvalue > 1e-3
    pairs = [ops.T, within.T, (bins[:, 0], within[:, 0]), (ops[:, 0], within[:, 0]), (ops[:, 1], bins[:, 0])]
    assert max(abs(np.corrcoef(*pair)[0, 1]) for pair in pairs) < 5 / np.sqrt(count)


@pytest.mark.parametrize("policy", [TextPolicy(), ImagePolicy()], ids=["text", "image"])
def test_probes_are_even_and_known_from_their_keys(policy):
    ops, bins = policy.choices(keys(20_000))
    seen = np.zeros(policy.initial_rates().shape)
    np.add.at(seen, (ops, bins), 1)
    assert chisquare(seen.ravel()).pvalue > 1e-3
    order = np.array([17, 3, 3])
    again = policy.choices(keys(20_000)[order])
    assert np.array_equal(again[0], ops[order]) and np.array_equal(again[1], bins[order])


def test_the_first_draws_are_even():
    policy = TextPolicy()
    shares = policy.shares(policy.initial_rates().numpy())
    assert shares.tolist() == np.full((4, 8), 1 / 8).tolist()


@pytest.mark.parametrize("policy", [TextPolicy(), ImagePolicy()], ids=["text", "image"])
def test_strengths_that_are_not_understood_vanish_and_come_back(policy):
    """Probes of the lower half of the bins match, those of the upper half do not.

    Beside a best bin of 1 a bin goes below .8 * 1.01 - .01 = .798: with decay .9 after three misses (.729). A run of
    200 steps with 8 probes of 2 operations is enough, and as many that match bring it back.
    """
    rates, half = policy.initial_rates(), policy.bins // 2
    strong = policy.drawn(keys(4000, 99), rates.numpy())[1] >= half
    assert 0.4 < strong.mean() < 0.6
    for step in range(200):
        probes = keys(8, step)
        used = policy.choices(probes)[1]
        match = torch.from_numpy((used < half).all(1).astype(np.float32))
        rates = policy.updated(rates, probes, match)
    drawn = policy.drawn(keys(4000, 99), rates.numpy())[1]
    assert (drawn >= half).mean() < (0.002 if policy.bins == 8 else 0.02)
    assert len(np.unique(drawn)) > 1
    for step in range(200, 400):
        rates = policy.updated(rates, keys(8, step), torch.ones(8))
    assert (policy.drawn(keys(4000, 99), rates.numpy())[1] >= half).mean() > 0.35


# --- text views


def test_a_text_row_depends_on_its_key_and_the_rates_alone():
    policy, words = TextPolicy(), rows()
    weights, rates = np.random.default_rng(2).random(len(words.values)), some_rates(TextPolicy()).numpy()
    for view in (policy.bound(lambda: rates), policy.probe()):
        together = view(words, weights, keys(100), VOCABULARY)
        for order in (np.array([8]), np.random.default_rng(0).permutation(100)[:30], np.array([5, 5, 0])):
            part = Ragged(weights, words.offsets).take(order).values
            apart = view(words.take(order), part, keys(100)[order], VOCABULARY)
            assert lists(apart) == lists(together.take(order))
        assert lists(together) != lists(words)
        assert ((together.lengths > 0) == (words.lengths > 0)).all()
        assert len(view(rows(0), np.zeros(0), keys(0), VOCABULARY)) == 0


def test_inputs_stay_as_they_are():
    words = rows()
    weights, before = np.ones(len(words.values), dtype=np.float16), words.values.copy()
    words.values.flags.writeable = weights.flags.writeable = False
    TextPolicy(strongest=1.0).probe()(words, weights, keys(100), VOCABULARY)
    assert np.array_equal(words.values, before)


def test_views_read_the_rates_of_the_moment():
    """A cutoff of one bin in ten: the words that go tell which bin. The view is bound once, the rates move."""
    policy = TextPolicy(ops=("cutoff",), bins=10, depth=1, strongest=0.5)
    words = Ragged(np.tile(np.arange(50, dtype=np.int32), 400), np.arange(0, 20_001, 50))
    weights, state = np.zeros(20_000), {}
    view = policy.bound(lambda: state["rates"])
    for only in (0, 4, 9):
        state["rates"] = np.eye(10)[[only]]
        left = view(words, weights, keys(400), VOCABULARY).lengths
        share = 0.5 * (only + 0.5) / 10  # the middle of the bin
        assert 1 - left.mean() / 50 == pytest.approx(share, abs=0.01)


def test_a_probe_has_the_strength_of_its_bin():
    policy = TextPolicy(ops=("span",), bins=4, depth=1, strongest=0.8)
    words = Ragged(np.tile(np.arange(50, dtype=np.int32), 400), np.arange(0, 20_001, 50))
    gone = 50 - policy.probe()(words, np.zeros(20_000), keys(400), VOCABULARY).lengths
    bins = policy.choices(keys(400))[1][:, 0]
    assert len(np.unique(bins)) == 4
    assert ((gone >= 10 * bins) & (gone <= 10 * (bins + 1))).all()  # .8 of 50 words in four bins of 10


def test_operations_of_one_row_choose_their_words_apart():
    """Half of the words dropped, twice: a quarter is left. With the same draws a half would be."""
    policy = TextPolicy(ops=("dropout",), bins=1000, depth=2, strongest=1.0)
    rates = np.zeros((1, 1000))
    rates[0, 499:501] = 1.0
    words = Ragged(np.tile(np.arange(50, dtype=np.int32), 400), np.arange(0, 20_001, 50))
    left = policy.bound(lambda: rates)(words, np.zeros(20_000), keys(400), VOCABULARY).lengths
    assert left.mean() / 50 == pytest.approx(0.25, abs=0.015)


def test_each_word_op_is_used():
    """One operation at a time: with words gone, moved or new."""
    words = Ragged(np.tile(np.arange(20, dtype=np.int32), 100), np.arange(0, 2001, 20))
    effects = {}
    for op in TextPolicy.known:
        view = TextPolicy(ops=(op,), depth=1).probe()
        changed = view(words, np.ones(2000), keys(100), VOCABULARY)
        same = len(changed.values) == 2000
        effects[op] = "gone" if not same else "moved" if sorted(changed.values) == sorted(words.values) else "new"
    assert effects == {"cutoff": "gone", "dropout": "gone", "tfidf": "new", "span": "gone", "swap": "moved"}


def test_weights_follow_the_words_into_the_next_operation():
    """Only word 0 of each row may be replaced; a cut before it must not hand its weight to another word."""
    policy = TextPolicy(ops=("cutoff", "tfidf"), bins=1, depth=2, strongest=1.0)
    words = Ragged(np.tile(np.arange(40, 60, dtype=np.int32), 300), np.arange(0, 6001, 20))
    weights = np.where(words.values == 40, 100.0, 0.0)
    low = Vocabulary(VOCABULARY.pieces, (np.arange(SIZE) < 40).astype(np.int64), VOCABULARY.tfidf)
    changed = policy.probe()(words, weights, keys(300), low)
    ops = policy.choices(keys(300))[0]
    cut_first = np.flatnonzero((ops == [0, 1]).all(1))
    assert len(cut_first) > 30
    for row in np.array(lists(changed), dtype=object)[cut_first]:
        assert all(word > 40 for word in row[1:])
    assert any(row and row[0] < 40 for row in np.array(lists(changed), dtype=object)[cut_first])


# --- image views


def test_an_image_depends_on_its_key_and_the_rates_alone():
    policy, rates = ImagePolicy(), some_rates(ImagePolicy()).numpy()
    for view in (policy.bound(lambda: rates), policy.probe()):
        together = view(images(), keys(24))
        assert together.shape == (24, 3, 12, 10) and 0 <= together.min() and together.max() <= 1
        order = np.array([20, 4, 17, 4])
        assert torch.equal(view(images()[order], keys(24)[order]), together[order])
        assert torch.equal(view(images()[9:10], keys(24)[9:10]), together[9:10])
        assert view(images(0), keys(0)).shape == (0, 3, 12, 10)


def test_the_hole_is_in_controlled_views_alone():
    """With the identity as the only operation: the weak view, with the hole of the strong view or without."""
    policy = ImagePolicy(ops=("identity",))
    weak, x = FlipShift()(images(), keys(24)), images()
    assert torch.equal(policy.probe()(x, keys(24)), weak)
    controlled = policy.bound(lambda: np.ones((1, 17)))(x, keys(24))
    assert torch.equal(controlled, Cutout()(weak, keys(24))) and not torch.equal(controlled, weak)


def test_the_operations_of_a_row_come_one_after_the_other():
    """Row by row, with the rates of the moment. These operations have no direction, so that no sign is needed."""
    policy = ImagePolicy(ops=("brightness", "solarize", "contrast"), depth=3)
    x, rates = images(40), np.eye(17)[[2, 9, 16]]
    ops, bins, strength = policy.drawn(keys(40), rates)
    assert (bins == np.array([2, 9, 16])[ops]).all()
    expected = policy.flip_shift(x, keys(40))
    for row in range(40):
        for op, m in zip(ops[row], strength[row], strict=True):
            one = GRADED[policy.ops[op]](expected[[row]], torch.full((1, 1, 1, 1), m, dtype=torch.float32))
            expected[row] = one[0].clamp(0, 1)
    out = policy.bound(lambda: rates)(x, keys(40))
    torch.testing.assert_close(out, policy.cutout(expected, keys(40)))
    assert len({tuple(row) for row in ops}) > 10


def test_images_have_the_strength_of_their_bin_in_both_directions():
    """Brightness leaves 1 - .95 s of a white image; a shift by s * .3 of the width goes left or right."""
    policy = ImagePolicy(ops=("brightness",), bins=4, depth=1)
    white = policy.probe()(torch.ones(200, 1, 4, 4), keys(200))[:, 0, 0, 0]
    strength = (1 - white.numpy()) / 0.95
    bins = policy.choices(keys(200))[1][:, 0]
    assert (strength > bins / 4 - 1e-6).all() and (strength < (bins + 1) / 4 + 1e-6).all()
    moving = ImagePolicy(ops=("translate_x",), bins=2, depth=1, flip_shift=FlipShift(flip=False, shift=0.0))
    dot = torch.zeros(400, 1, 1, 41)
    dot[..., 20] = 1
    out = moving.probe()(dot, keys(400))[:, 0, 0]
    place = (out * torch.arange(41.0)).sum(1).numpy() - 20
    upper = moving.choices(keys(400))[1][:, 0] == 1
    assert 0.4 < (place > 0).mean() < 0.6
    assert (np.abs(place[upper]) > 0.15 * 41 - 0.01).all() and (np.abs(place[~upper]) < 0.15 * 41 + 0.01).all()


@pytest.mark.parametrize("op", ["autocontrast", "equalize"])
def test_operations_without_a_strength_blend_with_the_image(op):
    """Strength 0 is the image, 1 the operation, 0.25 a quarter of the way, whatever the sign."""
    x = (images(4).repeat_interleave(6, 2).repeat_interleave(6, 3) * 40).round() / 120 + 0.2  # many pixels to a level
    levels = [GRADED[op](x, torch.full((4, 1, 1, 1), m)) for m in (0.0, 0.25, -0.25, 1.0)]
    assert torch.equal(levels[0], x) and torch.equal(levels[1], levels[2])
    torch.testing.assert_close(levels[1], 0.75 * x + 0.25 * levels[3])
    assert (levels[3] - x).abs().max() > 0.1
    assert set(GRADED) == set(OPS)


# --- tasks


def test_tasks_have_the_policy_and_its_probes(tmp_path):
    task = tiny_task(tmp_path)
    policy, probe = task.augment["controlled"], task.augment["probe"]
    assert policy == TextPolicy()
    at = task.data.labeled
    both = [policy.bound(lambda: policy.initial_rates().numpy()), probe]
    blocks = [views(task.data.store, [(at, view, row_keys(0, 0, at))], 24)[0]["input_ids"] for view in both]
    assert torch.equal(*blocks)  # no hole in a text: before the first update both are even


def test_grey_tasks_have_no_color_and_keep_their_flip():
    task = tiny_images()  # digits: grey, and mirrored ones would be others
    policy = task.augment["controlled"]
    assert policy.ops == tuple(op for op in OPS if op != "color")
    assert policy.flip_shift == task.augment["weak"] == FlipShift(flip=False)
    block, _ = task.data.store.views([(task.data.labeled, task.augment["probe"], keys(len(task.data.labeled)))])
    assert torch.isfinite(block["pixel_values"]).all()


# --- options


@pytest.mark.parametrize("cls", [TextPolicy, ImagePolicy])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ops": ()}, "SSL265: ops is empty"),
        ({"ops": ("swop", "rotat")}, "SSL266: unknown operation 'swop'.*"),
        ({"bins": 0}, "SSL202: bins"),
        ({"depth": 0}, "SSL202: depth"),
        ({"decay": 1.1}, "SSL202: decay"),
        ({"threshold": float("nan")}, "SSL202: threshold"),
    ],
)
def test_bad_options(cls, options, message):
    with pytest.raises(ConfigError, match=message):
        cls(**options)


def test_the_strongest_text_noise_is_a_share():
    with pytest.raises(ConfigError, match="SSL202: strongest"):
        TextPolicy(strongest=1.5)
    with pytest.raises(ConfigError, match="Did you mean 'swap'"):
        TextPolicy(ops=("swop",))
