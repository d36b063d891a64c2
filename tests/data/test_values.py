"""Texts and labels in memory, of every library: one table, and the same classes for the estimators."""

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from nlp_ssl.data.arrays import InputError, column, read_labels, read_texts
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import table_of
from nlp_ssl.data.values import is_missing, plain_list
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.inference.predict import by_length

TEXTS = ["good film", "bad film", "the plot", "a scene"]
WORDS = ["pos", "neg", None, "pos"]
NUMBERS = [1, 0, None, 1]

WORD_COLUMNS = {
    "list": WORDS,
    "list with NaN": ["pos", "neg", float("nan"), "pos"],
    "list with NA": ["pos", "neg", pd.NA, "pos"],
    "list with NaT": ["pos", "neg", pd.NaT, "pos"],
    "list with NumPy's NaT": ["pos", "neg", np.datetime64("NaT"), "pos"],
    "list of NumPy strings": [*np.array(["pos", "neg"]), None, np.str_("pos")],
    "list of Arrow scalars": [*pa.array(WORDS)],
    "array": np.array(WORDS, dtype=object),
    "masked array": np.ma.array(["pos", "neg", "", "pos"], mask=[0, 0, 1, 0]),
    "pandas object": pd.Series(WORDS, dtype=object),
    "pandas string": pd.Series(WORDS, dtype="string"),
    "pandas category": pd.Series(WORDS, dtype="category"),
    "pandas with NaT": pd.Series(["pos", "neg", pd.NaT, "pos"], dtype=object),
    "pandas Index": pd.Index(WORDS),
    "pandas array": pd.array(WORDS, dtype="string"),
    "Polars": pl.Series(WORDS),
    "Polars category": pl.Series(WORDS, dtype=pl.Categorical),
    "Arrow": pa.array(WORDS),
    "Arrow in chunks": pa.chunked_array([WORDS[:1], WORDS[1:]]),
    "Arrow dictionary": pa.array(WORDS).dictionary_encode(),
    "datasets": datasets.Dataset.from_dict({"y": WORDS})["y"],
    "generator": (word for word in WORDS),
}
NUMBER_COLUMNS = {
    "list": NUMBERS,
    "list of NumPy numbers": [np.int8(1), np.int64(0), np.float32("nan"), np.int16(1)],
    "list of tensors": [torch.tensor(1), torch.tensor(0), torch.tensor(float("nan")), torch.tensor([1]).sum()],
    "list of Arrow scalars": [*pa.array(NUMBERS)],
    "array": np.array([1.0, 0.0, np.nan, 1.0]),
    "half array": np.array([1.0, 0.0, np.nan, 1.0], dtype=np.float16),
    "tensor": torch.tensor([1.0, 0.0, float("nan"), 1.0]),
    "bfloat16 tensor with gradient": torch.tensor([1.0, 0.0, float("nan"), 1.0], dtype=torch.bfloat16).requires_grad_(),
    "pandas": pd.Series(NUMBERS),
    "pandas Int64": pd.Series(NUMBERS, dtype="Int64"),
    "pandas on Arrow": pd.Series(NUMBERS, dtype=pd.ArrowDtype(pa.int64())),
    "Polars": pl.Series(NUMBERS),
    "Arrow": pa.array(NUMBERS),
    "datasets as tensors": datasets.Dataset.from_dict({"y": [1.0, 0.0, float("nan"), 1.0]}).with_format("torch")["y"],
}
FRAMES = {
    "pandas": pd.DataFrame,
    "pandas with types": lambda columns: pd.DataFrame(columns).convert_dtypes(),
    "pandas on Arrow": lambda columns: pd.DataFrame(columns).convert_dtypes(dtype_backend="pyarrow"),
    "Polars": pl.DataFrame,
    "lazy Polars": lambda columns: pl.DataFrame(columns).lazy(),
    "Arrow": pa.table,
    "Arrow batch": lambda columns: pa.table(columns).to_batches()[0],
    "datasets": datasets.Dataset.from_dict,
}


@pytest.mark.parametrize("values", WORD_COLUMNS.values(), ids=WORD_COLUMNS.keys())
def test_words_of_every_library(values):
    labels = plain_list(values)
    assert labels == WORDS
    assert table_of(TEXTS, labels).labels == WORDS
    if not isinstance(values, list | np.ma.MaskedArray) and hasattr(values, "__len__"):
        assert table_of(values, pairs=values).texts.to_pylist() == ["pos", "neg", "pos"]
        assert read_labels(values).names == WORDS
        with pytest.raises(InputError, match="SSL194: texts row 3 is missing"):
            read_texts(values)


