"""The only training loop: fits any method on any data through Accelerate."""

import contextlib
import gc
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils.data import DataLoader

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.errors import ConfigError, Interrupted, RunError
from nlp_ssl.inference.metrics import Scores, score, score_splits
from nlp_ssl.inference.predict import predict, predict_splits
from nlp_ssl.method import Method
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.nets.base import Module
from nlp_ssl.ops.multilabel import known_answers
from nlp_ssl.training import checkpoint
from nlp_ssl.training.calibration import check_calibration, cool, held_out_temperature, temperature_of
from nlp_ssl.training.checks import check_defined
from nlp_ssl.training.engine import Engine
from nlp_ssl.training.optim import make_optimizer, rate_factor, set_rates
from nlp_ssl.training.predictions import Finish, write_predictions
from nlp_ssl.training.roles import AVERAGE, mix
from nlp_ssl.training.run_folder import exclusive, save_model, signals
from nlp_ssl.training.trackers import check_trackers, start_trackers
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils import atomic
from nlp_ssl.utils.precision import Format, resolve
from nlp_ssl.utils.progress import bar

log = logging.getLogger("nlp_ssl")
_FORMER = {  # settings that version 0.1.0 called otherwise
    "schedule": "lr_scheduler_type",
    "warmup": "warmup_steps",
    "clip": "max_grad_norm",
    "accumulate": "gradient_accumulation_steps",
    "eval_every": "eval_steps",
}
IDENTITY, RESULT = "identity.json", "result.json"  # the latter is written last: with it the run is complete


@dataclass
class Outcome:
    """What a finished run came to: scores by split, steps, seconds of training, warnings of the guard."""

    scores: dict[str, Scores]
    steps: int
    seconds: float
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Outcome":
        """An outcome as it was saved.

        Raises:
            KeyError, TypeError, ValueError: something is missing or of another kind.
        """
        if not isinstance(saved["scores"], dict):
            raise TypeError("scores are of another kind")
        made = cls(
            {split: Scores.of(values) for split, values in saved["scores"].items()},
            saved["steps"],
            saved["seconds"],
            saved["warnings"],
        )
        numbers = atomic.is_count(made.steps) and atomic.is_number(made.seconds) and made.seconds >= 0
        if not numbers or not isinstance(made.warnings, list) or not all(isinstance(w, str) for w in made.warnings):
            raise ValueError("steps, seconds or warnings are of another kind")
        return made


@dataclass
class Result(Outcome):
    """An outcome with the trained module."""

    module: Module = field(kw_only=True)


def applicable(method: Method, data: Data) -> Method:
    """The method itself, or supervised training where it wants unlabeled rows and there are none."""
    wants_pool = any(view.startswith("u") for view in method.wanted_views()) and not method.pool_optional
    return Supervised() if wants_pool and not len(data.unlabeled) else method


def identity(
    method: Method, data: Data, config: TrainConfig, given: Mapping[str, Module | Tensor] | None = None
) -> dict[str, Any]:
    """What must be the same for a run to be resumed, or to count as already done."""
    method = applicable(method, data)
    made = described(method.name, asdict(method), data, config)
    if given:
        made["given"] = {
            role: fingerprint({"": net} if isinstance(net, Tensor) else net.state_dict()) for role, net in given.items()
        }
    return made


def described(name: str, options: Mapping[str, Any], data: Data, config: TrainConfig) -> dict[str, Any]:
    """The settings, rows and net of a run: what its identity is made of."""
    free = (
        "save_steps",
        "save_total_limit",
        "logging_steps",
        "dataloader_num_workers",
    )  # settings that change no result
    return {
        "method": name,
        "options": dict(options),
        "config": {k: v for k, v in asdict(config).items() if k not in free},
        "data": data.content_hash,
        "task": dict(data.origin),
    }


def finished(output_dir: Path, wanted: Mapping[str, Any]) -> Outcome | None:
    """The outcome of a completed run in the folder, or None if there is none.

    Raises:
        ConfigError: the folder holds a completed run with other settings.
    """
    saved = read_result(output_dir)
    if saved is None:
        return None
    outcome, known = saved
    check_same(output_dir, known, wanted)
    return outcome


