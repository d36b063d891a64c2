"""Word noise: every row is a pure function of its key, keeps a word, and changes by about the share asked for."""

import numpy as np
import pytest

from nlp_ssl.augment.base import Vocabulary
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.augment.word_noise import WORD_OPS, SpanDeletion, TokenCutoff, WordDropout, WordSwap, stream
from nlp_ssl.errors import ConfigError
from nlp_ssl.utils.counter_rng import row_keys
from nlp_ssl.utils.ragged import Ragged

NOISE = (TokenCutoff, WordDropout, SpanDeletion, WordSwap)
SIZE = 60
VOCABULARY = Vocabulary(
    Ragged(np.arange(SIZE, dtype=np.int32), np.arange(SIZE + 1)), np.ones(SIZE, dtype=np.int64), np.arange(SIZE) % 7.0
)


def ragged(rows):
    values = np.array([word for row in rows for word in row], dtype=np.int32)
    return Ragged.from_lengths(values, np.array([len(row) for row in rows], dtype=np.int64))


def lists(words):
    return [words.values[a:b].tolist() for a, b in zip(words.offsets, words.offsets[1:], strict=False)]


def mixed_rows(count=200, seed=0):
    """Rows of 0 to 29 words with repeats."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, SIZE, length).tolist() for length in rng.integers(0, 30, count)]


def weights_of(words):
    """A weight for every word that tells its place in the whole: 0, 1, 2, ..."""
    return np.arange(len(words.values), dtype=np.float64)


def keys(count, epoch=0):
    return row_keys(11, epoch, np.arange(count))


def noised(op, rows, epoch=0):
    words = ragged(rows)
    return lists(op(words, weights_of(words), keys(len(rows), epoch), VOCABULARY))


@pytest.mark.parametrize("name", WORD_OPS)
def test_a_row_depends_on_its_key_and_strength_alone(name):
    """Whatever its batch, and with a strength of its own, as the policy asks."""
    words = ragged(mixed_rows())
    weights, p = weights_of(words) / len(words.values), np.linspace(0, 1, 200)
    together, rest = WORD_OPS[name](words, weights, keys(200), VOCABULARY, p)
    assert lists(together) != lists(words)
    for order in (np.array([7]), np.random.default_rng(1).permutation(200)[:50], np.array([3, 3, 199, 0])):
        part = Ragged(weights, words.offsets).take(order).values
        apart, its = WORD_OPS[name](words.take(order), part, keys(200)[order], VOCABULARY, p[order])
        assert lists(apart) == lists(together.take(order))
        assert its.tolist() == Ragged(rest, together.offsets).take(order).values.tolist()


@pytest.mark.parametrize("op", NOISE)
def test_one_strength_for_all_rows_is_the_same_strength_in_each(op):
    words = ragged(mixed_rows())
    name = {TokenCutoff: "cutoff", WordDropout: "dropout", SpanDeletion: "span", WordSwap: "swap"}[op]
    changed, _ = WORD_OPS[name](words, weights_of(words), keys(200), VOCABULARY, np.full(200, 0.3))
    assert lists(changed) == noised(op(0.3), mixed_rows())


def test_replacing_by_row_is_tfidf_replacement():
    words = ragged(mixed_rows())
    weights = np.random.default_rng(0).random(len(words.values)).astype(np.float16) * 2
    for p in (0.0, 0.5, 1.0):
        changed, _ = WORD_OPS["tfidf"](words, weights, keys(200), VOCABULARY, np.full(200, p))
        assert lists(changed) == lists(TfidfReplace(p)(words, weights, keys(200), VOCABULARY))


@pytest.mark.parametrize("op", NOISE)
def test_keys_change_the_result_and_inputs_stay(op):
    words = ragged([list(range(20))] * 50)
    weights, before = weights_of(words), words.values.copy()
    words.values.flags.writeable = weights.flags.writeable = False
    first, second = (lists(op(0.3)(words, weights, keys(50, epoch), VOCABULARY)) for epoch in (0, 1))
    assert len({tuple(row) for row in first}) > 10 and first != second
    assert np.array_equal(words.values, before)


@pytest.mark.parametrize("op", NOISE)
def test_strength_zero_changes_nothing_and_full_strength_leaves_a_word(op):
    rows = [*mixed_rows(), [5], [5, 5, 5], [1, 2]]
    assert noised(op(0.0), rows) == rows
    for before, after in zip(rows, noised(op(1.0), rows), strict=True):
        assert (len(after) >= 1) == (len(before) >= 1)
        assert set(after) <= set(before)
    assert noised(op(1.0), [[], [], []]) == [[], [], []]
    assert noised(op(0.5), []) == []


def test_full_strength_leaves_one_word_or_one_distinct_word():
    rows = [row for row in mixed_rows() if row]
    assert all(len(row) == 1 for op in (TokenCutoff(1.0), SpanDeletion(1.0)) for row in noised(op, rows))
    for before, after in zip(rows, noised(WordDropout(1.0), rows), strict=True):
        assert len(set(after)) == 1 and len(after) == before.count(after[0])


@pytest.mark.parametrize("name", ["cutoff", "dropout", "span", "swap"])
def test_weights_stay_with_their_words(name):
    """Rows are numbered through, so that every word knows its place: the weight of word 17 is 17."""
    words = Ragged(np.arange(600, dtype=np.int32), np.arange(0, 601, 12))
    changed, weights = WORD_OPS[name](words, np.arange(600.0), keys(50), VOCABULARY, np.full(50, 0.4))
    assert changed.values.tolist() == weights.tolist() != list(range(600))


def standard_error(values):
    return np.std(values) / np.sqrt(len(values))


@pytest.mark.parametrize("p", [0.05, 0.15, 0.5, 0.9])
@pytest.mark.parametrize("length", [3, 20])
@pytest.mark.parametrize("op", [TokenCutoff, WordDropout])
def test_words_go_with_their_probability(op, p, length):
    """Of n distinct words np go, except that the last one stays where all would go: np - p^n."""
    gone = [length - len(row) for row in noised(op(p), [list(range(length))] * 4000)]
    expected = length * p - p**length
    assert abs(np.mean(gone) - expected) < 3 * standard_error(gone)
    variance = length * p * (1 - p)  # words go one by one, not in runs
    if length == 20 and p < 0.9:
        assert np.var(gone) == pytest.approx(variance, rel=0.1)


def test_every_place_is_as_likely_to_go():
    kept = np.zeros(10)
    for row in noised(TokenCutoff(0.3), [list(range(10))] * 5000):
        kept[row] += 1
    assert np.abs(kept / 5000 - 0.7).max() < 4 * np.sqrt(0.21 / 5000)


def test_dropout_takes_all_of_a_words_places():
    for row in noised(WordDropout(0.5), [[1, 2, 1, 3, 1, 2]] * 200):
        assert row in [[w for w in [1, 2, 1, 3, 1, 2] if w in kept] for kept in
                       ({1}, {2}, {3}, {1, 2}, {1, 3}, {2, 3}, {1, 2, 3})]  # fmt: skip


@pytest.mark.parametrize(("p", "length"), [(0.05, 6), (0.15, 20), (0.5, 7), (0.3, 1), (0.9, 20)])
def test_one_run_of_the_share_goes(p, length):
    """P n words, rounded up with the probability of the fraction; a row of one word keeps it."""
    gone = []
    for row in noised(SpanDeletion(p), [list(range(length))] * 4000):
        gone.append(length - len(row))
        missing = sorted(set(range(length)) - set(row))
        assert row == sorted(row) and missing == list(range(missing[0], missing[0] + len(missing)) if missing else [])
    assert set(gone) <= ({int(p * length), int(p * length) + 1} if length > 1 else {0})
    assert abs(np.mean(gone) - (p * length if length > 1 else 0)) < 3 * standard_error(gone) + 1e-9


def test_runs_start_anywhere():
    """One or two of five words go, as often: the run starts at each of 5 or of 4 places, whichever was drawn."""
    missing = [sorted(set(range(5)) - set(row)) for row in noised(SpanDeletion(0.3), [list(range(5))] * 8000)]
    for size in (1, 2):
        starts = np.bincount([gone[0] for gone in missing if len(gone) == size])
        assert len(starts) == 6 - size and starts.sum() > 3800
        share = 1 / len(starts)
        assert np.abs(starts / starts.sum() - share).max() < 4 * np.sqrt(share * (1 - share) / starts.sum())


@pytest.mark.parametrize(("p", "length"), [(0.1, 20), (0.15, 4), (0.5, 20), (1.0, 7)])
def test_swaps_move_pairs(p, length):
    """Of K ~ Binomial(n, p) chosen words the even part moves: n p - P(K odd), P(K odd) = (1 - (1 - 2p)^n) / 2."""
    moved = []
    for row in noised(WordSwap(p), [list(range(length))] * 4000):
        places = [i for i, word in enumerate(row) if word != i]
        assert sorted(row) == list(range(length)) and all(row[row[i]] == i for i in places)  # pairs
        moved.append(len(places))
    expected = length * p - (1 - (1 - 2 * p) ** length) / 2
    assert abs(np.mean(moved) - expected) < 3 * standard_error(moved) + 1e-9


def test_a_word_changes_places_with_any_other():
    """All four words chosen make two pairs: three ways, a third of the time each."""
    rows = noised(WordSwap(1.0), [[0, 1, 2, 3]] * 3000)
    counts = [rows.count(way) for way in ([1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0])]
    assert sum(counts) == 3000 and max(counts) - min(counts) < 6 * np.sqrt(3000 * 2 / 9)


def test_operations_choose_their_words_apart():
    """Which words one would cut says nothing about which another does: streams differ, and so do turns."""
    rows = [list(range(40))] * 500
    cut, dropped, swapped = (noised(op, rows) for op in (TokenCutoff(0.5), WordDropout(0.5), WordSwap(0.5)))
    touched = [np.array([np.isin(np.arange(40), row) for row in noise]) for noise in (cut, dropped)]
    touched.append(np.array([np.array(row) != np.arange(40) for row in swapped]))
    words = ragged(rows)
    later = TokenCutoff(0.5)(words, weights_of(words), stream(keys(500), 64), VOCABULARY)
    touched.append(np.array([np.isin(np.arange(40), row) for row in lists(later)]))
    for i, one in enumerate(touched):
        for other in touched[:i]:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(one.size)


def test_streams_keep_keys_apart():
    found = np.concatenate([keys(1000), *(stream(keys(1000), number) for number in (1, 2, 32, 64))])
    assert len(np.unique(found)) == 5000


@pytest.mark.parametrize("op", NOISE)
@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_its_range_is_refused(op, p):
    with pytest.raises(ConfigError, match=r"SSL202: p must lie in \[0, 1\]"):
        op(p)
