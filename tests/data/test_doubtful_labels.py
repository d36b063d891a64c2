"""Labels that can be read in two ways: markers within cells, numbers in several spellings, flags that may be names."""

import json

import numpy as np
import pyarrow as pa
import pytest

from nlp_ssl.data.markers import spelling
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import table_of
from nlp_ssl.errors import DataError

TEXTS = ["good film", "bad film", "long film", "short film"]


def csv_of(folder, labels):
    path = folder / "t.csv"
    rows = zip(TEXTS, labels, strict=False)
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), "utf-8")
    return path


def jsonl_of(folder, labels):
    path = folder / "t.jsonl"
    rows = zip(TEXTS, labels, strict=False)
    path.write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows))
    return path


@pytest.mark.parametrize("cell", ["-1;sport", "sport;-1", "sport; -1.0", "sport;?-1"])
def test_a_marker_beside_separated_labels_is_refused_as_in_a_list(tmp_path, cell):
    with pytest.raises(DataError, match="row 2: '-1' marks an unlabeled row and stands beside labels"):
        read_table(csv_of(tmp_path, ["sport", cell, "politics"]), label_separator=";")


def test_a_marker_alone_in_a_separated_cell_marks_the_row(tmp_path):
    table = read_table(csv_of(tmp_path, ["sport;art", "-1;", ";", "none"]), label_separator=";", unlabeled_value="none")
    assert table.label_sets == [("sport", "art"), None, (), None]
    assert table.markers == [None, "-1", None, "none"]


def test_minus_one_that_is_a_class_may_stand_beside_others(tmp_path):
    table = read_table(csv_of(tmp_path, ["-1;sport", "-1"]), label_separator=";", minus_one="class")
    assert table.label_sets == [("-1", "sport"), ("-1",)]


@pytest.mark.parametrize("word", ["-01", "-1.", "-1.0", "\u22121", "\uff0d1", "-1e0", "-1.000000e+00", "-001.00"])
def test_minus_one_is_a_marker_in_every_spelling(tmp_path, word):
    table = read_table(csv_of(tmp_path, ["pos", word, "neg"]))
    assert table.labels == ["pos", None, "neg"] and table.markers == [None, "-1", None]
    assert table_of(TEXTS[:3], ["pos", word, "neg"]).markers == [None, "-1", None]


@pytest.mark.parametrize("word", ["-11", "-0.1", "-1.01", "-1a", "1-1", "--1"])
def test_what_is_not_minus_one_is_a_name(word):
    assert table_of(TEXTS[:3], ["pos", word, "neg"]).labels == ["pos", word, "neg"]


@pytest.mark.parametrize(
    "one, other",
    [
        ("1", "01"),
        ("1", "+1"),
        ("1", "1."),
        ("1", "1e0"),
        ("0.5", ".50"),
        ("1.5", "1.50"),
        ("0", "-0"),
        ("0", "0.0"),
        ("-2", "\u22122"),
        ("1", "\uff11"),
        ("Pos", "pos "),
        ("Stra\u00dfe", "STRASSE"),
    ],
)
def test_names_that_are_nearly_alike_have_one_spelling(one, other):
    assert spelling(one) == spelling(other)


