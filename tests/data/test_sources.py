"""Reading tables: what the formats accept, what is mended and counted, and the one line said about the rest."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlp_ssl.data.cleaning import label_name
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import Table, table_of
from nlp_ssl.errors import DataError


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(table: Table) -> list[str]:
    return table.texts.to_pylist()


def refused(source, code: int, *words: str, **options) -> str:
    """Reads a source that must be refused in one line that holds all the words."""
    with pytest.raises(DataError) as caught:
        read_table(source, **options)
    message = str(caught.value)
    assert caught.value.code == code, message
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# ---- files and formats -----------------------------------------------------------------------------------------------

CSV = "text,label\ngood,1\nbad,0\n"
JSONL = '{"text": "good", "label": 1}\n{"text": "bad", "label": 0}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.tsv", CSV.replace(",", "\t")),
        ("a.jsonl", JSONL),
        ("a.json", JSONL),
        ("array.json", "[" + ",\n".join(JSONL.splitlines()) + "]"),
        ("pretty.json", json.dumps([json.loads(line) for line in JSONL.splitlines()], indent=2)),
        ("with blank lines-row19.jsonl", JSONL.replace("\n", "\n\n  \n")),
        ("a b ü 文-row67.csv", CSV),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_text_formats_row18(tmp_path, name, content, zipped):
    data = gzip.compress(content.encode()) if zipped else content
    table = read_table(write(tmp_path / (name + ".gz" * zipped), data))
    assert texts(table) == ["good", "bad"]
    assert table.labels == ["1", "0"]
    assert table.texts.type == pa.large_string()
    assert table.splits is None
    assert table.notes == ()


def test_parquet_plain_and_zipped(tmp_path):
    arrow = pa.table({"text": ["good", "bad"], "label": [1, 0], "vector": [[0.5], [0.1]]})
    pq.write_table(arrow, tmp_path / "a.parquet")
    write(tmp_path / "b.parquet.gz", gzip.compress((tmp_path / "a.parquet").read_bytes()))
    for name in ("a.parquet", "b.parquet.gz"):
        table = read_table(tmp_path / name)
        assert (texts(table), table.labels) == (["good", "bad"], ["1", "0"])


def test_text_file_has_a_text_per_line(tmp_path):
    table = read_table(write(tmp_path / "a.txt", "one\r\n\ntwo, 2\n"))
    assert texts(table) == ["one", "two, 2"]
    assert table.labels is None
    assert table.rows.tolist() == [1, 3]
    assert table.notes == ("empty texts dropped: 1",)


def test_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"review": ["good", None, "bad"], "sentiment": [1.0, 0.0, float("nan")]}, index=[7, 7, 9])
    table = read_table(frame)
    assert (texts(table), table.labels, table.rows.tolist()) == (["good", "bad"], ["1", None], [1, 3])
    assert table.notes == ("null texts dropped: 1",)
    refused(frame.set_axis(["review", "review"], axis=1), 109, "'review'")


def test_dataset_class_labels_become_names_and_a_saved_folder_reads_alike(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    data.save_to_disk(tmp_path / "one")
    for source in (data, tmp_path / "one"):
        table = read_table(source)
        assert (texts(table), table.labels) == (["a", "b", "c"], ["pos", "neg", None])
    picked = read_table(data.select([2, 0]))
    assert (texts(picked), picked.labels) == (["c", "a"], [None, "pos"])

    both = datasets.DatasetDict({"train": data, "validation": data.select([0])})
    both.save_to_disk(tmp_path / "two")
    table = read_table(tmp_path / "two")
    assert table.splits == ["train", "train", "train", "dev"]
    assert texts(read_table(both, split="dev")) == ["a"]
    write(tmp_path / "two" / "train" / "state.json", "{")
    refused(tmp_path / "two", 113, "save it again")


def test_folder_of_split_files(tmp_path):
    write(tmp_path / "f" / "train.csv", CSV)
    write(tmp_path / "f" / "validation.jsonl", '{"text": "v", "label": 1}\n')
    write(tmp_path / "f" / "unlabeled-00000-of-00002.txt", "u\n")
    write(tmp_path / "f" / "notes.md", "not data")
    table = read_table(tmp_path / "f", label_column="label", expect_labels=True)
    assert sorted(zip(texts(table), table.labels, table.splits, strict=True)) == [
        ("bad", "0", "train"),
        ("good", "1", "train"),
        ("u", None, "unlabeled"),
        ("v", "1", "dev"),
    ]
    assert texts(read_table(tmp_path / "f", split="valid")) == ["v"]
    refused(tmp_path / "f", 118, "'test'", "dev", split="test")
    write(tmp_path / "f" / "test.csv", "no text column\n1\n")
    assert texts(read_table(tmp_path / "f", split="valid")) == ["v"]  # the other files are not even looked at
    refused(tmp_path / "f", 108, "test.csv")


def test_folder_with_a_file_of_its_own_name_and_a_split_column(tmp_path):
    rows = [{"text": "a", "label": "x", "split": "train"}, {"text": "b", "label": None, "split": "val"}]
    write(tmp_path / "corp" / "corp.jsonl.gz", gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    write(tmp_path / "corp" / "train.csv", CSV)
    table = read_table(tmp_path / "corp")
    assert (texts(table), table.splits, table.labels) == (["a", "b"], ["train", "dev"], ["x", None])
    assert texts(read_table(tmp_path / "corp", split="dev")) == ["b"]
    refused(tmp_path / "corp", 118, "'tset'", split="tset")


def test_row1_missing_file(tmp_path):
    refused(tmp_path / "no.csv", 101, "no.csv")
    refused("no/such/path", 101, "no/such/path")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.txt", "a.parquet"])
def test_row2_empty_file(tmp_path, name):
    refused(write(tmp_path / name, ""), 102, name, "empty")


@pytest.mark.parametrize(("name", "content"), [("a.csv", "text,label\n"), ("a.jsonl", "\n \n"), ("a.json", "[]")])
def test_row3_header_without_rows(tmp_path, name, content):
    refused(write(tmp_path / name, content), 102, name, "add some rows")


def test_row4_folder_without_usable_files(tmp_path):
    refused(tmp_path, 103, "no data file")
    write(tmp_path / "a.csv", CSV)
    write(tmp_path / "b.csv", CSV)
    refused(tmp_path, 103, "'a.csv', 'b.csv'")


def test_row5_no_permission(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", CSV)
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read everything

        def deny(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", deny)
    refused(path, 104, "Permission denied", "permissions")


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "|"), ("a.csv", "\t"), ("a.tsv", ",")])
def test_row6_wrong_delimiter(tmp_path, name, mark):
    refused(write(tmp_path / name, CSV.replace(",", mark)), 107, repr(f"text{mark}label"), f"looks like {mark!r}")


def test_row7_missing_columns_list_what_is_there(tmp_path):
    path = write(tmp_path / "a.csv", "phrase,stars\ngood,1\n")
    refused(path, 108, "'phrase', 'stars'", "--text-column")
    refused(path, 108, "'phrase', 'stars'", "--label-column", text_column="phrase", expect_labels=True)
    refused(path, 108, "Did you mean 'phrase'?", text_column="phrases")
    refused(path, 108, "'star'", text_column="phrase", label_column="star")
    table = read_table(path, text_column="phrase", label_column="stars")
    assert (texts(table), table.labels) == (["good"], ["1"])


def test_columns_are_found_by_their_usual_names_and_a_choice_is_noted(tmp_path):
    table = read_table(write(tmp_path / "a.csv", "id,Review,content, Category\n1,r,c,x\n"))
    assert (texts(table), table.labels) == (["r"], ["x"])
    assert table.notes == ("text column 'Review' taken (also there: 'content')",)


def test_row8_duplicate_column(tmp_path):
    refused(write(tmp_path / "a.csv", "text,text,label\na,b,c\n"), 109, "'text'", "more than once")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_row9_utf8_bom(tmp_path, name):
    content = {"a.csv": CSV, "a.jsonl": JSONL, "a.txt": "good\nbad\n"}[name]
    assert texts(read_table(write(tmp_path / name, b"\xef\xbb\xbf" + content.encode()))) == ["good", "bad"]


@pytest.mark.parametrize("before", [5, 3_000_000], ids=["first-block", "later-block"])
def test_row10_wrong_encoding_gives_the_offset(tmp_path, before):
    head = b"text\n" + b"\xc3\xa9" * before + b" caf"
    path = write(tmp_path / "a.csv", head + b"\xe9 noir\n")
    refused(path, 106, "0xe9", f"offset {len(head)} ", "--encoding")
    path = write(tmp_path / "b.csv", b"text\ncaf\xe9 noir\n")
    assert texts(read_table(path, encoding="cp1252")) == ["café noir"]
    refused(path, 106, "'utf-9'", encoding="utf-9")
    refused(path, 106, "'hex'", encoding="hex")
    refused(path, 106, "BOM", encoding="utf-16")
    refused(write(tmp_path / "c.csv", b"text\ncaf\xc3"), 106, "cut off")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_row11_utf16_is_detected(tmp_path, encoding):
    assert texts(read_table(write(tmp_path / "a.csv", CSV.encode(encoding)))) == ["good", "bad"]
    bare = write(tmp_path / "b.csv", CSV.encode("utf-16-le"))
    refused(bare, 106, "--encoding utf-16-le")
    assert texts(read_table(bare, encoding="utf-16-le")) == ["good", "bad"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_row12_nul_characters(tmp_path, name):
    content = "text,label\ngo\0od text,1\nbad,0\n" if name == "a.csv" else JSONL.replace("good", "go\\u0000od text")
    table = read_table(write(tmp_path / name, content))
    assert texts(table) == ["good text", "bad"]
    assert table.notes == ("texts with NUL characters removed: 1",)


def test_row13_lone_surrogates(tmp_path):
    table = read_table(write(tmp_path / "a.jsonl", '{"text": "a\\ud800b"}\n{"text": "\\ud83d\\ude00"}\n'))
    assert texts(table) == ["a\ufffdb", "😀"]
    assert table.notes == ("texts with lone surrogates replaced: 1",)


def test_row14_line_ends_within_quotes(tmp_path):
    table = read_table(write(tmp_path / "a.csv", 'text,label\r\n"one\r\ntwo\nthree ""q""",1\r\nlast,0\r\n'))
    assert texts(table) == ['one\r\ntwo\nthree "q"', "last"]
    assert table.rows.tolist() == [1, 2]


