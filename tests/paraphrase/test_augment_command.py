"""`nlp-ssl augment` on files, and training on what it wrote."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from engines import Backwards, needs_apertium
from tiny import tiny_bert, tiny_texts

from nlp_ssl.augment.policy import parse_policy
from nlp_ssl.cli import augment, run, strong
from nlp_ssl.data.table import table_of
from nlp_ssl.errors import RunError
from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.paraphrase import back_translation, words
from nlp_ssl.paraphrase.apertium import Apertium
from nlp_ssl.paraphrase.engine import name_of
from nlp_ssl.paraphrase.gates import Report, View
from nlp_ssl.paraphrase.marian import CTranslate2, Marian
from nlp_ssl.paraphrase.masked import MaskedLM
from nlp_ssl.paraphrase.rewrite import Rewriting

ASKED = Counter()


@dataclass(frozen=True)
class Fake(Backwards):
    asked: Counter = field(default_factory=lambda: ASKED, repr=False, compare=False)
    there: str = ""
    back: str = ""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A pool of distinct texts of at least four words, and an engine that turns them around."""
    monkeypatch.setattr(back_translation, "Apertium", Fake)
    texts, labels = tiny_texts(60, seed=3)
    (tmp_path / "u.txt").write_text("\n".join(texts[:40]) + "\n")
    rows = [f"{text},{label}" for text, label in zip(texts[40:], labels[40:], strict=True)]
    (tmp_path / "l.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return tmp_path, texts[:40]


def command(folder, *more, out="v.parquet"):
    return run(["augment", str(folder / "u.txt"), "--out", str(folder / out), "--cache-dir", str(folder / "c"), *more])


def test_progress_counts_what_is_made_before_it_is_shown(monkeypatch, caplog):
    """All four views come at once, after a while in which two and then four were made."""
    caplog.set_level("INFO", logger="nlp_ssl")
    monkeypatch.setattr(back_translation, "_SECONDS", 0.2)
    made = iter([0, 0, 2])

    def views():
        time.sleep(0.7)
        yield from (View(str(i), 0, "x", "") for i in range(4))

    report = Report()
    assert len(list(back_translation.watched(views(), 4, report, lambda: next(made, 4)))) == 4
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("0 of 4 views, 0 per second, no rate yet")
    assert lines[1].startswith("2 of 4 views") and "left" in lines[1] and lines[2].startswith("4 of 4 views")
    assert report.outcomes == {"changed": 4}


def test_masked_words_by_flags(files, monkeypatch):
    folder, _ = files
    made = augment.engines(augment.AugmentOptions(how="masked_lm", masked_model="m", masked_share=0.3, temperature=0.5))
    assert made == [MaskedLM("m", 0.3, 0.5)]


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
        "cosine": None,
    }
    printed = capsys.readouterr().out
    assert printed.startswith("80 views: changed 100.0 %") and printed.count("\n    -> ") == 10
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
    monkeypatch.setattr(back_translation, "Apertium", lambda: Fake(asked=Counter(), breaks_at=17))
    assert command(folder) == RunError.exit_code
    assert "SSL330" in capsys.readouterr().err and not (folder / "v.parquet").exists()
    assert len((folder / "c/000.index").read_bytes()) == 17 * 32


