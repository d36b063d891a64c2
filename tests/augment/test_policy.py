"""Strong views by name, and rewritings in place of their texts."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import tiny_bert, tiny_tables

from nlp_ssl import text_task
from nlp_ssl.augment.base import Identity
from nlp_ssl.augment.policy import Chain, Rewritten, parse_policy
from nlp_ssl.data.schema import build
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.paraphrase.views import read_views, rewritings_of


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("tfidf", Chain((("replace", 0.4),))),
        ("tfidf(p=0.2)", Chain((("replace", 0.2),))),
        ("tfidf(.2) + swap", Chain((("replace", 0.2), ("swap", 0.15)))),
        ("span(p=1e-1)+cutoff(p=1)", Chain((("span", 0.1), ("cutoff", 1.0)))),
        ("back_translation", Rewritten()),
        ("back_translation+dropout(0.3)", Rewritten(then=Chain((("dropout", 0.3),)))),
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
        ("tfidf(p=1e)", "'1e' is no strength"),
        ("swap+back_translation", "back_translation comes first"),
        ("back_translation(p=0.1)", "back_translation comes first"),
    ],
)
def test_policies_that_are_none(text, message):
    with pytest.raises(ConfigError, match=f"SSL283: policy .*{message}"):
        parse_policy(text)


def test_strength_out_of_range():
    with pytest.raises(ConfigError, match="SSL202: p of swap must lie in"):
        parse_policy("swap(p=1.5)")


def views_of(rows):
    return pa.table({"text": [a for a, _ in rows], "view": [b for _, b in rows]})


@pytest.fixture
def task(tmp_path):
    labeled, unlabeled, test = tiny_tables(labeled=4, unlabeled=6, test=2)
    data = build(labeled, unlabeled, None, test)
    texts = data.texts.to_pylist()
    first, second = (texts[i] for i in data.unlabeled[:2])
    views = views_of([(first, "great fun film"), (second, "dull"), (first, "poor waste"), ("elsewhere", "x")])
    made = text_task(data, str(tiny_bert(tmp_path / "model")), views=views, max_length=64, cache_dir=tmp_path / "cache")
    return made, data, {"great fun film", "poor waste"}


def words(task, row, key, augment):
    inputs, _ = task.data.store.views([(np.array([row]), augment, np.array([key], dtype=np.uint64))], 64)
    return task.build(0).tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)


def test_rewritings_take_the_place_of_their_texts(task):
    made, data, both = task
    one, two, other = data.unlabeled[:3]
    texts, plain = data.texts.to_pylist(), Rewritten(otherwise=Identity())
    assert {words(made, one, key, plain) for key in range(20)} == both
    assert {words(made, two, key, plain) for key in range(5)} == {"dull"}
    assert words(made, other, 0, plain) == texts[other]
    rows, keys = data.unlabeled[:4], np.arange(4, dtype=np.uint64)
    together, _ = made.data.store.views([(rows, plain, keys)], 64)
    alone = [words(made, row, key, plain) for row, key in zip(rows, keys, strict=True)]
    decode = made.build(0).tokenizer.decode
    assert [decode(ids, skip_special_tokens=True) for ids in together["input_ids"]] == alone


def test_a_rewriting_is_changed_further(task):
    made, data, _ = task
    row = data.unlabeled[0]
    cut = Rewritten(then=Chain((("cutoff", 1.0),)))
    assert {len(words(made, row, key, cut).split()) for key in range(5)} == {1}
    assert words(made, data.test[0], 0, Identity()) == data.texts.to_pylist()[data.test[0]]


def test_rewritings_add_no_rows_to_train_on_and_no_statistics(task, tmp_path):
    made, data, _ = task
    without = text_task(data, str(tmp_path / "model"), max_length=64, cache_dir=tmp_path / "cache")
    assert len(made.data.store) == len(data.texts) + 3
    assert made.data.unlabeled.tolist() == without.data.unlabeled.tolist()
    fitted, plain = made.data.store.vocabulary, without.data.store.vocabulary
    assert fitted.df.sum() == plain.df.sum() and fitted.tfidf.sum() == pytest.approx(plain.tfidf.sum())
    assert dict(made.data.origin)["views"] != dict(without.data.origin)["views"] == ""


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
