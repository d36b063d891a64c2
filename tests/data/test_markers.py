"""What marks unlabeled rows, spaces around names, rows of 0 and 1, hidden labels of pools: alike through every door."""

import csv
import json

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlp_ssl.cli.files import Files, tables, text
from nlp_ssl.data.cleaning import label_name
from nlp_ssl.data.markers import Markers, stripped
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.sources import column_values, read_table
from nlp_ssl.data.table import table_of
from nlp_ssl.data.values import is_missing
from nlp_ssl.errors import ConfigError, DataError

DOORS = ["csv", "tsv", "jsonl", "parquet", "frame", "arrow", "dataset", "memory"]
LISTS = ["jsonl", "parquet", "frame", "arrow", "dataset", "memory"]


def through(door, folder, labels, name="l", **options):
    """The table of these labels, each with a text of its own."""
    texts = [f"{name} {i}" for i in range(len(labels))]
    if door == "memory":
        return table_of(texts, labels, **options)
    return read_table(source(door, folder, {"text": texts, "label": labels}, name), **options)


def source(door, folder, columns, name="l"):
    """Columns of one length as a file of this kind, or something in memory."""
    path = folder / f"{name}.{door}"
    if door in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="," if door == "csv" else "\t")
            writer.writerows([columns.keys(), *zip(*columns.values(), strict=True)])
    elif door == "jsonl":
        rows = zip(*columns.values(), strict=True)
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    elif door == "parquet":
        pq.write_table(pa.table(columns), path)
    elif door == "frame":
        return pandas.DataFrame(columns)
    elif door == "arrow":
        return pa.table(columns)
    elif door == "dataset":
        import datasets

        return datasets.Dataset.from_dict(columns)
    return path


def fails(code, call, *words, error=DataError):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert caught.value.code == code and "\n" not in message and all(word in message for word in words), message


# ---- markers


@pytest.mark.parametrize("door", DOORS)
def test_empty_missing_and_minus_one_mark_unlabeled_rows(door, tmp_path):
    table = through(door, tmp_path, ["pos", None, "neg", "", " ", "-1", " -1.0"])
    assert table.labels == ["pos", None, "neg", None, None, None, None]
    assert table.markers == [None] * 5 + ["-1"] * 2 and table.take(np.array([5, 0])).markers == ["-1", None]
    assert "rows labeled '-1' taken as unlabeled: 2" in table.notes


@pytest.mark.parametrize("door", DOORS)
def test_words_are_classes_with_a_warning_that_names_the_way_out(door, tmp_path):
    words = ["None", "none", "null", "NULL", "nan", "NaN", "NA", "nan"]
    table = through(door, tmp_path, [*words, "pos"])
    assert table.labels == [*words, "pos"] and table.markers is None
    warned = [note for note in table.notes if note.startswith("warning: ")]
    assert len(warned) == 7 and any("labeled 'nan', a class: 2" in n and "--unlabeled-value nan" in n for n in warned)
    table = through(door, tmp_path, [*words, "pos"], unlabeled_value="nan")
    assert table.labels == [None if word == "nan" else word for word in [*words, "pos"]]
    assert "rows labeled 'nan' taken as unlabeled: 2" in table.notes


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", [int, str, float])
def test_minus_one_beside_numbers_has_to_be_explained(door, kind, tmp_path):
    labels = [kind(n) for n in (-1, 0, 1, -1)]
    fails(116, lambda: through(door, tmp_path, labels), "beside '0', '1'", "--minus-one class", "--minus-one unlabeled")
    assert through(door, tmp_path, labels, minus_one="class").labels == ["-1", "0", "1", "-1"]
    for options in ({"minus_one": "unlabeled"}, {"unlabeled_value": "-1"}):
        table = through(door, tmp_path, labels, **options)
        assert table.labels == [None, "0", "1", None] and table.markers == ["-1", None, None, "-1"]


