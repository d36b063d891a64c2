"""`nlp-ssl predict`: tables of answers, in bounded memory and in the order of the rows."""

import csv
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny import saved_classifier, tiny_texts

from nlp_ssl.cli import run
from nlp_ssl.inference import predict as prediction
from nlp_ssl.inference import predictor
from nlp_ssl.inference.predict import batches, by_length, logits_of_texts, token_budget
from nlp_ssl.inference.predictor import Predictor, answer, open_predictor
from nlp_ssl.nets.text import load_text_net

TEXTS, _ = tiny_texts(12, seed=5)
CLASSES = ("neg", "pos", "=it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier in "out" whose answers differ from text to text, and texts with blank lines in "t.txt"."""
    folder = tmp_path_factory.mktemp("predict")
    saved_classifier(folder, CLASSES, TEXTS)
    (folder / "t.txt").write_text("\n".join([*TEXTS[:6], "", *TEXTS[6:], " "]) + "\n")
    return folder


@pytest.fixture(scope="module")
def wanted(folder):
    """Probabilities [12, 3] of the texts, one by one."""
    net = load_text_net(str(folder / "out")).eval()
    return torch.cat([logits_of_texts(net, [t], 64) for t in TEXTS]).double().softmax(-1).numpy()


def predict(folder, *more):
    return run(["predict", str(folder / "out"), str(folder / "t.txt"), "--mixed-precision", "no", *more])


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    lines = path.read_text().splitlines()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in lines]
    rows = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
    return [{k: (v or None) if k == "label" else float(v) if v else None for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
def test_every_format_holds_the_same_table(folder, wanted, tmp_path, capsys, ending):
    out = tmp_path / f"p.{ending}"
    assert predict(folder, "--out", str(out), "--all") == 0
    assert "12 texts" in capsys.readouterr().out and [p.name for p in tmp_path.iterdir()] == [out.name]
    rows = read(out)
    assert [row["row"] for row in rows] == list(range(1, 15)) and len(rows[0]) == 6
    assert list(rows[6].values())[1:] == list(rows[13].values())[1:] == [None] * 5, "blank lines keep their places"
    filled = [row for i, row in enumerate(rows) if i not in (6, 13)]
    found = np.array([[row[f"probability_{name}"] for name in CLASSES] for row in filled])
    assert np.abs(found - wanted).max() < 2e-6
    assert [row["label"] for row in filled] == [CLASSES[i] for i in wanted.argmax(1)]
    assert [row["probability"] for row in filled] == pytest.approx(wanted.max(1), abs=2e-6)
    assert len({row["label"] for row in filled}) > 1, "the model must tell texts apart"


def test_json_lines_and_plain_lines_agree(folder, capsys):
    assert predict(folder, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert predict(folder) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == len(lines) == 14 and lines[6] == ["", ""] and list(rows[0]) == ["row", "label", "probability"]
    for row, (label, p) in zip(rows, lines, strict=True):
        assert label == (row["label"] or "") and p == (f"{row['probability']:.4f}" if p else "")


def test_json_beside_a_file_says_what_was_done(folder, tmp_path, capsys):
    assert predict(folder, "--out", str(tmp_path / "p.csv"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["texts"] == 12 and found["per_second"] == pytest.approx(12 / found["seconds"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--out", "p.xlsx"], "SSL441"),
        (["--out", "old.csv"], "--overwrite"),
        (["--out", "t.txt"], "SSL441"),
        (["--all"], "SSL443"),
        (["--mixed-precision", "fp16"], "needs a GPU"),
    ],
)
def test_bad_wishes_are_refused_before_anything_is_computed(folder, monkeypatch, capsys, more, words):
    monkeypatch.chdir(folder)
    (folder / "old.csv").write_text("mine")
    assert predict(folder, *more) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.out == "" and (folder / "old.csv").read_text() == "mine"


def test_what_is_read_is_not_replaced(folder, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text\ngood film\n")
    same = tmp_path / f"../{tmp_path.name}/t.csv"
    argv = ["predict", str(folder / "out"), str(tmp_path / "t.csv"), "--out", str(same), "--overwrite"]
    assert run(argv) == 2 and "SSL295" in capsys.readouterr().err
    argv[4] = str(tmp_path / "p.csv")
    assert run(argv) == 0 and run(argv) == 0, "--overwrite replaces a file"


def test_a_file_with_a_bad_row_leaves_no_table(folder, tmp_path, capsys):
    (tmp_path / "t.jsonl").write_text('{"text": "good film"}\n' * 3 + '{"text": 5}\n')
    (tmp_path / "p.csv").write_text("old")
    argv = ["predict", str(folder / "out"), str(tmp_path / "t.jsonl"), "--out", str(tmp_path / "p.csv"), "--overwrite"]
    assert run(argv) == 3 and "row 4" in capsys.readouterr().err
    assert (tmp_path / "p.csv").read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_blank_lines_between_records_keep_their_places(folder, tmp_path, capsys):
    (tmp_path / "t.jsonl").write_text('{"text": "good film"}\n\n{"text": null}\n{"text": "bad film"}\n')
    assert run(["predict", str(folder / "out"), str(tmp_path / "t.jsonl")]) == 0
    assert [bool(line.strip()) for line in capsys.readouterr().out.splitlines()] == [True, False, False, True]
    (tmp_path / "t.jsonl").write_text('{"text": null}\n')
    assert run(["predict", str(folder / "out"), str(tmp_path / "t.jsonl")]) == 3
    assert "SSL102" in capsys.readouterr().err


def test_rows_are_answered_while_more_of_them_come(monkeypatch):
    """Any number of rows: at most a block of them has been read ahead of the answers, and long texts end a block."""
    monkeypatch.setattr(predictor, "_ROWS", 10)
    monkeypatch.setattr(predictor, "_CHARACTERS", 1000)
    sizes = []
    dull = Predictor(("a", "b"), lambda texts, second: sizes.append(len(texts)) or torch.zeros(len(texts), 2))
    read = itertools.count(1)
    found = answer(dull, ((next(read), ("x",)) for _ in itertools.count()))
    assert next(found).rows.tolist() == list(range(1, 11)) and next(read) == 11
    list(answer(dull, enumerate([("y" * 600,)] * 5)))
    assert sizes == [10, 2, 2, 1]


def test_batches_hold_as_many_tokens_as_they_may():
    lengths = np.array([3, 50, 2, 4, 4, 4, 9, 2])
    found = [lengths[rows].tolist() for rows in batches(lengths, 12, 5)]
    assert found == [[50], [9], [4, 4, 4], [3, 2, 2]]
    assert [len(rows) for rows in batches(np.ones(7, dtype=int), 12, 5)] == [5, 2]


def test_texts_of_like_length_share_a_batch(folder):
    net, seen = load_text_net(str(folder / "out")), []
    texts = ["a " * n for n in (40, 1, 20, 1, 40)]

    def forward(inputs):
        seen.append(tuple(inputs["input_ids"].shape))
        return inputs["attention_mask"].sum(1, keepdim=True).float()

    assert by_length(net.tokenizer, texts, 64, forward, 84)[:, 0].tolist() == [42, 3, 22, 3, 42]
    assert seen == [(2, 42), (3, 22)]


def test_a_gpu_takes_batches_by_its_free_memory(folder, monkeypatch):
    net = load_text_net(str(folder / "out"))
    assert token_budget(net) == prediction._CPU_TOKENS
    monkeypatch.setattr(prediction, "device_of", lambda module: torch.device("cuda"))
    free = [0]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 0))
    found = []
    for free[0] in (10**6, 10**7, 2 * 10**7, 10**12):
        found.append(token_budget(net))
    # A quarter of the memory; width 32, wide layer 64: 4 * (6 * 32 + 2 * 64) = 1280 bytes a token.
    assert found == [prediction._CPU_TOKENS, prediction._CPU_TOKENS, 3906, prediction._GPU_TOKENS]


def test_bf16_is_taken_where_it_is_measured_to_be_faster(folder, wanted, monkeypatch):
    answers = {}
    for fast in (False, True):
        monkeypatch.setattr("nlp_ssl.utils.precision.measured_here", lambda device, fast=fast: fast)
        answers[fast] = open_predictor(folder / "out").logits(TEXTS, None).double().softmax(-1).numpy()
    assert np.abs(answers[False] - wanted).max() < 1e-6
    assert 1e-6 < np.abs(answers[True] - wanted).max() < 0.05


def test_pairs_and_rows_where_one_of_them_is_missing(folder, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{x},{y}\n" for x, y in zip(TEXTS[:3], TEXTS[3:6], strict=True)))
    with (tmp_path / "t.csv").open("a") as file:
        file.write(f"{TEXTS[0]},\n,{TEXTS[0]}\n")
    argv = ["predict", str(folder / "out"), str(tmp_path / "t.csv"), "--text-column", "a", "--pair-column", "b"]
    assert run([*argv, "--mixed-precision", "no", "--all", "--out", str(tmp_path / "p.parquet")]) == 0
    rows = read(tmp_path / "p.parquet")
    net = load_text_net(str(folder / "out")).eval()
    wanted = logits_of_texts(net, TEXTS[:3], 64, TEXTS[3:6]).softmax(-1)[:, 0].tolist()
    assert [row["probability_neg"] for row in rows] == [*(pytest.approx(p, abs=2e-6) for p in wanted), None, None]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_of_a_folder_a_row_says_its_file(folder, tmp_path, ending):
    files = tmp_path / "texts"
    files.mkdir()
    (files / "test.txt").write_text("\n".join(TEXTS[:2]) + "\n")
    (files / "train.txt").write_text("\n".join([TEXTS[2], "", TEXTS[3]]) + "\n")
    out = tmp_path / f"p.{ending}"
    model = str(folder / "out")
    assert run(["predict", "--out", str(out), model, str(files), "--mixed-precision", "no", "--all"]) == 0
    rows = pq.read_table(out).to_pylist() if ending == "parquet" else []
    rows = rows or (list(csv.DictReader(out.open())) if ending == "csv" else list(map(json.loads, out.open())))
    found = [(row["file"], int(row["row"]), row["label"] or None) for row in rows]
    assert sorted((file, row) for file, row, _ in found) == [
        ("test.txt", 1), ("test.txt", 2), ("train.txt", 1), ("train.txt", 2), ("train.txt", 3)
    ]  # fmt: skip
    assert [label for file, row, label in found if (file, row) == ("train.txt", 2)] == [None]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_output_that_cannot_hold_a_class_name_gets_an_escape(folder, tmp_path, more):
    saved_classifier(tmp_path, ("schön", "été", "\u65e5"), TEXTS)
    words = [sys.executable, "-m", "nlp_ssl", "predict", str(tmp_path / "out"), str(folder / "t.txt"), *more]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, capture_output=True, env=env)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    if more:
        assert {json.loads(line)["label"] for line in done.stdout.splitlines()} <= {None, "schön", "été", "\u65e5"}
    else:
        labels = {line.split(b"\t")[0] for line in done.stdout.splitlines()} - {b""}
        assert labels and labels <= {b"sch\\xf6n", b"\\xe9t\\xe9", b"\\u65e5"}
