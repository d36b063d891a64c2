"""The report: from a run's folder alone, every figure there or explained, hostile content inert."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from pages import FIGURES, Page, edit, rename
from tiny import FAST, tiny_images, tiny_task

from nlp_ssl import FixMatch, SelfTraining, Supervised, compare, fit
from nlp_ssl.cli import run as command
from nlp_ssl.experiments.compare import Comparison
from nlp_ssl.inference.metrics import Scores
from nlp_ssl.report.collect import collect
from nlp_ssl.report.curves import mean_line
from nlp_ssl.report.page import flags, render, write_report
from nlp_ssl.report.quality import risks
from nlp_ssl.report.reliability import calibration_error
from nlp_ssl.report.svg import ticks
from nlp_ssl.training.model_files import PREDICTIONS
from nlp_ssl.training.outcome import Outcome


def test_every_figure_of_a_finished_run_is_drawn(finished):
    edit(finished / "seed-0/baseline", lambda rows: rows[-1].update(logits=rows[-1]["logits"][::-1]))
    text = render(collect(finished))
    page = Page(text)
    assert {name: page.empty.get(name) for name in FIGURES} == dict.fromkeys(FIGURES, False)
    assert page.empty["dev-accuracy"], "without dev rows it says so"
    assert "--eval-steps" in text and "the best label-only model" in text
    drawings = [v for tag, k, v in page.attributes if tag == "svg" and k == "aria-label"]
    assert len(drawings) == page.tags.count("svg") and all(len(alt) > 25 for alt in drawings)
    assert page.tags.count("h1") == 1 and len(text.encode()) < 3_000_000


def test_nothing_is_loaded_and_nothing_runs(run):
    page = Page(text := render(collect(run)))
    assert not {"script", "iframe", "object", "embed", "form"} & set(page.tags)
    places = [v for _, k, v in page.attributes if k in ("src", "href", "xlink:href", "action", "data", "srcset")]
    assert places and all(v.startswith(("#", "data:")) for v in places)
    assert not [k for _, k, _ in page.attributes if k.startswith("on")]
    policy = [v for tag, k, v in page.attributes if tag == "meta" and k == "content" and "default-src" in v]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert "url(" not in text and "@import" not in text


def test_the_same_folder_gives_the_same_page(finished, tmp_path):
    assert write_report(finished).read_bytes() == write_report(finished, tmp_path / "other.html").read_bytes()


def test_hostile_contents_are_text(run):
    bad = [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "\u202egnp.exe\u2066",
        "w" * 3_000_000,
        "a\x00b\x1b[31m",
    ]

    def change(rows):
        for i, row in enumerate(rows):
            for column in ("content", "weak", "strong"):
                row[column] = bad[i % len(bad)].encode() if i else b"w" * 3_000_000

    edit(run / "seed-0", change)
    rename(run / "seed-0", ["<script>x</script>", "</style><b>"])
    (run / "seed-0/metrics.jsonl").open("a").write(
        '{"step": 7, "<svg/onload=1>": 1.0, "state": {"</svg><script>": 2}}\n{"cut'
    )
    saved = json.loads((run / "seed-0/result.json").read_text())
    saved["warnings"], saved["identity"]["options"]["<i>"] = ["<b>bold</b>"], "<u>"
    (run / "seed-0/result.json").write_text(json.dumps(saved))
    plain = Page(text := render(collect(run)))
    assert not {"script", "b", "u"} & set(plain.tags) and plain.tags.count("img") == 0
    assert not [k for _, k, _ in plain.attributes if k.startswith("on")]
    assert "\x00" not in text and "\x1b" not in text and len(text.encode()) < 3_000_000
    assert "<script>alert(1)</script>" in "".join(plain.text), "shown as it is written"
    assert re.search(r'<p class="text" dir="auto">\u202egnp', text), "isolated: it turns nothing around it"


def test_what_a_page_cannot_hold_is_replaced(run):
    rename(run / "seed-0", ["half \ud800", "b"])
    assert "half ?" in write_report(run).read_text(encoding="utf-8")


def test_an_old_run_says_what_is_missing(run):
    for place in (run / "seed-0", run / "seed-3"):
        (place / PREDICTIONS).unlink()
    page = Page(render(collect(run)))
    gone = (
        "confusion",
        "risk",
        "reliability-0",
        "reliability-1",
        "map",
        "uncertain",
        "flipped",
        "wrong",
        "augmentation",
    )
    assert all(page.empty[name] for name in gone)
    assert not page.empty["losses"] and not page.empty["pseudo-classes"] and not page.empty["seeds"]
    (run / "seed-0" / PREDICTIONS).write_bytes(b"PAR1 damaged")
    assert all(Page(render(collect(run))).empty[name] for name in gone)


def test_an_interrupted_run_shows_what_there_is(run):
    (run / "seed-3/result.json").unlink()
    (run / "seed-3" / PREDICTIONS).unlink()
    found = collect(run)
    assert found.unfinished == [3] and found.comparison.seeds == (0,)
    assert "Not finished: seed 3" in render(found)
    (run / "seed-0/result.json").unlink()
    assert "there is no verdict yet" in render(collect(run)) and collect(run).comparison is None


def test_settings_of_an_interrupted_run_come_from_its_start(tmp_path):
    task = tiny_task(tmp_path)
    fit(FixMatch(threshold=0.9), task, replace(FAST, save_steps=1), folder=tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    found = collect(tmp_path / "run")
    assert found.method == "fixmatch" and found.identity["options"]["threshold"] == 0.9 and found.seeds == (0,)


def test_runs_on_images_show_thumbnails(tmp_path):
    task = tiny_images()
    fit(FixMatch().for_images(), task, FAST, folder=tmp_path / "run")
    text = render(collect(tmp_path / "run"))
    page = Page(text)
    images = [v for tag, k, v in page.attributes if tag == "img" and k == "src"]
    assert len(images) == 12 and all(v.startswith("data:image/png;base64,") for v in images), "three views of four rows"
    assert "No verdict" in text and page.empty["confusion"] and not page.empty["map"]
    assert all(alt for tag, k, alt in page.attributes if tag == "img" and k == "alt")


def test_without_pool_and_baseline(tmp_path):
    task = tiny_task(tmp_path)
    data = task.data.without_pool()
    compare(Supervised(), replace(task, data=data), FAST, seeds=[0], baseline=True, folder=tmp_path / "run")
    page = Page(text := render(collect(tmp_path / "run")))
    assert "No verdict" in text and page.empty["mask-rate"] and page.empty["flipped"] and page.empty["augmentation"]
    assert not page.empty["confusion"] and not page.empty["map"]


def test_many_classes_become_a_list_of_mistakes_and_one_gray(run):
    def change(rows):
        rng = np.random.default_rng(0)
        for row in rows:
            row["label"], row["logits"] = int(rng.integers(30)), rng.normal(size=30).tolist()
            row["pseudo"] = None

    edit(run / "seed-0", change)
    rename(run / "seed-0", [f"class {i}" for i in range(30)])
    page = Page(text := render(collect(run)))
    assert "21 other classes" in text and "taken for" in text and not page.empty["confusion"]


def test_the_colors_of_the_map_are_true_pseudo_and_predicted_labels(run):
    found = collect(run)
    rows = found.first.predictions.part("pool")
    text = render(found)
    marks = re.findall(r'<circle class="pt t-(\w+) p-(\w+) q-(\w+)"', text)
    assert len(marks) == 2 * len(rows) == 192, "before and after"
    assert [m[0] for m in marks[:96]] == [f"c{y}" for y in rows.labels]
    assert [m[2] for m in marks[:96]] == [f"c{y}" for y in rows.logits.argmax(1)]
    assert marks[:96] == marks[96:]


def test_pseudo_labels_below_the_threshold_are_gray(run):
    saved = json.loads((run / "seed-0/result.json").read_text())
    saved["identity"]["options"]["threshold"] = 0.8

    def change(rows):
        for i, row in enumerate(r for r in rows if r["part"] == "pool"):
            row["pseudo"] = [0.85, 0.15] if i % 2 else [0.3, 0.7]

    edit(run / "seed-0", change)
    (run / "seed-0/result.json").write_text(json.dumps(saved))
    marks = re.findall(r'<circle class="pt t-\w+ p-(\w+)', render(collect(run)))
    assert marks[:4] == ["rest", "c0", "rest", "c0"]


def test_lists_hold_the_rows_they_name(run):
    def change(rows):
        for i, row in enumerate(r for r in rows if r["part"] == "test"):
            row["label"], row["logits"], row["content"] = 0, [5.0, 0.0], f"plain {i}".encode()
            if i == 3:
                row["logits"], row["content"] = [0.0, 9.0], b"surely wrong"
            if i == 4:
                row["logits"], row["content"] = [0.01, 0.0], b"barely right"

    def baseline(rows):
        for row in rows:
            if row["part"] == "test":
                row["logits"] = [6.0, 0.0]

    edit(run / "seed-0", change)
    edit(run / "seed-0/baseline", baseline)
    text = render(collect(run))
    first = {id: re.search(rf'id="{id}".*?<p class="text" dir="auto">(.*?)</p>', text, re.DOTALL)[1]
             for id in ("uncertain", "flipped", "wrong")}  # fmt: skip
    assert first == {"uncertain": "barely right", "flipped": "surely wrong", "wrong": "surely wrong"}
    assert "1 of 40 test rows got another class" in text and "0 were put right, 1 were put wrong" in text


def test_words_that_the_strong_view_changed_are_marked(run):
    def change(rows):
        for row in rows:
            if row["strong"] is not None:
                row["weak"], row["strong"] = b"the film was good", b"the plot was good too"

    edit(run / "seed-0", change)
    text = render(collect(run))
    assert (
        re.sub(r"\s+", " ", re.search(r"<h4>strong</h4>(.*?)</p>", text, re.DOTALL)[1])
        .strip()
        .endswith("the <mark>plot</mark> was good <mark>too</mark>")
    )


def test_numbers_of_the_figures_by_hand():
    confidence, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])
    assert calibration_error(confidence, right) == pytest.approx((0.45 + 0.45) / 2)
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] and ticks(0.31, 0.34)[0] <= 0.31
    assert ticks(0.31, 0.34)[-1] >= 0.34


def test_risk_of_the_surest_rows(run):
    def change(rows):
        for i, row in enumerate(r for r in rows if r["part"] == "test"):
            row["label"], row["logits"] = 0, [float(40 - i), 0.0] if i != 39 else [0.0, 0.5]

    edit(run / "seed-0", change)
    curve = risks(collect(run).first.predictions.part("test"))
    assert curve[:39].tolist() == [0.0] * 39 and curve[39] == pytest.approx(1 / 40)


def test_command_writes_where_it_is_told_and_refuses_what_is_no_run(run, tmp_path, capsys):
    assert command(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").exists() and not (run / "report.html").exists()
    assert command(["report", str(run)]) == 0 and (run / "report.html").exists()
    capsys.readouterr()
    for argv, code in ((["report", str(tmp_path)], "SSL402"), (["report"], "Error: Missing argument 'RUN'")):
        assert command(argv) == 2
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith(code)


def test_the_folder_may_lie_anywhere(run, tmp_path):
    """No data file, model or path of the run is needed."""
    for path in run.rglob("*.safetensors"):
        path.unlink()
    before = render(collect(run))
    moved = shutil.move(run, tmp_path / "elsewhere" / "run")
    assert render(collect(moved)) == before and str(tmp_path) not in before


def test_predictions_are_those_of_the_saved_model(trained_run):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rows = collect(trained_run).first.predictions.part("test")
    model = AutoModelForSequenceClassification.from_pretrained(trained_run / "seed-0").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained_run / "seed-0")
    texts = [content.decode() for content in rows.contents()]
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    assert np.allclose(logits.numpy(), rows.logits, atol=1e-4)


def sides(**accuracies):
    """A comparison by accuracies per seed."""
    made = {
        name: tuple(Outcome({"test": Scores(a, a, 0.5, 0.1)}, 1, 1.0) for a in values)
        for name, values in accuracies.items()
    }
    return Comparison("uda", tuple(range(len(made["uda"]))), made)


@pytest.mark.parametrize(
    ("supervised", "uda", "word"),
    [
        ((0.70, 0.71, 0.72), (0.80, 0.81, 0.82), "Yes"),
        ((0.70, 0.71, 0.72), (0.69, 0.75, 0.72), "Not shown"),
        ((0.70, 0.71), (0.60, 0.61), "No"),
        ((0.70,), (0.90,), "Not shown"),
    ],
)
def test_the_answer_is_yes_only_beyond_what_seeds_explain(run, supervised, uda, word):
    found = collect(run)
    found.__dict__["comparison"] = sides(supervised=supervised, uda=uda)
    text = render(found)
    assert re.search(r'<p class="word">(.*?)</p>', text)[1] == word
    assert found.comparison.verdict() in re.sub("<.*?>", "", text)


def test_curves_are_means_over_seeds(run):
    for place, value in (("seed-0", 0.2), ("seed-3", 0.6)):
        (run / place / "metrics.jsonl").write_text("".join(f'{{"step": {i}, "sup": {value * i}}}\n' for i in (1, 2)))
    found = collect(run)
    assert mean_line(found, lambda line: line.get("sup")) == [(1.0, pytest.approx(0.4)), (2.0, pytest.approx(0.8))]
    assert "sup from 0.4 to 0.8" in render(found)


def test_options_do_not_break_across_lines():
    assert flags("use --seeds 0,1. Or --calibrate dev & go") == (
        "use <code>--seeds 0,1</code>. Or <code>--calibrate dev</code> &amp; go"
    )


def test_a_run_in_rounds_shows_its_student(tmp_path, monkeypatch):
    monkeypatch.setattr("nlp_ssl.report.map.place", lambda features: features[:, :2])
    task = tiny_task(tmp_path)
    compare(SelfTraining(rounds=1), task, FAST, seeds=[0], baseline=True, folder=tmp_path / "run")
    page = Page(text := render(collect(tmp_path / "run")))
    assert "self_training" in text and "best label-only model" in text
    assert not page.empty["losses"] and not page.empty["confusion"] and not page.empty["map"]
    assert not page.empty["round-accuracy"] and page.empty["changed"]


def test_a_run_in_rounds_shows_its_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr("nlp_ssl.report.map.place", lambda features: features[:, :2])
    task = tiny_task(tmp_path)
    method = SelfTraining(rounds=2, threshold=0.0)
    compare(method, task, FAST, seeds=[0, 1], baseline=False, folder=tmp_path / "run")
    lines = [{"round": i, "scores": {"test": {"accuracy": 0.5 + i / 8}}, "mask_rate": i / 4, "changed": i / 5,
              "pseudo_accuracy": 0.9, "pseudo_hist": [0.25, 0.75]} for i in range(3)]  # fmt: skip
    del lines[0]["mask_rate"], lines[0]["pseudo_hist"], lines[0]["changed"], lines[1]["changed"]
    for seed in (0, 1):
        kept = [json.loads(line) for line in (tmp_path / f"run/seed-{seed}/rounds.jsonl").read_text().splitlines()]
        assert kept[1].keys() >= lines[1].keys() - {"pseudo_accuracy"}
        (tmp_path / f"run/seed-{seed}/rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = render(collect(tmp_path / "run"))
    for words in ("accuracy by round from 50 % to 75 % at round 2", "pool in use from 25 % to 50 % at round 2",
                  "changed from 40 % to 40 % at round 2", "at the end neg 25%, pos 75%"):  # fmt: skip
        assert words in text
    assert ">round</text>" in text
    assert ">1</text>" in text and ">1.5</text>" not in text
