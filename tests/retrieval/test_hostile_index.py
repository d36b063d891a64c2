"""Files of an index that somebody else made, kinds of index that cannot be, and builds that come to nothing."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from banks import D, built, embed, files_of

from nlp_ssl import cli
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.retrieval import Index, ann, merge
from nlp_ssl.retrieval import index as index_module
from nlp_ssl.retrieval.plan import PLAN
from nlp_ssl.utils import atomic


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"this is the text number {i}\n" for i in range(150)))
    return path


@pytest.fixture
def more(tmp_path: Path) -> Path:
    path = tmp_path / "more.txt"
    path.write_text("".join(f"this is another text {i}\n" for i in range(50)))
    return path


def put_in_place(folder: Path, change: Callable[[Path], None]) -> None:
    """Changes a sealed folder so that its manifest is right again: as if it had been written like this."""
    meta = atomic.verify(folder)
    with atomic.write_dir(folder, meta) as temporary:
        for path in folder.iterdir():
            if path.name != atomic.MANIFEST:
                shutil.copy(path, temporary)
        change(temporary)


def indexed(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Writes what becomes of the index."""

    def changed(folder: Path) -> None:
        path = str(folder / "index.faiss")
        faiss.write_index(change(faiss.read_index(path)), path)

    return changed


def ids_of(index: Any, number: int) -> np.ndarray:
    """The ids of a list that has some, to be changed in place."""
    lists = index.invlists
    held = [i for i in range(lists.nlist) if lists.list_size(i)]
    return faiss.rev_swig_ptr(lists.get_ids(held[number]), lists.list_size(held[number]))


def one_id(value: int) -> Callable[[Any], Any]:
    def change(index: Any) -> Any:
        ids = ids_of(index, 0)
        ids[0] = value if value < 0 or value > 149 else ids_of(index, 1)[0]
        return index

    return change


def mapped(index: Any) -> Any:
    whole = faiss.IndexIDMap(faiss.IndexFlatIP(D))
    ids = np.arange(index.ntotal)
    ids[7] = 8
    whole.add_with_ids(np.random.default_rng(0).normal(size=(index.ntotal, D)).astype(np.float32), ids)
    return whole


def of_other_texts(size: int, dim: int) -> Callable[[Any], Any]:
    def change(index: Any) -> Any:
        other = faiss.IndexFlatIP(dim)
        other.add(np.ones((size, dim), np.float32))
        return other

    return change


def cut(folder: Path) -> None:
    path = folder / "index.faiss"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FOREIGN: dict[str, Callable[[Path], None]] = {
    "no index at all": lambda folder: (folder / "index.faiss").write_bytes(b"IxF2" + bytes(50)) and None,
    "cut": cut,
    "other size": indexed(of_other_texts(150, D + 1)),
    "other number": indexed(of_other_texts(149, D)),
    "an id twice": indexed(one_id(0)),
    "an id too large": indexed(one_id(150)),
    "an id below 0": indexed(one_id(-5)),
    "a map of ids": indexed(mapped),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_index_is_neither_opened_nor_added_to(tmp_path: Path, corpus: Path, more: Path, what: str) -> None:
    built(tmp_path / "bank", corpus, kind="IVF4,Flat")
    put_in_place(tmp_path / "bank/index", FOREIGN[what])
    before = files_of(tmp_path / "bank/index")
    with pytest.raises(DataError, match="SSL143: .*build it again"):
        Index.open(tmp_path / "bank")
    with pytest.raises(DataError, match="SSL143: .*build it again"):
        built(tmp_path / "bank", more, kind="IVF4,Flat", append=True)
    assert files_of(tmp_path / "bank/index") == before


@pytest.mark.parametrize("missing", ["parts", "kind", "trained", "factory"])
def test_a_manifest_of_something_else_is_not_added_to(tmp_path: Path, corpus: Path, more: Path, missing: str) -> None:
    built(tmp_path / "bank", corpus)
    place = tmp_path / "bank/index"
    meta = atomic.verify(place)
    with atomic.write_dir(place, {k: v for k, v in meta.items() if k != missing}) as temporary:
        shutil.copy(place / "index.faiss", temporary)
    with pytest.raises(DataError, match="SSL143: .*index does not describe an index .*: delete it and build"):
        built(tmp_path / "bank", more, append=True)
    shutil.rmtree(place)
    assert len(built(tmp_path / "bank", more, append=True)) == 200, "texts and vectors were still there"


def test_ids_and_lists_that_are_right_pass(tmp_path: Path, corpus: Path, more: Path) -> None:
    for kind in ("IVF4,Flat", "PCA8,IVF4,SQ8", "IVF4,PQ4x4fs,RFlat", "HNSW8"):
        folder = tmp_path / kind
        built(folder, corpus, kind=kind)
        put_in_place(folder / "index", indexed(lambda index: index))
        shutil.rmtree(tmp_path / "cache")  # so that the file is tried
        assert len(built(folder, more, kind=kind, append=True)) == 200


def test_a_text_that_begins_elsewhere_is_noticed(tmp_path: Path, corpus: Path) -> None:
    built(tmp_path / "bank", corpus)
    path = tmp_path / "bank/parts/00000001/offsets.npy"
    offsets = np.load(path)
    offsets[3] += 1
    np.save(path, offsets)
    with pytest.raises(atomic.CheckpointError, match="offsets.npy has changed since it was saved"):
        Index.open(tmp_path / "bank")


# ---- kinds ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_encoder(tmp_path: Path) -> Callable[[Any], np.ndarray]:
    """Makes one vector, to learn its size, and no more."""

    def vectors(texts: Any) -> np.ndarray:
        assert list(texts) == ["one text"], "the kind was not refused before the work began"
        return embed(texts)

    return vectors


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("HNSW1000000000", "has a size of 1000000000: give it 512 or less"),
        ("HNSW99999999999999999999", "give it 512 or less"),
        ("NSG4000", "give it 512 or less"),
        ("IVF1000000000,Flat", "give it 4194304 or less"),
        ("IVF4_HNSW100000,Flat", "give it 512 or less"),
        ("IMI2x20,Flat", "give it 11 or less"),
        ("PQ4x24", "give it 16 or less"),
        ("RQ1000000x8", "give it 65536 or less"),
        ("Pad99999999,Flat", "give it 65536 or less"),
        ("OPQ8_0,PQ8", "has a size of 0"),
        ("PQ7", "of vectors of 16 numbers"),
        ("IVF4,PQ7", "of vectors of 16 numbers"),
        ("IDMap,Flat", "leave out IDMap"),
        ("IDMap2,HNSW4", "leave out IDMap"),
        ("Nonsense", "of vectors of 16 numbers"),
        ("Flat\udce9", "of vectors of 16 numbers"),
    ],
)
def test_a_kind_that_cannot_be_is_refused_before_anything_is_encoded(
    tmp_path: Path, corpus: Path, no_encoder: Callable[[Any], np.ndarray], kind: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=f"^SSL298: .*{why}"):
        built(tmp_path / "bank", corpus, kind=kind, encode=no_encoder)
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("kind", ["HNSW512", "IVF4,PQ4x4fs", "IVF4_HNSW8,Flat", "OPQ4_8,PQ4", "PCAR8,SQ8"])
def test_other_kinds_pass(kind: str) -> None:
    ann.check_factory(kind, D)


