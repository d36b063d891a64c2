"""One index of several, against one build of all their corpora."""

import os
import shutil

import pytest
from banks import built, embed, files_of, texts_of

from nlp_ssl.cli import run
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.retrieval import index, merge
from nlp_ssl.retrieval.plan import read_plan
from nlp_ssl.utils.atomic import CheckpointError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def corpora(tmp_path):
    """Two files that share twenty texts, and a third that adds none."""
    lines = [f"this is the text number {i}\n" for i in range(500)]
    for name, some in (("a", lines[:270]), ("b", lines[250:]), ("c", lines[100:150])):
        (tmp_path / f"{name}.txt").write_text("".join(some))
    return [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"]


@pytest.fixture
def shards(tmp_path, corpora):
    for corpus in corpora:
        built(tmp_path / corpus.stem, corpus)
    return [tmp_path / corpus.stem for corpus in corpora]


@pytest.mark.parametrize("kind", ["flat", "sq8"])
def test_the_result_is_that_of_one_build(tmp_path, corpora, shards, kind):
    whole = built(tmp_path / "whole", *corpora, kind=kind)
    found = merge(tmp_path / "i", shards, kind=kind)
    assert texts_of(found) == texts_of(whole) and len(found) == 500
    assert found.search(embed(["one", "two"]), 20) == whole.search(embed(["one", "two"]), 20)
    file = "index/index.faiss"
    assert (tmp_path / "i" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert found.verify() == whole.verify()


def test_duplicates_stay_where_they_are_wanted(tmp_path, corpora):
    for corpus in corpora:
        built(tmp_path / corpus.stem, corpus, duplicates="keep")
    whole = built(tmp_path / "whole", *corpora, duplicates="keep")
    found = merge(tmp_path / "i", [tmp_path / name for name in "abc"])
    assert texts_of(found) == texts_of(whole) and len(found) == 570


def test_parts_are_linked_or_else_copied(tmp_path, shards, monkeypatch):
    merge(tmp_path / "i", shards)
    file = "parts/00000000/vectors.npy"
    assert (tmp_path / "i" / file).samefile(shards[0] / file)

    def refuse(*_):
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    merge(tmp_path / "j", shards)
    assert not (tmp_path / "j" / file).samefile(shards[0] / file)
    assert files_of(tmp_path / "i") == files_of(tmp_path / "j")


def test_a_merge_that_was_stopped_goes_on_and_ends_alike(tmp_path, shards):
    merge(tmp_path / "whole", shards)
    merge(tmp_path / "i", shards)
    for gone in ("index", "parts/00000006", "parts/00000007"):
        shutil.rmtree(tmp_path / "i" / gone)
    merge(tmp_path / "i", shards)
    assert files_of(tmp_path / "i") == files_of(tmp_path / "whole")
    merge(tmp_path / "i", shards)
    with pytest.raises(ConfigError, match="SSL462"):
        merge(tmp_path / "i", shards[:2])


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_texts_are_added_to_a_merged_index(tmp_path, corpora, duplicates):
    for corpus in corpora:
        built(tmp_path / corpus.stem, corpus, duplicates=duplicates)
    before = len(merge(tmp_path / "i", [tmp_path / name for name in "abc"]))
    more = tmp_path / "more.txt"
    more.write_text("quite another text here\n")
    encoded = []
    found = built(
        tmp_path / "i", more, append=True, duplicates=duplicates,
        encode=lambda texts: encoded.extend(texts) or embed(texts),
    )  # fmt: skip
    assert encoded == ["quite another text here"] and len(found) == before + 1
    assert len(read_plan(tmp_path / "i")["corpora"]) == 4


def test_shards_that_do_not_go_together(tmp_path, corpora, shards):
    built(tmp_path / "other", corpora[1], encoder="another")
    built(tmp_path / "words", corpora[1], fewest_words=4)
    built(tmp_path / "wide", corpora[1], encode=lambda texts: embed(texts)[:, :8])
    for second, error in (("other", "SSL460.* differ in encoder"), ("words", "SSL460.* fewest_words"),
                          ("wide", "SSL460.* encoder"), ("a", "SSL461.* both hold .*a.txt")):  # fmt: skip
        with pytest.raises(ConfigError, match=error):
            merge(tmp_path / "i", [shards[0], tmp_path / second])
    shutil.copytree(shards[0], tmp_path / "copy")
    with pytest.raises(ConfigError, match="SSL461"):
        merge(tmp_path / "i", [shards[0], tmp_path / "copy"])
    assert not (tmp_path / "i").exists()


def test_shards_that_are_not_finished(tmp_path, corpora, shards):
    def failing(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "begun", corpora[1], encode=failing)
    more = tmp_path / "more.txt"
    more.write_text("quite another text here\n")
    with pytest.raises(KeyboardInterrupt):
        built(shards[1], more, append=True, encode=failing)
    for second in ("begun", "b", "none"):
        with pytest.raises(DataError, match="SSL184.* to the end"):
            merge(tmp_path / "i", [shards[0], tmp_path / second])


def test_a_damaged_shard_is_not_taken_over(tmp_path, shards):
    file = shards[1] / "parts" / "00000002" / "vectors.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="has changed"):
        merge(tmp_path / "i", shards)


def test_the_command(tmp_path, shards, capsys):
    assert run(["index", "merge", *map(str, shards), "--out", str(tmp_path / "i"), "--kind", "flat"]) == 0
    assert capsys.readouterr().out.startswith("500 texts, 16 dimensions")
    assert run(["index", "merge", str(shards[0]), "--out", str(tmp_path / "j")]) == 2
    assert "SSL206: index merge needs two folders" in capsys.readouterr().err