def test_other_names_have_other_spellings():
    names = ["1", "10", "-1", "0.1", "0.01", "1a", "01a", "1-1", "", "1e5", ".", "-", "e0"]
    names += ["12345678901234567890", "12345678901234567891"]
    assert len({spelling(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "labels", [[["0", "1"], ["1", "0"]], [["false", "true"], ["true", "false"]], [["0", 1], [1, "0"]]]
)
def test_rows_of_the_words_0_and_1_that_do_not_say_of_what_are_refused(tmp_path, labels):
    with pytest.raises(DataError, match="SSL125.*give --class-names"):
        read_table(jsonl_of(tmp_path, labels), label_lists=True)
    with pytest.raises(DataError, match="SSL125.*give --class-names"):
        table_of(TEXTS[:2], labels)


@pytest.mark.parametrize("labels", [[["0", "1"], ["1"]], [["0"], ["1"]], [["0", "1"], []], [["0", "1"], ["2", "1"]]])
def test_words_0_and_1_beside_other_lists_are_names(labels):
    assert table_of(TEXTS[:2], labels).label_sets == [tuple(row) for row in labels]


def test_words_0_and_1_are_names_where_the_class_names_say_so():
    assert table_of(TEXTS[:2], [["0", "1"], ["1", "0"]], class_names=["0", "1"]).label_sets == [("0", "1"), ("1", "0")]
    with pytest.raises(DataError, match="label '0'"):
        build_data(table_of(TEXTS[:2], [["0", "1"], ["1", "0"]], class_names=["a", "b"]))


@pytest.mark.parametrize(
    "classes, labels, expected",
    [
        ("01", [[0, 1], [1], []], [("0", "1"), ("1",), ()]),  # a list of one id: all are lists of ids
        ("01", [[1], [0]], [("1",), ("0",)]),
        ("01", [[0, 1], [1, 0]], [("1",), ("0",)]),
        ("01", [[0, 1], [1, 1], [0, 0]], [("1",), ("0", "1"), ()]),
        ("01", [[0, 1], [1, -1]], [("1",), ("0", "?1")]),
        ("01", [[0, 1], [-1, -1]], [("1",), None]),
        ("012", [[0, 1], [2], [1]], [("0", "1"), ("2",), ("1",)]),
        ("012", [[0, 1, 1], [1, 0, 0]], [("1", "2"), ("0",)]),
        ("ab", [[0, 1], [1, 0]], [("b",), ("a",)]),
    ],
)
def test_the_whole_column_says_whether_0_and_1_are_ids_or_flags(classes, labels, expected):
    texts = [*TEXTS][: len(labels)]
    assert table_of(texts, labels, class_names=list(classes)).label_sets == expected


def test_lists_of_ids_and_flags_in_one_column_are_refused_with_their_row():
    with pytest.raises(DataError, match="row 3: label '1' is listed twice"):
        table_of(TEXTS[:3], [[0, 1], [0], [1, 1]], class_names=["0", "1"])
    with pytest.raises(DataError, match="row 2: 1 numbers 0 and 1, where there are 2 class names"):
        table_of(TEXTS[:2], [[0, 1], [1]], class_names=["a", "b"])


def test_a_blank_class_name_is_refused():
    features = {"label": {"names": ["neg", " "], "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"text": TEXTS[:2], "label": [0, 1]}).replace_schema_metadata(note)
    with pytest.raises(DataError, match="SSL136.*class name 1 is blank"):
        read_table(table)


@pytest.mark.parametrize("kind", ["numpy", "rows", "arrow", "parquet", "pandas", "polars", "torch", "half"])
def test_float32_labels_have_the_names_that_were_written(tmp_path, kind):
    values = np.array([0.1, 2.0, 3.3], dtype=np.float16 if kind == "half" else np.float32)
    if kind == "torch":
        import torch

        labels = torch.from_numpy(values)
    elif kind == "pandas":
        labels = pytest.importorskip("pandas").Series(values)
    elif kind == "polars":
        labels = pytest.importorskip("polars").Series(values)
    else:
        labels = {"numpy": values, "half": values, "rows": list(values)}.get(kind, pa.array(values))
    if kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": TEXTS[:3], "label": labels}), tmp_path / "t.parquet")
        table = read_table(tmp_path / "t.parquet")
    else:
        table = table_of(TEXTS[:3], labels)
    assert table.labels == ["0.1", "2", "3.3"]


def test_lists_beside_separated_names_are_lists_of_ids(tmp_path):
    """As `nlp-ssl eval` reads the labels for a model whose classes are called 0 and 1."""
    options = {"label_separator": ";", "label_lists": True, "class_names": ["0", "1"]}
    table = read_table(jsonl_of(tmp_path, [[0, 1], "1", [1, 0]]), **options)
    assert table.label_sets == [("0", "1"), ("1",), ("1", "0")]
    table = read_table(jsonl_of(tmp_path, [[0, 1], [1], []]), **options)
    assert table.label_sets == [("0", "1"), ("1",), ()]


def test_rows_of_an_unlabeled_split_have_no_label_in_columns_of_flags(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,a,b,split\ngood film,1,0,train\nbad film,0,0,unlabeled\nlong film,1,1,train\n")
    table = read_table(path, label_column="a,b", label_lists=True)
    assert table.label_sets == [("a",), None, ("a", "b")]
