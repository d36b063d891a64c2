"""Building, resuming, adding to, searching and distrusting an index."""

import json
import shutil
import subprocess
import time

import faiss
import numpy as np
import pytest
from banks import D, built, embed, static_encoder, texts_of, unit
from filelock import FileLock

from nlp_ssl.cli import run
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.retrieval import BankOptions, Index, ann, build, index, merge, texts
from nlp_ssl.retrieval.bank import Bank
from nlp_ssl.retrieval.texts import Seen, key_of
from nlp_ssl.utils import atomic
from nlp_ssl.utils.atomic import CheckpointError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"this is the text number {i}\n" for i in range(500)))
    return path


def test_search_gives_the_true_cosines_in_order(tmp_path, corpus):
    found = built(tmp_path / "i", corpus)
    query = embed(["anything"])
    hits = found.search(query, 7)[0]
    true = unit(texts_of(found)) @ (query[0] / np.linalg.norm(query))
    assert [hit.id for hit in hits] == np.argsort(-true)[:7].tolist()
    assert [hit.score for hit in hits] == pytest.approx(sorted(true, reverse=True)[:7], abs=1e-3)
    assert hits[0].text == f"this is the text number {hits[0].id}"


@pytest.mark.parametrize("kind", ["sq8", "rabitq", "hnsw", "IVF8,Flat"])
def test_every_kind_reaches_the_recall_that_was_asked_for(tmp_path, corpus, kind):
    found = built(tmp_path / "i", corpus, kind=kind)
    assert found.reach.recall >= 0.95 and found.verify() == found.reach.recall
    if found.reach.knob == "nprobe":  # one list of eight or more does not hold all neighbors
        assert found.recall(ann.Reach("nprobe", 1, 1, 0.0)) < 0.9
        assert found.recall() == found.reach.recall, "searches are set as before"


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_a_build_that_was_stopped_goes_on_and_ends_alike(tmp_path, corpus, duplicates):
    corpus.write_text(corpus.read_text() + corpus.read_text())
    total = 1000 if duplicates == "keep" else 500
    whole = built(tmp_path / "whole", corpus, kind="sq8", duplicates=duplicates)
    calls = []

    def failing(texts):
        calls.append(len(texts))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return embed(texts)

    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "i", corpus, kind="sq8", encode=failing, duplicates=duplicates)
    with pytest.raises(DataError, match="no finished index"):
        Index.open(tmp_path / "i")
    encoded = []
    counted = lambda texts: encoded.extend(texts) or embed(texts)  # noqa: E731
    again = built(tmp_path / "i", corpus, kind="sq8", encode=counted, duplicates=duplicates)
    assert len(encoded) == total - 3 * 64 and len(again) == total
    assert texts_of(again) == texts_of(whole)
    file = "index/index.faiss"
    assert (tmp_path / "i" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    never = lambda texts: pytest.fail("nothing is left to do")  # noqa: E731
    built(tmp_path / "i", corpus, kind="sq8", encode=never, duplicates=duplicates)


def test_append_encodes_what_is_new_alone(tmp_path, corpus):
    built(tmp_path / "i", corpus, kind="sq8")
    more = tmp_path / "more.txt"
    more.write_text("THIS is  the text number 3\nquite another text here\n")
    with pytest.raises(ConfigError, match="--append"):
        built(tmp_path / "i", more, kind="sq8")
    encoded = []
    found = built(
        tmp_path / "i", more, kind="sq8", append=True, encode=lambda texts: encoded.extend(texts) or embed(texts)
    )
    assert encoded == ["quite another text here"] and len(found) == 501
    assert found.search(unit(encoded), 1)[0][0].text == encoded[0]


def test_duplicates_and_lengths(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("One two three 4.\none TWO three 4.\nOne, two three: 5!\ntoo short\n" + "w " * 101 + "\n")
    assert texts_of(built(tmp_path / "a", path)) == ["One two three 4.", "One, two three: 5!"]
    assert texts_of(built(tmp_path / "b", path, duplicates="drop_near")) == ["One two three 4."]
    assert len(built(tmp_path / "c", path, duplicates="keep")) == 3


def test_sentences_are_cut_and_test_rows_left_out(tmp_path):
    path = tmp_path / "c.jsonl"
    rows = [("One two three. Four five six.", "train"), ("Seven eight nine.", "test")]
    path.write_text("".join(json.dumps({"text": t, "split": s}) + "\n" for t, s in rows))
    assert texts_of(built(tmp_path / "i", path, sentences=True)) == ["One two three.", "Four five six."]


def test_another_setting_is_refused(tmp_path, corpus):
    built(tmp_path / "i", corpus)
    with pytest.raises(ConfigError, match="--fewest-words"):
        built(tmp_path / "i", corpus, fewest_words=4)
    corpus.write_text("now it holds other words\n")
    with pytest.raises(ConfigError, match="other corpora, or these as they were"):
        built(tmp_path / "i", corpus)


def test_two_builders(tmp_path, corpus):
    (tmp_path / "i").mkdir()
    with FileLock(tmp_path / "i" / ".lock"), pytest.raises(ConfigError, match="another run is using"):
        built(tmp_path / "i", corpus)


def test_changed_files_are_noticed(tmp_path, corpus):
    built(tmp_path / "i", corpus)
    for name, error in (("index/index.faiss", CheckpointError), ("parts/00000002/vectors.npy", CheckpointError)):
        shutil.copytree(tmp_path / "i", tmp_path / "j")
        file = tmp_path / "j" / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(error, match="has changed"):
            Index.open(tmp_path / "j").verify()
        file.write_bytes(data[:-5])
        with pytest.raises(error, match="bytes instead of"):
            Index.open(tmp_path / "j")
        shutil.rmtree(tmp_path / "j")


def test_a_file_of_another_machine_is_tried_in_a_process_of_its_own(tmp_path, corpus, monkeypatch):
    built(tmp_path / "i", corpus)
    monkeypatch.setattr(index, "cache_folder", lambda: tmp_path / "elsewhere")
    found = Index.open(tmp_path / "i")
    assert len(list((tmp_path / "elsewhere" / "indexes").iterdir())) == 1
    other = faiss.IndexFlatIP(D)
    other.add(unit(["a"]))
    with pytest.raises(DataError, match="no index of these texts"):
        faiss.write_index(other, str(tmp_path / "foreign"))
        index.read_file(tmp_path / "foreign", found.bank)
    (tmp_path / "junk").write_bytes(b"IxFI" + bytes(range(200)))
    with pytest.raises(DataError, match="no index of these texts"):
        index.read_file(tmp_path / "junk", found.bank)


def test_queries_that_make_no_sense(tmp_path, corpus):
    found = built(tmp_path / "i", corpus)
    assert found.search([], 3) == [] and len(found.search(embed(["a"]), 1000)[0]) == 500
    for queries, k in ((embed(["a"]), 0), (np.zeros((1, D)), 1), (np.full((1, D), np.nan), 1), (np.ones((1, 3)), 1),
                       (["  "], 1)):  # fmt: skip
        with pytest.raises(ConfigError):
            found.search(queries, k)


def test_kinds(tmp_path, corpus):
    assert ann.factory_of("auto", 1000, 384) == "Flat" and ann.factory_of("auto", 100_000, 384) == "IVF1264,SQ8"
    assert (
        ann.factory_of("pq", 1_000_000, 384) == "IVF4000,PQ48" and ann.factory_of("pq", 1_000_000, 50) == "IVF4000,PQ10"
    )
    with pytest.raises(ConfigError, match="Did you mean 'hnsw'"):
        ann.factory_of("hsnw", 10, 8)
    with pytest.raises(ConfigError, match="try --kind flat"):
        built(tmp_path / "i", corpus, kind="IVF8,Nonsense")


@pytest.mark.parametrize("kind", ["pq", "HNSW8,PQ4", "PCA8,IVF2,PQ4x8", "IVF2,PQ4x4fs,RFlat"])
def test_codes_are_trained_on_few_texts_without_a_word(tmp_path, corpus, kind, capfd):
    corpus.write_text("".join(corpus.read_text().splitlines(keepends=True)[:300]))
    began = time.process_time()
    built(tmp_path / "i", corpus, kind=kind)
    assert time.process_time() - began < 5  # FAISS likes to sort the codes for a search that is never made
    assert "clustering" not in capfd.readouterr().err


def test_seen_knows_every_key_once():
    keys = np.random.default_rng(0).integers(0, 2**63, 200_000, dtype=np.uint64)
    seen = Seen()
    for known in (keys[:1000], keys[1000:1010]):
        seen.add_all(known)
    assert not any(seen.add(int(key)) for key in keys[:1010])
    assert all(seen.add(int(key)) for key in keys[1010:]) and not any(seen.add(int(key)) for key in keys[::7])


def test_near_duplicates():
    assert key_of("The 3 cats, here!", "drop_near") == key_of("the 44 CATS here", "drop_near")
    assert key_of("The 3 cats", "drop") == key_of("the  3 cats", "drop") != key_of("the 4 cats", "drop")


def test_cosines_do_not_hang_on_the_length_of_what_is_stored():
    assert ann.cosines(np.array([[0.6, 0.8]]), np.array([[3.0, 0.0]])) == pytest.approx([0.6])


@pytest.mark.parametrize("kind", ["flat", "sq8", "pq", "rabitq", "hnsw"])
def test_no_cosine_is_beyond_1(tmp_path, corpus, kind):
    """In float32 the cosine of a vector with itself is 1 or a number beside it, on either side."""
    found = built(tmp_path / "i", corpus, kind=kind)
    own = found.bank.vectors(np.arange(len(found)))
    for queries in (own, -own, (own * np.float32(3)).astype(np.float16).astype(np.float32)):
        scores = np.array([hit.score for hits in found.search(queries, 500) for hit in hits])
        assert scores.max() <= 1 and scores.min() >= -1
        directions = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        scores, _ = ann.exact(found.bank, directions, 5)
        assert scores.max() <= 1 and scores.min() >= -1
    assert found.search(own[:1], 1)[0][0].score == pytest.approx(1, abs=1e-6)


def test_one_query_is_no_list_of_queries(tmp_path, corpus):
    found = built(tmp_path / "i", corpus)
    for query in ("abc", "", b"abc"):
        with pytest.raises(ConfigError, match="SSL255: queries: .* is one text"):
            found.search(query)
    with pytest.raises(ConfigError, match="SSL255: corpora: .* is one text"):
        build(tmp_path / "j", str(corpus), BankOptions(), encoder="none", embed=embed)
    assert not (tmp_path / "j").exists()


def test_a_part_that_is_gone_is_not_written_over(tmp_path, corpus):
    built(tmp_path / "i", corpus)
    shutil.rmtree(tmp_path / "i" / "parts" / "00000002")
    last = (tmp_path / "i" / "parts" / "00000007" / "texts.bin").read_bytes()
    more = tmp_path / "more.txt"
    more.write_text("quite another text here\n")
    for corpora, append in ((corpus, False), (more, True)):
        with pytest.raises(CheckpointError, match="00000002 is missing"):
            built(tmp_path / "i", corpora, append=append)
    assert (tmp_path / "i" / "parts" / "00000007" / "texts.bin").read_bytes() == last
    for number in range(3, 8):
        shutil.rmtree(tmp_path / "i" / "parts" / f"0000000{number}")
    assert len(built(tmp_path / "i", more, append=True)) == 501


def test_damaged_parts_are_not_added_to(tmp_path, corpus):
    built(tmp_path / "i", corpus)
    file = tmp_path / "i" / "parts" / "00000002" / "vectors.npy"
    whole = file.read_bytes()
    more = tmp_path / "more.txt"
    more.write_text("quite another text here\n")
    for at in (300, 60):  # a vector; the header
        data = bytearray(whole)
        data[at] ^= 1
        file.write_bytes(data)
        with pytest.raises(CheckpointError):
            built(tmp_path / "i", more, append=True)
    with pytest.raises(CheckpointError, match="damaged"):
        Index.open(tmp_path / "i")


def test_texts_that_were_read_for_another_build_are_thrown_away(tmp_path, corpus):
    def failing(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "i", corpus, encode=failing)
    corpus.write_text("now it holds other words\n")
    assert texts_of(built(tmp_path / "i", corpus)) == ["now it holds other words"]


def test_a_damaged_piece_is_not_encoded(tmp_path, corpus):
    def failing(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "i", corpus, encode=failing)
    file = tmp_path / "i" / "texts" / "00000001" / "texts.bin"
    file.write_bytes(file.read_bytes().replace(b"text", b"next", 1))
    with pytest.raises(CheckpointError, match="00000001.* has changed"):
        built(tmp_path / "i", corpus)


def test_before_the_first_part_all_can_be_asked_for_otherwise(tmp_path, corpus):
    with pytest.raises(DataError, match="no texts are left"):
        built(tmp_path / "i", corpus, fewest_words=50)
    assert len(built(tmp_path / "i", corpus)) == 500


@pytest.mark.parametrize("plan", ["[3]", "{}", '{"format": 1}', '{"format": 1, "options": 3, "corpora": 3}', "[{}]"])
def test_a_damaged_plan(tmp_path, corpus, plan):
    built(tmp_path / "i", corpus)
    (tmp_path / "i" / "build.json").write_text(plan)
    with pytest.raises(DataError, match="SSL143"):
        built(tmp_path / "i", corpus)


def test_an_index_is_trained_anew_once_it_has_outgrown_its_training(tmp_path, corpus):
    built(tmp_path / "i", corpus, kind="sq8")
    more = tmp_path / "more.txt"
    more.write_text("".join(f"quite another text with number {i}\n" for i in range(800)))
    assert built(tmp_path / "i", more, kind="sq8", append=True).meta["trained"] == 500
    more.write_text("".join(f"and a third text with number {i}\n" for i in range(800)))
    found = built(tmp_path / "i", more, kind="sq8", append=True)
    assert found.meta["trained"] == len(found) == 2100


@pytest.mark.parametrize("code", [-11, 1])
def test_a_trial_that_crashes_lets_nothing_in(tmp_path, corpus, monkeypatch, code):
    built(tmp_path / "i", corpus)
    monkeypatch.setattr(index, "cache_folder", lambda: tmp_path / "elsewhere")
    monkeypatch.setattr(index.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], code))
    with pytest.raises(DataError, match="no index of these texts"):
        Index.open(tmp_path / "i")
    assert not (tmp_path / "elsewhere").exists()