@pytest.mark.parametrize(
    ("labels", "doubt"),
    [
        (["pos", "neg", "-1"], False),
        (["1", "-1"], True),
        (["spam", "-1"], True),  # the only other class: perhaps -1 is the second one
        (["0", "1", "other", "-1"], True),
        (["-0.5", "0.5", "no", "-1"], True),
        (["-1", "-1"], False),
        (["1a", "b2", "-1"], False),
    ],
)
def test_where_minus_one_may_be_a_class(labels, doubt):
    if doubt:
        fails(116, lambda: table_of([f"t {i}" for i in range(len(labels))], labels))
    else:
        assert table_of([f"t {i}" for i in range(len(labels))], labels).markers[-1] == "-1"


def test_another_value_comes_beside_minus_one(tmp_path):
    """As its help says: it adds a marker, and does not make -1 a class."""
    labels = ["pos", "UNK", "-1", "neg", ""]
    assert through("csv", tmp_path, labels, unlabeled_value="UNK").labels == ["pos", None, None, "neg", None]
    numbers = ["0", "UNK", "-1", "1"]
    fails(116, lambda: through("csv", tmp_path, numbers, unlabeled_value="UNK"))
    one = {"unlabeled_value": "UNK", "minus_one": "class"}
    assert through("csv", tmp_path, numbers, **one).labels == ["0", None, "-1", "1"]
    fails(411, lambda: Markers("-1", "class"), error=ConfigError)
    fails(411, lambda: read_table(tmp_path / "l.csv", unlabeled_value="[x]"), "--unlabeled-value", error=ConfigError)
    fails(411, lambda: table_of(["a"], ["b"], minus_one="Class"), "minus_one", error=ConfigError)


@pytest.mark.parametrize(
    "value",
    [None, float("nan"), np.float32("nan"), np.datetime64("NaT"), pandas.NaT, pandas.NA, pa.scalar(None, pa.string())],
    ids=repr,
)
def test_missing_values_of_every_library(value):
    assert is_missing(value) and label_name(value) is None
    assert table_of(["a", "b", "c"], ["x", "y", value]).labels == ["x", "y", None]


@pytest.mark.parametrize("value", [0, "", "nan", "None", False, np.float64(0), np.datetime64("2024-01-01"), [], [None]])
def test_values_that_are_there(value):
    assert not is_missing(value)


@pytest.mark.parametrize("role", ["dev", "test"])
@pytest.mark.parametrize(("marker", "options"), [("-1", {}), ("UNK", {"unlabeled_value": "UNK"})])
def test_a_marker_among_rows_to_be_scored_is_an_error(role, marker, options):
    train = table_of(["a", "b", "c"], ["x", "y", "-1"])
    scored = table_of(["d", "e", "f", "g"], ["x", "", "y", marker], source="s.csv", **options)
    fails(124, lambda: build_data(train, None, **{role: scored}), "s.csv row 4", repr(marker), "empty its label")
    whole = table_of(["d", "e"], ["x", ""], source="s.csv")
    assert f"{role} rows left out because they have no label: 1" in build_data(train, None, **{role: whole}).notes


def test_marked_test_rows_of_the_labeled_file(tmp_path):
    columns = {
        "text": ["a", "b", "c", "d"],
        "label": ["x", "y", "-1", "-1"],
        "split": ["train", "train", "train", "test"],
    }
    files = Files(labeled=str(source("csv", tmp_path, columns)))
    fails(124, lambda: text(files, tables(files), 0), "l.csv row 4")


def test_minus_one_as_a_class_of_another_table():
    labeled = table_of(["a", "b"], ["-1", "0"], minus_one="class")
    pool = table_of(["c", "d"], ["-1", "-1"], source="pool")
    fails(116, lambda: build_data(labeled, pool), "pool row 1", "a class of the labeled rows")
    both = build_data(labeled, table_of(["c", "d"], ["-1", "-1"], minus_one="class"))
    assert both.labels[both.unlabeled].tolist() == [both.classes.index("-1")] * 2