def test_training_takes_the_views(files, monkeypatch):
    """The strong view of every pool row is its rewriting: with the views of other texts the weights differ."""
    folder, texts = files
    tiny_bert(folder / "model")
    assert command(folder) == 0
    monkeypatch.setattr(back_translation, "rewritings_folder", lambda: folder / "other")
    ASKED.clear()

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
    for out in ("made", "found"):  # the engine runs within the command, and has nothing left to do the second time
        assert train(out, "--back-translation", "apertium") == 0
        assert (folder / out / "model.safetensors").read_bytes() == weights["one"]
    assert set(ASKED.values()) == {1}
    assert {text for text, _ in ASKED} == set(tiny_texts(60, seed=3)[0]), "labeled texts too"
    found = [json.loads((folder / out / "result.json").read_text())["identity"] for out in ("one", "two")]
    assert found[0] != found[1], "a resumed run notices other views"
    assert train("four", "--strong", "back_translation") == 2
    assert train("four", "--strong", "swap", "--replace-words", "0.1") == 2
    assert train("four", "--views", str(folder / "u.txt")) == 3
    assert train("four", "--back-translation", "apertium", *views) == 2
    for more in (["--strong", "swap"], ["--replace-words", "0.1"]):
        assert train("four", *more, *views) == 2, "they would not be used"


def test_texts_without_a_rewriting_have_none(files, monkeypatch):
    """What gave way to its text, or came back as it was, is no rewriting: words are replaced there."""
    folder, _ = files
    monkeypatch.setattr(back_translation, "rewritings_folder", lambda: folder / "other")
    table = table_of(["one two", "a text of four words", "same same same"])
    made = strong.StrongView(back_translation="apertium").rewritings([table])
    assert made.to_pylist() == [{"text": "a text of four words", "view": "words four of text a"}]


def test_another_model_in_the_same_place_has_other_rewritings(tmp_path):
    (tmp_path / "m").mkdir()
    names = []
    for weights in ("one", "two"):
        (tmp_path / "m/model.safetensors").write_text(weights)
        names.append(name_of(MaskedLM(str(tmp_path / "m"))))
    assert names[0] != names[1] and name_of(MaskedLM("absent")) == repr(MaskedLM("absent"))


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

    class Nothing(Rewriting):
        def __init__(self, engines, cache, **more):
            asked.extend(engines)
            super().__init__([Fake()], cache, **more)

    monkeypatch.setattr(augment, "Rewriting", Nothing)
    assert command(tmp_path, *more) == 0 and asked == [engine]


@pytest.mark.slow
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


def folder_of_files(folder, texts):
    (folder / "in").mkdir()
    for i in range(4):
        (folder / f"in/part{i}.txt").write_text("\n".join(texts[10 * i : 10 * i + 10]) + "\n")
    return ["augment", str(folder / "in"), "--out", str(folder / "out"), "--cache-dir", str(folder / "c")]


def of_folder(folder):
    return {p.name: pq.read_table(p).to_pylist() for p in sorted((folder / "out").iterdir())}


def test_a_folder_becomes_a_folder(files, capsys):
    folder, texts = files
    argv = folder_of_files(folder, texts)
    assert run(argv) == 0
    assert capsys.readouterr().out.startswith("40 views: changed 100.0 %")
    found = of_folder(folder)
    assert list(found) == [f"part{i}.parquet" for i in range(4)]
    assert [row["text"] for rows in found.values() for row in rows] == texts
    (folder / "in/part2.txt").write_text("one new text of words\n")
    times = {p.name: p.stat().st_mtime_ns for p in (folder / "out").iterdir()}
    assert run(argv) == 2 and "part2.parquet exists and is made otherwise" in capsys.readouterr().err
    (folder / "out/part2.parquet").unlink()
    assert run(argv) == 0 and "part3.parquet is there already\n1 views" in capsys.readouterr().out
    same = [p.name for p in (folder / "out").iterdir() if times[p.name] == p.stat().st_mtime_ns]
    assert sorted(same) == ["part0.parquet", "part1.parquet", "part3.parquet"]
    assert run([*argv, "--samples", "2"]) == 2 and "made otherwise" in capsys.readouterr().err


