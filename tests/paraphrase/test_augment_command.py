"""`nlp-ssl augment` on files, and training on what it wrote."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pyarrow.parquet as pq
import pytest
from test_apertium import needs_apertium
from test_rewrite import Backwards
from tiny import tiny_bert, tiny_texts

from nlp_ssl.cli import augment, run
from nlp_ssl.errors import RunError
from nlp_ssl.paraphrase.apertium import Apertium
from nlp_ssl.paraphrase.marian import CTranslate2, Marian


@dataclass(frozen=True)
class Fake(Backwards):
    there: str = ""
    back: str = ""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A pool of distinct texts of at least four words, and an engine that turns them around."""
    monkeypatch.setattr(augment, "Apertium", Fake)
    texts, labels = tiny_texts(60, seed=3)
    (tmp_path / "u.txt").write_text("\n".join(texts[:40]) + "\n")
    rows = [f"{text},{label}" for text, label in zip(texts[40:], labels[40:], strict=True)]
    (tmp_path / "l.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return tmp_path, texts[:40]


def command(folder, *more, out="v.parquet"):
    return run(["augment", str(folder / "u.txt"), "--out", str(folder / out), "--cache-dir", str(folder / "c"), *more])


def test_views_are_written_and_reported(files, capsys):
    folder, texts = files
    assert command(folder, "--samples", "2") == 0
    rows = pq.read_table(folder / "v.parquet").to_pylist()
    assert [row["text"] for row in rows] == [text for text in texts for _ in range(2)]
    assert rows[1] == {
        "text": texts[0],
        "sample": 1,
        "view": " ".join(reversed(texts[0].split())) + " again",
        "outcome": "",
    }
    printed = capsys.readouterr().out
    assert printed.startswith("80 views: changed 100.0 %") and f"  {texts[0]}\n    -> " in printed
    assert command(folder, "--samples", "2", out="w.parquet") == 0
    assert (folder / "w.parquet").read_bytes() == (folder / "v.parquet").read_bytes()


def test_gates_are_flags(files):
    folder, texts = files
    assert command(folder, "--fewest-words", "100") == 0
    rows = pq.read_table(folder / "v.parquet").to_pylist()
    assert {(row["view"] == row["text"], row["outcome"]) for row in rows} == {(True, "too few words")}


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--samples", "0"], 2, "SSL202: samples must lie in"),
        (["--shortest", "2"], 2, "SSL282: gates"),
        (["--engine", "marain"], 2, "apertium"),
    ],
)
def test_errors_are_one_line(files, capsys, more, code, message):
    folder, _ = files
    assert command(folder, *more) == code
    assert message in capsys.readouterr().err
    assert not (folder / "v.parquet").exists()


def test_what_is_there_is_kept(files, capsys):
    folder, _ = files
    (folder / "v.parquet").write_text("mine")
    assert command(folder) == 2 and "add --overwrite" in capsys.readouterr().err
    assert (folder / "v.parquet").read_text() == "mine"
    assert command(folder, "--overwrite") == 0 and pq.read_table(folder / "v.parquet").num_rows == 40
    assert run(["augment", "--out", "x"]) == 2 and run(["augment", str(folder / "u.txt")]) == 2


def test_a_failure_leaves_no_file_and_the_next_run_goes_on(files, monkeypatch, capsys):
    folder, _ = files
    monkeypatch.setattr(augment, "Apertium", lambda: Fake(breaks_at=17))
    assert command(folder) == RunError.exit_code
    assert "SSL330" in capsys.readouterr().err and not (folder / "v.parquet").exists()
    assert len((folder / "c/000.index").read_bytes()) == 17 * 32


def test_training_takes_the_views(files):
    """The strong view of every pool row is its rewriting: with the views of other texts the weights differ."""
    folder, texts = files
    tiny_bert(folder / "model")
    assert command(folder) == 0

    def train(out, *more):
        return run([
            "train", "--model", str(folder / "model"), "--labeled", str(folder / "l.csv"), "--unlabeled",
            str(folder / "u.txt"), "--max-steps", "3", "--batch-size", "4", "--max-length", "24", "--warm-steps", "3",
            "--mixed-precision", "no", "--threshold", "0", "--cache-dir", str(folder / "cache"), "--output-dir",
            str(folder / out), *more,
        ])  # fmt: skip

    views = ["--views", str(folder / "v.parquet")]
    for out, more in (("one", views), ("two", []), ("three", ["--strong", "back_translation+swap(p=0.5)", *views])):
        assert train(out, *more) == 0, out
    weights = {out: (folder / out / "model.safetensors").read_bytes() for out in ("one", "two", "three")}
    assert len(set(weights.values())) == 3
    found = [json.loads((folder / out / "result.json").read_text())["identity"] for out in ("one", "two")]
    assert found[0] != found[1], "a resumed run notices other views"
    assert train("four", "--strong", "back_translation") == 2
    assert train("four", "--strong", "swap", "--replace-words", "0.1") == 2
    assert train("four", "--views", str(folder / "u.txt")) == 3


@pytest.mark.parametrize(
    ("more", "engine"),
    [
        (["--engine", "marian", "--there", "x"], Marian(there="x")),
        (["--engine", "ctranslate2", "--back", "y", "--temperature", "0"], CTranslate2(back="y", temperature=0.0)),
        (["--there", "eng-cat", "--back", "cat-eng"], Apertium("eng-cat", "cat-eng")),
        ([], Apertium()),
    ],
)
def test_engines_by_flags(tmp_path, monkeypatch, more, engine):
    (tmp_path / "u.txt").write_text("a text of words\n")
    asked = []
    monkeypatch.setattr(augment, "rewrite", lambda texts, engine, cache, **more: asked.append(engine) or iter(()))
    assert command(tmp_path, *more) == 0 and asked == [engine]


@needs_apertium
def test_killed_again_and_again(tmp_path):
    """Two kills in the middle: the file is that of the unbroken run, and nothing finished was done twice."""
    texts = [f"this is the good film number {i} , and the man of the house says so" for i in range(400)]
    (tmp_path / "u.txt").write_text("\n".join(texts) + "\n")
    argv = [sys.executable, "-m", "nlp_ssl.cli", "augment", str(tmp_path / "u.txt"), "--cache-dir", str(tmp_path / "c")]
    index = tmp_path / "c/000.index"
    for kill in (1, 2):
        started = subprocess.Popen([*argv, "--out", str(tmp_path / "v.parquet")], stderr=subprocess.DEVNULL)
        while not index.exists() or index.stat().st_size < kill * 40 * 32:
            assert started.poll() is None, "it ended before the kill"
            time.sleep(0.01)
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
        assert not (tmp_path / "v.parquet").exists()
    subprocess.run([*argv, "--out", str(tmp_path / "v.parquet")], check=True, capture_output=True)
    assert index.stat().st_size == 400 * 32
    whole = [*argv[:-1], str(tmp_path / "other"), "--out", str(tmp_path / "w.parquet")]
    subprocess.run(whole, check=True, capture_output=True)
    assert (tmp_path / "v.parquet").read_bytes() == (tmp_path / "w.parquet").read_bytes()
