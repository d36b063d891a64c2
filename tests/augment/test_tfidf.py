"""TF-IDF replacement against a plain loop written from the published algorithm."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from nlp_ssl.augment.base import Identity, Vocabulary
from nlp_ssl.augment.tfidf import (
    TfidfReplace,
    document_frequency,
    inverse_document_frequency,
    replace_weights,
    summed_scores,
    tfidf_scores,
)
from nlp_ssl.errors import ConfigError
from nlp_ssl.utils.counter_rng import AliasTable, row_keys, uniform
from nlp_ssl.utils.ragged import Ragged


def ragged(rows: list[list[int]]) -> Ragged:
    values = np.array([word for row in rows for word in row], dtype=np.int32)
    return Ragged.from_lengths(values, np.array([len(row) for row in rows], dtype=np.int64))


def zipf_rows(count: int, size: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [np.minimum(rng.zipf(1.4, rng.integers(2, 30)) - 1, size - 1).tolist() for _ in range(count)]


def loop_statistics(rows: list[list[int]]) -> tuple[dict[int, float], dict[int, float]]:
    df = Counter(word for row in rows for word in set(row))
    idf = {word: math.log(len(rows) / count) for word, count in df.items()}
    summed: dict[int, float] = dict.fromkeys(df, 0.0)
    for row in rows:
        for word in row:
            summed[word] += idf[word] / len(row)
    return idf, summed


def loop_probability(row: list[int], idf: dict[int, float], p: float) -> np.ndarray:
    scores: dict[int, float] = dict.fromkeys(row, 0.0)
    for word in row:
        scores[word] += idf[word] / len(row)
    gap = np.array([max(scores.values()) - scores[word] for word in row])
    return np.minimum(gap / gap.sum() * p * len(row), 1.0) if gap.sum() > 1e-9 else np.zeros(len(row))


def fitted(rows: list[list[int]], size: int) -> tuple[Ragged, np.ndarray, Vocabulary]:
    """Words, replace weights and vocabulary (one piece per word) of rows that all count."""
    words = ragged(rows)
    df = document_frequency(words, size)
    idf = inverse_document_frequency(df, len(rows))
    weights = replace_weights(Ragged(tfidf_scores(words, idf), words.offsets))
    pieces = Ragged(np.arange(size, dtype=np.int32), np.arange(size + 1))
    return words, weights, Vocabulary(pieces, df, summed_scores(words, idf))


def test_statistics_match_the_loop():
    rows = zipf_rows(200, 60, seed=0)
    _, _, vocabulary = fitted(rows, 60)
    _, summed = loop_statistics(rows)
    assert len(summed) > 40
    for word in range(60):
        assert vocabulary.tfidf[word] == pytest.approx(summed.get(word, 0.0), rel=1e-12)
        assert vocabulary.df[word] == sum(word in row for row in rows)


def test_summed_scores_count_a_repeated_word_linearly():
    _, _, vocabulary = fitted([[0, 0, 0, 1], [1, 2]], 3)
    np.testing.assert_allclose(vocabulary.tfidf, [0.75 * math.log(2), 0.0, 0.5 * math.log(2)])


@pytest.mark.parametrize("p", [0.1, 0.4, 0.9])
def test_replace_probability_matches_the_loop(p):
    rows = [*zipf_rows(200, 60, seed=1), [3], [4, 4, 4], []]
    words, weights, _ = fitted(rows, 60)
    idf, _ = loop_statistics(rows)
    expected = np.concatenate([loop_probability(row, idf, p) for row in rows if row])
    got = np.minimum(p * weights.astype(np.float64), 1.0)
    assert (expected > 0).mean() > 0.5
    np.testing.assert_allclose(got, expected, rtol=2**-10, atol=1e-6)
    assert len(words.values) == len(weights)


def test_probability_worked_by_hand():
    # Row of one rare word (idf ln 4), the others in every row: all its replacement mass is on the two common words.
    words, weights, _ = fitted([[0, 1, 2], [0, 1], [0, 1], [0, 1]], 3)
    np.testing.assert_allclose(weights[:3], [1.5, 1.5, 0.0])
    np.testing.assert_allclose(weights[3:], 0.0)


def test_rounding_does_not_break_a_tie():
    # Two of df 4 in 16 rows score ln(4) * 2, one of df 1 scores ln(16): equal, but not always to the last bit.
    scores = Ragged(
        np.array([2 * math.log(4) / 7, 2 * math.log(4) / 7, math.log(16) / 7 * (1 + 2**-52)]), np.array([0, 3])
    )
    assert not replace_weights(scores).any()


def test_weights_stay_finite_in_float16():
    scores = Ragged(np.r_[0.0, np.ones(100_000)], np.array([0, 100_001]))
    assert np.isfinite(replace_weights(scores)).all()


def test_replaced_positions_follow_their_probability():
    rows = zipf_rows(40, 30, seed=2)
    words, weights, vocabulary = fitted(rows, 30)
    row, repeats = 5, 20_000
    index = np.full(repeats, row)
    many, many_weights = words.take(index), np.tile(weights[words.offsets[row] : words.offsets[row + 1]], repeats)
    changed = TfidfReplace(0.4)(many, many_weights, row_keys(0, 0, np.arange(repeats)), vocabulary)
    idf, summed = loop_statistics(rows)
    q = loop_probability(rows[row], idf, 0.4)
    draw = {word: max(summed.values()) - value for word, value in summed.items()}
    same = np.array([draw[word] for word in rows[row]]) / sum(draw.values())  # a draw may give the old word again
    rate = (changed.values != many.values).reshape(repeats, -1).mean(0)
    error = np.sqrt(np.maximum(q * (1 - q), 1e-9) / repeats)
    assert (np.abs(rate - q * (1 - same)) < 5 * error + 1e-3).all()


def test_drawn_words_follow_the_published_distribution():
    rows = zipf_rows(60, 25, seed=3)
    _, _, vocabulary = fitted(rows, 26)  # word 25 is in no fitted row
    _, summed = loop_statistics(rows)
    count = 40_000
    blank = Ragged(np.full(count, 25, dtype=np.int32), np.arange(count + 1))
    drawn = TfidfReplace(1.0)(blank, np.full(count, 2.0), row_keys(1, 0, np.arange(count)), vocabulary).values
    mass = np.array([max(summed.values()) - summed[w] if w in summed else 0.0 for w in range(26)])
    observed = np.bincount(drawn, minlength=26)
    assert observed[mass == 0].sum() == 0
    keep = mass > 0
    assert chisquare(observed[keep], mass[keep] / mass.sum() * count).pvalue > 1e-3


def test_a_row_does_not_depend_on_its_batch_mates():
    rows = zipf_rows(50, 40, seed=4)
    words, weights, vocabulary = fitted(rows, 40)
    per_word = Ragged(weights, words.offsets)
    together = TfidfReplace(0.5)(words, weights, row_keys(7, 2, np.arange(50)), vocabulary)
    order = np.random.default_rng(0).permutation(50)[:20]
    apart = TfidfReplace(0.5)(words.take(order), per_word.take(order).values, row_keys(7, 2, order), vocabulary)
    np.testing.assert_array_equal(together.take(order).values, apart.values)
    assert (together.values != words.values).any()


def test_p_zero_and_flat_vocabularies_change_nothing_and_inputs_stay():
    rows = zipf_rows(20, 20, seed=5)
    words, weights, vocabulary = fitted(rows, 20)
    keys, before = row_keys(0, 0, np.arange(20)), words.values.copy()
    np.testing.assert_array_equal(TfidfReplace(0.0)(words, weights, keys, vocabulary).values, before)
    TfidfReplace(1.0)(words, weights, keys, vocabulary)
    np.testing.assert_array_equal(words.values, before)
    assert Identity()(words, weights, keys, vocabulary) is words
    flat = Vocabulary(vocabulary.pieces, np.zeros(20, dtype=np.int64), np.zeros(20))
    np.testing.assert_array_equal(TfidfReplace(1.0)(words, weights, keys, flat).values, before)


def test_a_drawn_word_says_nothing_about_the_next_position():
    count, size = 20_000, 64
    blank = Ragged(np.full(2 * count, size, dtype=np.int32), np.arange(0, 2 * count + 1, 2))
    pieces = Ragged(np.arange(size + 1, dtype=np.int32), np.arange(size + 2))
    df, summed = np.append(np.ones(size, dtype=np.int64), 0), np.arange(size + 1.0) % 7
    augment = TfidfReplace(0.5)
    keys = row_keys(0, 0, np.arange(count))
    pairs = augment(blank, np.ones(2 * count), keys, Vocabulary(pieces, df, summed)).values.reshape(-1, 2)
    for here, there in ((0, 1), (1, 0)):
        drawn = pairs[:, here] != size
        assert 0.45 < drawn.mean() < 0.55
        link = np.corrcoef(pairs[drawn, here], pairs[drawn, there] != size)[0, 1]
        assert abs(link) < 5 / np.sqrt(drawn.sum())


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_outside_its_range_is_refused(p):
    with pytest.raises(ConfigError, match=r"SSL261: tfidf: p is .*between 0 and 1") as caught:
        TfidfReplace(p)
    assert "\n" not in str(caught.value)


def test_uniform_is_flat_and_its_streams_are_unrelated():
    keys = row_keys(0, 0, np.arange(200))
    grid = uniform(np.repeat(keys, 500), np.tile(np.arange(500), 200)).reshape(200, 500)
    assert grid.min() >= 0.0 and grid.max() < 1.0
    assert chisquare(np.histogram(grid, bins=64, range=(0, 1))[0]).pvalue > 1e-3
    limit = 5 / math.sqrt(grid.size)
    for other in (np.roll(grid, 1, axis=0), np.roll(grid, 1, axis=1)):  # next row, next position
        assert abs(np.corrcoef(grid.ravel(), other.ravel())[0, 1]) < limit


def test_keys_depend_on_every_part():
    ids = np.arange(1000)
    variants = [
        row_keys(0, 0, ids),
        row_keys(1, 0, ids),
        row_keys(0, 1, ids),
        row_keys(0, 0, ids, 1),
        row_keys(-1, 0, ids),
    ]
    assert len(np.unique(np.concatenate(variants))) == 5000
    np.testing.assert_array_equal(row_keys(3, 4, ids, 5)[[7]], row_keys(3, 4, np.array([7]), 5))


@pytest.mark.parametrize(
    "mass",
    [[1.0], [1.0] * 7, [0.1] * 3, [0.0, 3.0, 0.0], [5.0, 1.0, 1.0, 1.0], [1.0, 1.1, 1.1, 1.1, 0.0], [1e-12, 1.0, 2.0]],
    ids=str,
)
def test_alias_table_holds_every_weight(mass):
    check_alias_table(np.array(mass))


@pytest.mark.parametrize("seed", range(20))
def test_alias_table_holds_random_weights(seed):
    rng = np.random.default_rng(seed)
    check_alias_table(rng.pareto(0.7, 200) * (rng.random(200) < 0.8))


def check_alias_table(mass):
    table = AliasTable.of(mass)
    assert (table.keep >= 0).all() and (table.keep <= 1 + 1e-12).all()
    held = table.keep + np.bincount(table.other, weights=1 - table.keep, minlength=len(mass))
    np.testing.assert_allclose(held / len(mass), mass / mass.sum(), atol=1e-12)
    assert (held[mass == 0] == 0).all()
    assert (mass[table.draw(np.linspace(0, 1, 1000, endpoint=False))] > 0).all()
