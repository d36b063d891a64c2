"""A run that is killed at any moment and resumed ends with the weights of the run that was not."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tiny import FAST, tiny_bert, tiny_task, tiny_texts

from nlp_ssl import FixMatch, MeanTeacher, TrainConfig, fit, get_method, list_methods
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.inference.metrics import Scores
from nlp_ssl.training import loop as module
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import DataSpec
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranges import from_options

CONFIG = TrainConfig(
    max_steps=12,
    batch_size=4,
    save_steps=3,
    logging_steps=2,
    warm_start="none",
    mixed_precision="no",
    eval_ema_decay=0.9,
    learning_rate=1e-3,
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_is_a_pure_function_of_its_seed(tmp_path):
    task = tiny_task(tmp_path)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = replace(CONFIG, seed=seed, save_steps=0)
        fit(FixMatch(threshold=0.5), task, config, folder=tmp_path / name)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


class Stop(Exception):
    pass


@pytest.mark.parametrize("method", [FixMatch(threshold=0.5), MeanTeacher(ema_decay=0.9)], ids=lambda m: m.name)
def test_resume_in_the_middle_is_bit_equal(tmp_path, method, monkeypatch):
    task = tiny_task(tmp_path)
    fit(method, task, CONFIG, folder=tmp_path / "whole")
    whole_metrics = (tmp_path / "whole/metrics.jsonl").read_text()

    from nlp_ssl.training.loop import TrainLoop

    after = TrainLoop.after_step

    def stop_at_8(self, *args):
        if self.state.step == 8:
            raise Stop
        after(self, *args)

    monkeypatch.setattr(TrainLoop, "after_step", stop_at_8)
    with pytest.raises(Stop):
        fit(method, task, CONFIG, folder=tmp_path / "broken")
    monkeypatch.undo()
    fit(method, task, CONFIG, folder=RunFolder(tmp_path / "broken", resume=True))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    steps = [json.loads(line)["step"] for line in (tmp_path / "broken/metrics.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in whole_metrics.splitlines()]


def test_resume_refuses_other_settings(tmp_path):
    task = tiny_task(tmp_path)
    fit(FixMatch(), task, CONFIG, folder=tmp_path / "run")
    with pytest.raises(ConfigError, match="threshold: 0.8 -> 0.5"):
        fit(FixMatch(threshold=0.5), task, CONFIG, folder=RunFolder(tmp_path / "run", resume=True))  # fmt: skip


class ScaledAccelerator(Accelerator):
    """Loss scaling as for fp16, on a CPU."""

    def __init__(self, **options):
        super().__init__(**options)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=3)


def test_loss_scaling_resumes_at_its_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Accelerator", ScaledAccelerator)
    task, folder = tiny_task(tmp_path), tmp_path / "run"
    fit(FixMatch(), task, replace(CONFIG, save_steps=5, save_total_limit=9), folder=folder)  # fmt: skip
    metas = [atomic.verify(folder / f"checkpoints/step-{n}")["meta"] for n in (0, 5, 10)]
    assert [m["scaler"]["scale"] for m in metas] == [2.0, 4.0, 16.0], "twice as much after three good updates"
    shutil.rmtree(folder / "checkpoints/step-12")
    shutil.rmtree(folder / "checkpoints/step-10")
    (folder / "result.json").unlink()
    config = replace(CONFIG, save_steps=5, save_total_limit=9)
    loop = module.TrainLoop(FixMatch(), task, config, None, RunFolder(folder, resume=True), {}, ())
    assert loop.accelerator.scaler.get_scale() == 4.0


def test_loss_scaling_stops_where_no_scale_helps(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Accelerator", ScaledAccelerator)
    task = tiny_task(tmp_path)
    from nlp_ssl.methods import fixmatch

    monkeypatch.setattr(fixmatch, "ce", lambda z, y: z.sum(-1) * float("nan"))
    with pytest.raises(RunError, match="not finite 5 times in a row up to step 5"):  # 2, then 1, then five below
        fit(FixMatch(), task, replace(CONFIG, save_steps=0))


def test_loss_that_is_not_finite_skips_then_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    task = tiny_task(tmp_path)
    from nlp_ssl.methods import fixmatch

    honest = fixmatch.ce
    monkeypatch.setattr(fixmatch, "ce", lambda z, y: honest(z, y) * (float("nan") if calls() >= 2 * 4 else 1.0))
    count = iter(range(10_000))

    def calls():
        return next(count)

    with pytest.raises(RunError, match="not finite 5 times"):
        fit(FixMatch(), task, CONFIG, folder=tmp_path / "run")
    # Losses are not finite from the fifth step on: step 6 has been through two skipped updates.
    saved = load_file(tmp_path / "run/checkpoints/step-6/net.student.safetensors")
    assert all(bool(torch.isfinite(v).all()) for v in saved.values())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    tiny_bert(folder / "model")
    texts, labels = tiny_texts(150, seed=3)
    rows = ["text,label", *(f"{t},{y}" for t, y in zip(texts, labels, strict=True))]
    (folder / "l.csv").write_text("\n".join(rows[:17]) + "\n")
    (folder / "u.txt").write_text("\n".join(texts[16:110]) + "\n")
    (folder / "t.csv").write_text("\n".join([rows[0], *rows[111:]]) + "\n")
    return folder


def command(files: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "nlp_ssl.cli", "train", "--method", "fixmatch", "--threshold", "0.5", "--model",
        str(files / "model"), "--labeled", str(files / "l.csv"), "--unlabeled", str(files / "u.txt"), "--test",
        str(files / "t.csv"), "--max-steps", "300", "--batch-size", "4", "--max-length", "24", "--save-steps", "10",
        "--warm-steps", "5", "--mixed-precision", "no", "--cache-dir", str(files / "cache"), "--output-dir", str(out),
        *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_kill_9_at_any_moment_resumes_bit_equal(files, tmp_path):
    """A real process is killed at several moments, whatever it is doing, and once in the middle of a save."""
    subprocess.run(command(files, tmp_path / "whole"), check=True, capture_output=True)
    wanted = weights(tmp_path / "whole")
    out = tmp_path / "killed"
    environment = dict(os.environ)
    for nap in (0.0, 0.15, 0.4, "save"):
        process = subprocess.Popen(
            command(files, out, *(["--resume"] if out.exists() else [])),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        started, before = time.time(), set(out.glob("checkpoints/step-*"))
        while process.poll() is None and time.time() - started < 60:
            if nap == "save" and any((out / "checkpoints").glob(".tmp-*")):
                break
            if nap != "save" and set(out.glob("checkpoints/step-*")) - before:
                time.sleep(nap)
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "result.json").exists(), "the run was over before it was killed: make it longer"
    subprocess.run(command(files, out, "--resume"), check=True, capture_output=True)
    assert same(wanted, weights(out))
    # Resuming what is finished does nothing and succeeds.
    written = (out / "model.safetensors").stat().st_mtime_ns
    again = subprocess.run(command(files, out, "--resume"), capture_output=True, text=True)
    assert again.returncode == 0 and "already done" in again.stderr
    assert (out / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_sigterm_saves_and_exits_143_and_two_runs_cannot_share_a_folder(files, tmp_path):
    out = tmp_path / "out"
    long = command(files, out, "--max-steps", "5000", "--save-steps", "1000")
    process = subprocess.Popen(long, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    second = subprocess.run([*long, "--resume"], capture_output=True, text=True)
    assert second.returncode == 2 and "another run is using" in second.stderr
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "--resume" in errors
    steps = [int(p.name.removeprefix("step-")) for p in (out / "checkpoints").glob("step-*")]
    assert max(steps) % 1000, "the state at the signal was not saved"


def test_batches_made_by_workers_change_nothing(tmp_path):
    task = tiny_task(tmp_path)
    for name, workers in (("alone", 0), ("helped", 2)):
        config = replace(CONFIG, dataloader_num_workers=workers, save_steps=0)
        fit(FixMatch(threshold=0.5), task, config, folder=tmp_path / name)
    assert same(weights(tmp_path / "alone"), weights(tmp_path / "helped"))


@pytest.mark.parametrize("interrupted", [False, True])
def test_early_stopping_keeps_the_weights_of_the_best_evaluation(tmp_path, monkeypatch, interrupted):
    """Dev accuracies are .5 .9 .6 .6 .6: the run ends after step 5 with the weights of step 2, also when resumed."""
    task = tiny_task(tmp_path)
    data = replace(task.data, dev=task.data.test)
    config = replace(CONFIG, save_steps=1, save_total_limit=20, eval_steps=1, patience=3, eval_ema_decay=0.0)
    script = {1: 0.5, 2: 0.9}
    step = [0]

    def scripted(logits, labels):
        step[0] += 1
        if interrupted and step[0] == 4:
            raise Stop
        return Scores(script.get(step[0], 0.6), 0.0, 0.0, 0.0)

    monkeypatch.setattr(module, "score", scripted)
    run = RunFolder(tmp_path / "run", resume=True)
    if interrupted:
        with pytest.raises(Stop):
            fit(FixMatch(threshold=0.5), replace(task, data=data), config, folder=run)
        interrupted, step[0] = False, 3
    found = fit(FixMatch(threshold=0.5), replace(task, data=data), config, folder=run)
    assert found.steps == 5
    best, last = (load_file(tmp_path / f"run/checkpoints/step-{n}/net.student.safetensors") for n in (2, 5))
    final = found.module.state_dict()
    assert all(torch.equal(final[k], best[k]) for k in final) and not same(best, last)


def test_a_finished_run_leaves_nothing_behind(tmp_path):
    """Nets and optimizer are gone with the result, not when the garbage collector gets to it: gigabytes later."""
    task, made = tiny_task(tmp_path), []

    def build(number):
        module = task.build(number)
        made.append(weakref.ref(module))
        return module

    gc.disable()
    try:
        result = fit(FixMatch(), replace(task, build=build), FAST)
        assert made[0]() is result.module
        del result
        assert made[0]() is None
    finally:
        gc.enable()


REMEMBERING = [
    name
    for name in list_methods(in_rounds=False)
    if get_method(name)().init_state(DataSpec(2, 96, 16)) or name == "distillation"
]


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_a_method_remembers_is_restored(name, tmp_path, monkeypatch):
    """Banks, means, visits, queues and rounds: bit by bit those of the run that was not interrupted."""
    task = tiny_task(tmp_path, strong=TfidfReplace(0.5))
    open_ = {"threshold": 0.5, "refresh": 3, "normalise": True, "supervised_until": 0.0}
    method = from_options(
        get_method(name), {k: v for k, v in open_.items() if k in get_method(name).__dataclass_fields__}
    )
    config = replace(FAST, max_steps=8, save_steps=5, unlabeled_ratio=7, align=False)
    seen = {}
    run = module.TrainLoop.run

    def kept(self):
        result = run(self)
        seen[str(self.folder)] = {k: v.clone() for k, v in self.state.state.items()}
        return result

    monkeypatch.setattr(module.TrainLoop, "run", kept)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder, resume in ((whole, False), (cut, True)):
        if resume:
            shutil.copytree(whole / "checkpoints" / "step-5", cut / "checkpoints" / "step-5")
        fit(method, task, config, folder=RunFolder(folder, resume=resume))
    a, b = seen[str(whole)], seen[str(cut)]
    assert a.keys() == b.keys() and a
    for key in a:
        assert torch.equal(a[key], b[key]), key
    assert same(weights(whole), weights(cut))