def read_result(output_dir: Path) -> tuple[Outcome, dict[str, Any]] | None:
    """The outcome of a completed run in the folder and what the run was, or None if there is none.

    Raises:
        RunError: the file is damaged.
    """
    path = output_dir / RESULT
    if not path.exists():
        return None
    try:
        saved = atomic.read_json(path)
        return Outcome.of(saved), _identity_of(saved["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(303, f"{path} is damaged: delete it and resume again") from error


def check_same(output_dir: Path, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses to go on with what another run left in a folder, if the identity that is `known` of it is not the wanted.

    Raises:
        ConfigError: it has other settings.
    """
    if changed := differences(_renamed(known), wanted):
        raise ConfigError(
            214,
            f"{output_dir} holds a run with other settings ({'; '.join(changed)}): repeat its flags or use --overwrite",
        )


def _renamed(known: Mapping[str, Any]) -> dict[str, Any]:
    """What a run of an earlier version noted of itself, under today's names."""
    config = {_FORMER.get(name, name): value for name, value in known.get("config", {}).items()}
    return {**known, "config": config} if config else dict(known)


def claim(output_dir: Path, made: Mapping[str, Any]) -> None:
    """Notes what the run in a folder is; the first process does it.

    Raises:
        RunError: the folder cannot be written.
    """
    if not int(os.environ.get("RANK", "0")):
        atomic.write_text(output_dir / IDENTITY, json.dumps(made, indent=1))


def read_identity(output_dir: Path) -> dict[str, Any]:
    """What the run in a folder is, finished or not; empty where nobody knows."""
    with contextlib.suppress(OSError, ValueError):  # none, or a damaged one
        return _identity_of(atomic.read_json(output_dir / IDENTITY))
    return {}


def _identity_of(saved: Any) -> dict[str, Any]:
    """What a run is, as it was saved.

    Raises:
        ValueError: it is of another kind.
    """
    if not isinstance(saved, dict) or not all(
        isinstance(saved.get(k, {}), dict) for k in ("options", "config", "task")
    ):
        raise ValueError("the identity of the run is of another kind")
    seed = saved.get("config", {}).get("seed", 0)
    if not isinstance(saved.get("method", ""), str) or not isinstance(seed, int):
        raise ValueError("method or seed of the run are of another kind")
    return saved


def write_result(output_dir: Path, made: Mapping[str, Any], outcome: Outcome) -> None:
    """Marks a run as complete: what `finished` reads."""
    done = {
        "identity": made,
        "scores": {split: asdict(value) for split, value in outcome.scores.items()},
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 2),
        "warnings": outcome.warnings,
    }
    atomic.write_text(output_dir / RESULT, json.dumps(done, indent=1))


def fit(
    method: Method,
    data: Data,
    build: Callable[[int], Module],
    config: TrainConfig,
    *,
    augment: Mapping[str, Any],
    start: Callable[[Module, int], None] | None = None,
    output_dir: Path | None = None,
    resume: bool = False,
    trackers: tuple[str, ...] = (),
    given: Mapping[str, Module | Tensor] | None = None,
) -> Result:
    """Trains a method and returns the trained module with its scores.

    Args:
        method: the method with its hyper-parameters.
        data: the task's rows.
        build: makes the i-th trained net of the method; called with i = 0, 1, ...
        config: settings of the loop.
        augment: augmentation of each kind of view, {"weak": ..., "strong": ...}.
        start: the stage before the method; changes the i-th fresh module in place, called with i = 0, 1, ... Not called
            when a checkpoint is resumed.
        output_dir: where metrics, checkpoints and the trained model are written; nothing is written without it.
        resume: go on from the newest complete checkpoint in `output_dir`, if there is one.
        trackers: names of Accelerate trackers whose packages are installed.
        given: modules for frozen nets of the method, by role, e.g. a larger teacher; they are copied. Of a net that
            reads the rows in another way its logits [U, C] for the pool. A frozen net that is not given is a copy of
            the started student.

    Raises:
        ConfigError: settings do not fit together, or the folder holds another run.
        RunError: the loss stopped being finite.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved first.
    """
    if config.eval_steps and not len(data.dev):
        raise ConfigError(227, "eval_steps and patience need dev rows: give --dev, or leave them out")
    check_trackers(trackers, output_dir is not None)
    check_defined(method, data, config)
    check_calibration(config, data)
    _check_given(method, given or {}, data)
    used = applicable(method, data)
    if used is not method:
        log.warning("no unlabeled rows: %s becomes supervised training", method.name)
    with ExitStack() as stack:
        if output_dir is not None:
            stack.enter_context(exclusive(output_dir))
        # The loop, its nets and Accelerate's wrappers refer to each other in circles, which the garbage collector would
        # leave lying for many runs: one process that compared thirty methods filled 11 GB.
        stack.callback(gc.collect)
        return TrainLoop(used, data, build, config, augment, start, output_dir, resume, trackers, given or {}).run()


class TrainLoop:
    """The state of `fit`, from set-up to the saved model."""

    def __init__(
        self,
        method: Method,
        data: Data,
        build: Callable[[int], Module],
        config: TrainConfig,
        augment: Mapping[str, Any],
        start: Callable[[Module, int], None] | None,
        output_dir: Path | None,
        resume: bool,
        trackers: tuple[str, ...],
        given: Mapping[str, Module | Tensor],
    ) -> None:
        self.method, self.data, self.config, self.output_dir = method, data, config, output_dir
        self.build, self.started, self.augment, self.given = build, start is not None, augment, given
        AcceleratorState._reset_state()  # the precision of an earlier run in this process must not bind this one
        fp16 = config.mixed_precision == "fp16"
        self.accelerator = Accelerator(
            mixed_precision="fp16" if fp16 else "no",
            log_with=list(trackers) or None,
            project_dir=str(output_dir) if output_dir else None,
        )
        self.device = self.accelerator.device
        self.identity = identity(method, data, config, given)
        if output_dir is not None and resume:
            check_same(output_dir, read_identity(output_dir) or self.identity, self.identity)
        found = self._checkpoint() if resume else None
        self.precision: Format = found.meta["precision"] if found else resolve(config.mixed_precision, self.device)
        self.session = Engine(
            method,
            data,
            build,
            config,
            augment,
            self.accelerator,
            self.precision,
            start=start,
            given=given,
            found=found,
        )
        self.state, self.loader, self.warnings = self.session.run, self.session.loader, self.session.warnings
        self.optimizer, self.names = make_optimizer(self.session.trained, config)
        self.prepared = self.accelerator.prepare(self.optimizer)
        self.best: tuple[float, int] = (-1.0, 0)  # leading score on the dev rows, evaluations since
        self.best_weights: dict[str, Tensor] = {}
        if found:
            self._restore(found)
        if output_dir is not None:  # not before: a start that is refused leaves nothing
            claim(output_dir, self.identity)
        if trackers:
            start_trackers(self.accelerator, _flat(self.identity))

    # --- set-up ---

    def _checkpoint(self) -> checkpoint.Checkpoint | None:
        if self.output_dir is None:
            raise ConfigError(213, "resume needs an output folder")
        found = checkpoint.load_latest(self.output_dir / "checkpoints")
        if found is None:
            return None
        for message in found[1]:
            log.warning(message)
        check_same(self.output_dir, found[0].meta["identity"], self.identity)
        return found[0]

    def _restore(self, saved: checkpoint.Checkpoint) -> None:
        checkpoint.restore_optimizer(self.optimizer, self.names, saved.tensors["optimizer"])
        self.best = (saved.meta["best"][0], saved.meta["best"][1])
        self.best_weights = saved.tensors.get("best", {})
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.meta["scaler"])
        self._restore_metrics(saved.step)
        log.info("resumed from step %d", saved.step)

    # --- the loop ---

    def run(self) -> Result:
        config, state = self.config, self.state
        if state.step == 0:
            self._restore_metrics(0)
            if config.save_steps:
                self._save()
        batches = iter(
            DataLoader(
                self.loader,
                batch_size=None,
                sampler=range(state.step * config.gradient_accumulation_steps, len(self.loader)),
                num_workers=config.dataloader_num_workers,
                collate_fn=cast(Any, _as_it_is),
                persistent_workers=False,
            )
        )
        started, first = time.perf_counter(), state.step
        with signals(self.accelerator.num_processes) as caught, bar(self.method.name, config.max_steps) as advance:
            advance(first)
            while state.step < config.max_steps and not self._out_of_patience():
                self.session.enter(state.step)
                self._update([next(batches) for _ in range(config.gradient_accumulation_steps)])
                state.step += 1
                advance()
                self._after_step(started, first)
                if caught:
                    if self.output_dir is not None:
                        self._save()
                    raise Interrupted(caught[0])
        return self._finish(time.perf_counter() - started)

    def _update(self, micros: list[Batch]) -> None:
        """One batch in micro-batches: one or, for generator methods, several optimizer updates."""
        set_rates(self.optimizer, rate_factor(self.state.step, self.config))
        begun: list[Iterator[Losses]] = []
        more = True
        while more:
            for i, batch in enumerate(micros):
                last = i + 1 == len(micros)
                with nullcontext() if last else self.session.wrapped.no_sync():
                    if len(begun) == i:
                        begun.append(self.session.begin(batch, i))
                    more = self.session.backward(begun[i]) is not None
            if more:
                self._apply()

    def _apply(self) -> None:
        self.session.clip()
        if self.session.updates:
            self.prepared.step()
        self.session.after_update()
        self.prepared.zero_grad(set_to_none=True)

    def _after_step(self, started: float, first: int) -> None:
        config, step = self.config, self.state.step
        if step == first + 5 and config.max_steps > step:
            seconds = (time.perf_counter() - started) / 5 * (config.max_steps - step)
            log.info("about %s left (measured on the first steps)", _duration(seconds))
        if step % config.logging_steps == 0 or step == config.max_steps:
            self._record(time.perf_counter() - started)
        if config.eval_steps and step % config.eval_steps == 0 and len(self.data.dev):
            self._evaluate_dev()
        if config.save_steps and (step % config.save_steps == 0 or step == config.max_steps):
            self._save()

    def _record(self, seconds: float) -> None:
        line = {"step": self.state.step, "seconds": round(seconds, 3), **self.session.record()}
        line["learning_rate"] = self.config.learning_rate * rate_factor(self.state.step - 1, self.config)
        self._write_metrics(line)
        self.accelerator.log({k: v for k, v in line.items() if isinstance(v, (int, float))}, step=self.state.step)

    def _evaluate_dev(self) -> None:
        module = self._final_module()
        logits = predict(module, self.data.store, self.data.dev, self.config.max_length, self.session.context)
        scores = score(logits, self.data.labels[self.data.dev])
        self._write_metrics({"step": self.state.step, f"dev_{scores.leading}": scores.lead})
        if scores.lead > self.best[0]:
            self.best = (scores.lead, 0)
            self.best_weights = {k: v.detach().cpu().clone() for k, v in module.state_dict().items()}
        else:
            self.best = (self.best[0], self.best[1] + 1)

    def _out_of_patience(self) -> bool:
        return self.config.patience > 0 and self.best[1] >= self.config.patience

    # --- what is written ---

    def _save(self) -> None:
        if self.output_dir is None:
            raise ConfigError(215, "save_steps needs an output folder")
        tensors = self.session.tensors()
        if self.accelerator.is_main_process:
            tensors["optimizer"] = checkpoint.flatten_optimizer(self.optimizer, self.names)
            if self.best_weights:
                tensors["best"] = self.best_weights
            meta = {
                **self.session.meta(),
                "identity": self.identity,
                "precision": self.precision,
                "best": list(self.best),
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                "world_size": self.accelerator.num_processes,
                "torch": torch.__version__,
            }
            checkpoint.save(
                self.output_dir / "checkpoints",
                checkpoint.Checkpoint(self.state.step, tensors, meta),
                keep=self.config.save_total_limit,
            )
        self.accelerator.wait_for_everyone()

    def _write_metrics(self, line: Mapping[str, Any]) -> None:
        if self.output_dir is not None and self.accelerator.is_main_process:
            path = self.output_dir / "metrics.jsonl"
            with atomic.writing(path), path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _restore_metrics(self, step: int) -> None:
        """Drops the lines of steps that will be run again."""
        if self.output_dir is None or not self.accelerator.is_main_process:
            return
        path = self.output_dir / "metrics.jsonl"
        before = atomic.json_lines(path) if step > 0 else ()
        kept = [line for line in before if isinstance(at := line.get("step"), int) and at <= step]
        atomic.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def _final_module(self) -> Module:
        return self.session.modules.get(AVERAGE, self.session.student)

    def _finish(self, seconds: float) -> Result:
        module = self._final_module()
        if self.best_weights:
            module.load_state_dict(self.best_weights)
        config = self.config
        context = self.session.context
        temperature = self._calibrate(module)
        logits = predict_splits(module, self.data, config.max_length, context)
        scores = score_splits(module, self.data, config.max_length, context, fgsm=config.eval_fgsm, logits=logits)
        module.eval()
        if self.output_dir is not None and self.accelerator.is_main_process:
            save_model(module, self.output_dir)
            torch.manual_seed(mix(config.seed, 7, 0))
            fresh, views = self.build(0).to(self.device), self.loader.augment
            finish = Finish(module, fresh, self.data, logits, self.state, views, config, context, temperature)
            write_predictions(self.output_dir, finish)
            write_result(self.output_dir, self.identity, Outcome(scores, self.state.step, seconds, self.warnings))
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:  # the process group stays: another run may follow in this process
            tracker.finish()
        return Result(scores, self.state.step, seconds, self.warnings, module=module)

    def _calibrate(self, module: Module) -> float:
        """Makes the module's probabilities fit, as the settings say; the temperature it took, 1 for none."""
        config, data = self.config, self.data
        if config.calibrate == "none":
            return 1.0
        if config.calibrate == "dev":
            logits = predict(module, data.store, data.dev, config.max_length, self.session.context)
            truth = data.labels[data.dev]
            logits, truth = (logits, truth) if data.kind == "one" else known_answers(logits, truth)
            temperature = temperature_of(logits.numpy(), truth)
        else:
            temperature = held_out_temperature(
                self.method, data, self.build, config, self.augment, self.started, self.given
            )
        cool(module.classifier, temperature)
        log.info("temperature %.2f", temperature)
        return temperature


def _check_given(method: Method, given: Mapping[str, Module | Tensor], data: Data) -> None:
    classes = len(data.classes)
    for role, net in given.items():
        if method.nets.get(role) != "frozen":
            frozen = [r for r, kind in method.nets.items() if kind == "frozen"]
            raise ConfigError(233, f"{method.name} takes no net {role!r}; it takes: {', '.join(frozen) or 'none'}")
        known = net.shape[1] if isinstance(net, Tensor) else net.classifier.out_features
        if known != classes:
            raise ConfigError(234, f"the {role} knows {known} classes, the data have {classes}")
        if isinstance(net, Module) and net.classes not in (None, data.classes):
            raise ConfigError(
                234, f"the {role} knows the classes {', '.join(net.classes or ())}, the data have "
                f"{', '.join(data.classes)}, in this order: open it with load_text_net(FOLDER, classes)"
            )  # fmt: skip
        if isinstance(net, Tensor) and len(net) != len(data.unlabeled):
            raise ConfigError(234, f"logits of the {role} for {len(net)} rows, the pool has {len(data.unlabeled)}")


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Tells weights, or logits, apart."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for k, v in value.items():
        out |= _flat(v, f"{prefix}{k}.") if isinstance(v, Mapping) else {f"{prefix}{k}": v}
    return out


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between the identities of two runs, in words."""
    before, now = _flat(old), _flat(json.loads(json.dumps(new)))
    return [f"{k}: {before.get(k)} -> {now.get(k)}" for k in sorted({*before, *now}) if before.get(k) != now.get(k)]


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
