"""Files of a run that somebody changed: a line that says so, or a note and a page without them."""

import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import Page

from nlp_ssl.cli import run as command
from nlp_ssl.errors import RunError
from nlp_ssl.report.card import card
from nlp_ssl.report.collect import collect
from nlp_ssl.report.page import render
from nlp_ssl.training.model_files import PREDICTIONS
from nlp_ssl.training.predictions import FACTS
from nlp_ssl.training.run_folder import RunFolder


def change(path, *keys, to):
    """Sets a value within a JSON file."""
    values = json.loads(path.read_text())
    within = values
    for key in keys[:-1]:
        within = within[key]
    within[keys[-1]] = to
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "keys, value",
    [
        (("scores",), []),
        (("scores", "test"), 3),
        (("scores", "test", "accuracy"), "high"),
        (("scores", "test", "accuracy"), float("nan")),
        (("scores", "test", "macro_f1"), 1e300),
        (("scores", "test", "nll"), float("inf")),
        (("scores", "test", "calibration_error"), 10**400),
        (("scores", "test", "micro_f1"), -1),
        (("scores", "test", "more"), 0.5),
        (("steps",), -1),
        (("steps",), 1.5),
        (("seconds",), float("inf")),
        (("seconds",), None),
        (("warnings",), "many"),
        (("warnings",), [3]),
        (("identity",), []),
        (("identity", "options"), [1]),
        (("identity", "config"), "x"),
        (("identity", "config", "seed"), 1e300),
        (("identity", "task"), 3),
        (("identity", "method"), ["freematch"]),
    ],
    ids=str,
)
def test_a_changed_result_is_one_line(run, capsys, keys, value):
    change(run / "seed-0/result.json", *keys, to=value)
    assert command(["report", str(run)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("SSL303: ") and "result.json is damaged" in lines[0]


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "[" * 100_000, '{"scores": {', "\x00", "9" * 5000])
def test_what_is_no_result_is_one_line(run, text):
    (run / "seed-3/result.json").write_text(text)
    with pytest.raises(RunError, match=r"SSL303: .*seed-3/result.json is damaged"):
        collect(run)


def test_a_result_that_is_no_file(run):
    (run / "seed-0/result.json").unlink()
    (run / "seed-0/result.json").mkdir()
    with pytest.raises(RunError, match="SSL303"):
        collect(run)


def test_results_of_one_label_and_of_several_have_nothing_to_compare(run):
    change(run / "seed-0/baseline/result.json", "scores", "test", "micro_f1", to=0.5)
    with pytest.raises(RunError, match="SSL306: .* single-label, others multi-label"):
        collect(run)


def test_a_changed_identity_or_start_is_left_out(run, caplog):
    """A run that is not finished has its settings from identity.json."""
    for text in ("[]", '{"options": 3}', '{"config": {"seed": "x"}}', "[" * 100_000):
        (run / "seed-0/identity.json").write_text(text)
        assert RunFolder(run / "seed-0").read_identity() == {}
    (run / "seed-0/start.json").write_text('{"scores": {"test": {}}, "steps": 1, "seconds": 1, "warnings": []}')
    with caplog.at_level(logging.WARNING):
        assert collect(run).starts[0] is None
    assert "start.json is damaged and left out" in caplog.text


DAMAGED_LINES = [
    '{"step": "7", "loss": 1.0}',
    '{"step": true, "loss": 1.0}',
    '{"step": -1, "loss": 1.0}',
    '{"step": 1e3, "loss": 1.0}',
    '{"step": 1000000000000000000000000000000, "loss": 1.0}',
    '{"loss": 1.0}',
    '{"step": 7, "pseudo_hist": 3}',
    '{"step": 7, "pseudo_hist": ["x", "y"]}',
    '{"step": 7, "pseudo_hist": [[1], [2]]}',
    '{"step": 7, "state": [1]}',
    '{"step": 7, "scores": {"test": 3}}',
    '{"step": 7, "scores": 3}',
]


