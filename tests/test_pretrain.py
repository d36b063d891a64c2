"""Pre-training and the stacked recipe: losses by hand, what is trained on what, and going on after a kill."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import FAST, difference, tiny_bert, tiny_files, tiny_images, tiny_task, tiny_texts
from transformers import AutoModel, AutoTokenizer

from nlp_ssl import FixMatch, SelfTraining
from nlp_ssl.cli import run
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments import pipeline, pretrain
from nlp_ssl.experiments.pipeline import Stages, run_stages
from nlp_ssl.experiments.pretrain import Contrastive, MaskedWords, contrast, objective_of, start_from, unlabeled_only
from nlp_ssl.report.collect import collect
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import PseudoLabels

QUICK = replace(FAST, max_steps=3)


@pytest.fixture
def task(tmp_path):
    return tiny_task(tmp_path, dropout=0.1)


def test_contrast_by_hand():
    """Two rows with two views each, at the corners of a square; cosines 1, 0 and -1, temperature 1/2."""
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    found = contrast(z, torch.tensor([0, 1]), 0.5)
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(0) + math.exp(0)))
    second = -math.log(math.exp(-2) / (math.exp(-2) + 2 * math.exp(0)))
    assert found.tolist() == pytest.approx([first, second, first, second], abs=1e-6)


def test_repeats_of_a_row_are_not_held_against_it():
    z = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double(), dim=-1)
    found = contrast(z, torch.tensor([3, 5, 3]), 0.5)
    logits = z @ z.T / 0.5
    row = [math.exp(logits[0, j]) for j in (1, 3, 4)]  # not itself, not rows 2 and 5, which are the same text
    assert float(found[0]) == pytest.approx(-math.log(row[1] / sum(row)), abs=1e-6)


def test_masked_words_lower_their_own_loss(task):
    """The loss on hidden words falls, and the net that learned them is another."""
    config = replace(FAST, max_steps=30, logging_steps=10)
    before = task.build(0).state_dict()
    weights = pretrain.pretrain(MaskedWords(), task, config, 30)
    assert difference({k: v for k, v in before.items() if k in weights}, weights) > 1e-3


@pytest.mark.parametrize("objective", [MaskedWords(), Contrastive(), Contrastive(strong=True)])
def test_losses_fall(task, tmp_path, objective):
    config = replace(FAST, logging_steps=5)
    pretrain.pretrain(objective, task, config, 60, folder=RunFolder(tmp_path / "p"))
    lines = [json.loads(line) for line in (tmp_path / "p/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.05


def test_images_are_told_apart_by_strong_views():
    objective = objective_of("contrastive", images=True)
    assert objective.wanted_views() == {"u_s": "strong", "u_s2": "strong"} and objective.temperature == 0.5
    assert pretrain.pretrain(objective, tiny_images(), QUICK, 2)
    with pytest.raises(ConfigError, match="SSL252"):
        objective_of("mlm", images=True)


def test_no_label_and_no_row_for_scoring_is_seen(task):
    data = unlabeled_only(replace(task.data, dev=task.data.test[:4]))
    assert set(data.unlabeled) == set(task.data.labeled) | set(task.data.unlabeled)
    assert not len(data.dev) and not len(data.test)
    other = replace(task.data, labels=np.where(task.data.labels == 0, 1, 0))
    one, two = (pretrain.pretrain(MaskedWords(), replace(task, data=d), QUICK, 3) for d in (task.data, other))
    assert difference(one, two) == 0.0


def test_nets_start_from_the_weights_but_for_the_last_layer(task):
    weights = pretrain.pretrain(Contrastive(), task, QUICK, 3)
    fresh, begun = task.build(0).state_dict(), start_from(task, weights).build(0).state_dict()
    inside = [k for k in weights if not k.startswith("classifier.")]
    assert all(torch.equal(begun[k], weights[k]) for k in inside) and not any(k.startswith("extra") for k in weights)
    assert any(not torch.equal(begun[k], fresh[k]) for k in inside)
    assert begun["classifier.weight"].shape == fresh["classifier.weight"].shape


def test_an_encoder_is_made_that_transformers_open_and_train_takes(tmp_path, capsys):
    tiny_bert(tmp_path / "model")
    texts, labels = tiny_texts(60, seed=5)
    (tmp_path / "u.txt").write_text("\n".join(texts))
    flags = ["--model", str(tmp_path / "model"), "--max-steps", "3", "--batch-size", "2", "--max-length", "24",
             "--cache-dir", str(tmp_path / "cache"), "--output-dir", str(tmp_path / "enc")]  # fmt: skip
    for objective in ("mlm", "contrastive"):
        assert run(["pretrain", str(tmp_path / "u.txt"), *flags, "--objective", objective, "--overwrite"]) == 0
    old, new = (AutoModel.from_pretrained(tmp_path / name).state_dict() for name in ("model", "enc"))
    assert old.keys() == new.keys() and any(not torch.equal(old[k], new[k]) for k in old)
    assert AutoTokenizer.from_pretrained(tmp_path / "enc")("good film")["input_ids"]
    rows = [f"{t},{y}" for t, y in zip(texts[:20], labels[:20], strict=True)]
    (tmp_path / "l.csv").write_text("\n".join(["text,label", *rows]))
    assert run(["train", "--method", "supervised", "--labeled", str(tmp_path / "l.csv"), "--model",
                str(tmp_path / "enc"), "--max-steps", "2", "--max-length", "24", "--warm-start", "none",
                "--output-dir", str(tmp_path / "o"), "--cache-dir", str(tmp_path / "cache")]) == 0  # fmt: skip
    capsys.readouterr()
    assert run(["pretrain", str(tmp_path / "u.txt")]) == 2
    assert "SSL206" in capsys.readouterr().err
    assert run(["pretrain", str(tmp_path / "u.txt"), *flags]) == 2
    assert "is not empty" in capsys.readouterr().err


# --- the stacked recipe -----------------------------------------------------------------------------------------------


def stacked(task, folder, method=None, stages=None, resume=False):
    method = method or FixMatch(threshold=0.5)
    stages, config = stages or Stages(pretrain_steps=3), replace(QUICK, warm_start="none")
    return run_stages(stages, method, task, config, seeds=[0], folder=RunFolder(folder, resume=resume))


def test_every_stage_is_run_and_reported(task, tmp_path):
    found = stacked(task, tmp_path / "out")
    assert list(found.results) == ["supervised", "pretrained", "fixmatch", "distilled"] and found.method == "distilled"
    assert found.baseline() == "supervised" and "best label-only model (supervised)" in found.verdict()
    assert same(tmp_path / "out", tmp_path / "out/seed-0/distilled")
    for one, other in (("baseline", "pretrained"), ("pretrained", "method"), ("method", "distilled")):
        assert not same(tmp_path / f"out/seed-0/{one}", tmp_path / f"out/seed-0/{other}")


def same(a, b):
    one, two = (load_file(folder / "model.safetensors") for folder in (a, b))
    return all(torch.equal(one[k], two[k]) for k in one)


def test_stages_can_be_left_out(task, tmp_path):
    found = stacked(task, tmp_path / "out", stages=Stages(pretrain="none", distill=False))
    assert list(found.results) == ["supervised", "fixmatch"] and found.method == "fixmatch"
    assert same(tmp_path / "out", tmp_path / "out/seed-0/method")


def test_rounds_and_images_go_through_the_same_stages(task, tmp_path):
    found = stacked(task, tmp_path / "a", SelfTraining(rounds=1, threshold=0.5))
    assert list(found.results)[-2:] == ["self_training", "distilled"]
    images = stacked(tiny_images(), tmp_path / "b", stages=Stages(pretrain="contrastive", pretrain_steps=2))
    assert list(images.results) == ["supervised", "pretrained", "fixmatch", "distilled"]


@pytest.mark.parametrize("dies_in", range(5))
def test_a_killed_pipeline_goes_on_to_the_same_model(task, tmp_path, monkeypatch, dies_in):
    """Killed before each of its stages: the baseline, pre-training, the two after it, and the last student."""
    whole = stacked(task, tmp_path / "whole")
    calls = []

    def dying(real):
        def maybe(*given, **more):
            if len(calls) == dies_in:
                raise KeyboardInterrupt
            calls.append(1)
            return real(*given, **more)

        return maybe

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for name in ("run_one", "pretrain"):
            patch.setattr(pipeline, name, dying(pipeline.__dict__[name]))
        stacked(task, tmp_path / "cut")
    again = stacked(task, tmp_path / "cut", resume=True)
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert {k: v[0].scores for k, v in again.results.items()} == {k: v[0].scores for k, v in whole.results.items()}


def test_what_is_complete_is_not_run_again(task, tmp_path, monkeypatch):
    stacked(task, tmp_path / "out")
    monkeypatch.setattr("nlp_ssl.experiments.runs.train", None)
    monkeypatch.setattr("nlp_ssl.experiments.pretrain.train", None)
    assert stacked(task, tmp_path / "out", resume=True).method == "distilled"


def test_each_stage_has_the_net_and_the_labels_that_it_should(task, tmp_path):
    """The labels alone know none from elsewhere, the last student is another model, and the first seed's is kept."""
    every = np.ones(len(task.data.unlabeled), dtype=int)
    pseudo_labels = PseudoLabels(np.tile([0.9, 0.1], (len(every), 1)), every, every.astype(float), hard=True)
    other = tiny_task(tmp_path / "other", dropout=0.5)
    given, plain = Stages(pretrain="none"), Stages(pretrain="none", distill=False)
    settings = replace(QUICK, warm_start="none")
    method = SelfTraining(rounds=1, threshold=0.0)
    with_labels = replace(task, student=other, pseudo_labels=pseudo_labels)
    run_stages(given, method, with_labels, settings, seeds=[0, 1], folder=RunFolder(tmp_path / "out"))
    run_stages(plain, method, task, settings, seeds=[0], folder=RunFolder(tmp_path / "plain"))
    assert same(tmp_path / "out/seed-0/baseline", tmp_path / "plain/seed-0/baseline")
    dropout = json.loads((tmp_path / "out/seed-0/distilled/config.json").read_text())["hidden_dropout_prob"]
    assert dropout == 0.5 and not same(tmp_path / "out/seed-0/distilled", tmp_path / "out/seed-1/distilled")
    assert same(tmp_path / "out", tmp_path / "out/seed-0/distilled")


