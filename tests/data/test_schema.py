"""Building one data set out of tables: draws, pools, leaks, conflicts and the checks on classes."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from nlp_ssl.data.schema import build_data, check_lengths
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import Table, table_of
from nlp_ssl.errors import ConfigError, DataError


def table(name: str, *rows: tuple[str, object]) -> Table:
    return table_of([text for text, _ in rows], [label for _, label in rows], source=name)


def texts(data, positions) -> list[str]:
    return data.texts.take(pa.array(positions)).to_pylist()


def refused(code: int, *words: str, **tables) -> None:
    with pytest.raises(DataError) as caught:
        build_data(**tables)
    assert caught.value.code == code, caught.value
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


LABELED = table("train", ("a0", "a"), ("b0", "b"), ("a1", "a"), ("b1", "b"))
POOL = table_of(["u0", "u1", "u2"], source="pool")
TEST = table("test", ("t0", "b"), ("t1", "a"))


def test_parts_are_positions_into_all_texts():
    data = build_data(LABELED, POOL, table("dev", ("d0", "a")), TEST)
    assert data.classes == ("a", "b")
    assert texts(data, data.labeled) == ["a0", "b0", "a1", "b1"]
    assert texts(data, data.unlabeled) == ["u0", "u1", "u2"]
    assert (texts(data, data.dev), texts(data, data.test)) == (["d0"], ["t0", "t1"])
    assert data.labels.tolist() == [0, 1, 0, 1, -1, -1, -1, 0, 1, 0]
    assert all(part.dtype == np.int64 for part in (data.labels, data.labeled, data.unlabeled, data.dev, data.test))
    assert data.notes == ()


def test_a_draw_leaves_the_rest_to_the_pool_with_hidden_labels():
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(40)] + [("no label", None)]
    data = build_data(table("train", *rows), POOL, labels_per_class=3, seed=1)
    assert np.bincount(data.labels[data.labeled]).tolist() == [3, 3]
    assert sorted([*data.labeled, *data.unlabeled]) == list(range(44))
    assert (data.labels[data.unlabeled] >= 0).sum() == 34
    again, other = (build_data(table("train", *rows), POOL, labels_per_class=3, seed=s) for s in (1, 2))
    assert again.labeled.tolist() == data.labeled.tolist() != other.labeled.tolist()
    refused(131, "'a'", "20", labeled=table("train", *rows), labels_per_class=21)
    with pytest.raises(ConfigError):
        build_data(table("train", *rows), labels_per_class=0)


def test_hash_follows_the_content_and_not_the_chunks():
    data = build_data(LABELED, POOL, None, TEST)
    assert len(data.content_hash) == 32
    pieces = pa.chunked_array([POOL.texts.combine_chunks()[:1], POOL.texts.combine_chunks()[1:]])
    assert build_data(LABELED, dataclasses.replace(POOL, texts=pieces), None, TEST).content_hash == data.content_hash
    changed = [
        build_data(LABELED, table_of(["u0", "u1", "u3"]), None, TEST),
        build_data(LABELED, table_of(["u0u", "1", "u2"]), None, TEST),
        build_data(LABELED, POOL, TEST, None),
        build_data(table("train", ("a0", "b"), ("b0", "b"), ("a1", "a"), ("b1", "b")), POOL, None, TEST),
        build_data(table("train", ("a0", "a"), ("b0", "c"), ("a1", "a"), ("b1", "c")), POOL),
        build_data(LABELED, POOL, None, TEST, labels_per_class=1),
    ]
    assert len({data.content_hash, *(other.content_hash for other in changed)}) == 7


def test_row25_share_of_cut_texts():
    lengths = np.array([5] * 18 + [20, 30])
    assert check_lengths(lengths, 30) is None
    assert check_lengths(lengths, 29) == "1 of 20 texts (5.0%) are longer than 29 tokens and are cut"
    assert check_lengths(lengths, 10) == "2 of 20 texts (10.0%) are longer than 10 tokens and are cut"
    assert check_lengths(lengths, 4).startswith("warning: 20 of 20 texts (100.0%)")


@pytest.mark.parametrize("name", ["Pos", "POS"])
def test_row31_labels_that_differ_in_case(name):
    refused(136, "train row 3", repr(name), "'pos'",
            labeled=table("train", ("a", "pos"), ("b", "neg"), ("c", name)))  # fmt: skip


def test_row34_test_label_that_training_lacks():
    refused(
        134, "test row 2", "'bb'", "Did you mean 'b'?", labeled=LABELED, test=table("test", ("x", "a"), ("y", "bb"))
    )
    refused(134, "dev row 1", labeled=LABELED, dev=table("dev", ("x", "c")))


def test_row35_classes_with_no_or_one_labeled_row():
    refused(135, "'b'", labeled=table("train", ("x", "a"), ("y", "a"), ("z", "b")), test=table("test", ("z", "b")),
            drop_leaks=True)  # fmt: skip
    data = build_data(table("train", ("x", "a"), ("y", "a"), ("z", "b")), POOL)
    assert data.notes == ("warning: classes with a single labeled row, which cannot be split: 1 ('b')",)


def test_row36_single_class():
    refused(133, "'a'", labeled=table("train", ("x", "a"), ("y", "a"), ("z", None)))


def test_row37_no_labels():
    refused(132, "pool", labeled=POOL)
    refused(132, "train", labeled=table("train", ("x", None)))


def test_row38_no_unlabeled_texts():
    data = build_data(LABELED)
    assert len(data.unlabeled) == 0
    assert data.notes == ("warning: no unlabeled texts: training is supervised only",)


def test_row39_many_classes():
    rows = [(f"text {i} {j}", f"class {i}") for i in range(10_001) for j in range(2)]
    assert any("10001 classes" in note for note in build_data(table("train", *rows), POOL).notes)
    assert build_data(table("train", *rows[2:]), POOL).notes == ()


def test_row40_extreme_imbalance():
    rows = [(f"text {i}", "a") for i in range(2_000)] + [("rare", "b"), ("rarer", "b")]
    (note,) = build_data(table("train", *rows), POOL).notes
    assert note.startswith("warning: class 'b' has 2 rows and 'a' has 2000")
    assert build_data(table("train", *rows[1:]), POOL).notes == ()


def test_row41_same_text_with_two_labels():
    rows = [("Same  Text", "a"), ("same text", "b"), ("x", "a"), ("x", "a"), ("y", "b")]
    data = build_data(table("train", *rows), POOL)
    assert texts(data, data.labeled) == ["x", "x", "y"]
    assert not set(texts(data, data.unlabeled)) & {"Same  Text", "same text"}
    assert "labeled rows dropped because their text has two labels: 2" in data.notes
    refused(138, "train row 1", "2 rows", labeled=table("train", *rows), conflicts="error")


def test_row42_duplicates_are_counted_and_pool_copies_of_labeled_texts_dropped():
    pool = table_of(["A0", "u", "u", "u", "new"], source="pool")
    data = build_data(LABELED, pool, None, table("test", ("t", "a"), ("t", "a")))
    assert texts(data, data.unlabeled) == ["u", "u", "u", "new"]
    assert data.notes == (
        "pool: duplicate texts among the unlabeled rows: 2",
        "test: duplicate texts among the test rows: 1",
        "unlabeled rows dropped because they repeat a labeled text: 1",
    )
    shared = build_data(LABELED, POOL, table("dev", ("T0 ", "b")), TEST)
    assert shared.notes == ("warning: dev texts that are also test texts: 1",)


@pytest.mark.parametrize("side", ["dev", "test"])
def test_row43_scored_texts_among_the_training_texts(side):
    scored = table(side, ("clean", "a"), (" U1", "a"), ("b0", "b"))
    tables = {"labeled": LABELED, "unlabeled": POOL, side: scored}
    refused(
        137, f"{side} row 2", f"2 of 3 {side} texts", "pool row 2", "--allow-transductive", "--drop-leaks", **tables
    )
    kept = build_data(**tables, allow_transductive=True)
    assert (len(kept.labeled), len(kept.unlabeled)) == (4, 3)
    assert any(note.startswith(f"warning: 2 of 3 {side} texts") for note in kept.notes)
    dropped = build_data(**tables, drop_leaks=True)
    assert texts(dropped, dropped.labeled) == ["a0", "a1", "b1"]
    assert texts(dropped, dropped.unlabeled) == ["u0", "u2"]
    assert f"training rows dropped because they are {side} texts: 2" in dropped.notes
    with pytest.raises(ConfigError):
        build_data(**tables, drop_leaks=True, allow_transductive=True)


def test_row43_leaks_are_removed_before_the_draw():
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(8)]
    data = build_data(table("train", *rows), None, None, table("test", *rows[:4]), labels_per_class=2, drop_leaks=True)
    assert sorted(texts(data, data.labeled)) == ["text 4", "text 5", "text 6", "text 7"]
    assert len(data.unlabeled) == 0


def test_scored_rows_need_labels():
    data = build_data(LABELED, POOL, None, table("test", ("t0", "a"), ("t1", None)))
    assert texts(data, data.test) == ["t0"]
    assert data.notes == ("test rows left out because they have no label: 1",)
    refused(139, "no dev row has a label", labeled=LABELED, dev=table_of(["x"], source="dev"))


def test_reading_notes_are_kept_once_with_their_source(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\nb,y\n,x\n" + "z" * 1_000_001 + ",y\n")
    whole = read_table(path)
    data = build_data(whole.take(np.array([0, 1])), whole.take(np.array([2])))
    assert [note for note in data.notes if "a.csv" in note] == [
        f"{path}: empty texts dropped: 1",
        f"warning: {path}: texts cut to 1,000,000 characters: 1",
    ]
