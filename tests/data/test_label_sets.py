"""Cells with several labels, from files and memory, up to the numbers that training and scores go by."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlp_ssl.data.schema import build_data
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import by_split, table_of
from nlp_ssl.errors import ConfigError, DataError

TEXTS = [f"text number {i}" for i in range(8)]


def csv(folder, *cells):
    rows = [f'{text},"{cell}"' for text, cell in zip(TEXTS, cells, strict=False)]
    (folder / "l.csv").write_text("\n".join(["text,label", *rows]))
    return folder / "l.csv"


def sets(path, **options):
    return read_table(path, expect_labels=True, **options).label_sets


def test_cells_with_a_separator(tmp_path):
    """An empty cell, or a marker, says nothing of a row; the separator alone says that no label applies."""
    path = csv(tmp_path, "sport;politics", " sport ; ?politics", "", "-1", ";", "true;v2", "nan", "sport")
    wanted = [("sport", "politics"), ("sport", "?politics"), None, None, (), ("true", "v2"), ("nan",), ("sport",)]
    assert sets(path, label_separator=";") == wanted
    table = read_table(path, label_separator=";")
    assert table.labels is None and table.take(np.array([4, 0])).label_sets == [(), ("sport", "politics")]
    path = csv(tmp_path, "politics", "none", "war;art")
    assert sets(path, label_separator=";", unlabeled_value="none") == [("politics",), None, ("war", "art")]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "memory"])
def test_lists_need_no_separator(tmp_path, kind):
    """null says nothing of a row, [] that no label applies."""
    lists = [["sport", "politics"], ["?sport"], [], None, ["politics"]]
    texts = TEXTS[:5]
    if kind == "memory":
        assert table_of(texts, lists).label_sets == [tuple(x) if x is not None else None for x in lists]
        return
    path = tmp_path / f"l.{kind}"
    records = [{"text": t, "labels": x} for t, x in zip(texts, lists, strict=True)]
    if kind == "parquet":
        pq.write_table(pa.table({"text": texts, "labels": lists}), path)
    else:
        path.write_text(json.dumps(records) if kind == "json" else "\n".join(map(json.dumps, records)))
    assert sets(path, label_lists=True) == [tuple(x) if x is not None else None for x in lists]
    with pytest.raises(DataError, match=r"row 1: .*give each text one label") as caught:
        read_table(path)
    assert caught.value.code == 115, "who takes single-label data gets one line"


@pytest.mark.parametrize(
    ("cell", "code", "words"),
    [
        ("sport;sport", 197, r"row 1: label 'sport' is listed twice"),
        ("sport;?sport", 197, r"row 1: label 'sport' is listed twice"),
        ("sport;?", 197, r"row 1: a label in the list has no name"),
        ("['sport', 'politics']", 115, r"row 1: .*not a single class"),
    ],
)
def test_cells_that_make_no_sense(tmp_path, cell, code, words):
    with pytest.raises(DataError, match=words) as caught:
        read_table(csv(tmp_path, cell), label_separator=";")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([["a"], "b"], r"row 2: the single label 'b', where rows before have lists"),
        (["a", ["b"]], r"row 2: a list of labels, where rows before have a single one"),
        ([["b", "b"]], r"row 1: label 'b' is listed twice"),
        ([[0.3, 0.7]], r"row 1: 0.3 is no label: write the names of the labels"),
        ([["a", "-1"]], r"row 1: '-1' marks an unlabeled row and stands beside labels"),
        ([["a", None]], r"row 1: a label in the list has no name"),
    ],
)
def test_lists_that_make_no_sense(labels, words):
    with pytest.raises(DataError, match=words) as caught:
        table_of(TEXTS[: len(labels)], labels)
    assert caught.value.code == 197


@pytest.mark.parametrize("separator", ["", " ", "?", ";?"])
def test_separators_that_cannot_be(tmp_path, separator):
    with pytest.raises(ConfigError, match="--label-separator") as caught:
        read_table(csv(tmp_path, "a;b"), label_separator=separator)
    assert caught.value.code == 479


def test_numbers_of_labels():
    """1, 0 and -1 where nothing is known; rows without a known label join the pool."""
    labels = [["sport", "politics"], ["sport", "?politics"], [], None, ["?sport", "?politics"], ["politics"]]
    found = build_data(table_of(TEXTS[:6], labels), table_of(TEXTS[6:7]), None, table_of(TEXTS[7:], [["?sport"]]))
    assert found.classes == ("politics", "sport") and found.kind == "multi-label" and found.labels.dtype == np.int8
    wanted = [[1, 1], [-1, 1], [0, 0], [-1, -1], [-1, -1], [1, 0], [-1, -1], [0, -1]]
    assert found.labels.tolist() == wanted
    assert (
        found.labeled.tolist() == [0, 1, 2, 5] and found.unlabeled.tolist() == [3, 4, 6] and found.test.tolist() == [7]
    )


def test_one_label_is_enough_where_rows_may_have_none():
    found = build_data(table_of(TEXTS[:2], [["toxic"], []]))
    assert found.classes == ("toxic",) and found.labels.tolist() == [[1], [0]]


def test_rows_of_an_unlabeled_split_lose_their_labels(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text("text,label,split\na text,a;b,train\nanother,a,unlabeled\na third,b,test\n")
    train, _, test = by_split(read_table(path, label_separator=";"))
    assert train.label_sets == [("a", "b"), None] and test.label_sets == [("b",)]


def test_a_pool_keeps_its_labels_as_hidden_truth():
    pool = table_of(TEXTS[2:4], [["a"], ["b"]])
    found = build_data(table_of(TEXTS[:2], [["a"], ["b"]]), pool)
    assert found.labels[found.unlabeled].tolist() == [[1, 0], [0, 1]] and found.labeled.tolist() == [0, 1]


def test_the_same_text_with_other_labels():
    labels = [["a"], ["a", "b"], ["b"], ["b"]]
    twice = table_of([TEXTS[0], TEXTS[0].upper(), TEXTS[1], TEXTS[1]], labels)
    with pytest.raises(DataError, match="2 rows repeat a text with another label"):
        build_data(twice, conflicts="error")
    more = table_of([TEXTS[0], TEXTS[0].upper(), TEXTS[1], TEXTS[1], TEXTS[2]], [*labels, ["a"]])
    assert build_data(more).labeled.tolist() == [2, 3, 4], "equal labels are no conflict"


@pytest.mark.parametrize(
    ("labeled", "test", "code", "words"),
    [
        ([["a"], ["b"]], ["a"], 198, "single labels, where the labeled rows have lists"),
        (["a", "b"], [["a"]], 198, "lists of labels, where the labeled rows have single ones"),
        ([["sport"], ["art"]], [["sports"]], 134, r"row 1: label 'sports' is not a class .*sport"),
        ([["sport"], ["Sport"]], [["sport"]], 136, r"row 2: label 'Sport' is nearly 'sport'"),
        ([["a"], ["?b"]], [["a"]], 135, "class 'b' has no usable labeled row left"),
        ([[], []], [["a"]], 132, "no row has a label"),
    ],
)
def test_tables_that_do_not_fit(labeled, test, code, words):
    with pytest.raises(DataError, match=words) as caught:
        build_data(table_of(TEXTS[:2], labeled), None, None, table_of(TEXTS[2:3], test))
    assert caught.value.code == code


def test_no_draw_of_labels_per_class():
    with pytest.raises(ConfigError, match="labels_per_class works with single-label data only") as caught:
        build_data(table_of(TEXTS[:2], [["a"], ["b"]]), labels_per_class=1)
    assert caught.value.code == 477