def test_other_stages_are_another_run(task, tmp_path):
    """Also where the settings of a stage are the same: it begins from other weights."""
    stacked(task, tmp_path / "out")
    with pytest.raises(ConfigError, match="SSL214.*begun_from"):
        stacked(task, tmp_path / "out", stages=Stages(pretrain="none", distill=False), resume=True)


@pytest.mark.parametrize(("seeds", "pool", "code"), [([0, 0], True, 209), ([0], False, 497)])
def test_what_the_stages_need_is_asked_for_before_anything_runs(task, tmp_path, seeds, pool, code):
    task = task if pool else replace(task, data=task.data.without_pool())
    with pytest.raises(ConfigError, match=f"SSL{code}"):
        run_stages(Stages("mlm", 2), FixMatch(), task, QUICK, seeds=seeds, folder=RunFolder(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="pretrain_steps"):
        Stages(pretrain_steps=0)


def test_the_command_prints_what_each_stage_brought(tmp_path, capsys, caplog):
    caplog.set_level("INFO", logger="nlp_ssl")
    tiny_files(tmp_path)
    flags = ["pipeline", "--model", str(tmp_path / "model"), "--labeled", str(tmp_path / "l.csv"), "--unlabeled",
             str(tmp_path / "u.txt"), "--test", str(tmp_path / "t.csv"), "--max-steps", "2", "--batch-size", "4",
             "--max-length", "24", "--warm-steps", "2", "--pretrain-steps", "2", "--mixed-precision", "no",
             "--cache-dir", str(tmp_path / "cache"), "--method", "fixmatch"]  # fmt: skip
    assert run([*flags, "--output-dir", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    for name in ("start", "supervised", "pretrained", "fixmatch", "distilled", "difference"):
        assert name in shown.out
    assert "pretrained is" in caplog.text or "pretrained equals" in caplog.text
    assert run(["predict", str(tmp_path / "out"), str(tmp_path / "u.txt")]) == 0
    assert run([*flags, "--output-dir", str(tmp_path / "out")]) == 2  # it is not empty
    sides = collect(tmp_path / "out").comparison.results
    assert list(sides) == ["start", "supervised", "pretrained", "fixmatch", "distilled"]
    card = (tmp_path / "out" / "README.md").read_text()
    for name, (outcome,) in sides.items():
        assert f"| {name} | {100 * outcome.scores['test'].accuracy:.1f} |" in card
    assert "pretrained" in (tmp_path / "out" / "report.html").read_text()


def test_the_report_of_an_interrupted_pipeline_is_about_its_last_stage(task, tmp_path):
    stacked(task, tmp_path / "out")
    shutil.rmtree(tmp_path / "out/seed-0/distilled")
    assert list(collect(tmp_path / "out").comparison.results) == ["supervised", "pretrained", "fixmatch"]
    shutil.rmtree(tmp_path / "out/seed-0/method")
    found = collect(tmp_path / "out").comparison
    assert list(found.results) == ["supervised", "pretrained"]
    assert "pretrained" in found.verdict()