@pytest.mark.parametrize("rest", ["bad,0\n", '"bad",0\n'], ids=["to-the-end", "next-quote"])
def test_row15_unclosed_quote_names_the_row_it_starts_in(tmp_path, rest):
    refused(write(tmp_path / "a.csv", 'text,label\n"a\nb",1\n"open,1\n' + rest), 110, "row 2 (line 4)", "quote")


@pytest.mark.parametrize("bad", ["one,two,3", "alone"])
def test_row16_ragged_row(tmp_path, bad):
    path = write(tmp_path / "a.csv", f"text,label\ngood,1\n{bad}\nbad,0\n")
    refused(path, 111, "row 2 (line 3)", "has 2", "--on-bad-lines skip")
    table = read_table(path, on_bad_lines="skip")
    assert (texts(table), table.rows.tolist()) == (["good", "bad"], [1, 3])
    assert table.notes == ("bad lines skipped: 1",)


@pytest.mark.parametrize("bad", ['{"text": "cut o', "[1]", "7", "[" * 100_000], ids=["cut", "list", "number", "deep"])
def test_row17_bad_jsonl_line(tmp_path, bad):
    path = write(tmp_path / "a.jsonl", JSONL + bad)
    refused(path, 112, "line 3")
    assert read_table(path, on_bad_lines="skip").notes == ("bad lines skipped: 1",)