# ---- spaces


@pytest.mark.parametrize("door", DOORS)
def test_what_surrounds_a_name_is_not_of_it(door, tmp_path):
    labels = ["pos", " pos", "pos\t", "\u200bpos\u200b", "\ufeffpos", "pos\u00a0", "a b", "  neg\u2060 "]
    assert through(door, tmp_path, labels).labels == ["pos"] * 6 + ["a b", "neg"]
    assert through(door, tmp_path, ["\u200b", "a", "b"]).labels == [None, "a", "b"]


@pytest.mark.parametrize("door", LISTS)
def test_nor_in_sets_of_labels(door, tmp_path):
    labels = [[" pos", "\u200bneg "], ["pos\ufeff"], ["? neg"]]
    assert through(door, tmp_path, labels, label_lists=True).label_sets == [("pos", "neg"), ("pos",), ("?neg",)]


def test_names_keep_what_is_within():
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"  # ends in a sign of no width
    for name in ("a  b", "zero\u200bwidth", "\U0001f469\u200d\U0001f467", flag, "'quoted'", "+1"):
        assert stripped(name) == name == label_name(f"\u200b {name}\ufeff")


@pytest.mark.parametrize("door", ["csv", "tsv", "jsonl", "parquet", "frame", "dataset"])
def test_headers_with_spaces(door, tmp_path):
    """Also that of the splits: test rows would be trained on."""
    columns = {" text": ["a", "b", "c"], "\u200blabel ": ["x", "y", "x"], " split": ["train", "train", "test"]}
    given = source(door, tmp_path, columns)
    for options in ({}, {"text_column": "text", "label_column": "label"}):
        table = read_table(given, **options)
        assert (table.labels, table.splits) == (["x", "y", "x"], ["train", "train", "test"])
        assert table.label_column == "label"
    if door in ("csv", "jsonl", "parquet"):
        assert column_values(given, "label") == {1: "x", 2: "y", 3: "x"}


# ---- rows of 0 and 1

ONE_HOT = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
MANY = [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]]
NAMES = ["sport", "art", "war"]


@pytest.mark.parametrize("kind", [int, float, bool])
@pytest.mark.parametrize("door", LISTS)
def test_rows_of_0_and_1_need_names(door, kind, tmp_path):
    one_hot, many = ([[kind(n) for n in row] for row in rows] for rows in (ONE_HOT, MANY))
    pairs = [row[:2] for row in one_hot if sum(row[:2]) == 1]
    for rows in (one_hot, many, pairs, [[kind(0)], [kind(1)]]):
        fails(125, lambda rows=rows: through(door, tmp_path, rows, label_lists=True), "--class-names", "class_names=")
    several = through(door, tmp_path, many, label_lists=True, class_names=NAMES)
    assert several.label_sets == [("sport", "war"), ("art",), (), ("sport", "art")] and several.labels is None
    single = through(door, tmp_path, one_hot, label_lists=False, class_names=NAMES)
    assert single.labels == ["sport", "art", "war", "art"] and single.label_sets is None
    fails(115, lambda: through(door, tmp_path, many, label_lists=False, class_names=NAMES), "row 1", "2 of the 3")
    fails(
        197, lambda: through(door, tmp_path, pairs, label_lists=True, class_names=NAMES), "2 numbers", "3 class names"
    )


def test_tuples_and_arrays_are_rows_too():
    for rows in (
        list(map(tuple, MANY)),
        np.array(MANY),
        np.array(MANY, dtype=np.float32),
        list(np.array(MANY, dtype=bool)),
    ):
        fails(125, lambda rows=rows: table_of(list("abcd"), rows))
        assert table_of(list("abcd"), rows, class_names=NAMES).label_sets[0] == ("sport", "war")


