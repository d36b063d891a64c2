"""Several labels a row from files to answers: training, what is saved, scores, and who refuses."""

import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from tiny import FAST, difference, saved_classifier, tiny_label_sets, tiny_multilabel_task, trained
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig

from nlp_ssl import fit, get_method, list_methods
from nlp_ssl.cli import run
from nlp_ssl.errors import SSLError
from nlp_ssl.experiments.compare import compare
from nlp_ssl.experiments.out_of_scope import in_scope
from nlp_ssl.inference.metrics import confusion, score
from nlp_ssl.inference.predict import features, logits_of_texts, predict
from nlp_ssl.integrations import hf_data
from nlp_ssl.methods import EntropyMin, FixMatch, Supervised
from nlp_ssl.nets.text import load_trained
from nlp_ssl.ops.multilabel import known_binary
from nlp_ssl.training.calibration import temperature_of
from nlp_ssl.training.loop import TrainLoop
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.training.warm_start import fit_head, overlap, pair_loss

ABLE = [name for name in list_methods(in_rounds=False) if "multi-label" in get_method(name).kinds]
LONG = replace(FAST, max_steps=150, head_learning_rate=1e-2, batch_size=8)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny_multilabel_task(tmp_path_factory.mktemp("multi-label"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Multi-label files beside a model, and in "out" what `train` made of them."""
    folder = tmp_path_factory.mktemp("files")
    tiny_multilabel_task(folder)  # leaves the model
    texts, names = tiny_label_sets(140, seed=5)
    rows = [[text, ";".join(found) or ";"] for text, found in zip(texts, names, strict=True)]
    for name, part in (("l.csv", rows[:60]), ("d.csv", rows[60:76]), ("t.csv", rows[100:])):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([["text", "label"], *part])
    (folder / "u.txt").write_text("\n".join(texts[76:100]))
    assert train(folder, "out", "--unlabeled", str(folder / "u.txt"), "--baseline") == 0
    return folder


def train(folder, out, *more, method="fixmatch"):
    return run(["train", "--method", method, "--model", str(folder / "model"), "--labeled", str(folder / "l.csv"),
                "--test", str(folder / "t.csv"), "--label-separator", ";", "--max-steps", "40", "--max-length", "24",
                "--warm-steps", "5", "--learning-rate", "1e-3", "--head-learning-rate", "1e-2", "--mixed-precision",
                "no", "--pooling", "mean", "--output-dir", str(folder / out), "--cache-dir", str(folder / "cache"),
                *more])  # fmt: skip


# --- training ---


@pytest.mark.parametrize("name", ABLE)
def test_every_method_that_says_so_trains(task, name):
    first = trained(Supervised(), task)
    assert name == "supervised" or difference(trained(get_method(name)(), task), first) > 0


def test_labels_are_learned(tmp_path):
    task = tiny_multilabel_task(tmp_path, labeled=120)
    found = fit(Supervised(), task, LONG)
    assert found.scores["test"].primary > 0.75, "always yes is right in half of the labels, a micro F1 of 0.67"


def test_a_label_that_is_not_known_does_not_count(task):
    """Nor does what stands in its place, as long as it is not known."""
    labels = task.data.labels.copy()
    row = task.data.labeled[0]
    assert labels[row].tolist() == [-1, 1]
    unknown = trained(Supervised(), task)
    labels[row, 0] = 1
    known = trained(Supervised(), replace(task, data=replace(task.data, labels=labels)))
    # The bias of one label alone depends on that label's answers in the first step.
    assert difference(unknown, known) > 0
    one = replace(FAST, max_steps=1, batch_size=24)
    a, b = (
        trained(Supervised(), replace(task, data=replace(task.data, labels=y)), one) for y in (task.data.labels, labels)
    )
    assert a["classifier.bias"][1] == b["classifier.bias"][1] != 0


@pytest.mark.parametrize("name", ["fixmatch", "mean_teacher", "temporal_ensembling"])
def test_micro_batches_are_the_same_step(task, name):
    method = get_method(name)()
    a, b = (trained(method, task, replace(FAST, max_steps=2, gradient_accumulation_steps=n)) for n in (1, 2))
    assert difference(a, b) < 2e-5


class Stop(Exception):
    pass


def test_resume_is_bit_equal(task, tmp_path, monkeypatch):
    settings = replace(FAST, max_steps=6, save_steps=2)
    method = get_method("temporal_ensembling")()

    def once(place, resume=False):
        fit(method, task, settings, folder=RunFolder(tmp_path / place, resume=resume))
        return load_file(tmp_path / place / "model.safetensors")

    whole, after = once("whole"), TrainLoop.after_step

    def interrupted(self, *args):
        after(self, *args)
        if self.state.step == 4:
            raise Stop

    monkeypatch.setattr(TrainLoop, "after_step", interrupted)
    with pytest.raises(Stop):
        once("cut")
    monkeypatch.setattr(TrainLoop, "after_step", after)
    again = once("cut", resume=True)
    assert all(torch.equal(again[k], whole[k]) for k in whole)


# --- the start ---


def test_overlap_by_hand():
    """(1, 1) and (1, 0) share one of two; of the last row nothing is known of the second label."""
    y = torch.tensor([[1, 1], [1, 0], [0, 0], [1, -1]])
    wanted = [[1, 0.5, 0, 1], [0.5, 1, 0, 1], [0, 0, 1, 0], [1, 1, 0, 1]]
    assert overlap(y).tolist() == wanted
    assert overlap(torch.tensor([0, 1, 0])).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    # Cosines of (1, 0), (1, 0), (0, 1): pairs that overlap miss 0.5 by 0.5, the others 0 by 0.
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert pair_loss(z, torch.tensor([[1, 1], [1, 0], [0, 0]])).item() == pytest.approx((0.25 + 0.0) / 2)


def test_the_head_is_one_regression_for_each_label(task):
    """As scikit-learn's own one-vs-rest; of the row with an unknown label the other one counts."""
    data = replace(task.data, labeled=task.data.labeled[1:])
    module = task.build(0)
    fit_head(module, data, FAST, torch.no_grad)
    z = features(module, data.store, data.labeled).double().numpy()
    scale = np.linalg.norm(z - z.mean(0), axis=1).mean()
    other = OneVsRestClassifier(LogisticRegression(C=10.0, max_iter=1000)).fit(
        z / scale, data.labels[data.labeled] == 1
    )
    ours = predict(module, data.store, data.test).sigmoid().numpy()
    at = features(module, data.store, data.test).double().numpy() / scale
    assert np.abs(ours - other.predict_proba(at)).max() < 1e-4

    labels = task.data.labels.copy()
    labels[:, 0] = np.where(labels[:, 0] >= 0, 1, -1)  # all that is known of the label is yes
    fit_head(module, replace(task.data, labels=labels), FAST, torch.no_grad)
    assert module.classifier.weight[0].abs().max() == 0
    assert module.classifier.bias[0].item() == pytest.approx(np.log(23.5 / 0.5), rel=1e-6)
    assert module.classifier.weight[1].abs().max() > 0


# --- scores ---


def test_scores_by_hand():
    """Of 8 known labels 4 are yes: 3 found, one given in vain, micro F1 = 2 * 3 / (3 + 1 + 4)."""
    logits = torch.tensor([[2.0, -1.0, 0.0], [1.0, 3.0, -2.0], [-1.0, -2.0, 1.0]])
    labels = np.array([[1, 0, -1], [1, 0, 0], [1, 0, 1]], dtype=np.int8)
    found = score(logits, labels)
    assert found.micro_f1 == found.primary == pytest.approx(6 / 8)
    # Label 0: 2 of 3 found, F1 0.8. Label 1 is nowhere. Label 2: 1 of 1, F1 1.
    assert found.macro_f1 == pytest.approx(0.9)
    assert found.accuracy == pytest.approx(1 / 3), "the first row is right in all that is known"
    p = torch.tensor([2, -1, 1, 3, -2, -1, -2, 1.0]).double().sigmoid()
    truth = torch.tensor([1, 0, 1, 0, 0, 1, 0, 1]).double()
    assert found.nll == pytest.approx(torch.nn.functional.binary_cross_entropy(p, truth).item())
    assert found.named() == {"micro F1": 6 / 8, "macro F1": pytest.approx(0.9), "exact match": pytest.approx(1 / 3)}
    assert confusion(logits, labels).tolist() == [[[0, 0], [1, 2]], [[2, 1], [0, 0]], [[1, 0], [0, 1]]]
    assert found.primary_name == "micro_f1" and score(logits, np.array([0, 1, 2])).primary_name == "accuracy"


# --- what `train` leaves ---


def test_the_saved_model_opens_and_says_what_it_is(folder):
    texts = [row["text"] for row in csv.DictReader((folder / "t.csv").open())]
    model = AutoModelForSequenceClassification.from_pretrained(folder / "out").eval()
    assert model.config.problem_type == "multi_label_classification" and model.config.id2label == {0: "bad", 1: "good"}
    tokens = AutoTokenizer.from_pretrained(folder / "out")(texts, padding=True, return_tensors="pt")
    y = torch.tensor([[0.0, 1.0]]).repeat(len(texts), 1)
    with torch.no_grad():
        out = model(**tokens, labels=y)
    p = out.logits.sigmoid()
    assert out.loss.item() == pytest.approx(torch.nn.functional.binary_cross_entropy(p, y).item(), rel=1e-4)
    saved = json.loads((folder / "out/result.json").read_text())
    truth = [
        [name in row["label"].split(";") for name in ("bad", "good")]
        for row in csv.DictReader((folder / "t.csv").open())
    ]
    assert saved["scores"]["test"]["micro_f1"] == pytest.approx(f1_score(truth, p.numpy() >= 0.5, average="micro"))
    assert saved["identity"]["task"]["labels"] == "multi-label"


def test_the_table_report_and_card_name_the_score(folder, capsys):
    assert train(folder, "out", "--resume", "--unlabeled", str(folder / "u.txt"), "--baseline") == 0
    assert "test micro F1 in %" in capsys.readouterr().out
    card, report = ((folder / "out" / name).read_text() for name in ("README.md", "report.html"))
    assert "micro F1 in %" in card and "exact match" in card and "top_k=None" in card and "accuracy in %" not in card
    assert "Micro F1 on the test rows" in report and "multi-label" in report.replace("\n", " ")


def test_answers_join_labels_and_score_themselves(folder, tmp_path, capsys):
    """Every format says the same, the separator alone where no label applies; read back they are all right."""
    texts = ["the film", *[row["text"] for row in csv.DictReader((folder / "t.csv").open())]]
    (tmp_path / "t.txt").write_text("\n".join([*texts[:3], "", *texts[3:]]))
    net = load_trained(folder / "out", kinds=("single-label", "multi-label"))
    p = torch.cat([logits_of_texts(net, [text], 24) for text in texts]).double().sigmoid().numpy()
    for ending in ("csv", "tsv", "jsonl", "parquet"):
        out = tmp_path / f"p.{ending}"
        assert predict_to(folder, tmp_path, "--out", str(out), "--all") == 0
    lists = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert lists == [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert lists[3]["label"] is None and lists[3]["probability"] is None
    filled = [row for row in lists if row["label"] is not None]
    for row, q in zip(filled, p, strict=True):
        assert row["label"] == [name for name, v in zip(("bad", "good"), q, strict=True) if v >= 0.5]
        assert row["probability"] == pytest.approx([v for v in q if v >= 0.5], abs=1e-5)
        assert [row["probability_bad"], row["probability_good"]] == pytest.approx(q.tolist(), abs=1e-5)
    assert len({tuple(row["label"]) for row in filled}) == 4, "one, the other, both and none are given"

    cells = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [c["label"] for c in cells] == ["" if r["label"] is None else ";".join(r["label"]) or ";" for r in lists]
    numbers = [c["probability"] for c in cells]
    assert numbers == [";".join(map(str, r["probability"] or ())) for r in lists]
    assert predict_to(folder, tmp_path, "--label-separator", "|") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()[-len(lists) :]]
    assert [line[0] for line in lines] == [c["label"].replace(";", "|") for c in cells]
    assert lines[0][1] == "|".join(f"{v:.4f}" for v in lists[0]["probability"])

    with (tmp_path / "back.csv").open("w", newline="") as file:
        own = [[text, c["label"]] for text, c in zip(texts, [c for i, c in enumerate(cells) if i != 3], strict=True)]
        csv.writer(file).writerows([["text", "label"], *own])
    pq.write_table(pa.table({"text": texts, "label": [row["label"] for row in filled]}), tmp_path / "back.parquet")
    for name in ("back.csv", "back.parquet"):
        assert run(["eval", str(folder / "out"), str(tmp_path / name), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["micro_f1"] == found["accuracy"] == 1.0 and found["rows"] == len(texts)


def predict_to(folder, place, *more):
    return run(["predict", str(folder / "out"), str(place / "t.txt"), "--mixed-precision", "no", *more])


def test_eval_in_words(folder, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text,label\ngood great fun,good\nbad dull waste,?bad\nthe film,;\nlost,\n")
    assert run(["eval", str(folder / "out"), str(tmp_path / "t.csv")]) == 0
    printed = capsys.readouterr().out
    assert "rows               3, 1 without a label left out" in printed
    assert all(name in printed for name in ("micro F1", "macro F1", "exact match", "label", "found"))
    assert "accuracy" not in printed
    (tmp_path / "t.csv").write_text("text,label\ngood great fun,goood\n")
    assert run(["eval", str(folder / "out"), str(tmp_path / "t.csv")]) == 3
    assert "SSL196" in capsys.readouterr().err


def test_early_stopping_and_calibration_go_by_dev_rows(folder):
    more = ["--dev", str(folder / "d.csv"), "--eval-steps", "10", "--calibrate", "dev", "--max-steps", "20"]
    assert train(folder, "dev", *more, method="supervised") == 0
    lines = [json.loads(line) for line in (folder / "dev/metrics.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "dev_micro_f1" in line]) == 2
    assert train(folder, "plain", *more[:4], "--max-steps", "20", method="supervised") == 0
    bare, cooled = (load_trained(folder / name, kinds=("multi-label",)) for name in ("plain", "dev"))
    with (folder / "d.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = np.array([[name in row["label"].split(";") for name in ("bad", "good")] for row in rows], dtype=np.int8)
    logits, answers = known_binary(logits_of_texts(bare, [row["text"] for row in rows], 24), truth)
    wanted = temperature_of(logits.numpy(), answers)
    ratio = (bare.classifier.weight / cooled.classifier.weight).detach()
    assert ratio.numpy() == pytest.approx(wanted, rel=1e-4), "one temperature for all labels, that of the dev rows"
    assert abs(wanted - 1) > 1e-3


# --- refusals ---


NOT_ABLE = [name for name in list_methods() if name not in ABLE]


def test_which_methods_are_defined():
    assert ABLE == ["adversarial", "entropy_min", "fixmatch", "mean_teacher", "pi_model", "pseudo_label", "r_drop",
                    "supervised", "temporal_ensembling", "uda", "vat"]  # fmt: skip
    assert {"self_training", "noisy_student", "ust", "flexmatch", "mixmatch"} <= set(NOT_ABLE)


@pytest.mark.parametrize("name", NOT_ABLE)
def test_other_methods_refuse_and_name_those_that_work(folder, capsys, name):
    more = ["--unlabeled", str(folder / "u.txt"), "--baseline"]
    assert train(folder, "never", *more, method=name) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"SSL476: {name} is not defined for multi-label data; these methods are: adversarial, ")
    assert not (folder / "never/baseline").exists(), "nothing was trained before"


def fails(code, call):
    with pytest.raises(SSLError) as caught:
        call()
    assert caught.value.code == code and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"class_weights": "inverse"}, {"logit_adjustment": 1.0}, {"calibrate": "labels"}, {"eval_fgsm": 0.1}],
    ids=lambda s: next(iter(s)),
)
def test_settings_for_one_label_a_row_are_refused(task, settings):
    config = replace(FAST, **settings)
    fails(477, lambda: fit(FixMatch(), task, config))
    fails(477, lambda: compare(FixMatch(), task, config, seeds=[0], baseline=False))


def test_what_else_is_refused(task, folder, tmp_path, capsys):
    fails(476, lambda: compare(EntropyMin(prior_weight=1.0), task, FAST, seeds=[0], baseline=False))
    fails(477, lambda: in_scope(task, lambda module, number: None, FAST, 0.1))
    fails(478, lambda: load_trained(folder / "out"))
    rows = Dataset.from_dict({"text": ["good", "bad"], "label": [["a"], ["b"]]})
    fails(477, lambda: hf_data._table(rows, "train", PreTrainedConfig(), None))


def test_a_model_of_one_label_a_row_stays_one(tmp_path):
    net = load_trained(saved_classifier(tmp_path, ("neg", "pos"), ["good", "bad"]))
    assert net.kind == "single-label"
