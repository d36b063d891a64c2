"""Folders with fields changed at random, always in the same way: each works or is refused in one line, at no cost."""

import json
import random
import resource
import shutil
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import FAST, saved_classifier, tiny_task

from nlp_ssl import FreeMatch, compare
from nlp_ssl.errors import SSLError
from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.inference.predictor import open_predictor
from nlp_ssl.nets.text import load_text_net
from nlp_ssl.report.card import card
from nlp_ssl.report.collect import collect
from nlp_ssl.report.page import render
from nlp_ssl.training.model_files import PREDICTIONS
from nlp_ssl.training.predictions import FACTS

TEXTS = ["good film", "the a " * 40]  # the second one is longer than there are positions
VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 100_000, 10**9, 10**18, 10**30, -(10**9), 0.5, 1e9, 1e30, 1e300, float("nan"),
    float("inf"), "", "evil", "1e9", "a/b", [], [1], ["x"], {}, {"a": 1}, [[]], [None], "\ud800", "x" * 3000, "\0",
]  # fmt: skip
# Fields that a file may have beside its own.
MORE = {
    "config.json": (
        "num_labels", "auto_map", "quantization_config", "attn_implementation", "_attn_implementation", "problem_type",
        "torch_dtype", "rope_theta", "layer_types", "chunk_size_feed_forward", "output_hidden_states", "model_type",
        "nlp_ssl_pairs", "tokenizer_class", "position_embedding_type", "pruned_heads", "transformers_weights",
    ),
    "tokenizer_config.json": (
        "auto_map", "tokenizer_class", "padding_side", "added_tokens_decoder", "extra_special_tokens",
        "model_input_names", "chat_template", "additional_special_tokens",
    ),
    "tokenizer.json": ("padding", "truncation", "normalizer", "decoder"),
}  # fmt: skip
KINDS = [
    pa.int64(),
    pa.string(),
    pa.list_(pa.int64()),
    pa.map_(pa.int32(), pa.int32()),
    pa.list_(pa.float64()),
    pa.null(),
]
CELLS = {
    "part": ["test", "dev", "pool", "labeled", "", None],
    "row": [None, -1, 2**62],
    "label": [None, -1, -2, 5, 2**62, 0, -(2**63)],
    "content": [None, b"", b"\xff\xfe", b"x" * 50_000, b"\0\x1b["],
}
LISTS = [None, [], [float("nan")] * 2, [float("inf"), 0.0], [3e38, -3e38], [1.0], [0.5] * 3, [None, 1.0], [0.2] * 32]


def places(value, at=()):
    """The keys that lead to every value within a JSON value."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(min(len(value), 6)):
            yield (*at, key)
            yield from places(value[key], (*at, key))


def changed(rng, value, more=()):
    """A JSON value with one to three values within it replaced, left out or added."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        keys = rng.choice([*places(value)] or [()])
        if more and rng.random() < 0.3 and isinstance(value, dict):
            value[rng.choice(more)] = rng.choice(VALUES)
        elif not keys or rng.random() < 0.03:
            return rng.choice(VALUES)
        else:
            within = value
            for key in keys[:-1]:
                within = within[key]
            if rng.random() < 0.2:
                del within[keys[-1]]
            else:
                within[keys[-1]] = rng.choice(VALUES)
    return value


