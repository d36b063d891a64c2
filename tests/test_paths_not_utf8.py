"""Folders whose names are not UTF-8: files of texts may lie there, all else is refused in one line at the start."""

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq
import pytest
from banks import static_encoder
from tiny import saved_classifier, tiny_bert, tiny_texts

from nlp_ssl import cli
from nlp_ssl.errors import ConfigError
from nlp_ssl.retrieval import index as index_module
from nlp_ssl.utils.hashing import contents
from nlp_ssl.utils.lock import exclusive
from nlp_ssl.utils.paths import absolute, check_utf8, is_utf8, shown_path

NAME = os.fsdecode(b"caf\xe9")
SWAP = ["--how", "swap(p=0.5)"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, an encoder and a trained classifier, and in it one whose name is not UTF-8, with texts."""
    folder = tmp_path_factory.mktemp("paths")
    try:
        (folder / NAME / "texts").mkdir(parents=True)
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    texts, labels = tiny_texts(40, seed=5)
    rows = [f"{t},{y}" for t, y in zip(texts, labels, strict=True)]
    (folder / NAME / "l.csv").write_text("\n".join(["text,label", *rows[:12]]))
    (folder / NAME / "t.csv").write_text("\n".join(["text,label", *rows[30:]]))
    (folder / NAME / "u.txt").write_text("\n".join(texts[12:30]))
    (folder / NAME / "bad.csv").write_text("id,number\n1,2\n")
    (folder / "texts").mkdir()
    (folder / "texts" / f"{NAME}.txt").write_text("\n".join(texts[12:20]))
    tiny_bert(folder / "model")
    static_encoder(folder / "encoder")
    saved_classifier(folder / "trained", ["neg", "pos"], texts)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "cache_folder", lambda: tmp_path / "cache")


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, bytes, str]:
    """Exit code, standard output as a terminal of UTF-8 has it, and the last line of standard error."""
    output, errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict"), io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "stderr", errors)
        code = cli.run([str(word) for word in words])
    output.flush()
    return code, cast(io.BytesIO, output.buffer).getvalue(), (errors.getvalue().splitlines() or [""])[-1]


REFUSED = [
    ["train", "--model", "{bad}/model", "--labeled", "l.csv", "--output-dir", "{new}"],
    ["train", "--model", "m", "--labeled", "l.csv", "--output-dir={bad}/out"],
    ["train", "--model", "m", "--labeled", "l.csv", "--cache-dir", "{bad}", "--output-dir", "{new}"],
    ["train", "--model", "m", "--labeled", "{bad}/l.parquet", "--output-dir", "{new}"],
    ["train", "--model", "m", "--labeled", "{bad}", "--output-dir", "{new}"],
    ["pipeline", "--model", "m", "--labeled", "l.csv", "--output-dir", "{bad}/out"],
    ["pretrain", "u.txt", "--output-dir", "{bad}/out"],
    ["augment", "u.txt", "--out", "{bad}/views.parquet"],
    ["augment", "{bad}", "--out", "{new}"],
    ["index", "build", "u.txt", "--out", "{bad}/bank"],
    ["index", "build", "{bad}", "--out", "{new}"],
    ["index", "merge", "a", "{bad}/b", "--out", "{new}"],
    ["index", "search", "{bad}/texts", "a film"],
    ["index", "info", "{bad}/bank"],
    ["doctor", "--labeled", "l.csv", "--model", "{bad}/model"],
    ["eval", "{bad}/model", "t.csv"],
    ["predict", "{bad}/model", "t.csv"],
    ["predict", "model", "t.csv", "--out", "{bad}/answers.parquet"],
    ["export", "{bad}/model", "--out", "{new}"],
    ["select", "u.txt", "--classifier", "{bad}/model", "--out", "{new}.parquet"],
    ["report", "{bad}/texts"],
]


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: " ".join(words[:2]))
def test_other_places_are_refused_at_the_start(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    before = sorted((place / NAME).iterdir())
    code, _, line = run(monkeypatch, *(w.format(bad=place / NAME, new=tmp_path / "new") for w in words))
    assert code == 2 and line.startswith("SSL257: ") and "caf\\xe9" in line and "make a link to it" in line
    assert sorted((place / NAME).iterdir()) == before and not (tmp_path / "new").exists()


def test_doctor_and_train_read_texts_there(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["--labeled", place / NAME / "l.csv", "--unlabeled", place / NAME / "u.txt", "--test",
             place / NAME / "t.csv", "--model", place / "model", "--max-length", 16]  # fmt: skip
    code, output, _ = run(monkeypatch, "doctor", *files)
    assert code == 0 and b"12 labeled" in output
    code, output, _ = run(monkeypatch, "train", "--method", "uda", "--max-steps", 1, "--warm-start", "none", *files,
                          "--cache-dir", tmp_path / "cache", "--output-dir", tmp_path / "out", "--json")  # fmt: skip
    assert code == 0 and json.loads(output)["method"] == "uda" and (tmp_path / "out/report.html").exists()


def test_doctor_shows_the_name_in_its_own_bytes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, output, _ = run(monkeypatch, "doctor", "--labeled", place / NAME / "bad.csv")
    assert code == 3 and os.fsencode(place / NAME / "bad.csv") + b": no text and no label column" in output
    code, output, _ = run(monkeypatch, "doctor", "--labeled", place / NAME / "bad.csv", "--json")
    assert code == 3 and f"{place / NAME / 'bad.csv'}: no text" in json.loads(output)["errors"][0]["text"]


def test_predict_and_eval_read_and_write_texts_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = place / "trained/out"
    assert run(monkeypatch, "eval", model, place / NAME / "t.csv")[0] == 0
    out = place / NAME / "answers.csv"
    code, output, _ = run(monkeypatch, "predict", model, place / NAME / "t.csv", "--out", out)
    assert code == 0 and output.startswith(os.fsencode(out) + b": 10 texts")
    assert len(out.read_text().splitlines()) == 11
    out.unlink()


def test_a_missing_file_is_said_to_be_missing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, line = run(monkeypatch, "eval", place / "trained/out", place / NAME / "none.csv")
    assert code == 3 and "SSL101" in line


def test_a_file_of_flags_may_lie_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = place / NAME / "flags.yaml"
    flags.write_text("text_column: nowhere\n")
    code, _, line = run(monkeypatch, "eval", place / "trained/out", place / NAME / "t.csv", "--config", flags)
    flags.unlink()
    assert code == 3 and "'nowhere'" in line


def test_augment_reads_texts_there(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["augment", place / NAME / "u.txt", "--out", tmp_path / "views.parquet", *SWAP]
    assert run(monkeypatch, *argv)[0] == 0
    assert len(pq.read_table(tmp_path / "views.parquet")) == 18
    assert run(monkeypatch, *argv)[1].endswith(b"is there already\n")


def test_augment_of_a_folder_refuses_a_file_whose_views_would_have_such_a_name(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, line = run(monkeypatch, "augment", place / "texts", "--out", tmp_path / "views", *SWAP)
    assert code == 2 and "SSL257" in line and "caf\\xe9.parquet" in line and not (tmp_path / "views").exists()


def test_an_index_of_texts_there(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, bank = ["--encoder", place / "encoder"], tmp_path / "bank"
    assert run(monkeypatch, "index", "build", place / NAME / "u.txt", "--out", bank, *encoder)[0] == 0
    assert run(monkeypatch, "index", "build", place / "texts", "--append", "--out", bank, *encoder)[0] == 0
    for words in (["info", bank], ["verify", bank, "--json"], ["search", bank, f"{NAME} noir", "-k", 2]):
        assert run(monkeypatch, "index", *words)[0] == 0, words
    sources = [corpus["source"] for corpus in json.loads((bank / "build.json").read_text())["corpora"]]
    assert [Path(source).exists() for source in sources] == [True, True], "paths are read back as they were"


def test_a_command_given_in_such_a_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(place / "encoder", tmp_path / NAME / "encoder")
    monkeypatch.chdir(tmp_path / NAME)
    texts = place / NAME / "u.txt"
    for argv in (
        ["index", "build", texts, "--out", "bank", "--encoder", "encoder"],
        ["augment", texts, "--out", "views.parquet", *SWAP, "--cosine-encoder", "encoder"],
    ):
        code, _, line = run(monkeypatch, *argv)
        assert code == 2 and "SSL257" in line and [path.name for path in Path().iterdir()] == ["encoder"], argv
    assert run(monkeypatch, "augment", texts, "--out", "views.parquet", *SWAP)[0] == 0, "nothing is named from the root"


def test_names() -> None:
    assert (is_utf8("café"), is_utf8(NAME), shown_path(Path("café") / NAME)) == (True, False, "café/caf\\xe9")
    check_utf8("café")
    with pytest.raises(ConfigError, match=r"^SSL257: caf\\xe9 is not UTF-8"):
        check_utf8(NAME)
    with pytest.raises(ConfigError, match="SSL257"):
        absolute(NAME)


def test_a_run_and_a_name_within_a_model_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SSL257"), exclusive(tmp_path / NAME):
        pass
    assert not list(tmp_path.iterdir())
    (tmp_path / NAME).write_text("of the user")
    assert contents([tmp_path])