def test_texts_that_are_not_those_of_the_index(tmp_path, corpus):
    built(tmp_path / "i", corpus)
    part = tmp_path / "i" / "parts" / "00000001"
    shutil.rmtree(part)
    shutil.copytree(tmp_path / "i" / "parts" / "00000007", part)
    with pytest.raises(CheckpointError, match="part 00000001 is not that of the index"):
        Index.open(tmp_path / "i")


@pytest.mark.parametrize("kind", ["HNSW0", "IVF0,Flat", "IDMap,Flat", "NSG16"])
def test_kinds_that_faiss_cannot_make(tmp_path, corpus, kind):
    with pytest.raises(ConfigError, match="SSL298"):
        built(tmp_path / "i", corpus, kind=kind)


def test_files_of_others_are_left_alone(tmp_path):
    """Even where they have the names of an index: the corpus may lie there."""
    corpus = tmp_path / "mine/texts/a.txt"
    corpus.parent.mkdir(parents=True)
    corpus.write_text("this is a text of mine\n")
    with pytest.raises(ConfigError, match="holds texts but no build.json"):
        built(tmp_path / "mine", corpus.parent)
    assert corpus.exists() and [p.name for p in (tmp_path / "mine").iterdir()] == ["texts"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/build.json").write_text("{}")
    with pytest.raises(DataError, match="SSL143"):
        built(tmp_path / "other", corpus)
    assert (tmp_path / "other/build.json").read_text() == "{}"


def test_equal_vectors_are_equally_near(tmp_path, corpus):
    """An exact search finds the nearest ten, whichever of the equal ones these are."""
    few = np.random.default_rng(0).normal(size=(12, D)).astype(np.float32)
    found = built(tmp_path / "i", corpus, encode=lambda texts: few[[int(text.split()[-1]) % 12 for text in texts]])
    assert found.reach.recall == 1.0
    found = built(tmp_path / "two", corpus, encode=lambda texts: np.tile(few[:1], (len(texts), 1)))
    assert found.reach.recall == 1.0


def test_the_command_answers_row_by_row(tmp_path, corpus, capsys):
    encoder = static_encoder(tmp_path / "encoder")
    argv = ["index", "build", str(corpus), "--encoder", str(encoder), "--out", str(tmp_path / "i")]
    assert run(argv) == 0
    capsys.readouterr()
    (tmp_path / "q.txt").write_text("the text number 7\n\nthe text number 11\n")
    assert run(["index", "search", str(tmp_path / "i"), "--queries", str(tmp_path / "q.txt"), "-k", "1", "--json"]) == 0
    first, blank, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert blank == [] and [first[0]["id"], last[0]["id"]] == [7, 11]
    assert run(["index", "search", str(tmp_path / "i"), "-k", "1", "--", "-text number 7"]) == 0
    assert capsys.readouterr().out.startswith("-text number 7\n")


def test_parts_whose_files_do_not_fit_together_are_damaged(tmp_path, corpus):
    built(tmp_path / "i", corpus)
    parts = tmp_path / "i/parts"
    with atomic.write_dir(parts / "00000000", {"read": [0, 64]}) as place:
        shutil.copytree(parts / "00000001", place, dirs_exist_ok=True)
        (place / atomic.MANIFEST).unlink()
        np.save(place / "keys.npy", np.zeros(63, dtype=np.uint64))
    with pytest.raises(CheckpointError, match="SSL311"):
        Bank(parts)


def test_a_corpus_that_was_read_is_not_needed_to_add_another(tmp_path, corpus):
    """Neither in the index that was built of it nor in one that was merged."""
    built(tmp_path / "i", corpus)
    other, third = tmp_path / "other.txt", tmp_path / "third.txt"
    other.write_text("a text of another corpus\n")
    third.write_text("one more text at last\n")
    built(tmp_path / "j", other)
    merge(tmp_path / "both", [tmp_path / "i", tmp_path / "j"], kind="flat")
    corpus.unlink()
    assert texts_of(built(tmp_path / "i", other, append=True))[500:] == ["a text of another corpus"]
    other.unlink()
    assert texts_of(built(tmp_path / "both", third, append=True))[501:] == ["one more text at last"]


def plan_and_texts(folder):
    plan = json.loads((folder / "build.json").read_text())
    return [c["source"] for c in plan["corpora"]], sorted(p.name for p in (folder / "texts").glob("[0-9]*"))


@pytest.mark.parametrize("older", [False, True])
def test_corpora_are_added_all_or_none(tmp_path, corpus, older):
    """One that breaks after others were read leaves the index as it was, also where those take several pieces."""
    built(tmp_path / "i", corpus)
    plan = tmp_path / "i" / "build.json"
    if older:  # written before plans said how far they were read
        since = {"finished", "parts_then"}
        plan.write_text(json.dumps({k: v for k, v in json.loads(plan.read_text()).items() if k not in since}))
    before = plan_and_texts(tmp_path / "i")
    good, bad = tmp_path / "good.txt", tmp_path / "bad.jsonl"
    good.write_text("".join(f"quite another text number {i}\n" for i in range(200)))
    bad.write_text('{"text": "a text of three words"}\n{"text": \n')
    with pytest.raises(DataError, match="bad.jsonl line 2"):
        built(tmp_path / "i", good, bad, append=True)
    assert plan_and_texts(tmp_path / "i") == before and len(Index.open(tmp_path / "i")) == 500
    bad.unlink()
    assert len(built(tmp_path / "i", good, append=True)) == 700


def test_an_interrupted_addition_that_breaks_is_undone_as_well(tmp_path, corpus, monkeypatch):
    built(tmp_path / "i", corpus)
    before = plan_and_texts(tmp_path / "i")
    good, bad = tmp_path / "good.txt", tmp_path / "bad.jsonl"
    good.write_text("".join(f"quite another text number {i}\n" for i in range(200)))
    bad.write_text('{"text": "a text of three words"}\n{"text": \n')
    real, calls = texts.write_piece, []

    def dying(*given):
        if calls:
            raise KeyboardInterrupt
        calls.append(real(*given))

    monkeypatch.setattr(texts, "write_piece", dying)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "i", good, bad, append=True)
    monkeypatch.setattr(texts, "write_piece", real)
    assert plan_and_texts(tmp_path / "i") != before, "what was read is not read again"
    with pytest.raises(DataError, match="bad.jsonl line 2"):
        built(tmp_path / "i", good, bad, append=True)
    assert plan_and_texts(tmp_path / "i") == before
    assert len(built(tmp_path / "i", good, append=True)) == 700