def test_damaged_lines_of_metrics_are_left_out_with_a_note(run, caplog):
    path = run / "seed-0/metrics.jsonl"
    before, whole = render(collect(run)), path.read_text()
    path.write_text(whole + "\n".join([*DAMAGED_LINES, "[" * 100_000, "9" * 5000, "3", '{"cut']) + "\n")
    with caplog.at_level(logging.WARNING):
        assert render(collect(run)) == before
    assert f"metrics.jsonl: {len(DAMAGED_LINES)} lines are damaged and left out" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        {"loss": float("nan"), "mask_rate": float("inf"), "grad_norm": 1e300, "learning_rate": 10**400},
        {"loss": [], "mask_rate": {}, "sup": "x", "learning_rate": None, "dev_accuracy": True},
        {"pseudo_hist": [float("nan"), 1.0]},
        {"pseudo_hist": [-5.0, 1e300]},
        {"pseudo_hist": []},
        {"pseudo_hist": [0.1] * 5000},
        {"state": {"time_p": "x", "p_model": [], "label_hist": [None, {}], "other": [[1.0]], "more": 10**400}},
    ],
    ids=str,
)
def test_a_line_shows_what_can_be_drawn_of_it(run, line):
    path = run / "seed-0/metrics.jsonl"
    path.write_text(path.read_text() + json.dumps({"step": 7, **line}) + "\n")
    text = render(collect(run))
    assert not Page(text).empty["losses"] and "nan" not in text and "inf," not in text


def write(folder, table, facts=None):
    """Replaces the predictions of a run; `facts` are those that change."""
    metadata = dict(pq.read_schema(folder / PREDICTIONS).metadata)
    known = json.loads(metadata[FACTS])
    changed = known if facts is None else {k: v for k, v in (known | facts).items() if v is not KeyError}
    pq.write_table(table.replace_schema_metadata({FACTS: json.dumps(changed).encode()}), folder / PREDICTIONS)


def assert_left_out(run, caplog, *words):
    with caplog.at_level(logging.WARNING):
        found = collect(run)
    notes = [r.getMessage() for r in caplog.records if "predictions.parquet is damaged and left out" in r.getMessage()]
    assert len(notes) == 1 and "\n" not in notes[0] and all(word in notes[0] for word in words), notes
    assert found.first.predictions is None
    page = Page(render(found))
    assert page.empty["map"] and page.empty["confusion"] and not page.empty["losses"] and card(found, "mit")


@pytest.mark.parametrize(
    "facts",
    [
        {"classes": []},
        {"classes": [1, 2]},
        {"classes": "ab"},
        {"kind": "sound"},
        {"rows": [1]},
        {"rows": {"labeled": 3}},
        {"rows": {"labeled": "x", "unlabeled": 1, "dev": 0, "test": 0}},
        {"labels": [float("inf"), 1]},
        {"labels": 3},
        {"notes": "x"},
        {"notes": [3]},
        {"strong": 3},
        {"strong": KeyError},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"temperature": 10**400},
    ],
    ids=str,
)
def test_changed_facts_leave_the_predictions_out(run, caplog, facts):
    write(run / "seed-0", pq.read_table(run / "seed-0" / PREDICTIONS), facts)
    assert_left_out(run, caplog)


VALUES = {
    "a class of 2**62": ("test", "label", 2**62),
    "a class below none": ("pool", "label", -(2**63)),
    "no class": ("test", "label", None),
    "a scored row without a class": ("test", "label", -1),
    "a part that is none": ("test", "part", "evil"),
    "no part": ("pool", "part", None),
    "no logits": ("test", "logits", None),
    "empty logits": ("pool", "logits", []),
    "too many logits": ("test", "logits", [1.0, 2.0, 3.0]),
    "missing logits": ("test", "logits", [1.0, None]),
    "short pseudo-labels": ("pool", "pseudo", [1.0]),
    "pseudo-labels that are none": ("pool", "pseudo", [2.0, -1.0]),
    "pseudo-labels that are no numbers": ("pool", "pseudo", [float("nan"), 1.0]),
    "no place in the map": ("pool", "before", []),
    "a place of another width": ("labeled", "after", [1.0]),
    "no place at all": ("labeled", "before", None),
}