def test_what_is_not_known_of_a_row_of_0_and_1():
    rows = [[1, -1, 0], [None, 0, 1], [0, float("nan"), 1], None, [-1, -1, -1]]
    found = table_of(list("abcde"), rows, class_names=NAMES)
    assert found.label_sets[:4] == [("sport", "?art"), ("?sport", "war"), ("?art", "war"), None]
    fails(125, lambda: table_of(["a", "b"], [[1, -1], [-1, 1]]))


def test_numbers_of_classes_are_names():
    assert table_of(list("abc"), [[0], [1, 0], [1]]).label_sets == [("0",), ("1", "0"), ("1",)], "of several lengths"
    assert table_of(list("abc"), [[0, 1], [2, 5], [1, 3]]).label_sets == [("0", "1"), ("2", "5"), ("1", "3")]
    assert table_of(list("ab"), [["0", "1"], ["1"]]).label_sets == [("0", "1"), ("1",)], "words"


@pytest.mark.parametrize("door", ["csv", "tsv", "jsonl", "parquet", "frame", "dataset"])
def test_a_column_for_each_label(door, tmp_path):
    columns = {"text": list("abcd"), **{name: [row[i] for row in MANY] for i, name in enumerate(NAMES)}}
    given = source(door, tmp_path, columns)
    table = read_table(given, label_column="sport, art,war", label_lists=True)
    assert table.label_sets == [("sport", "war"), ("art",), (), ("sport", "art")] and table.classes == tuple(NAMES)
    fails(115, lambda: read_table(given, label_column="sport,art,war"), "row 1", "2 of the 3")
    one = read_table(given, label_column="sport,art,war", label_lists=True, class_names=["s", "a", "w"])
    assert one.label_sets[0] == ("s", "w")
    fails(108, lambda: read_table(given, label_column="sport,arts"), "no column 'sport,arts'")
    other = source(door, tmp_path, {**columns, "art": ["no"] * 4})
    fails(197, lambda: read_table(other, label_column="sport,art", label_lists=True), "row 1", "'art' holds 'no'")


def test_names_make_the_classes_in_their_order():
    found = build_data(
        table_of(list("abcd"), [[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]], class_names=["z", "y", "x"])
    )
    assert found.classes == ("z", "y", "x") and found.labels.tolist()[2] == [1, 1, 0]
    assert [note for note in found.notes if "no labeled row" in note][0].endswith("'x'")
    fails(412, lambda: table_of(["a"], [[1, 0]], class_names=["x", " x"]), "'x'", error=ConfigError)
    fails(134, lambda: build_data(table_of(["a", "b"], [["x"], ["q"]], class_names=["x", "y"])), "row 2", "'q'")


def test_labels_of_every_row_or_none_are_warned_of():
    notes = build_data(table_of(list("abc"), [["x", "y"], ["x"], ["x", "y"]])).notes
    assert any(n.startswith("warning: labels that apply to every labeled row") and n.endswith(": 'x'") for n in notes)
    assert not any("apply to" in n for n in build_data(table_of(list("abc"), [["x"], ["y"], ["x", "y"]])).notes)


def test_class_names_through_the_files_of_a_command(tmp_path):
    path = source("jsonl", tmp_path, {"text": list("abcd"), "label": MANY})
    fails(125, lambda: tables(Files(labeled=str(path))))
    found = tables(Files(labeled=str(path), class_names="sport,art,war"))["labeled"]
    assert found.label_sets[0] == ("sport", "war")


# ---- pools


def pool(folder, columns, labeled=("text", "label"), door="csv"):
    """What training makes of a pool with these columns, beside labeled rows."""
    files = Files(
        labeled=str(source("csv", folder, {labeled[0]: ["a", "b"], labeled[1]: ["x", "y"]}, "l")),
        unlabeled=str(source(door, folder, columns, "u")),
        label_column=None if labeled[1] == "label" else labeled[1],
    )
    return text(files, tables(files), 0)