def test_memory_that_does_not_suffice_is_one_line(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(ann, "fill", fail)
    with pytest.raises(ConfigError, match=r"SSL298: no index 'Flat' of 150 texts \(std::bad_alloc\): try --kind flat"):
        built(tmp_path / "bank", corpus)
    monkeypatch.undo()
    assert len(built(tmp_path / "bank", corpus, encode=None)) == 150, "what was encoded stays"


def test_a_merge_refuses_a_kind_before_it_begins(tmp_path: Path, corpus: Path, more: Path) -> None:
    for name, texts in (("a", corpus), ("b", more)):
        built(tmp_path / name, texts)
    with pytest.raises(ConfigError, match="SSL298"):
        merge(tmp_path / "both", [tmp_path / "a", tmp_path / "b"], kind="PQ7")
    assert not (tmp_path / "both").exists()


# ---- builds that come to nothing ------------------------------------------------------------------------------------


def unusable(folder: Path) -> dict[str, Path]:
    """Corpora of which no index can be made."""
    contents = {
        "empty.txt": b"", "binary.txt": bytes(range(256)) * 40, "image.txt": b"\x89PNG\r\n\x1a\n" + bytes(90),
        "columns.csv": b"id,number\n1,2\n", "quote.csv": b'text\n"no end\n', "words.txt": b"two words\n" * 5,
        "damaged.parquet": b"PAR1 and no more", "damaged.txt.gz": b"\x1f\x8b and no", "latin.txt": b"caf\xe9 noir\n",
        "broken.jsonl": b'{"text": \n', "kind.xlsx": b"PK\x03\x04",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in (*contents, "missing.txt")}


def test_a_build_of_nothing_usable_leaves_nothing(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, path in unusable(tmp_path).items():
        for place in ("new", "there"):
            with pytest.raises((DataError, ConfigError)):
                built(tmp_path / place, path)
        assert not (tmp_path / "new").exists() and not list((tmp_path / "there").iterdir()), name
    assert len(built(tmp_path / "new", corpus)) == 150


def test_a_build_that_was_stopped_before_its_first_text_leaves_nothing(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["nlp_ssl.retrieval.build"], "read_corpora", stopped)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "bank", corpus)
    assert not (tmp_path / "bank").exists()


def test_an_encoder_that_is_none_is_noticed_before_the_texts_are_read(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["index", "build", str(corpus), "--encoder", str(tmp_path), "--out", str(tmp_path / "bank")]
    assert cli.run(argv) == 2
    assert "SSL286" in capsys.readouterr().err and not (tmp_path / "bank").exists()


def test_texts_that_were_read_stay_when_another_corpus_cannot_be(tmp_path: Path, corpus: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("id,number\n1,2\n")
    with pytest.raises(DataError):
        built(tmp_path / "bank", corpus, bad)
    assert (tmp_path / "bank" / PLAN).exists() and len(list((tmp_path / "bank/texts").glob("[0-9]*"))) == 2


def test_an_index_stays_as_it_was_where_nothing_of_a_corpus_can_be_added(
    tmp_path: Path, corpus: Path, more: Path
) -> None:
    built(tmp_path / "bank", corpus)
    before = files_of(tmp_path / "bank")
    for name, path in unusable(tmp_path).items():
        if name != "words.txt":  # those can be read, and there is nothing to add
            with pytest.raises((DataError, ConfigError)):
                built(tmp_path / "bank", path, append=True)
            assert files_of(tmp_path / "bank") == before, name
    assert len(built(tmp_path / "bank", more, append=True)) == 200


def test_two_builds_in_one_folder_do_not_clear_it(tmp_path: Path, corpus: Path) -> None:
    seen = []

    def second(texts: Any) -> np.ndarray:
        if not seen:
            seen.append(1)
            with pytest.raises(ConfigError, match="SSL217"):
                built(tmp_path / "bank", corpus)
        return embed(texts)

    assert len(built(tmp_path / "bank", corpus, encode=second)) == 150