@pytest.mark.parametrize("part, column, value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("every", [False, True], ids=["one", "all"])
def test_changed_values_leave_the_predictions_out(run, caplog, part, column, value, every):
    table = pq.read_table(run / "seed-0" / PREDICTIONS)
    rows = table.to_pylist()
    at = [row for row in rows if row["part"] == part]
    for row in at if every else at[:1]:
        row[column] = value
    if every and value == [1.0] and column == "after":
        return  # one width for all is a map
    write(run / "seed-0", pa.Table.from_pylist(rows, table.schema))
    assert_left_out(run, caplog)


KINDS = [
    pa.int64(),
    pa.string(),
    pa.list_(pa.int64()),
    pa.list_(pa.float32(), 2),
    pa.list_(pa.list_(pa.float32())),
    pa.map_(pa.int32(), pa.int32()),
    pa.struct([("a", pa.int32())]),
    pa.dictionary(pa.int32(), pa.string()),
    pa.null(),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_columns_of_another_kind_leave_the_predictions_out(run, caplog, kind):
    """Some of them crash the library where it filters them."""
    table = pq.read_table(run / "seed-0" / PREDICTIONS)
    for i, (name, own) in enumerate(zip(table.schema.names, table.schema.types, strict=True)):
        if own != kind:
            caplog.clear()
            write(run / "seed-0", table.set_column(i, name, pa.nulls(len(table), kind)))
            with caplog.at_level(logging.WARNING):
                assert collect(run).first.predictions is None
            assert "its columns are of another kind" in caplog.text
    write(run / "seed-0", table.drop_columns(["part"]))
    assert_left_out(run, caplog.clear() or caplog, "its columns are of another kind")


def test_places_far_out_are_drawn_all_the_same(finished):
    """Numbers at the edge of what the file can hold: the map is made, and all of it is within the drawing."""
    table = pq.read_table(finished / "seed-0" / PREDICTIONS)
    rows = table.to_pylist()
    edge = [3e38, -3e38, float("inf"), float("nan"), 1e-45]
    for i, row in enumerate(rows):
        for column in ("before", "after", "logits"):
            if row[column] is not None:
                row[column] = [edge[(i + j) % len(edge)] for j in range(len(row[column]))]
    write(finished / "seed-0", pa.Table.from_pylist(rows, table.schema))
    text = render(collect(finished))
    places = [v for tag, k, v in Page(text).attributes if tag == "circle" and k in ("cx", "cy")]
    assert not Page(text).empty["map"] and len(places) > 100 and all(0 <= float(v) <= 360 for v in places)


def test_folders_whose_names_are_nearly_numbers(run):
    """A superscript is a digit to Python and no number."""
    (run / "seed-\u00b2").mkdir()
    (run / "seed-0/round-\u00b2").mkdir()
    assert collect(run).seeds == (0, 3)


def test_a_file_cut_anywhere_is_left_out(run, caplog):
    path = run / "seed-0" / PREDICTIONS
    whole = path.read_bytes()
    for share in np.linspace(0, 0.999, 12):
        path.write_bytes(whole[: int(share * len(whole))])
        assert collect(run).first.predictions is None
    path.write_bytes(whole)
    assert collect(run).first.predictions is not None


def test_pseudo_labeled_rows_have_another_name_in_version_0_1_0(run):
    path = run / "seed-0" / PREDICTIONS
    rows = json.loads(pq.read_schema(path).metadata[FACTS])["rows"]
    former = {"told" if name == "pseudo_labeled" else name: 5 for name in rows}
    write(run / "seed-0", pq.read_table(path), {"rows": former})
    assert "5 (5 pseudo-labeled)" in card(collect(run), "mit") and "5 pseudo-labeled, " in render(collect(run))
