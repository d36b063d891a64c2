"""Pairs of texts: the tokenizer's own tokens, words of both replaced, copies and leaks by both, and the commands."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pairs import pair_bert, pair_rows, pair_table, pair_tokenizer, roberta_like
from stores import views
from tiny import FAST, FILLER, GOOD, tiny_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ssl import fit
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.cli import run as cli
from nlp_ssl.data.bundled import bundled_encoder
from nlp_ssl.data.pairs import longest_first
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import table_of
from nlp_ssl.data.tokens import TokenStore
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.inference.predict import logits_of_texts, predict
from nlp_ssl.methods import FixMatch, Supervised
from nlp_ssl.nets.text import check_pairs, load_trained
from nlp_ssl.task import text_task

FIRST = ["the film with a good plot", "a", "music", "very slow and bleak in the end of it", "joy " * 30]
SECOND = [
    "it",
    "the story of a poor actor with a warm scene and music",
    "dull",
    "good fun and a bright story",
    "bad " * 40,
]


def stored(tokenizer, folder: Path, first=FIRST, second=SECOND) -> TokenStore:
    store = TokenStore.build(pa.chunked_array([first, second]), tokenizer, cache_dir=folder)
    store.join(np.arange(len(first), 2 * len(first)), tokenizer)
    return store


@pytest.mark.parametrize(
    "make", [pair_tokenizer, roberta_like, lambda: AutoTokenizer.from_pretrained(bundled_encoder())]
)
def test_tokens_are_the_tokenizers_own(make, tmp_path: Path) -> None:
    tokenizer = make()
    store, rows = stored(tokenizer, tmp_path), np.array([3, 0, 1, 4, 2])
    for max_length in (6, 7, 8, 9, 13, 14, 24, 200):
        keys = np.zeros(5, dtype=np.uint64)
        inputs, lengths = views(store, [(rows[:2], None, keys[:2]), (rows[2:], None, keys[2:])], max_length)
        wanted = tokenizer([FIRST[i] for i in rows], [SECOND[i] for i in rows], truncation="longest_first",
                           max_length=max_length, padding=True, return_tensors="pt")  # fmt: skip
        assert set(inputs) == set(wanted)
        for name, values in wanted.items():
            assert torch.equal(inputs[name], values), (name, max_length)
        assert lengths.tolist() == wanted["attention_mask"].sum(1).tolist()
    own = [len(ids) for ids in tokenizer(FIRST, SECOND)["input_ids"]]
    assert store.lengths[: len(FIRST)].tolist() == own
    with pytest.raises(ConfigError, match="263"):  # no room for a token of each
        views(store, [(rows, None, np.zeros(5, np.uint64))], len(tokenizer("", "")["input_ids"]) + 1)


def test_longest_first_by_hand() -> None:
    # Room for 6: all of 2 + 3; 5 + 4 halved; the short 2 stays; an odd 7th token goes to the longer text.
    def kept(first: list[int], second: list[int], room: int, longer: bool = False) -> list[list[int]]:
        found = longest_first(np.array(first), np.array(second), np.full(len(first), longer), room)
        return [lengths.tolist() for lengths in found]

    assert kept([2, 5, 2, 9], [3, 4, 9, 1], 6) == [[2, 3, 2, 5], [3, 3, 4, 1]]
    assert kept([9, 8], [8, 9], 7) == [[4, 3], [3, 4]]
    assert kept([7], [7], 7) == [[3], [4]] and kept([7], [7], 7, longer=True) == [[4], [3]]


def test_a_tokenizer_that_knows_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="451"):
        stored(tiny_tokenizer(), tmp_path)


def test_words_of_both_texts_are_replaced(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = ([" ".join(rng.permutation(FILLER + GOOD)[:16]) for _ in range(60)] for _ in range(2))
    store = stored(pair_tokenizer(), tmp_path, first, second)
    rows, keys = np.arange(60), np.arange(60, dtype=np.uint64)
    (plain, _), (noisy, _) = (views(store, [(rows, change, keys)], 64) for change in (None, TfidfReplace(0.5)))
    changed, side = (plain["input_ids"] != noisy["input_ids"]).float(), plain["token_type_ids"]
    assert changed[side == 0].mean() > 0.1 and changed[side == 1].mean() > 0.1
    assert torch.equal(plain["attention_mask"], noisy["attention_mask"])
    # Of equal texts in both places not the same words are replaced.
    twice = stored(pair_tokenizer(), tmp_path, first, first)
    ids = views(twice, [(rows, TfidfReplace(0.5), keys)], 64)[0]["input_ids"]
    assert (ids[:, 1:17] != ids[:, 18:34]).any(1).float().mean() > 0.9


def test_duplicates_and_leaks_are_compared_on_both_texts() -> None:
    labeled = table_of(["a", "a", "b", "B "], ["x", "y", "y", "y"], pairs=["1", "2", "3", "3"])
    pool = table_of(["a", "a", "A"], pairs=["3", "4", " 1"])
    found = build_data(labeled, pool)
    assert len(found.labeled) == 4  # "a" stands there with two labels, but beside other texts
    assert len(found.unlabeled) == 2  # "A", " 1" repeats a labeled pair
    assert any("duplicate texts among the labeled rows: 1" in note for note in found.notes)
    with pytest.raises(DataError, match="137"):
        build_data(labeled, pool, None, table_of(["a"], ["x"], pairs=["4"]))
    build_data(labeled, pool, None, table_of(["a"], ["x"], pairs=["5"]))
    turned = build_data(labeled, table_of(["1"], pairs=["a"]))
    assert len(turned.unlabeled) == 1  # the order of the two counts
    other = table_of(["a", "a", "b", "B "], ["x", "y", "y", "y"], pairs=["1", "2", "3", "4"])
    assert build_data(labeled, pool).content_hash != build_data(other, pool).content_hash
    with pytest.raises(DataError, match="150"):
        build_data(labeled, table_of(["a"]))


def test_reading_pairs(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("premise,hypothesis,label,split\na,b,x,train\n,c,y,train\nd, ,y,train\ne,f,y,test\n")
    table = read_table(file, text_column="premise", pair_column="hypothesis")
    assert table.texts.to_pylist() == ["a", "e"] and table.pairs.to_pylist() == ["b", "f"]
    assert table.labels == ["x", "y"] and table.splits == ["train", "test"] and table.rows.tolist() == [1, 4]
    assert table.take(np.array([1])).pairs.to_pylist() == ["f"]
    for wrong, code in (("hypotesis", "108"), ("premise", "149")):
        with pytest.raises(DataError, match=code):
            read_table(file, text_column="premise", pair_column=wrong)
    with pytest.raises(DataError, match="121"):
        table_of(["a", "b"], pairs=["c"])


def test_a_run_on_pairs_and_what_it_predicts(tmp_path: Path) -> None:
    model = pair_bert(tmp_path / "model")
    text = build_data(pair_table(64, 1), pair_table(48, 2), None, pair_table(32, 3))
    task = text_task(text, str(model), strong=TfidfReplace(0.2), max_length=24, cache_dir=tmp_path / "cache")
    assert task.data.whole_texts[0].as_py().count("\n") == 1
    fit(FixMatch(), task, FAST, folder=tmp_path / "out")
    net = load_trained(tmp_path / "out")
    first, second, _ = pair_rows(32, 3)
    ours = logits_of_texts(net, first, 24, second)
    torch.testing.assert_close(ours, predict(net, task.data.store, task.data.test), atol=1e-5, rtol=1e-5)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    inputs = AutoTokenizer.from_pretrained(tmp_path / "out")(first, second, padding=True, return_tensors="pt")
    assert inputs["token_type_ids"].any()
    with torch.no_grad():
        torch.testing.assert_close(stock(**inputs).logits, ours, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="452"):
        check_pairs(net.model.config, given=False)


@pytest.mark.slow
def test_both_texts_are_learned_from(tmp_path: Path) -> None:
    """The label is whether the two agree, so that no net that sees one of them can be right more than half the time."""
    text = build_data(pair_table(400, 1), None, None, pair_table(100, 3))
    task = text_task(
        text, str(pair_bert(tmp_path / "model")), pooling="mean", max_length=24, cache_dir=tmp_path / "cache"
    )
    config = replace(FAST, max_steps=300, batch_size=32)
    assert fit(Supervised(), task, config).scores["test"].accuracy > 0.9


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = pair_bert(tmp_path / "model")
    files = {}
    for name, rows, seed in (("l", 24, 1), ("u", 24, 2), ("t", 8, 3)):
        files[name] = tmp_path / f"{name}.jsonl"
        keys = ("premise", "hypothesis", "label")[: 2 if name == "u" else 3]
        lines = [json.dumps(dict(zip(keys, row, strict=False))) for row in zip(*pair_rows(rows, seed), strict=True)]
        files[name].write_text("\n".join(lines))
    columns, out = ["--text-column", "premise", "--pair-column", "hypothesis"], tmp_path / "out"
    words = ["train", "--method", "uda", "--model", str(model), "--labeled", str(files["l"]), "--unlabeled",
             str(files["u"]), "--test", str(files["t"]), *columns, "--max-steps", "1", "--warm-start", "none",
             "--max-length", "24", "--output-dir", str(out), "--cache-dir", str(tmp_path / "cache")]  # fmt: skip
    assert cli([*words, "--teacher", str(model)]) == 2
    assert "453" in capsys.readouterr().err
    assert cli(words) == 0
    capsys.readouterr()
    assert cli(["predict", str(out), str(files["t"]), *columns]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert cli(["predict", str(out), str(files["t"]), "--text-column", "premise"]) == 2
    assert "452" in capsys.readouterr().err
    assert cli(["eval", str(out), str(files["t"]), *columns, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 8