@pytest.mark.parametrize("values", NUMBER_COLUMNS.values(), ids=NUMBER_COLUMNS.keys())
def test_numbers_of_every_library(values):
    assert table_of(TEXTS, values).labels == ["1", "0", None, "1"]
    found = read_labels(values)
    assert found.number.tolist() == [1, 0, -1, 1] and found.classes.tolist() == [0, 1]
    assert column(values, "y").tolist() == NUMBERS


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_frames_and_tables_of_every_library(frame):
    table = read_table(frame({"text": [*TEXTS, None], "label": [*WORDS, "neg"]}))
    assert table.texts.to_pylist() == TEXTS and table.labels == WORDS and table.rows.tolist() == [1, 2, 3, 4]
    assert "null texts dropped: 1" in table.notes
    numbers = read_table(frame({"content": TEXTS, "class": NUMBERS}), split=None)
    assert numbers.labels == ["1", "0", None, "1"]


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_a_task_of_frames(frame):
    labeled = frame({"text": TEXTS, "label": WORDS})
    data = build_data(labeled, frame({"text": ["another scene"]}), None, frame({"text": ["fun"], "label": ["pos"]}))
    assert data.classes == ("neg", "pos") and (len(data.labeled), len(data.unlabeled), len(data.test)) == (3, 2, 1)
    same = build_data(table_of(TEXTS, WORDS), table_of(["another scene"]), None, table_of(["fun"], ["pos"]))
    assert data.content_hash == same.content_hash


def test_rows_of_a_frame_that_name_their_split_are_not_trained_on():
    whole = pl.DataFrame({
        "text": [*TEXTS, "fun", "dull"], "label": ["pos", "neg", "neg", "pos", "pos", "neg"],
        "split": ["train", "train", "unlabeled", "validation", "test", "test"],
    })  # fmt: skip
    data = build_data(whole)
    assert [len(part) for part in (data.labeled, data.unlabeled, data.dev, data.test)] == [2, 1, 1, 2]
    data = build_data(whole, None, None, table_of(["fine"], ["pos"]))
    assert [data.texts[int(i)].as_py() for i in data.test] == ["fine"]


def test_an_arrow_table_of_a_data_set_has_the_names_of_its_classes():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["zero", "a"])})
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 0, -1, 1]}, features=features)
    for table in (data.data.table, data.with_format("arrow")[:]):
        found = read_table(table)
        assert found.labels == ["a", "zero", None, "a"] and found.classes == ("zero", "a")


def test_several_labels_in_memory():
    lists = [["a", "b"], [], None]
    arrays = [np.array(["a", "b"]), np.array([]), None]
    for values in (lists, pl.Series(lists), pa.array(lists), pd.Series(lists), arrays):
        assert table_of(TEXTS[:3], values).label_sets == [("a", "b"), (), None]


def test_columns_of_one_name_are_refused():
    for table in (pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]),
                  pd.DataFrame([["a", "b"]], columns=["text", "text"])):  # fmt: skip
        with pytest.raises(DataError, match="SSL109"):
            read_table(table)


@pytest.mark.parametrize("what", ["good film", b"good film"])
def test_one_text_is_no_list_of_texts(what):
    for call in (lambda: table_of(what), lambda: table_of(TEXTS, what), lambda: table_of(TEXTS, pairs=what)):
        with pytest.raises(ConfigError, match="SSL255.*good film.*is one text"):
            call()
    with pytest.raises(InputError, match="SSL190: X should be a 1d array, not a (str|bytes)"):
        read_texts(what)
    for texts, second in ((what, None), (TEXTS, what)):
        with pytest.raises(ConfigError, match="SSL255.*good film.*is one text"):
            by_length(None, texts, 8, torch.tensor, 8, second)
    with pytest.raises(ConfigError, match="SSL255.*good film.*is one text"):
        Embedder("never opened")(what)


@pytest.mark.parametrize("what", [5, {"a", "b"}, {"text": "a"}, None, torch.tensor(3), np.array("word")])
def test_what_has_no_rows_in_order_is_no_column(what):
    with pytest.raises(ConfigError, match="SSL256.*is no column of values"):
        plain_list(what)
    with pytest.raises(InputError, match="SSL190"):
        column(what, "y")


@pytest.mark.parametrize("what", [5, [1, 2], {"text": ["a"]}, None, pl.Series(["a"])])
def test_what_is_no_table_is_refused(what):
    with pytest.raises(DataError, match="SSL105.*is not a table|SSL132: no row has a label"):
        build_data(what)


def test_dates_are_no_classes():
    for values in (pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"])), np.array(["2020-01-01"] * 2, "M8[ns]"),
                   pa.array([1, 2], pa.timestamp("s")), pl.Series([1, 2]).cast(pl.Date)):  # fmt: skip
        with pytest.raises(DataError, match="SSL115.*is not a single class"):
            table_of(TEXTS[:2], values)
    assert is_missing(np.datetime64("NaT")) and not is_missing(np.datetime64("2020-01-01"))
