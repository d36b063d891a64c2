"""Labels of a round that are given back, as they are or by way of another program: the same rows are trained on."""

import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import FAST, tiny_task

from nlp_ssl import UST, NoisyStudent, SelfTraining
from nlp_ssl.data.pseudo_labels import labels_from_file, read_pseudo_labels, write_pseudo_labels
from nlp_ssl.errors import DataError, RunError
from nlp_ssl.retrieval.sentaugment import LabeledSentence, write_sentences
from nlp_ssl.rounds.engine import fit_rounds, with_labels
from nlp_ssl.rounds.teacher import Teacher
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import PseudoLabels

METHODS = [
    SelfTraining(threshold=0.8), SelfTraining(threshold=0.0, per_class=20), SelfTraining(source="graph"),
    NoisyStudent(floor=0.6, per_class=20), UST(sample=40, share=0.5),
]  # fmt: skip


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny_task(tmp_path_factory.mktemp("given"))


def as_csv(path, columns):
    """The same columns by way of another program."""
    with path.with_suffix(".csv").open("w", newline="") as file:
        lines = csv.DictWriter(file, columns)
        lines.writeheader()
        lines.writerows(pq.read_table(path, columns=columns).to_pylist())
    return path.with_suffix(".csv")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name} {list(vars(method).values())}")
def test_a_round_given_back_is_trained_on_the_same_rows(task, tmp_path, method):
    p = np.random.default_rng(0).dirichlet([1, 1], len(task.data.unlabeled))
    said = PseudoLabels(p, np.ones(len(p), dtype=int), np.ones(len(p)), hard=False)
    labels = method.label(Teacher(task.build(0), task.data, FAST, 1, said))
    used, pool = labels.copies > 0, task.data.texts.take(pa.array(task.data.unlabeled))
    assert 0 < used.sum() < len(used) or method.source == "graph"
    path = tmp_path / "labels.parquet"
    write_pseudo_labels(path, labels, [], task.data.classes, pool.combine_chunks())
    assert read_pseudo_labels(path, len(used), task.data.classes).same(labels)
    assert (np.array(pq.read_table(path)["weight"]) == np.where(used, labels.weights, 0)).all()
    for source in (path, as_csv(path, ["text", "label", "weight"])):
        found = labels_from_file(source, pool, task.data.classes)
        assert ((found.copies > 0) == used).all()
        assert found.weights[used] == pytest.approx(labels.weights[used])
        rows = [np.unique(with_labels(task.data, one, 2).labeled) for one in (labels, found)]
        assert rows[0].tolist() == rows[1].tolist()


def test_the_files_of_a_run_hold_the_rows_of_its_students(task, tmp_path):
    fit_rounds(
        SelfTraining(rounds=2, threshold=0.0, per_class=20),
        task,
        replace(FAST, max_steps=1),
        folder=RunFolder(tmp_path),
    )
    for number in (1, 2):
        table = pq.read_table(tmp_path / f"round-{number}/pseudo_labels.parquet")
        copies, weights = (table[name].to_numpy() for name in ("copies", "weight"))
        assert 0 < (copies > 0).sum() < len(copies) and ((weights > 0) == (copies > 0)).all()


def labeled_file(path, rows):
    path.write_text("text,label,weight\n" + "".join(f"{text},{label},{weight}\n" for text, label, weight in rows))
    return path


@pytest.mark.parametrize(
    ("rows", "weights"),
    [
        ([("one", "a", 0), ("two", "a", 2), ("one", "a", 1)], [0, 2, 1]),  # as often as in the pool: in order
        ([("two", "a", 2), ("ONE", "a", 3)], [3, 2, 3]),  # one for both
        ([("one", "a", 1), ("one", "a", 2), ("two", "a", 5), ("one", "a", 3)], [2, 5, 3]),  # the last ones
        ([("two", "a", 4), ("two", "a", 5)], [None, 5, None]),
    ],
)
def test_texts_that_repeat_go_with_those_of_the_file_in_order(tmp_path, rows, weights):
    pool = pa.chunked_array([["one", "two", "one"]], pa.large_string())
    found = labels_from_file(labeled_file(tmp_path / "n.csv", rows), pool, ("a", "b"))
    assert found.copies.tolist() == [int(bool(w)) for w in weights]
    assert found.weights.tolist() == [1 if w is None else w for w in weights]