@pytest.mark.parametrize("door", ["csv", "tsv", "jsonl", "parquet"])
def test_other_columns_of_a_pool_are_no_labels(door, tmp_path):
    texts = ["c", "d", "e"]
    for name, values in (("category", ["x", "y", "x"]), ("target", [1, 2, 3]), ("sentiment", [-1, 0, 1])):
        found = pool(tmp_path, {"text": texts, name: values}, door=door)
        assert len(found.unlabeled) == 3 and (found.labels[found.unlabeled] == -1).all()
    found = pool(tmp_path, {"text": texts, "kind": ["x", "y", ""], "label": ["u", "v", "w"]}, ("text", "kind"), door)
    assert found.labels[found.unlabeled].tolist() == [0, 1, -1], "the one that is called as in the labeled file"


def test_the_labels_that_count_in_a_pool_may_be_no_classes(tmp_path):
    found = pool(tmp_path, {"text": ["c", "d", "e", "f"], "label": ["x", "sport", "sport", "war"]})
    assert found.labels[found.unlabeled].tolist() == [0, -1, -1, -1]
    assert any("no class of the labeled rows, taken as not known: 'sport' 2, 'war' 1" in note for note in found.notes)


def test_pools_in_memory():
    labeled = table_of(["a", "b"], ["x", "y"])
    other = read_table(pandas.DataFrame({"text": ["c", "d"], "topic": ["x", "q"]}), label_column="topic")
    found = build_data(labeled, other)
    assert (found.labels[found.unlabeled] == -1).all() and any("column 'topic' ignored" in n for n in found.notes)
    found = build_data(labeled, pandas.DataFrame({"text": ["c", "d"], "label": ["x", "q"], "target": [["a"], []]}))
    assert found.labels[found.unlabeled].tolist() == [0, -1]
    found = build_data(labeled, pandas.DataFrame({"text": ["c", "d", "e"], "target": [-1, 0, 1]}))
    assert (found.labels[found.unlabeled] == -1).all() and len(found.notes) == 1, "that of single rows"
    lists = build_data(labeled, table_of(["c", "d"], [["x"], ["y"]]))
    assert (lists.labels[lists.unlabeled] == -1).all() and any("lists ignored" in note for note in lists.notes)
    sets = table_of(["a", "b"], [["x"], ["y"]])
    found = build_data(sets, table_of(["c", "d", "e"], [["x"], ["x", "q"], None]))
    assert found.labels[found.unlabeled].tolist() == [[1, 0], [-1, -1], [-1, -1]]
    assert any("'q' 1" in note for note in found.notes)


# ---- quotes


def test_a_quote_that_swallows_lines_of_a_tsv_is_warned_of(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\nfine\t1\n"good\t1\nbad"\t0\nso so\t1\n')
    table = read_table(path)
    assert table.texts.to_pylist() == ["fine", "good\t1\nbad", "so so"]
    (note,) = table.notes
    assert note.startswith("warning: quoted fields with a tab and a line end, the first in row 2") and note.endswith(
        ": 1"
    )
    assert '"""good"" film"' in note
    path.write_text('text\tlabel\n"""good"" film"\t1\n"two\nlines"\t0\n"a\ttab"\t1\n')
    assert read_table(path).notes == () and read_table(path).texts.to_pylist() == [
        '"good" film',
        "two\nlines",
        "a\ttab",
    ]
    (tmp_path / "a.csv").write_text('text,label\n"a\tb\nc",1\nd,0\n')
    assert read_table(tmp_path / "a.csv").notes == ()


def test_names_that_a_data_set_declares_are_classes():
    import datasets

    names = ["-1", "nan", "1"]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    data = datasets.Dataset.from_dict({"text": list("abcd"), "label": [0, 1, 2, -1]}, features=features)
    table = read_table(data)
    assert table.labels == ["-1", "nan", "1", None] and table.markers is None and table.notes == ()
    assert read_table(data, unlabeled_value="nan").labels == ["-1", None, "1", None]
    assert read_table(data, minus_one="unlabeled").labels == [None, "nan", "1", None]
