"""Names of classes in tables of answers: as they are, in every format, and the same when they are read back."""

import csv
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import saved_classifier, tiny_texts

from nlp_ssl.cli import answers, run
from nlp_ssl.data.sources import read_table
from nlp_ssl.inference.predictor import Answers

TEXTS, _ = tiny_texts(12, seed=5)
NAMES = (
    "-1", "=x", "+1", "@a", "-", "=SUM(A1:A9)", "'quoted'", '"twice"', '5" disk', "a,b", "a;b", "tab\tin",
    "\ttab first", "two\nlines", "two\r\nlines", "a\rreturn", "\rreturn first", "10", "0.5", "🙂", "é", "a  b",
    "#5", "\\n", "|",
)  # fmt: skip
SETS = ("-1", "=x", "+1", "@a", '5" disk', "a,b", "tab\tin", "two\nlines", "a\rreturn", "🙂")
DELIMITERS = {"csv": ",", "tsv": "\t"}


def table_of_all(names, kind="single-label"):
    """Columns, and a row for each name (multi-label: for it and the next); then one without a text."""
    p = np.eye(len(names)) * 0.75 + np.roll(np.eye(len(names)), 1, 1) * (0.75 if kind == "multi-label" else 0.25)
    p = np.concatenate([p, np.full((1, len(names)), np.nan)])
    columns = answers.schema(names, False, kind)
    return columns, answers.table(Answers(np.arange(1, len(p) + 1), p), names, columns)


def written(path, cells, kind="single-label", names=NAMES):
    columns, found = table_of_all(names, kind)
    with answers.writer(path, columns, cells) as put:
        put(found)
    return path


def records(text, delimiter):
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def labels_in(path):
    if path.suffix == ".parquet":
        return pq.read_table(path)["label"].to_pylist()
    text = path.read_bytes().decode()
    if path.suffix == ".jsonl":
        return [json.loads(line)["label"] for line in text.split("\n")[:-1]]
    return [row[1] or None for row in records(text, DELIMITERS[path.suffix[1:]])[1:]]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_files_hold_the_names_as_they_are(tmp_path, ending):
    assert labels_in(written(tmp_path / f"p.{ending}", answers.Cells())) == [*NAMES, None]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_what_was_written_is_read_back_as_labels(tmp_path, ending):
    # A blank at the edge of a name, and -1, which marks a row without a label, are the reader's own matter.
    names = [name for name in NAMES if name == name.strip() and name != "-1"]
    path = written(tmp_path / f"p.{ending}", answers.Cells(), names=names)
    assert read_table(path, text_column="row", expect_labels=True).labels == [*names, None]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_several_labels_of_a_row_are_read_back(tmp_path, ending):
    path = written(tmp_path / f"p.{ending}", answers.Cells("|"), kind="multi-label", names=SETS)
    found = read_table(path, text_column="row", label_separator="|", minus_one="class").label_sets
    assert [None if names is None else set(names) for names in found] == [
        *({name, SETS[(i + 1) % len(SETS)]} for i, name in enumerate(SETS)), None
    ]  # fmt: skip


def test_lines_are_records_of_tab_separated_values():
    columns, found = table_of_all(NAMES)
    out = io.StringIO()
    answers.put_lines(out, found, answers.Cells())
    assert [row[0] for row in records(out.getvalue(), "\t")] == [*NAMES, ""]
    assert out.getvalue().startswith("-1\t0.7500\n=x\t0.7500\n+1\t0.7500\n@a\t0.7500\n-\t0.7500\n")


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_formulas_are_guarded_where_that_is_asked_for(tmp_path, ending):
    found = labels_in(written(tmp_path / f"p.{ending}", answers.Cells(guard_formulas=True)))
    changed = {name for name in NAMES if name[0] in "=+-@\t\r"}
    assert found == [*(f"'{name}" if name in changed else name for name in NAMES), None] and len(changed) == 8


def test_the_command_prints_and_writes_the_labels_of_the_model(tmp_path, capsys):
    names = ["-1", "=it", "@a"]
    folder, texts = saved_classifier(tmp_path, names, TEXTS), tmp_path / "t.txt"
    texts.write_text("\n".join(TEXTS))
    argv = ["predict", str(folder), str(texts), "--mixed-precision", "no"]
    assert run([*argv, "--out", str(tmp_path / "p.parquet")]) == 0
    wanted = labels_in(tmp_path / "p.parquet")
    assert set(wanted) > {"-1"} and set(wanted) <= set(names), "the model must tell texts apart"
    capsys.readouterr()
    assert run(argv) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == wanted
    assert run([*argv, "--guard-formulas"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [f"'{name}" for name in wanted]
    for more in (["--json"], ["--out", str(tmp_path / "q.jsonl")]):
        assert run([*argv, "--guard-formulas", *more]) == 2
        assert "SSL444" in capsys.readouterr().err and not (tmp_path / "q.jsonl").exists()
