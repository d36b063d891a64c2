"""SentAugment: queries by hand, what is retrieved and left out, and the way from a bank to a student."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny import tiny_bert, tiny_texts

from nlp_ssl.cli import run
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.retrieval import BankOptions, Hit, build, index
from nlp_ssl.retrieval.sentaugment import Retrieval, augment, by_class, label, retrieve, task_queries

PLACES = {
    "red apples taste good": (1.0, 0.0, 0.0), "red apples": (0.98, 0.199, 0.0), "fast cars": (0.0, 1.0, 0.0),
    "blue cars are fast": (0.1, 0.995, 0.0), "green pears": (0.9, 0.436, 0.0), "Fast  cars": (0.0, 1.0, 0.0),
    "the weather": (0.0, 0.0, 1.0), "slow trains": (0.3, 0.954, 0.0), "stone walls": (0.05, 0.05, 0.997),
}  # fmt: skip


def embed(texts):
    rows = np.array([PLACES[text] for text in texts], dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def bank(tmp_path):
    (tmp_path / "corpus.txt").write_text("\n".join(PLACES))
    options = BankOptions(fewest_words=1, duplicates="keep")
    built = build(tmp_path / "bank", [str(tmp_path / "corpus.txt")], options, encoder="none", embed=embed)
    built.__dict__["embed"] = embed
    return built


def test_queries_by_hand():
    e = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert task_queries(e, np.array([0, 1, 1]), "text") is e
    both = np.array([1.6, 1.8]) / np.hypot(1.6, 1.8)
    assert task_queries(e, np.array([0, 1, 1]), "average") == pytest.approx(both[None])
    second = np.array([0.6, 1.8]) / np.hypot(0.6, 1.8)
    assert task_queries(e, np.array([0, 1, 1]), "label") == pytest.approx(np.array([[1.0, 0.0], second]))


def test_sentences_come_once_best_first_and_without_those_of_the_task(bank):
    queries = embed(["red apples taste good", "fast cars"])
    found = retrieve(bank, queries, ["red apples taste good", "fast cars"], Retrieval(per_query=6, near=1.0))
    texts = [hit.text for hit in found]
    assert texts[:2] == ["blue cars are fast", "red apples"] and len(set(texts)) == len(texts)
    assert "fast cars" not in texts and "Fast  cars" not in texts  # equal but for case and white space
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert found[0].score == pytest.approx(0.995, abs=1e-3)


def test_near_copies_of_the_tasks_texts_are_left_out(bank):
    """At a cosine of .98 "red apples" is a copy, "green pears" at .90 is not; test texts count like labeled ones."""
    queries = embed(["red apples taste good"])
    found = retrieve(bank, queries, ["red apples taste good"], Retrieval(per_query=3, near=0.95))
    assert [hit.text for hit in found] == ["green pears"]
    scored = retrieve(bank, queries, ["red apples taste good", "green pears"], Retrieval(per_query=3, near=0.95))
    assert scored == []


def test_the_surest_of_every_class_are_kept():
    hits = [Hit(i, 1.0 - i / 10, f"text {i}") for i in range(5)]
    logits = torch.tensor([[2.0, 0.0], [4.0, 0.0], [3.0, 0.0], [0.0, 0.5], [0.0, 1.0]])
    found = label(hits, lambda texts: logits, keep=2)
    assert [one.id for one in found] == [1, 2, 3, 4]  # not the three surest: classes are balanced
    assert found[0].p == pytest.approx(torch.tensor([4.0, 0.0]).softmax(0).tolist(), abs=1e-6)
    assert by_class(found, ["a", "b"]) == [("a", 2, pytest.approx(0.9526, abs=1e-3)),
                                           ("b", 2, pytest.approx(0.6225, abs=1e-3))]  # fmt: skip
    assert by_class(found[:2], ["a", "b"])[1] == ("b", 0, 0.0)


def test_each_kind_of_query_leads_from_labels_to_labeled_sentences(bank):
    texts, labels = ["red apples taste good", "fast cars"], np.array([0, 1])
    for kind in ("label", "average", "text"):
        seen = []

        def teacher(asked, seen=seen):
            seen.extend(asked)
            return torch.tensor([[float(embed([t])[0, 0]), float(embed([t])[0, 1])] for t in asked])

        found = augment(bank, texts, labels, ["slow trains"], teacher, Retrieval(query_by=kind, per_query=5))
        assert found and not {"slow trains", "fast cars", "Fast  cars"} & {one.text for one in found}
        assert {one.text for one in found} <= set(seen)
    with pytest.raises(DataError, match="SSL148"):
        augment(bank, texts, labels, [], lambda asked: torch.zeros(len(asked), 2), Retrieval(per_query=1, near=0.5))
    with pytest.raises(ConfigError, match="SSL202: near"):
        Retrieval(near=1.5)


def test_from_a_bank_to_a_student_on_the_command_line(tmp_path, capsys):
    tiny_bert(tmp_path / "model")
    texts, labels = tiny_texts(160, seed=5)
    rows = [f"{t},{y}" for t, y in zip(texts, labels, strict=True)]
    (tmp_path / "l.csv").write_text("\n".join(["text,label", *rows[:16]]))
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows[16:40]]))
    (tmp_path / "corpus.txt").write_text("\n".join(texts))  # with the task's own texts
    bank, out = str(tmp_path / "bank"), str(tmp_path / "found.parquet")
    assert run(["index", "build", str(tmp_path / "corpus.txt"), "--out", bank, "--encoder", str(tmp_path / "model"),
                "--fewest-words", "1"]) == 0  # fmt: skip
    common = ["--labeled", str(tmp_path / "l.csv"), "--test", str(tmp_path / "t.csv")]
    training = ["--max-steps", "3", "--batch-size", "4", "--max-length", "24", "--warm-steps", "2", "--mixed-precision",
            "no", "--cache-dir", str(tmp_path / "cache"), "--method", "supervised"]  # fmt: skip
    assert (
        run(["train", *common, *training, "--model", str(tmp_path / "model"), "--output-dir", str(tmp_path / "a")]) == 0
    )
    select = ["select", "--index", bank, *common, "--teacher", str(tmp_path / "a"), "--per-class", "20", "--near", "1"]
    capsys.readouterr()
    assert run([*select, "--out", out]) == 0
    assert "sentences kept" in capsys.readouterr().out
    found = pq.read_table(out).to_pylist()
    assert 0 < len(found) <= 40 and not {row["text"] for row in found} & set(texts[:40])
    assert all(abs(sum(row["probabilities"]) - 1) < 1e-9 and row["score"] <= 1.001 for row in found)
    assert run(["train", *common, *training, "--model", str(tmp_path / "model"), "--pseudo-labels", out, "--output-dir",
                str(tmp_path / "b")]) == 0  # fmt: skip
    assert run([*select, "--out", out]) == 2  # it exists
    assert run(["select", "--index", bank, *common]) == 2
    (tmp_path / "o.csv").write_text((tmp_path / "l.csv").read_text().replace(",pos", ",good"))
    capsys.readouterr()
    other = ["--labeled", str(tmp_path / "o.csv"), "--teacher", str(tmp_path / "a"), "--out", str(tmp_path / "x")]
    assert run(["select", "--index", bank, *other]) == 2
    assert "SSL238: the teacher knows the classes neg, pos, the labels good, neg" in capsys.readouterr().err