def test_damaged_files(tmp_path):
    whole = gzip.compress((CSV * 1000).encode())
    refused(write(tmp_path / "cut.csv.gz", whole[: len(whole) // 2]), 113, "gzip")
    refused(write(tmp_path / "junk.csv.gz", b"not gzip at all"), 113, "gzip")
    bad_byte_then_cut = gzip.compress(b"text\n\xff" + os.urandom(100_000))[:-1000]
    refused(write(tmp_path / "both.csv.gz", bad_byte_then_cut), 113, "gzip")
    refused(write(tmp_path / "junk.parquet", b"not parquet at all"), 113, "Parquet")
    pq.write_table(pa.table({"text": ["good", "bad"]}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for at in range(len(whole)):
        damaged = write(tmp_path / "a.parquet", whole[:at] + bytes([whole[at] ^ 0xA5]) + whole[at + 1 :])
        try:
            read_table(damaged)
        except DataError as error:
            assert "\n" not in str(error)
    refused(write(tmp_path / "cut.json", '[{"text": "a"}, {"te'), 112, "cut.json")
    refused(write(tmp_path / "a.xlsx", "x"), 105, "'.xlsx'", ".parquet")
    refused(3, 105, "int")


def test_a_name_that_is_no_path_is_looked_up_and_refused_in_one_line(monkeypatch):
    import datasets

    def offline(name):
        raise ConnectionError(f"Couldn't reach {name!r}\non the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    refused("org/reviews", 119, "neither a file nor", "HF_HUB_OFFLINE", "Couldn't reach")
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict({"unsupervised": data}))
    assert read_table("reviews").splits == ["unlabeled", "unlabeled"]


def test_importing_the_module_does_not_import_heavy_libraries():
    code = "import sys, nlp_ssl.data.sources; print({'datasets', 'pandas', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_long_file_streams_in_chunks(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40_000)))
    table = read_table(path)
    assert table.texts.num_chunks == 3
    assert table.texts[39_999].as_py() == "text 39999"
    assert table.rows[-1] == 40_000


# ---- texts -----------------------------------------------------------------------------------------------------------


def test_row20_and_row23_null_and_blank_texts_are_dropped_with_counts(tmp_path):
    lines = [{"text": None}, {"other": 1}, {"text": ""}, {"text": " \t\u00a0"}, {"text": "kept"}]
    table = read_table(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert (texts(table), table.rows.tolist()) == (["kept"], [5])
    assert table.notes == ("empty texts dropped: 2", "null texts dropped: 2")
    refused(write(tmp_path / "b.csv", 'text,label\n"",1\n" ",0\n'), 102, "empty texts dropped: 2")


def test_row21_and_row22_words_for_null_and_numbers_stay_texts(tmp_path):
    words = ["NA", "null", "None", "nan", "12345", "007", "1.0", "true"]
    assert texts(read_table(write(tmp_path / "a.csv", "\n".join(["text", *words])))) == words
    assert texts(table_of(words)) == words


def test_row24_a_text_of_3_mb_is_cut_and_warned_about(tmp_path):
    table = read_table(write(tmp_path / "a.csv", "text\n" + "x" * 3_000_000 + "\n"))
    assert len(texts(table)[0]) == 1_000_000
    assert table.notes == ("warning: texts cut to 1,000,000 characters: 1",)


def test_row26_unicode_is_composed_and_otherwise_kept(tmp_path):
    kept = ["👩‍👩‍👧 family", "שלום עולם"]
    kept += ["zero\u200bwidth-row27", "\x1b[31mred-row27", "<script>alert(1)</script>-row28", "=cmd()-row29"]
    table = read_table(write(tmp_path / "a.txt", "\n".join(["cafe\u0301", *kept])))
    assert texts(table) == ["café", *kept]
    assert table.notes == ("texts brought to Unicode NFC: 1",)


@pytest.mark.parametrize("value", [5, 1.5, True, ["a"], {"a": 1}], ids=str)
def test_row45_a_text_that_is_no_string(tmp_path, value):
    lines = [{"text": "good", "label": 1}, {"text": value, "label": 0}]
    refused(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))), 114, "row 2", type(value).__name__)


def test_row45_bytes_and_numbers_in_parquet(tmp_path):
    for column in (pa.array([b"a"]), pa.array([1])):
        pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
        refused(tmp_path / "a.parquet", 114, "row 1")


def test_parquet_rows_are_numbered_through(tmp_path):
    pq.write_table(pa.table({"text": ["a", None] * 20_000}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").rows.tolist() == list(range(1, 40_000, 2))


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "1"), ("1", "1"), (1.0, "1"), ("1.0", "1"), (np.int64(1), "1"), (np.float32(1), "1"), (True, "true"),
        (np.bool_(False), "false"), ("True", "true"), (2.5, "2.5"), ("-1.00", "-1"), ("v1.0", "v1.0"), ("pos ", "pos"),
        (None, None), (float("nan"), None), ("", None), ("  ", None),
    ],
)  # fmt: skip
def test_row30_one_name_for_a_label(value, name):
    assert label_name(value) == name


def test_row30_mixed_labels_meet(tmp_path):
    lines = ['{"text": "a", "label": 1}', '{"text": "b", "label": "1"}', '{"text": "c", "label": 1.0}']
    assert read_table(write(tmp_path / "a.jsonl", "\n".join(lines))).labels == ["1", "1", "1"]


def test_row32_missing_labels_mean_unlabeled(tmp_path):
    values = ["null", "NaN", '""', "-1", '"-1"', "-1.0", '"nan"', '"a"', '"b"']
    lines = [f'{{"text": "t{i}", "label": {value}}}' for i, value in enumerate(values)]
    table = read_table(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert table.labels == [None] * 6 + ["nan", "a", "b"]
    assert table.markers == [None] * 3 + ["-1"] * 3 + [None] * 3
    assert table.notes[0] == "rows labeled '-1' taken as unlabeled: 3" and len(table.notes) == 2
    assert table.notes[1].startswith("warning: rows labeled 'nan', a class: 1 ")


def test_row33_minus_one_beside_numbers_or_a_single_class_must_be_explained(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na,1\nb,-1\nc,-1\nd,?\n".replace("d,?\n", ""))
    refused(path, 116, "'-1'", "'1'", "--minus-one class", "--minus-one unlabeled")
    refused(path, 116, "'-1'", unlabeled_value="?")
    assert read_table(path, minus_one="class").labels == ["1", "-1", "-1"]
    assert read_table(path, minus_one="unlabeled").labels == ["1", None, None]
    assert read_table(path, unlabeled_value="-1").labels == ["1", None, None]
    path = write(tmp_path / "b.csv", "text,label\na,1\nb,-1\nc,?\nd,0\ne,\n")
    assert read_table(path, unlabeled_value="?", minus_one="class").labels == ["1", "-1", None, "0", None]
    assert read_table(path, unlabeled_value="?", minus_one="unlabeled").labels == ["1", None, None, "0", None]
    refused(path, 116, "beside '0', '1', '?'")


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, "[1, 2]"], ids=str)
def test_row44_several_labels_for_a_text(tmp_path, value):
    lines = [{"text": "good", "label": "a"}, {"text": "bad", "label": value}]
    refused(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))), 115, "row 2", "one label")


def test_an_infinite_label_is_refused(tmp_path):
    refused(write(tmp_path / "a.jsonl", '{"text": "a", "label": Infinity}'), 115, "row 1")


def test_labels_are_none_without_a_label_column_unless_they_are_expected(tmp_path):
    path = write(tmp_path / "a.csv", "text\na\n")
    assert read_table(path).labels is None
    refused(path, 108, "no label column", expect_labels=True)


def test_table_of_lists_and_taking_rows():
    table = table_of(["a", " ", "c"], ["x", "y", None], source="memory")
    assert (texts(table), table.labels, table.rows.tolist(), table.source) == (
        ["a", "c"],
        ["x", None],
        [1, 3],
        "memory",
    )
    part = table.take(np.array([1, 0]))
    assert (texts(part), part.labels, part.rows.tolist(), len(part)) == (["c", "a"], [None, "x"], [3, 1], 2)
    with pytest.raises(DataError, match="2 texts but 1 labels"):
        table_of(["a", "b"], ["x"])
