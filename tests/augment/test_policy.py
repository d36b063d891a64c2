"""Strong views by name, and rewritings in place of their texts."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stores import views
from tiny import tiny_bert, tiny_tables

from nlp_ssl.augment.base import Identity
from nlp_ssl.augment.policy import Chain, Operation, Rewritten, SomeOf, parse_policy
from nlp_ssl.augment.word_noise import TokenCutoff, WordSwap
from nlp_ssl.data.schema import build_data
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.paraphrase.views import read_views, rewritings_of
from nlp_ssl.task import REWRITTEN, TFIDF, text_task
from nlp_ssl.utils.counter_rng import row_keys
from nlp_ssl.utils.ragged import Ragged


def chain(*steps):
    return Chain(tuple(Operation(name, p, p) for name, p in steps))


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("tfidf", chain(("tfidf", 0.4))),
        ("tfidf(p=0.2)", chain(("tfidf", 0.2))),
        ("tfidf(.2) + swap", chain(("tfidf", 0.2), ("swap", 0.15))),
        ("span(p=1e-1)+cutoff(p=1)", chain(("span", 0.1), ("cutoff", 1.0))),
        ("tfidf(0.1..0.4)", Chain((Operation("tfidf", 0.1, 0.4),))),
        (
            "one_of(swap, span+cutoff)",
            Chain((SomeOf(1, (chain(("swap", 0.15)), chain(("span", 0.15), ("cutoff", 0.15)))),)),
        ),
        (
            "swap+some_of(2, swap(.1), span(p=.2..1), one_of(cutoff, dropout))",
            Chain(
                (
                    Operation("swap", 0.15, 0.15),
                    SomeOf(
                        2,
                        (
                            chain(("swap", 0.1)),
                            Chain((Operation("span", 0.2, 1.0),)),
                            Chain((SomeOf(1, (chain(("cutoff", 0.15)), chain(("dropout", 0.15)))),)),
                        ),
                    ),
                )
            ),
        ),
        ("back_translation", Rewritten()),
        ("back_translation(p=0.5)", Rewritten(p=0.5)),
        ("back_translation+dropout(0.3)", Rewritten(then=chain(("dropout", 0.3)))),
    ],
)
def test_policies(text, policy):
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tfdif", "no operation 'tfdif'. Did you mean 'tfidf'"),
        ("", "write operations like"),
        ("tfidf(q=1)", "write operations like"),
        ("tfidf(p=1e)", "write operations like"),
        ("tfidf(0.1", "write operations like"),
        ("tfidf)", "write operations like"),
        ("swap swap", "no operation 'swapswap'"),
        ("swap;span", "write operations like"),
        ("swap+", "write operations like"),
        ("1+swap", "write operations like"),
        ("some_of(1.5, swap, span)", "1.5 is no number of operations"),
        ("some_of(swap, span)", "write operations like"),
        ("one_off(swap, span)", "no operation 'one_off'. Did you mean 'one_of'"),
        ("some_of(nan, swap)", "write operations like"),
        ("some_of(1e400, swap)", "write operations like"),
        ("tfidf(swap)", "write operations like"),
        ("one_of(" * 400 + "swap" + ")" * 400, "write operations like"),
        ("back_translation(0.1..0.4)", "back_translation has one share"),
        ("swap+back_translation", "back_translation comes first"),
        ("one_of(back_translation, swap)", "back_translation comes first"),
    ],
)
def test_policies_that_are_none(text, message):
    with pytest.raises(ConfigError, match=f"SSL283: policy .*{re.escape(message)}"):
        parse_policy(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("swap(p=1.5)", "p of swap"),
        ("swap(0.5..0.1)", "p of swap"),
        ("back_translation(p=2)", "p of back_translation"),
        ("some_of(3, swap, span)", "number of operations in some_of"),
        ("some_of(0, swap, span)", "number of operations in some_of"),
    ],
)
def test_values_out_of_range(text, what):
    with pytest.raises(ConfigError, match=f"SSL202: {what} must lie in"):
        parse_policy(text)


def rows_of(policy, rows=400, length=20):
    """What the policy makes of rows of distinct words."""
    words = Ragged.from_lengths(np.tile(np.arange(length), rows), np.full(rows, length))
    keys = row_keys(0, 0, np.arange(rows))
    return words, keys, policy(words, np.ones(len(words.values)), keys, None)


def test_a_chain_of_one_operation_is_that_operation():
    for name, plain in (("swap(0.3)", WordSwap(0.3)), ("cutoff(0.3)", TokenCutoff(0.3))):
        assert rows_of(parse_policy(name))[2].values.tolist() == rows_of(plain)[2].values.tolist()


def test_each_row_draws_its_strength():
    kept = rows_of(parse_policy("span(p=0.2..0.6)"))[2].lengths
    assert set(range(9, 16)) <= set(kept.tolist()) <= set(range(8, 17))
    assert kept.mean() == pytest.approx(12, abs=0.4)


def test_each_row_draws_one_of_the_chains():
    words, keys, changed = rows_of(parse_policy("one_of(swap(1), span(0.5), cutoff(1)+swap)"))
    assert set(changed.lengths.tolist()) == {20, 10, 1}
    shares = [(changed.lengths == n).mean() for n in (20, 10, 1)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.08)
    swapped = np.flatnonzero(changed.lengths == 20)
    assert all(changed.slice(i, i + 1).values.tolist() != list(range(20)) for i in swapped)


def test_each_row_draws_two_of_three():
    changed = rows_of(parse_policy("some_of(2, span(0.5), span(0.5), swap(1))"))[2]
    shares = {n: (changed.lengths == n).mean() for n in (10, 5)}  # one span and the swap, or both spans
    assert shares[10] == pytest.approx(2 / 3, abs=0.08) and shares[5] == pytest.approx(1 / 3, abs=0.08)
    once = np.flatnonzero(changed.lengths == 10)
    assert all(changed.slice(i, i + 1).values.tolist() != sorted(changed.slice(i, i + 1).values) for i in once)


def test_an_operation_that_occurs_twice_draws_twice():
    twice = rows_of(parse_policy("cutoff(0.5)+cutoff(0.5)"))[2].lengths.mean()
    assert twice == pytest.approx(5, abs=0.5)


def test_choices_within_choices_are_drawn_apart():
    """Where they shared their draws the innermost cutoff was never reached, and a second swap undid the first."""
    nested = rows_of(parse_policy("one_of(one_of(one_of(span(0.5), cutoff(1)), swap(0)), swap(0))"), rows=2000)[2]
    shares = {n: (nested.lengths == n).mean() for n in (20, 10, 1)}
    assert [shares[n] for n in (20, 10, 1)] == pytest.approx([0.75, 0.125, 0.125], abs=0.03)
    twice = rows_of(parse_policy("some_of(2, one_of(swap(1)), swap(1))"))[2]
    assert all(twice.slice(i, i + 1).values.tolist() != list(range(20)) for i in range(len(twice)))


def test_a_row_is_the_same_in_any_company():
    policy = parse_policy("some_of(2, span(0.1..0.5), swap(0.1..1), cutoff)+swap")
    words, keys, changed = rows_of(policy)
    for i in (0, 7, 399):
        alone = policy(words.slice(i, i + 1), np.ones(20), keys[i : i + 1], None)
        assert alone.values.tolist() == changed.slice(i, i + 1).values.tolist()


def views_of(rows):
    return pa.table({"text": [a for a, _ in rows], "view": [b for _, b in rows]})


@pytest.fixture
def task(tmp_path):
    labeled, unlabeled, test = tiny_tables(labeled=4, unlabeled=6, test=2)
    data = build_data(labeled, unlabeled, None, test)
    texts = data.texts.to_pylist()
    first, second = (texts[i] for i in data.unlabeled[:2])
    views = views_of([(first, "great fun film"), (second, "dull"), (first, "poor waste"), ("elsewhere", "x")])
    made = text_task(data, str(tiny_bert(tmp_path / "model")), views=views, max_length=64, cache_dir=tmp_path / "cache")
    return made, data, {"great fun film", "poor waste"}


def words(task, row, key, augment):
    inputs, _ = views(task.data.store, [(np.array([row]), augment, np.array([key], dtype=np.uint64))], 64)
    return task.build(0).tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)


def test_rewritings_take_the_place_of_their_texts(task):
    made, data, both = task
    one, two, other = data.unlabeled[:3]
    texts, plain = data.texts.to_pylist(), Rewritten(otherwise=Identity())
    assert {words(made, one, key, plain) for key in range(20)} == both
    assert {words(made, two, key, plain) for key in range(5)} == {"dull"}
    assert words(made, other, 0, plain) == texts[other]
    rows, keys = data.unlabeled[:4], np.arange(4, dtype=np.uint64)
    together, _ = views(made.data.store, [(rows, plain, keys)], 64)
    alone = [words(made, row, key, plain) for row, key in zip(rows, keys, strict=True)]
    decode = made.build(0).tokenizer.decode
    assert [decode(ids, skip_special_tokens=True) for ids in together["input_ids"]] == alone


def test_a_share_of_the_rows_takes_its_rewriting(task):
    made, data, both = task
    row = data.unlabeled[0]
    half = [words(made, row, key, Rewritten(otherwise=Identity(), p=0.5)) in both for key in range(200)]
    assert np.mean(half) == pytest.approx(0.5, abs=0.12)


def test_words_are_replaced_where_there_is_no_rewriting_as_strongly_as_without_any():
    assert [way.otherwise for way in REWRITTEN.candidates] == list(TFIDF.candidates)
    assert all(way.then == Identity() and way.p == 1.0 for way in REWRITTEN.candidates)


def test_a_rewriting_is_changed_further(task):
    made, data, _ = task
    row = data.unlabeled[0]
    cut = Rewritten(then=chain(("cutoff", 1.0)))
    assert {len(words(made, row, key, cut).split()) for key in range(5)} == {1}
    assert words(made, data.test[0], 0, Identity()) == data.texts.to_pylist()[data.test[0]]


def test_rewritings_add_no_rows_to_train_on_and_no_statistics(task, tmp_path):
    made, data, _ = task
    without = text_task(data, str(tmp_path / "model"), max_length=64, cache_dir=tmp_path / "cache")
    assert len(made.data.store) == len(data.texts) + 3
    assert made.data.unlabeled.tolist() == without.data.unlabeled.tolist()
    fitted, plain = made.data.store.vocabulary, without.data.store.vocabulary
    assert fitted.df.sum() == plain.df.sum() and fitted.tfidf.sum() == pytest.approx(plain.tfidf.sum())
    assert dict(made.origin)["views"] != dict(without.origin)["views"] == ""


def test_files_of_views(tmp_path):
    path = tmp_path / "v.parquet"
    pq.write_table(views_of([("a", "b"), ("c", "c"), ("d", None)]), path)
    assert read_views(path).to_pylist() == [{"text": "a", "view": "b"}]
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(DataError, match="SSL140: .*v.parquet: not a Parquet file with text and view columns"):
        read_views(path)
    path.write_text("text,view\n")
    with pytest.raises(DataError, match="SSL140"):
        read_views(path)
    with pytest.raises(DataError, match="SSL140"):
        read_views(tmp_path / "absent.parquet")


def test_rows_of_views():
    texts = pa.chunked_array([["a", "b"], ["c"]])
    found, rows = rewritings_of(texts, views_of([("c", "1"), ("a", "2"), ("?", "3"), ("c", "4")]))
    assert found.to_pylist() == ["1", "2", "4"]
    assert [rows.slice(i, i + 1).values.tolist() for i in range(3)] == [[4], [], [3, 5]]
    with pytest.raises(DataError, match="SSL141: none of the views belongs"):
        rewritings_of(texts, views_of([("?", "3")]))