def test_repeated_texts_of_which_one_was_used_come_back_as_they_were(tmp_path):
    pool = pa.chunked_array([["same", "other", "same", "same"]], pa.large_string())
    labels = PseudoLabels(np.tile([0.9, 0.1], (4, 1)), np.array([1, 1, 0, 0]), np.array([0.5, 1.0, 1.0, 1.0]))
    write_pseudo_labels(tmp_path / "labels.parquet", labels, [], ("a", "b"), pool.combine_chunks())
    for source in (tmp_path / "labels.parquet", as_csv(tmp_path / "labels.parquet", ["text", "label", "weight"])):
        found = labels_from_file(source, pool, ("a", "b"))
        assert found.copies.tolist() == [1, 1, 0, 0] and found.weights.tolist() == [0.5, 1.0, 0.0, 0.0]


def test_probabilities_go_by_the_class_names_of_their_file(task, tmp_path):
    """Files of a task that has the same classes in another order; those that note no names go by place."""
    path, pool = tmp_path / "labels.parquet", pa.chunked_array([["one text", "another one"]], pa.large_string())
    labels = PseudoLabels(np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([1, 1]), np.ones(2), hard=False)
    write_pseudo_labels(path, labels, [], ("b", "a"), pool.combine_chunks())
    for found in (labels_from_file(path, pool, ("a", "b")), read_pseudo_labels(path, 2, ("a", "b"))):
        assert found.p == pytest.approx(np.array([[0.1, 0.9], [0.7, 0.3]]))
    with pytest.raises(DataError, match="SSL146.*of other classes than a, c: drop that column"):
        labels_from_file(path, pool, ("a", "c"))
    with pytest.raises(RunError, match="SSL321.*another run"):
        read_pseudo_labels(path, 2, ("a", "c"))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    assert read_pseudo_labels(path, 2, ("a", "b")).p == pytest.approx(labels.p)
    pq.write_table(table.replace_schema_metadata({"nlp_ssl.classes": "3"}), path)
    with pytest.raises(RunError, match="SSL321.*damaged"):
        read_pseudo_labels(path, 2, ("a", "b"))
    with pytest.raises(DataError, match="SSL146.*damaged"):
        labels_from_file(path, pool, ("a", "b"))


def test_sentences_of_a_bank_note_their_class_names(tmp_path):
    found = [LabeledSentence(1, 0.5, "one text", (0.9, 0.1))]
    write_sentences(tmp_path / "f.parquet", found, ("b", "a"))
    pool = pa.chunked_array([["one text"]], pa.large_string())
    assert labels_from_file(tmp_path / "f.parquet", pool, ("a", "b")).p[0] == pytest.approx([0.1, 0.9])


def test_test_rows_of_a_label_file_do_not_train(tmp_path):
    path = tmp_path / "noisy.csv"
    path.write_text("text,label,split\ngood film,a,train\nbad film,b,Test\nlong film,b,validation\nshort film,b,\n")
    pool = pa.chunked_array([["good film", "bad film", "long film", "short film"]], pa.large_string())
    assert labels_from_file(path, pool, ("a", "b")).copies.tolist() == [1, 0, 0, 1]
    path.write_text("text,label,split\ngood film,a,test\n")
    with pytest.raises(DataError, match="SSL118.*only dev and test rows"):
        labels_from_file(path, pool, ("a", "b"))


OTHER_LINES = [
    '{"round": 0}',
    '{"round": 0, "scores": {"test": 1}, "steps": 4, "seconds": 1.0}',
    '{"round": 0, "scores": {"test": {"accuracy": "high"}}, "steps": 4, "seconds": 1.0}',
    '{"round": 0, "scores": {}, "steps": null, "seconds": 1.0}',
    '{"round": 0, "scores": {}, "steps": 4, "seconds": 1.0, "warnings": "one"}',
    '{"round": true, "scores": {}, "steps": 4, "seconds": 1.0}',
    '{"round": -1, "scores": {}, "steps": 4, "seconds": 1.0}',
    '{"round": 0.0, "scores": {}, "steps": 4, "seconds": 1.0}',
    "[1]",
]


def test_lines_of_another_kind_do_not_stop_a_resumed_run(task, tmp_path):
    method, config = SelfTraining(rounds=1, threshold=0.0), replace(FAST, max_steps=1)
    fit_rounds(method, task, config, folder=RunFolder(tmp_path))
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    (tmp_path / "result.json").unlink()
    (tmp_path / "rounds.jsonl").write_text("\n".join([*OTHER_LINES, lines[0], *OTHER_LINES, *lines, ""]))
    fit_rounds(method, task, config, folder=RunFolder(tmp_path, resume=True))
    again = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert again[0] == lines[0] and [json.loads(line)["round"] for line in again] == [0, 1]