def test_files_of_a_folder_keep_apart(files, capsys):
    """Dots in names, other kinds of files, hidden ones, two of one name, and one that cannot be read."""
    folder, texts = files
    argv = folder_of_files(folder, texts)
    (folder / "in/part0.txt").rename(folder / "in/a.000.txt")
    (folder / "in/part1.txt").rename(folder / "in/a.001.txt")
    for name in ("README.md", "_done.txt", ".x.txt"):
        (folder / "in" / name).write_text("nothing to be done here\n")
    (folder / "in/part2.txt").write_text("\n")
    assert run(argv) == 1
    assert "SSL331: 1 of 4 files were not done; the first: SSL102" in capsys.readouterr().err
    assert list(of_folder(folder)) == ["a.000.parquet", "a.001.parquet", "part3.parquet"]
    (folder / "in/part3.csv").write_text("text\nthe same name twice\n")
    assert run(argv) == 2 and "SSL296: " in capsys.readouterr().err
    (folder / "none").mkdir()
    assert run(["augment", str(folder / "none"), "--out", str(folder / "x")]) == 3
    assert "SSL142" in capsys.readouterr().err


def test_the_texts_are_never_overwritten(files, capsys):
    folder, texts = files
    for place in (folder / "u.txt", folder, folder / ".." / folder.name / "u.txt"):
        assert run(["augment", str(place), "--how", "swap", "--out", str(place.resolve()), "--overwrite"]) == 2
        assert "SSL295: " in capsys.readouterr().err
    assert (folder / "u.txt").read_text().splitlines() == texts
    assert run(["augment", str(folder / "u.txt"), "--how", "swap", "--out", str(folder / "c"), "--overwrite"]) == 0
    (folder / "d").mkdir()
    assert run(["augment", str(folder / "u.txt"), "--how", "swap", "--out", str(folder / "d"), "--overwrite"]) == 1
    assert "SSL317" in capsys.readouterr().err
    assert run(["augment", str(folder / "absent.txt"), "--out", str(folder / "c")]) == 3


def test_a_worker_of_ray_has_one_engine(files):
    """And sees the folders of this machine under their whole names."""
    folder, _ = files
    options = augment.AugmentOptions(scheduler="ray", workers=8, cache_dir=augment.Path("c"), masked_model="absent")
    made = augment.with_absolute_paths(options)
    assert (made.workers, made.cache_dir, made.masked_model) == (1, augment.Path("c").absolute(), "absent")
    assert augment.with_absolute_paths(augment.AugmentOptions(workers=8)).workers == 8


def test_white_space_is_no_change(files):
    folder, _ = files
    (folder / "u.txt").write_text("  two  spaces   between the words \n")
    assert command(folder, "--how", "swap(p=0)") == 0
    (row,) = pq.read_table(folder / "v.parquet").to_pylist()
    assert row["view"] == row["text"]


def test_views_beyond_the_first_block_belong_to_their_texts(monkeypatch):
    texts = pa.chunked_array([[f"a{i} b{i} c{i} d{i}" for i in range(30)], [f"e{i} f{i} g{i}" for i in range(7)]])
    policy = parse_policy("swap(p=1)")
    whole = list(words.change_words(texts, policy, samples=2))
    monkeypatch.setattr(words, "_BLOCK", 7)
    assert list(words.change_words(texts, policy, samples=2)) == whole
    assert all(sorted(v.text.split()) == sorted(v.view.split()) and v.changed for v in whole)


def test_a_file_that_is_done_is_not_done_again(files, capsys):
    folder, _ = files
    assert command(folder) == 0
    before = (folder / "v.parquet").stat().st_mtime_ns
    capsys.readouterr()
    assert command(folder, "--workers", "2") == 0
    assert capsys.readouterr().out == f"{folder / 'v.parquet'} is there already\n"
    assert (folder / "v.parquet").stat().st_mtime_ns == before
    assert command(folder, "--longest", "3") == 2


