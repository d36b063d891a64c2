"""The folder of a run: what its files are called, what the run in it is, and whether it is complete."""

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.nets.base import Module
from nlp_ssl.training.identity import as_identity, differences
from nlp_ssl.training.model_files import (
    MODEL_FILES,
    PREDICTIONS,
    STAGING,
    copy_model,
    has_model,
    remove_model,
    save_model,
)
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.utils import atomic
from nlp_ssl.utils.lock import LOCK, exclusive
from nlp_ssl.utils.ranks import is_main

CARD_MARK = "<!-- nlp-ssl model card: take this line out to keep a text of your own -->"
_SEED, _ROUND = "seed-", "round-"


class RunFolder:
    """The folder of one run, or of the runs of several seeds.

    Args:
        path: the folder; it need not exist.
        resume: go on where an earlier run in it stopped, and do not repeat what is complete.
        trackers: names of Accelerate trackers whose packages are installed, e.g. "tensorboard".

    Attributes:
        identity, result: what the run is, written at its start, and what it came to, written last: with it the run is
            complete.
        metrics, rounds, trials: a line for each logged step, round, and finished run of a choice of settings.
        checkpoints, tuning: folders of checkpoints, and of the run under way of a choice of settings.
        start: what the warm start scored.
        saved: whose model is in the folder, where several were trained.
        predictions, report, card, out_of_scope, encoder, pseudo_labels: files for those who come later.
    """

    def __init__(self, path: str | Path, *, resume: bool = False, trackers: tuple[str, ...] = ()) -> None:
        self.path, self.resume, self.trackers = Path(path), resume, trackers
        self._checked = False  # that nothing in it would be lost
        self.identity = self.path / "identity.json"
        self.result = self.path / "result.json"
        self.metrics = self.path / "metrics.jsonl"
        self.start = self.path / "start.json"
        self.rounds = self.path / "rounds.jsonl"
        self.trials = self.path / "tuning.jsonl"
        self.tuning = self.path / "tuning"
        self.checkpoints = self.path / "checkpoints"
        self.predictions = self.path / PREDICTIONS
        self.pseudo_labels = self.path / "pseudo_labels.parquet"
        self.out_of_scope = self.path / "out_of_scope.parquet"
        self.encoder = self.path / "encoder.safetensors"
        self.report = self.path / "report.html"
        self.card = self.path / "README.md"
        self.saved = self.path / "saved.json"

    def __str__(self) -> str:
        return str(self.path)

    # --- folders within ---

    def within(self, name: str) -> "RunFolder":
        """A run in a folder of this one, resumed as this one is."""
        return RunFolder(self.path / name, resume=self.resume, trackers=self.trackers)

    @property
    def baseline(self) -> "RunFolder":
        """The run on the labels alone; it is not tracked."""
        return RunFolder(self.path / "baseline", resume=self.resume)

    def of_seed(self, seed: int) -> "RunFolder":
        """The run of a seed, where there are several."""
        return self.within(f"{_SEED}{seed}")

    def of_round(self, number: int) -> "RunFolder":
        """The teacher (0) or the student of a round (1, 2, ...)."""
        return self.within(f"{_ROUND}{number}")

    def seeds(self) -> dict[int, "RunFolder"]:
        """The folders of seeds that are there, in their order."""
        return {seed: self.of_seed(seed) for seed in self._numbers(_SEED)}

    def last_round(self) -> "RunFolder | None":
        """The last round's folder, if there is one."""
        numbers = self._numbers(_ROUND)
        return self.of_round(numbers[-1]) if numbers else None

    def _numbers(self, prefix: str) -> list[int]:
        names = (path.name.removeprefix(prefix) for path in self.path.glob(f"{prefix}*"))
        return sorted(int(name) for name in names if name.isdecimal())

    # --- which run it is, and whether it is complete ---

    def lock(self) -> AbstractContextManager[None]:
        """Holds the folder: two runs cannot share one.

        Raises:
            ConfigError: another run holds it, or the folder cannot be written.
        """
        return exclusive(self.path)

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Notes what the run in the folder is; the first process does it.

        Raises:
            RunError: the folder cannot be written.
        """
        if is_main():
            atomic.write_text(self.identity, json.dumps(identity, indent=1))

    def read_identity(self) -> dict[str, Any]:
        """What the run in the folder is, finished or not; empty where nothing says so."""
        with contextlib.suppress(OSError, ValueError):  # none, or a damaged one
            return as_identity(atomic.read_json(self.identity))
        return {}

    def check_same(self, wanted: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> None:
        """Refuses to go on with what a run of another identity left; `known` is that of the folder if not given.

        Raises:
            ConfigError: it has other settings.
        """
        known = as_identity(dict(known)) if known is not None else self.read_identity() or wanted
        if changed := differences(known, wanted):
            raise ConfigError(
                214,
                f"{self} holds a run with other settings ({'; '.join(changed)}): repeat its flags or use --overwrite",
            )

    def finished(self, wanted: Mapping[str, Any]) -> Outcome | None:
        """The outcome of a run that is complete, where it is to be resumed; None if there is none.

        Raises:
            ConfigError: the run has other settings.
            RunError: its result is damaged.
        """
        saved = self.read_result() if self.resume else None
        if saved is None:
            return None
        self.check_same(wanted, saved[1])
        return saved[0]

    def read_result(self) -> tuple[Outcome, dict[str, Any]] | None:
        """The outcome of the complete run in the folder and its identity, or None if there is none.

        Raises:
            RunError: the file is damaged.
        """
        if not self.result.exists():
            return None
        try:
            saved = atomic.read_json(self.result)
            return Outcome.of(saved), as_identity(saved["identity"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(303, f"{self.result} is damaged: delete it and resume again") from error

    def write_result(self, identity: Mapping[str, Any], outcome: Outcome) -> None:
        """Marks the run as complete; the first process does it."""
        if is_main():
            saved = {
                "identity": identity,
                "scores": {split: asdict(value) for split, value in outcome.scores.items()},
                "steps": outcome.steps,
                "seconds": round(outcome.seconds, 2),
                "warnings": outcome.warnings,
            }
            atomic.write_text(self.result, json.dumps(saved, indent=1))

    # --- lines ---

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the metrics; the first process does it."""
        if is_main():
            with atomic.writing(self.metrics), self.metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Drops the lines after a step, which will be run again; the first process does it."""
        if is_main():
            before = atomic.json_lines(self.metrics) if step > 0 else ()
            kept = [line for line in before if isinstance(at := line.get("step"), int) and at <= step]
            atomic.write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    # --- the model ---

    def save_model(self, module: Module) -> None:
        """Writes the model's files, each whole or not at all; the first process does it.

        Raises:
            RunError: the disk is full, or the folder cannot be written.
        """
        if is_main():
            save_model(module, self.path)

    def copy_model(self, source: "RunFolder", *, predictions: bool = True) -> None:
        """Puts a finished run's model files here, each whole or not at all; the first process does it.

        Raises:
            RunError: the disk is full, or the folder cannot be written.
        """
        copy_model(source.path, self.path, predictions=predictions)

    def has_model(self) -> bool:
        """Whether there is a whole model in the folder."""
        return has_model(self.path)

    def remove_model(self) -> None:
        """Removes the model's weights and what goes with them; results and predictions stay.

        Raises:
            RunError: a file cannot be removed.
        """
        remove_model(self.path)

    # --- starting over ---

    def is_run(self) -> bool:
        """Whether a run left something in the folder itself."""
        return any(path.is_file() for path in (self.result, self.metrics, self.rounds))

    def check(self, *, overwrite: bool = False, models: Iterable[str | Path | None] = ()) -> None:
        """Refuses a folder that holds something, unless an earlier run in it is to be resumed or replaced.

        Of several processes the first one checks: before the others look, it may already have written.

        Raises:
            ConfigError: the folder is not empty, not a folder or cannot be looked into, or replacing what is in it
                would remove other things than a run, or one of the `models` that the new run begins from.
        """
        if self.resume and overwrite:
            raise ConfigError(208, "--resume goes on with a run, --overwrite replaces it: give one of the two")
        if not is_main():
            return
        try:
            held = [path for path in self.path.iterdir() if path.name != LOCK] if self.path.exists() else []
        except NotADirectoryError as error:
            raise ConfigError(218, f"{self} is not a folder: choose another --output-dir") from error
        except OSError as error:
            raise ConfigError(216, f"cannot use {self}: {error.strerror}; choose another --output-dir") from error
        if held and not (self.resume or overwrite):
            raise ConfigError(219, f"{self} is not empty: use --resume, --overwrite or another --output-dir")
        if held and overwrite:
            self._check_lost(self._files(), models)
        elif held:  # resumed
            self._check_lost(self._model_files())
        self._checked = True

    def check_free(self, *, overwrite: bool = False) -> None:
        """Refuses a folder where the run would write over another one or somebody's model, unless `check` has passed.

        Raises:
            ConfigError: it would.
        """
        if self._checked or not is_main():
            return
        if overwrite:
            self._check_lost(self._files())
        elif self.resume or not self._files():
            self._check_lost(self._model_files())
        else:
            raise ConfigError(
                219, f"{self} is not empty, it holds a {self._files()[0].name}: choose another folder, or go on with "
                "its run by RunFolder(folder, resume=True)"
            )  # fmt: skip

    def _check_lost(self, lost: Sequence[Path], models: Iterable[str | Path | None] = ()) -> None:
        if lost and not self._holds_run():
            raise ConfigError(
                219, f"{self} holds no run, but a {lost[0].name}, which would be lost: choose another --output-dir"
            )
        for model in models:
            place = None if model is None else Path(model).resolve()
            if place and (place == self.path.resolve() or any(place.is_relative_to(path.resolve()) for path in lost)):
                raise ConfigError(219, f"{model} is among what --overwrite removes: choose another --output-dir")

    def clear(self) -> None:
        """Removes an earlier run, and nothing else in the folder; the first process does it.

        Raises:
            ConfigError: a run in the folder is still going on, or its files cannot be removed.
        """
        if not self.path.is_dir() or not is_main():
            return
        for lock in sorted(self.path.glob(f"**/{LOCK}")):
            with exclusive(lock.parent):
                pass
        if not self._holds_run():
            return
        try:
            for path in self._files():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            if self.has_our_card():
                self.card.unlink()
        except OSError as error:
            raise ConfigError(216, f"cannot empty {self}: {error.strerror}; choose another --output-dir") from error

    def has_our_card(self) -> bool:
        """Whether the model card there is one that a run wrote."""
        return self.card.is_file() and CARD_MARK in self.card.read_text(encoding="utf-8", errors="replace")

    def _holds_run(self) -> bool:
        """Whether a run left something in the folder, or in one of its folders."""
        places = ("", "baseline/", f"{_ROUND}0/", f"{_SEED}*/", f"{_SEED}*/*/")  # a seed's run, or a stage of it
        signs = (self.identity.name, self.result.name, self.start.name, self.trials.name)
        return any(path.is_file() for place in places for sign in signs for path in self.path.glob(place + sign))

    def _model_files(self) -> list[Path]:
        """The files of a model that are in the folder."""
        return [path for name in MODEL_FILES for path in self.path.glob(name)]

    def _files(self) -> list[Path]:
        """The files and folders of a run, and of its model, that are in the folder."""
        files = (
            self.identity, self.metrics, self.result, self.start, self.out_of_scope, self.rounds, self.trials,
            self.report, self.saved,
        )  # fmt: skip
        folders = (self.checkpoints, self.baseline.path, self.tuning)
        numbered = (f"{_SEED}[0-9]*", f"{_ROUND}[0-9]*")
        names = (*(p.name for p in files), *MODEL_FILES, f"{STAGING}*", *(p.name for p in folders), *numbered)
        return [path for name in names for path in self.path.glob(name)]


def free_folder(folder: str | Path | RunFolder | None, *, overwrite: bool = False) -> RunFolder | None:
    """Where a run is written that Python asks for: nowhere, or a folder in which nothing is lost.

    Raises:
        ConfigError: something would be lost.
    """
    place = folder if folder is None or isinstance(folder, RunFolder) else RunFolder(folder)
    if place is not None:
        place.check_free(overwrite=overwrite)
    return place