def torn(rng, content):
    """Bytes that were cut, or changed in some places."""
    if rng.random() < 0.4:
        return content[: rng.randrange(len(content))]
    found = bytearray(content)
    for _ in range(rng.choice([1, 3, 20])):
        found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def change_weights(rng, path):
    """Another header for the same numbers."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = rng.choice([key for key in header if key != "__metadata__"])
    kind = rng.choice(["drop", "rename", "dtype", "shape", "data_offsets", "size"])
    if kind == "drop":
        del header[name]
    elif kind == "rename":
        header["evil"] = header.pop(name)
    elif kind != "size":
        header[name][kind] = rng.choice({
            "dtype": ["F16", "I64", "BOOL", "F64", "EVIL", 3],
            "shape": [[], [0], [10**9], [-1], [32], [2**62, 4], "x", header[name]["shape"][::-1]],
            "data_offsets": [[0, 0], [10**15, 10**15 + 4], [5, 1], [-1, 4], [], None],
        }[kind])  # fmt: skip
    text = json.dumps(header).encode()
    said = rng.choice([0, 2**63, 10**8]) if kind == "size" else len(text)
    path.write_bytes(said.to_bytes(8, "little") + text + content[8 + size :])


def change_table(rng, path):
    """Other facts, a column of another kind, or other values in some rows."""
    table = pq.read_table(path)
    kind = rng.random()
    if kind < 0.35:
        facts = changed(rng, json.loads(table.schema.metadata[FACTS]))
        table = table.replace_schema_metadata({FACTS: json.dumps(facts).encode()})
    elif kind < 0.5:
        at = rng.randrange(table.num_columns)
        table = table.set_column(at, table.schema.names[at], pa.nulls(len(table), rng.choice(KINDS)))
    elif kind < 0.6:
        size = rng.choice([0, 1, 3, 40])
        table = table.take(pa.array([rng.randrange(len(table)) for _ in range(size)], pa.int64()))
    else:
        rows = table.to_pylist()
        for _ in range(rng.choice([1, 3, 30])):
            row, name = rng.choice(rows), rng.choice(table.schema.names)
            row[name] = rng.choice(CELLS.get(name) or (CELLS["content"] if name in ("weak", "strong") else LISTS))
        table = pa.Table.from_pylist(rows, table.schema)
    pq.write_table(table, path)


def change_file(rng, path):
    """One file changed in the way of its kind, or torn."""
    if rng.random() < 0.1:
        path.write_bytes(torn(rng, path.read_bytes()))
    elif path.suffix == ".safetensors":
        change_weights(rng, path)
    elif path.suffix == ".parquet":
        change_table(rng, path)
    elif path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        at = rng.randrange(len(lines))
        lines[at] = changed(rng, lines[at])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        path.write_text(json.dumps(changed(rng, json.loads(path.read_text()), MORE.get(path.name, ()))))


def outcome(call):
    """ "works", or the number of the error: one line, told within a moment and without much memory."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        call()
        found = "works"
    except SSLError as error:
        line = str(error)
        assert "\n" not in line and len(line) < 700 and "not enough memory" not in line, line
        found = error.code
    assert time.process_time() - began < 10, "it took too long"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "it took too much memory"
    return found


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return saved_classifier(tmp_path_factory.mktemp("model"), ["neg", "pos"], ["good film", "bad film"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with a baseline, and beside them the lines that a method in rounds leaves."""
    folder = tmp_path_factory.mktemp("run")
    task = tiny_task(folder, unlabeled=24)
    compare(FreeMatch(), task, FAST, seeds=[0], baseline=True, folder=folder / "run")
    run = folder / "run"
    scores = json.loads((run / "result.json").read_text())["scores"]
    line = {"scores": scores, "steps": 3, "seconds": 1.0, "warnings": [], "mask_rate": 0.5, "pseudo_hist": [0.4, 0.6]}
    (run / "rounds.jsonl").write_text("".join(json.dumps({"round": n, **line}) + "\n" for n in range(3)))
    for name in ("model.safetensors", "tokenizer.json"):
        (run / name).unlink()
    return run


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_changed_model_works_or_is_one_line(classifier, tmp_path, name):
    rng, seen = random.Random(f"model {name}"), []
    doors = (
        lambda place: open_predictor(place).probabilities(TEXTS, None),
        lambda place: load_text_net(str(place), ["a", "b", "c"]),
        lambda place: Embedder(str(place))(TEXTS),
    )
    for number in range(30):
        place = shutil.copytree(classifier, tmp_path / str(number))
        change_file(rng, place / name)
        seen.append(outcome(lambda: doors[number % 3](place)))  # noqa: B023 - called at once
        shutil.rmtree(place)
    assert {"works"} < set(seen), "some work and some do not"


FILES = ["result.json", "metrics.jsonl", "rounds.jsonl", f"baseline/{PREDICTIONS}", PREDICTIONS]


@pytest.mark.parametrize("name", FILES)
def test_a_report_of_a_changed_run_works_or_is_one_line(finished, tmp_path, monkeypatch, name):
    monkeypatch.setattr("nlp_ssl.report.map.place", lambda features: features[:, :1].repeat(2, 1))
    rng, seen = random.Random(f"run {name}"), []

    def report(place):
        found = collect(place)
        assert "nan" not in (text := render(found)) and "inf," not in text and card(found, "mit")

    for number in range(20 if name != PREDICTIONS else 40):
        place = shutil.copytree(finished, tmp_path / str(number))
        if name != "rounds.jsonl":
            (place / "rounds.jsonl").unlink()
        change_file(rng, place / name)
        seen.append(outcome(lambda: report(place)))  # noqa: B023 - called at once
        shutil.rmtree(place)
    assert set(seen) == ({"works", 303} if name == "result.json" else {"works"})