def test_word_operations_on_texts(files, capsys):
    folder, texts = files
    assert command(folder, "--how", "swap(p=1)", "--samples", "2") == 0
    rows = pq.read_table(folder / "v.parquet").to_pylist()
    assert [row["text"] for row in rows] == [text for text in texts for _ in range(2)]
    assert all(sorted(row["view"].split()) == sorted(row["text"].split()) for row in rows)
    assert sum(row["view"] != row["text"] for row in rows) > 60
    assert any(rows[i]["view"] != rows[i + 1]["view"] for i in range(0, 80, 2))
    assert not (folder / "c").exists()
    assert command(folder, "--how", "tfidf(p=0.5)", out="w.parquet") == 0
    known = set(" ".join(texts).split())
    for row in pq.read_table(folder / "w.parquet").to_pylist():
        assert len(row["view"].split()) == len(row["text"].split()) and set(row["view"].split()) <= known
    for how, message in (("back_translation+swap", "SSL292"), ("tfdif", "Did you mean 'tfidf'")):
        assert command(folder, "--how", how, out="x.parquet") == 2 and message in capsys.readouterr().err


def test_models_judge_the_views(files, monkeypatch, capsys):
    """The real encoder and classifier code on a tiny model: every outcome follows from what the models say alone."""
    folder, texts = files
    tiny_bert(folder / "model")
    argv = ["train", "--method", "supervised", "--model", str(folder / "model"), "--labeled", str(folder / "l.csv"),
            "--max-steps", "2", "--batch-size", "4", "--warm-start", "none", "--mixed-precision", "no", "--max-length",
            "24", "--cache-dir", str(folder / "cache"), "--output-dir", str(folder / "trained")]  # fmt: skip
    assert run(argv) == 0
    judges = ["--cosine-encoder", str(folder / "model"), "--same-label", str(folder / "trained")]
    assert command(folder, *judges) == 0
    assert "cosine to the text: from 0." in capsys.readouterr().out
    rows = pq.read_table(folder / "v.parquet").to_pylist()
    known = Embedder(str(folder / "model"))
    for row in rows[:5]:
        z = known([row["text"], " ".join(reversed(row["text"].split()))])
        assert row["cosine"] == pytest.approx(float(z[0] @ z[1]), abs=1e-5)
    middle = sorted(row["cosine"] for row in rows)[20]
    assert command(folder, *judges, "--lowest-cosine", str(middle), out="w.parquet") == 0
    capsys.readouterr()
    strict = pq.read_table(folder / "w.parquet").to_pylist()
    assert [row["outcome"] == "other meaning" for row in strict] == [row["cosine"] < middle for row in rows]
    written = [" ".join(reversed(text.split())) for text in texts]
    labels = []
    for part in (texts, written):
        (folder / "p.txt").write_text("\n".join(part) + "\n")
        assert run(["predict", str(folder / "trained"), str(folder / "p.txt")]) == 0
        labels.append([line.split("\t")[0] for line in capsys.readouterr().out.splitlines()])
    same = [a == b for a, b in zip(*labels, strict=True)]
    assert [row["outcome"] == "" for row in rows] == same
    assert [row["view"] for row in rows] == [w if s else t for w, s, t in zip(written, same, texts, strict=True)]
    assert command(folder, "--lowest-cosine", "0.5", out="x.parquet") == 2 and "SSL287" in capsys.readouterr().err
    assert command(folder, "--same-label", str(folder), out="x.parquet") == 3 and "SSL123" in capsys.readouterr().err
    assert command(folder, "--cosine-encoder", str(folder), out="x.parquet") == 2
    assert "SSL286" in capsys.readouterr().err


def test_several_languages(tmp_path, capsys):
    (tmp_path / "u.txt").write_text("a text of words\n")
    assert command(tmp_path, "--there", "eng-spa,eng-cat", "--back", "spa-eng") == 2
    assert "SSL289: --there names 2, --back 1" in capsys.readouterr().err
    several = back_translation.engines_of("apertium", "eng-spa,eng-cat", "spa-eng,cat-eng")
    assert several == [Apertium("eng-spa", "spa-eng"), Apertium("eng-cat", "cat-eng")]
