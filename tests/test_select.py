"""Texts of a pool chosen by how sure a classifier is."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import tiny_bert, tiny_texts

from nlp_ssl.cli import run
from nlp_ssl.cli import select as command_module
from nlp_ssl.data import select as module
from nlp_ssl.data.select import Picked, domain_scorer, select

#        text, class and probability
KNOWN = {"a": ("x", 0.9), "b": ("x", 0.7), "c": ("y", 0.6), "d": ("x", 0.9), "e": ("x", 0.8), "f": ("y", 0.3)}


def score(texts):
    return [KNOWN[text] for text in texts]


def rows(texts):
    return list(enumerate(texts, 1))


@pytest.mark.parametrize("block", [1, 2, 100])
def test_the_surest_of_each_class_in_the_order_of_the_pool(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    assert select(rows("abcdef"), score, 2) == [
        Picked("a", 1, "x", 0.9), Picked("c", 3, "y", 0.6), Picked("d", 4, "x", 0.9), Picked("f", 6, "y", 0.3),
    ]  # fmt: skip
    assert [one.text for one in select(rows("abcdef"), score, 2, floor=0.6)] == ["a", "c", "d"]
    assert [one.row for one in select(rows("dadbe"), score, 1)] == [1], "of equally sure texts the first"
    assert [one.row for one in select(rows("bbaaeeb"), score, 3)] == [1, 3, 5], "equal texts once, the first of them"
    assert select([], score, 2) == []


def test_any_cut_keeps_what_sorting_keeps():
    """Against a plain sort of a thousand texts with many ties."""
    rng = np.random.default_rng(0)
    known = {str(i): (str(rng.integers(3)), rng.integers(20) / 20) for i in range(1000)}
    found = select(rows(known), lambda texts: [known[t] for t in texts], 25)
    wanted = []
    for label in "012":
        of_class = [(-p, row, text) for row, (text, (c, p)) in enumerate(known.items(), 1) if c == label]
        wanted += [(text, row) for _, row, text in sorted(of_class)[:25]]
    assert [(one.text, one.row) for one in found] == sorted(wanted, key=lambda pair: pair[1])


def test_rows_of_several_files_stay_in_the_order_of_the_pool():
    """Each file counts its rows from 1: the order of the pool decides between equally sure texts, not the number."""
    pool = [(1, "a"), (2, "d"), (1, "c"), (1, "e")]
    answers = {"a": ("x", 0.9), "d": ("x", 0.9), "c": ("y", 0.6), "e": ("x", 0.9)}
    found = select(pool, lambda texts: [answers[t] for t in texts], 2)
    assert [(one.row, one.text) for one in found] == [(1, "a"), (2, "d"), (1, "c")]


def test_a_text_that_two_classes_claim_is_kept_once():
    answers = iter([("x", 0.5), ("y", 0.5), ("x", 0.9), ("y", 0.5)])
    found = select(rows("aaba"), lambda texts: [next(answers) for _ in texts], 1)
    assert [(one.text, one.row, one.predicted) for one in found] == [("b", 3, "x"), ("a", 4, "y")], "free once it fell"


def test_texts_of_the_domain_score_higher():
    """Texts are numbers here, embedded as a point: those of the domain lie to the right, a tenth of the pool too."""

    def embed(texts):
        return np.array([[float(t), 1.0] for t in texts])

    rng = np.random.default_rng(1)
    ours = [str(v) for v in rng.normal(3, 1, 50)]
    pool = [str(v) for v in np.concatenate([rng.normal(-3, 1, 450), rng.normal(3, 1, 50)])]
    scorer = domain_scorer(ours, pool, embed)
    found = select(rows(pool), scorer, 50)
    assert {one.predicted for one in found} == {"in_domain"}
    assert np.mean([one.row > 450 for one in found]) > 0.9
    assert scorer(pool) == domain_scorer(ours, pool, embed)(pool)
    assert scorer(pool) != domain_scorer(ours, pool, embed, seed=1)(pool)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A classifier of tiny texts, a pool, and the command that selects."""
    folder = tmp_path_factory.mktemp("select")
    tiny_bert(folder / "model")
    texts, labels = tiny_texts(80, seed=5)
    lines = [f"{text},{label}" for text, label in zip(texts[:20], labels[:20], strict=True)]
    (folder / "l.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    (folder / "pool.txt").write_text("\n".join([*texts[20:], texts[20]]) + "\n")
    assert run(["train", "--method", "supervised", "--model", str(folder / "model"), "--labeled", str(folder / "l.csv"),
                "--max-steps", "2", "--batch-size", "4", "--warm-start", "none", "--mixed-precision", "no",
                "--max-length", "24", "--cache-dir", str(folder / "cache"), "--output-dir",
                str(folder / "out")]) == 0  # fmt: skip
    return folder


def command(folder, *more, out="s.parquet"):
    return run(["select", str(folder / "pool.txt"), "--out", str(folder / out), *more])


def test_select_by_a_trained_classifier(trained, capsys):
    capsys.readouterr()
    assert run(["predict", str(trained / "out"), str(trained / "pool.txt"), "--mixed-precision", "no"]) == 0
    said = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert command(trained, "--classifier", str(trained / "out"), "--keep", "5") == 0
    printed = capsys.readouterr().out
    found = pq.read_table(trained / "s.parquet").to_pylist()
    lines = (trained / "pool.txt").read_text().splitlines()
    for one in found:
        assert one["text"] == lines[one["row"] - 1]
        label, p = said[one["row"] - 1]
        assert one["predicted"] == label and one["probability"] == pytest.approx(float(p), abs=1e-4)
    for label in {label for label, _ in said}:
        surest = sorted((float(p) for c, p in said if c == label), reverse=True)[:5]
        mine = [one["probability"] for one in found if one["predicted"] == label]
        assert min(mine) >= min(surest) - 1e-4 and f"  {label}: {len(mine)}, probability from" in printed
    assert printed.startswith(f"{len(found)} of 61 texts kept")
    assert command(trained, "--classifier", str(trained / "out")) == 2 and "add --overwrite" in capsys.readouterr().err
    assert command(trained, "--classifier", str(trained / "out"), "--overwrite", "--floor", "1") == 0
    assert capsys.readouterr().out.splitlines() == [
        "0 of 61 texts kept",
        "  neg: 0: fewer than the 1000 asked for",
        "  pos: 0: fewer than the 1000 asked for",
    ], "a class that got nothing has a line too"


def test_select_by_texts_of_the_domain(trained, capsys):
    argv = ["--in-domain", str(trained / "l.csv"), "--encoder", str(trained / "model"), "--keep", "7"]
    assert command(trained, *argv, out="d.parquet") == 0
    assert "  in_domain: 7, probability from 0." in capsys.readouterr().out
    assert pq.read_table(trained / "d.parquet").num_rows == 7


def test_the_domain_is_told_from_a_random_sample_of_the_pool(tmp_path, monkeypatch):
    """The pool alternates between two sources; both are learned from, and no more texts than the sample may have."""
    seen = []

    def embed(texts):
        seen.append(texts)
        return np.arange(len(texts), dtype=float)[:, None]

    monkeypatch.setattr(command_module, "_SAMPLE", 10)
    monkeypatch.setattr(command_module, "Embedder", lambda name: embed)
    (tmp_path / "ours.txt").write_text("".join(f"ours {i}\n" for i in range(30)))
    (tmp_path / "pool.txt").write_text("".join(f"{('even', 'odd')[i % 2]} {i}\n" for i in range(29)))
    argv = ["select", str(tmp_path / "pool.txt"), "--in-domain", str(tmp_path / "ours.txt"), "--encoder", "stub",
            "--keep", "3", "--out"]  # fmt: skip
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert run([*argv, str(tmp_path / name), "--seed", seed]) == 0
    learned, again, other = (sorted(texts) for texts in seen[::2])  # after each the whole pool is scored
    assert [sum(t.startswith(word) for t in learned) for word in ("ours", "even", "odd")] in (
        [10, a, 10 - a] for a in range(1, 10)
    )
    assert learned == again and learned != other


def test_what_was_selected_is_a_pool(trained):
    assert command(trained, "--classifier", str(trained / "out"), "--keep", "8", out="p.parquet") == 0
    assert run(["train", "--model", str(trained / "model"), "--labeled", str(trained / "l.csv"), "--unlabeled",
                str(trained / "p.parquet"), "--max-steps", "2", "--batch-size", "4", "--warm-start", "none",
                "--mixed-precision", "no", "--max-length", "24", "--cache-dir", str(trained / "cache"),
                "--output-dir", str(trained / "again")]) == 0  # fmt: skip


def test_rows_for_testing_are_left_out_and_the_column_keeps_its_name(trained):
    (trained / "f").mkdir()
    for name in ("train", "test"):
        (trained / f"f/{name}.csv").write_text(f"body,label\nthe {name} film is good,good\nthe {name} one is bad,bad\n")
    argv = ["--classifier", str(trained / "out"), "--text-column", "body", "--out", str(trained / "f.parquet")]
    assert run(["select", str(trained / "f"), *argv]) == 0
    found = pq.read_table(trained / "f.parquet")
    assert sorted(found["body"].to_pylist()) == ["the train film is good", "the train one is bad"]
    assert run(["select", str(trained / "pool.txt"), "--classifier", "x", "--out", str(trained / "pool.txt"),
                "--overwrite"]) == 2  # fmt: skip
    domain = trained / "f" / ".." / "l.csv"
    assert command(trained, "--in-domain", str(trained / "l.csv"), "--overwrite", out=str(domain)) == 2
    assert (trained / "pool.txt").read_text().count("\n") == 61
    assert (trained / "l.csv").read_text().count("\n") == 21


def test_a_pool_of_test_rows_alone(trained, capsys):
    (trained / "t.jsonl").write_text('{"text": "a good film", "split": "test"}\n')
    argv = [
        "select",
        str(trained / "t.jsonl"),
        "--in-domain",
        str(trained / "l.csv"),
        "--out",
        str(trained / "t.parquet"),
    ]
    assert run(argv) == 3 and "SSL118: " in capsys.readouterr().err


def test_a_command_without_standard_output(trained, monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert command(trained, "--classifier", str(trained / "out"), out="closed.parquet") == 0


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ([], 2, "SSL294: select goes by --classifier FOLDER or by --in-domain FILE"),
        (["--classifier", "x", "--in-domain", "y"], 2, "SSL294"),
        (["--classifier", "x"], 3, "SSL123: x: no whole trained model"),
        (["--classifier", "x", "--keep", "0"], 2, "SSL202: keep must lie in"),
        (["--in-domain", "absent.csv"], 3, "absent.csv"),
    ],
)
def test_errors_are_one_line(trained, capsys, more, code, message):
    assert command(trained, *more, out="e.parquet") == code
    assert message in capsys.readouterr().err and not (trained / "e.parquet").exists()
