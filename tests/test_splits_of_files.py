"""Rows that say which split they belong to take that role in `train`, `doctor` and `load_named` alike."""

import json

import pytest

from nlp_ssl.cli.files import Files, tables
from nlp_ssl.data.table import by_split, table_of
from nlp_ssl.errors import DataError


def write(path, rows):
    path.write_text("".join(json.dumps(dict(zip(("text", "label", "split"), row, strict=True))) + "\n" for row in rows))
    return str(path)


ROWS = [("a", "x", "train"), ("b", "y", "train"), ("c", "x", "validation"), ("d", "y", "test"), ("e", "x", "unsup")]


def texts(table):
    return None if table is None else table.texts.to_pylist()


def test_test_rows_of_the_labeled_file_are_not_trained_on(tmp_path):
    found = tables(Files(labeled=write(tmp_path / "all.jsonl", ROWS)))
    assert texts(found["labeled"]) == ["a", "b", "e"] and found["labeled"].labels == ["x", "y", None]
    assert texts(found["dev"]) == ["c"] and texts(found["test"]) == ["d"] and found["unlabeled"] is None


def test_named_files_outrank_the_splits_of_the_labeled_one(tmp_path):
    whole = write(tmp_path / "all.jsonl", ROWS)
    other = write(tmp_path / "other.jsonl", [("f", "x", "train"), ("g", "y", "train")])
    found = tables(Files(labeled=whole, test=other, dev=whole, unlabeled=whole))
    assert texts(found["test"]) == ["f", "g"], "without rows of that split all count"
    assert texts(found["dev"]) == ["c"] and texts(found["labeled"]) == texts(found["unlabeled"]) == ["a", "b", "e"]


def test_a_pool_of_test_rows_alone_is_refused(tmp_path):
    path = write(tmp_path / "t.jsonl", [("d", "y", "test")])
    with pytest.raises(DataError, match="SSL118.*only dev and test rows"):
        tables(Files(labeled=write(tmp_path / "all.jsonl", ROWS), unlabeled=path))


def test_tables_without_splits_stay_as_they_are():
    whole = table_of(["a"], ["x"])
    assert by_split(whole) == (whole, None, None)
