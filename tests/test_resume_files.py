"""What a run that was killed and resumed leaves in its folder is what the run that was not leaves, but for timings."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import FAST, tiny_task

from nlp_ssl import FixMatch
from nlp_ssl.errors import Interrupted
from nlp_ssl.experiments.pretrain import MaskedWords, pretrain
from nlp_ssl.rounds.engine import fit_rounds
from nlp_ssl.rounds.self_training import SelfTraining
from nlp_ssl.task import Task
from nlp_ssl.training.loop import TrainLoop, train
from nlp_ssl.training.run_folder import RunFolder

# Checkpoints at steps 2, 4 and 5, lines of metrics at 3 and 5: the checkpoint of step 2 holds two thirds of a line.
CONFIG = replace(FAST, max_steps=5, logging_steps=3, save_steps=2, eval_steps=2, save_total_limit=2)
Work = Callable[[Path, bool], object]  # (folder, resume)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    whole = tiny_task(tmp_path_factory.mktemp("task"), unlabeled=24)
    few = whole.data.test[:8]
    return replace(whole, data=replace(whole.data, dev=few, test=few))


def trained(task: Task) -> Work:
    method = FixMatch(threshold=0.5)
    return lambda folder, resume: train(method, task, CONFIG, folder=RunFolder(folder, resume=resume))


@contextmanager
def copied_at_every_write(folder: Path, copies: Path) -> Iterator[list[Path]]:
    """The list fills with copies of the folder as a kill after each write would leave it; repeats are left out."""
    made: list[Path] = []
    last: list[dict[str, bytes]] = [{}]

    def after(write: Callable[..., Any]) -> Callable[..., Any]:
        def written(*args: Any, **named: Any) -> Any:
            result = write(*args, **named)
            now = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            if now != last[0]:
                last[0] = now
                made.append(copies / str(len(made)))
                shutil.copytree(folder, made[-1])
            return result

        return written

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((os, "replace"), (os, "rename"), (RunFolder, "add_metrics")):
            patch.setattr(owner, name, after(getattr(owner, name)))
        yield made


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if k != "seconds"}
    return [untimed(v) for v in value] if isinstance(value, list) else value


def content(folder: Path) -> dict[str, Any]:
    """What every file of a run says, but for checkpoints."""
    said: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".json", ".jsonl"):
            lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
            said[name] = [untimed(json.loads(line)) for line in lines]
        elif path.is_file() and path.name != ".lock":
            said[name] = path.read_bytes()
    return {name: value for name, value in said.items() if "checkpoints/" not in name}


def test_a_kill_after_any_write_and_another_one_change_no_file(task: Task, tmp_path: Path) -> None:
    work = trained(task)
    with copied_at_every_write(tmp_path / "whole", tmp_path / "once") as once:
        work(tmp_path / "whole", False)
    wanted = content(tmp_path / "whole")
    assert [line["step"] for line in wanted["metrics.jsonl"]] == [2, 3, 4, 5] and len(once) > 12
    begun = next(copy for copy in once if (copy / "checkpoints/step-2").exists())  # with two steps of a line of three
    shutil.copytree(begun, tmp_path / "again")
    with copied_at_every_write(tmp_path / "again", tmp_path / "twice") as twice:
        work(tmp_path / "again", True)
    assert content(tmp_path / "again") == wanted
    for copy in [*once, *twice[::5]]:
        work(copy, True)
        assert content(copy) == wanted, copy


@pytest.mark.parametrize("step", [1, 2])
def test_a_signal_in_the_middle_of_a_line_of_metrics_changes_no_file(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    work, update = trained(task), TrainLoop.update
    work(tmp_path / "whole", False)

    def signalled(self: TrainLoop, batches: Any) -> None:
        if self.state.step + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        update(self, batches)

    monkeypatch.setattr(TrainLoop, "update", signalled)
    with pytest.raises(Interrupted):
        work(tmp_path / "cut", False)
    monkeypatch.undo()
    assert (tmp_path / f"cut/checkpoints/step-{step}").exists()
    work(tmp_path / "cut", True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["rounds", "pretrain"])
def test_killed_rounds_and_pretraining_leave_the_same_files(task: Task, tmp_path: Path, kind: str) -> None:
    def work(folder: Path, resume: bool) -> object:
        if kind == "rounds":
            method, config = SelfTraining(rounds=2, threshold=0.5), replace(CONFIG, max_steps=3)
            return fit_rounds(method, task, config, folder=RunFolder(folder, resume=resume))
        return pretrain(MaskedWords(), task, CONFIG, 3, folder=RunFolder(folder, resume=resume))

    with copied_at_every_write(tmp_path / "whole", tmp_path / "copies") as copies:
        work(tmp_path / "whole", False)
    wanted = content(tmp_path / "whole")
    begun = [copy for copy in copies if not (copy / "result.json").exists() and any(copy.glob("**/step-2"))]
    for copy in [begun[0], begun[-1], copies[-1]]:
        work(copy, True)
        assert content(copy) == wanted, copy
