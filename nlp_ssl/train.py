"""The only training loop: fits any method on any data through Accelerate."""

import copy
import gc
import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import LoggerType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nlp_ssl import atomic, checkpoint, reduce
from nlp_ssl.augment.strength import Strongest
from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.loader import Loader, Sizes
from nlp_ssl.errors import ConfigError, RunError, nearest
from nlp_ssl.evaluate import Scores, features, predict, score, score_splits
from nlp_ssl.guard import Guard
from nlp_ssl.method import Batch, Losses, Method
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.nets.base import Forward, Module, Net, Recorded
from nlp_ssl.optim import make_optimizer, rate_factor, set_rates
from nlp_ssl.precision import Autocast, autocast, resolve
from nlp_ssl.process import Interrupted, exclusive, save_model, signals
from nlp_ssl.run import Run
from nlp_ssl.targets import estimate_prior
from nlp_ssl.warm import start_kind

log = logging.getLogger("nlp_ssl")
_RESULT = "result.json"  # written last: its presence means the run is complete
_TRACKERS = [kind.value for kind in LoggerType if kind is not LoggerType.ALL]
_PRIOR_ROWS = 1000  # pool rows that class shares are estimated on
_MAX_BAD_UPDATES = 5  # updates in a row that may be skipped for a gradient that is not finite


@dataclass
class Outcome:
    """What a finished run came to: scores by split, steps, seconds of training, warnings of the guard."""

    scores: dict[str, Scores]
    steps: int
    seconds: float
    warnings: list[str] = field(default_factory=list)


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
    teachers = {"given": {role: _fingerprint(module) for role, module in given.items()}} if given else {}
    return {**described(method.name, asdict(method), data, config), **teachers}


def described(name: str, options: Mapping[str, Any], data: Data, config: TrainConfig) -> dict[str, Any]:
    """The settings, rows and net of a run: what its identity is made of."""
    free = ("save_every", "keep", "log_every", "workers")  # settings that change no result
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
    path = output_dir / _RESULT
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_text())
        scores = {split: Scores(**values) for split, values in saved["scores"].items()}
        outcome = Outcome(scores, saved["steps"], saved["seconds"], saved["warnings"])
        changed = _differences(saved["identity"], wanted)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(303, f"{path} is damaged: delete it and resume again") from error
    if changed:
        raise ConfigError(
            214,
            f"{output_dir} holds a run with other settings ({'; '.join(changed)}): repeat its flags or use --overwrite",
        )
    return outcome


def write_result(output_dir: Path, made: Mapping[str, Any], outcome: Outcome) -> None:
    """Marks a run as complete: what `finished` reads."""
    done = {
        "identity": made,
        "scores": {split: asdict(value) for split, value in outcome.scores.items()},
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 2),
        "warnings": outcome.warnings,
    }
    atomic.write_text(output_dir / _RESULT, json.dumps(done, indent=1))


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
        trackers: names of Accelerate trackers.
        given: modules for frozen nets of the method, by role, e.g. a larger teacher; they are copied. Of a net that
            reads the rows in another way its logits [U, C] for the pool. A frozen net that is not given is a copy of
            the started student.

    Raises:
        ConfigError: settings do not fit together, or the folder holds another run.
        RunError: the loss stopped being finite.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved first.
    """
    if config.eval_every and not len(data.dev):
        raise ConfigError(227, "eval_every and patience need dev rows: give --dev, or leave them out")
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
        return _Loop(used, data, build, config, augment, start, output_dir, resume, trackers, given or {}).run()


class _Loop:
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
        AcceleratorState._reset_state()  # the precision of an earlier run in this process must not bind this one
        for name in trackers:
            if name not in _TRACKERS:
                raise ConfigError(207, f"unknown tracker {name!r}.{nearest(name, _TRACKERS)}")
        fp16 = config.mixed_precision == "fp16"
        self.accelerator = Accelerator(
            mixed_precision="fp16" if fp16 else "no",
            log_with=list(trackers) or None,
            project_dir=str(output_dir) if output_dir else None,
        )
        self.device = self.accelerator.device
        self.found = self._checkpoint() if resume else None
        precision = self.found.meta["precision"] if self.found else resolve(config.mixed_precision, self.device)
        self.precision = cast(str, precision)
        self.context: Autocast = autocast(precision, self.device)
        self.sizes = Sizes(
            config.batch_size,
            config.batch_size * config.unlabeled_ratio,
            self.accelerator.num_processes * config.accumulate,
        )
        self.identity = identity(method, data, config, given)
        self.modules = self._modules(build, start, given)
        self.strengths: dict[str, int] = self.found.meta["strengths"] if self.found else {}
        self.loader = Loader(
            data,
            method.wanted_views(),
            self._settled(augment),
            self.sizes,
            seed=config.seed,
            max_steps=config.max_steps,
            max_length=config.max_length,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        self.trained = {r: m for r, m in self.modules.items() if method.nets.get(r) == "trained"}
        self.optimizer, self.names = make_optimizer(self.trained, config)
        self.wrapped = {r: cast(nn.Module, self.accelerator.prepare(m)) for r, m in self.trained.items()}
        for module in self.wrapped.values():  # of Accelerate's fp16 the scaler only: nets choose their own autocast
            self.accelerator.unwrap_model(module, keep_fp32_wrapper=False)
        self.prepared = self.accelerator.prepare(self.optimizer)
        self.nets = {r: Net(m, self.wrapped.get(r), self.context) for r, m in self.modules.items() if r in method.nets}
        recorded = {r: cast(Forward, Recorded(v.to(self.device))) for r, v in given.items() if isinstance(v, Tensor)}
        self.state = Run(
            method,
            {**self.nets, **recorded},
            data.spec,
            max_steps=config.max_steps,
            predict=lambda role, block: self._of_block(predict, role, block).softmax(-1),
            features=lambda role, block: self._of_block(features, role, block),
            labels=self._labels(),
        )
        self.state.state = {k: v.to(self.device) for k, v in method.init_state(data.spec).items()}
        self._bind_policy(augment)
        self._estimate_prior(start is not None)
        self.guard = Guard(len(data.classes), self.state.spec.prior)
        self.warnings = self._untrained(started=start is not None, given=given)
        self.bad_updates = 0
        self.best: tuple[float, int] = (-1.0, 0)  # dev accuracy, evaluations since
        self.best_weights: dict[str, Tensor] = {}
        if self.found:
            self._restore(self.found)
        self.found = None
        if trackers:
            self.accelerator.init_trackers("nlp_ssl", config=_flat(self.identity))

    # --- set-up ---

    def _modules(
        self,
        build: Callable[[int], Module],
        start: Callable[[Module, int], None] | None,
        given: Mapping[str, Module | Tensor],
    ) -> dict[str, Module]:
        """Trained nets first, then copies for the others; "average" is the engine's own weight average."""
        modules: dict[str, Module] = {}
        roles = self.method.nets
        for i, role in enumerate(r for r, kind in roles.items() if kind == "trained"):
            torch.manual_seed(_mix(self.config.seed, 7, i))
            modules[role] = build(i).to(self.device)
            if start is not None and self.found is None:
                start(modules[role], i)
            torch.manual_seed(_mix(self.config.seed, 8, i))
            modules[role].attach(self.method.wanted_heads())
        first = modules[self.method.default_net()]
        for role in (r for r, kind in roles.items() if kind != "trained"):
            other = given.get(role, first)
            if not isinstance(other, Tensor):
                modules[role] = _still(other).to(self.device)
        if self.config.eval_ema_decay:
            modules["average"] = _still(first)
        for role, module in modules.items():
            module.train(roles.get(role) != "frozen")  # statistics of a frozen net's norms are those it was made with
        return modules

    def _untrained(self, started: bool, given: Mapping[str, Module | Tensor]) -> list[str]:
        """A warning where the frozen nets are copies of a student that nothing has trained yet."""
        copied = [role for role, kind in self.method.nets.items() if kind == "frozen" and role not in given]
        started = started and start_kind(self.modules[self.method.default_net()], self.config) != "none"
        if started or not copied:
            return []
        warning = (
            f"{self.method.name}: the {' and '.join(copied)} is a copy of the student before training: add "
            "--warm-start supervised, or start from a model that is trained already"
        )
        if self.found is None:
            log.warning("%s", warning)
        return [warning]

    def _settled(self, augment: Mapping[str, Any]) -> dict[str, Any]:
        """The augmentations with a fixed strength: chosen once, with the started model, and kept in checkpoints."""
        settled = dict(augment)
        for kind in set(self.method.wanted_views().values()):
            if kind not in settled:
                raise ConfigError(274, f"{self.method.name} needs a {kind} view, this task has {', '.join(settled)}")
            wanted = settled[kind]
            if isinstance(wanted, Strongest):
                if kind not in self.strengths:
                    module = self.modules[self.method.default_net()]
                    self.strengths[kind] = wanted.settle(
                        module, self.data, self.config.max_length, self.config.seed, self.context
                    )
                settled[kind] = wanted.candidates[self.strengths[kind]]
        return settled

    def _estimate_prior(self, started: bool) -> None:
        """Class shares of the pool as the started model sees them; a model without a start has no idea of them."""
        if self.found is not None:
            prior = self.found.meta["prior"]
            self.state.spec = replace(self.data.spec, prior=None if prior is None else tuple(prior))
            return
        module = self.modules[self.method.default_net()]
        self.state.spec = replace(self.data.spec, prior=None)
        known = started and start_kind(module, self.config) != "none"
        if self.config.align and self.loader.uses_pool and (known or self.data.prior):
            seed = (self.config.seed, 6)
            rows = np.random.default_rng(seed).permutation(self.data.unlabeled)[:_PRIOR_ROWS]
            p = predict(module, self.data.store, rows, self.config.max_length, self.context).softmax(-1)
            prior = self.data.prior or estimate_prior(p, torch.from_numpy(self.data.labeled_shares()))
            self.state.spec = replace(self.data.spec, prior=prior)
            self.state.state["pool_mean"] = p.mean(0).to(self.device)
            log.info("class shares of the pool: %s", " ".join(f"{s:.2f}" for s in prior))

    def _checkpoint(self) -> checkpoint.Checkpoint | None:
        if self.output_dir is None:
            raise ConfigError(213, "resume needs an output folder")
        found = checkpoint.load_latest(self.output_dir / "checkpoints")
        if found is None:
            return None
        for message in found[1]:
            log.warning(message)
        return found[0]

    def _restore(self, saved: checkpoint.Checkpoint) -> None:
        changed = _differences(saved.meta["identity"], self.identity)
        if changed:
            raise ConfigError(214, f"cannot resume: the run was started with other settings ({'; '.join(changed)})")
        for role, module in self.modules.items():
            module.load_state_dict(saved.tensors[f"net.{role}"])
        checkpoint.restore_optimizer(self.optimizer, self.names, saved.tensors["optimizer"])
        self.state.state = {k: v.to(self.device) for k, v in saved.tensors.get("state", {}).items()}
        self.state.step = saved.step
        self.best = (saved.meta["best"][0], saved.meta["best"][1])
        self.best_weights = saved.tensors.get("best", {})
        self.warnings = list(saved.meta["warnings"])
        self.bad_updates = saved.meta["bad_updates"]
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.meta["scaler"])
        self.guard.seen = dict(saved.meta["guard"])
        self._restore_metrics(saved.step)
        log.info("resumed from step %d", saved.step)

    # --- the loop ---

    def run(self) -> Result:
        config, state = self.config, self.state
        if state.step == 0:
            self._restore_metrics(0)
            if config.save_every:
                self._save()
        batches = iter(
            DataLoader(
                self.loader,
                batch_size=None,
                sampler=range(state.step * config.accumulate, len(self.loader)),
                num_workers=config.workers,
                collate_fn=cast(Any, _as_it_is),
                persistent_workers=False,
            )
        )
        started, first = time.perf_counter(), state.step
        with signals(self.accelerator.num_processes) as caught, self._bar() as tick:
            while state.step < config.max_steps and not self._out_of_patience():
                state.epoch = self.loader.epoch(state.step)
                if state.step % self.method.refresh_steps(self.loader.steps_per_epoch) == 0:
                    self.method.begin_epoch(state)
                self._update([_to(next(batches), self.device) for _ in range(config.accumulate)])
                state.step += 1
                tick(state.step)
                self._after_step(started, first)
                if caught:
                    if self.output_dir is not None:
                        self._save()
                    raise Interrupted(caught[0])
        return self._finish(time.perf_counter() - started)

    def _update(self, micros: list[Batch]) -> None:
        """One batch in micro-batches: one or, for generator methods, several optimizer updates."""
        set_rates(self.optimizer, rate_factor(self.state.step, self.config))
        world = self.accelerator.num_processes
        parts = [i * world + self.accelerator.process_index for i in range(len(micros))]
        seeds = [_mix(self.config.seed, 11, self.state.step, part) for part in parts]
        runs: list[Iterator[Losses] | None] = [None] * len(micros)
        more = True
        while more:
            for i, batch in enumerate(micros):
                with ExitStack() as stack:
                    if i + 1 < len(micros):
                        for module in self.wrapped.values():
                            stack.enter_context(self.accelerator.no_sync(module))
                    if runs[i] is None:
                        torch.manual_seed(seeds[i])
                        out = self.method.step(self.state, batch)
                        runs[i] = out if isinstance(out, Iterator) else iter([out])
                    losses = next(cast(Iterator[Losses], runs[i]), None)
                    if losses is None:
                        more = False
                        continue
                    total = torch.stack([v.float() for v in losses.values()]).sum()
                    self.accelerator.backward(total / len(micros))
                for name, value in losses.items():
                    self.state.log(name, value)
                self.state.log("loss", total)
            if more:
                self._apply()

    def _apply(self) -> None:
        """Clips, checks and applies the gradients, then moves the averaged nets."""
        self.accelerator.unscale_gradients()  # once for all nets: they share an optimizer
        norms = []
        for module in self.trained.values():
            parameters = [p for p in module.parameters() if p.grad is not None]
            if parameters:
                norms.append(nn.utils.clip_grad_norm_(parameters, self.config.clip or float("inf")))
        norm = torch.stack(norms).max()
        scaler = self.accelerator.scaler
        # The one host sync of a step. Gradients are summed over ranks by now, so all ranks decide alike.
        finite = bool(torch.isfinite(norm))
        if finite or scaler is not None:
            self.prepared.step()  # a scaler leaves out what is not finite by itself, and lowers its scale
        first = self.modules[self.method.default_net()]
        if finite and any(p.grad is not None for p in first.parameters()):  # not after another net's update
            self._move_averages()
        # A scaler skips updates while it looks for its scale; below 1 it is no longer the scale that overflows.
        if finite or (scaler is not None and scaler.get_scale() >= 1.0):
            self.bad_updates = 0
        else:
            self._count_bad_update()
        self.state.log("grad_norm", norm)
        self.prepared.zero_grad(set_to_none=True)

    def _count_bad_update(self) -> None:
        self.bad_updates += 1
        log.warning("step %d: gradient is not finite, update skipped", self.state.step)
        if self.bad_updates >= _MAX_BAD_UPDATES:
            raise RunError(
                301,
                f"the loss was not finite {self.bad_updates} times in a row up to step {self.state.step}: "
                "lower the learning rate, or use --mixed-precision no",
            )

    def _move_averages(self) -> None:
        first = self.modules[self.method.default_net()]
        step = self.state.step + 1
        for role, module in self.modules.items():
            if self.method.nets.get(role) == "ema":
                update_average(module, first, self.method.ema(step))
        if "average" in self.modules:
            update_average(self.modules["average"], first, min(1 - 1 / (step + 1), self.config.eval_ema_decay))

    def _after_step(self, started: float, first: int) -> None:
        config, step = self.config, self.state.step
        if step == first + 5 and config.max_steps > step:
            seconds = (time.perf_counter() - started) / 5 * (config.max_steps - step)
            log.info("about %s left (measured on the first steps)", _duration(seconds))
        if step % config.log_every == 0 or step == config.max_steps:
            self._record(time.perf_counter() - started)
        if config.eval_every and step % config.eval_every == 0 and len(self.data.dev):
            self._evaluate_dev()
        if config.save_every and (step % config.save_every == 0 or step == config.max_steps):
            self._save()

    def _record(self, seconds: float) -> None:
        means = {k: reduce.total(v.to(self.device)) / reduce.world_size() for k, v in self.state.flush().items()}
        line: dict[str, Any] = {k: v.tolist() for k, v in means.items()}
        known, right = line.pop("pseudo_known", 0.0), line.pop("pseudo_right", 0.0)
        if known:
            line["pseudo_accuracy"] = right / known
        for net in self.nets.values():
            if net.computed_tokens:
                line["padding_fraction"] = 1 - net.real_tokens / net.computed_tokens
                net.real_tokens = net.computed_tokens = 0
        line = {"step": self.state.step, "seconds": round(seconds, 3), **line}
        line["learning_rate"] = self.config.learning_rate * rate_factor(self.state.step - 1, self.config)
        if self.config.guard and (warning := self.guard.check(line, self.state.progress)):
            self.warnings.append(f"step {self.state.step}: {warning}")
            log.warning("step %d: %s", self.state.step, warning)
        self._write_metrics(line)
        self.accelerator.log({k: v for k, v in line.items() if isinstance(v, (int, float))}, step=self.state.step)

    def _evaluate_dev(self) -> None:
        module = self._final_module()
        logits = predict(module, self.data.store, self.data.dev, self.config.max_length, self.context)
        accuracy = score(logits, self.data.labels[self.data.dev]).accuracy
        self._write_metrics({"step": self.state.step, "dev_accuracy": accuracy})
        if accuracy > self.best[0]:
            self.best = (accuracy, 0)
            self.best_weights = {k: v.detach().cpu().clone() for k, v in module.state_dict().items()}
        else:
            self.best = (self.best[0], self.best[1] + 1)

    def _out_of_patience(self) -> bool:
        return self.config.patience > 0 and self.best[1] >= self.config.patience

    # --- what is written ---

    def _save(self) -> None:
        if self.output_dir is None:
            raise ConfigError(215, "save_every needs an output folder")
        if self.accelerator.is_main_process:
            tensors = {f"net.{role}": dict(module.state_dict()) for role, module in self.modules.items()}
            tensors["optimizer"] = checkpoint.flatten_optimizer(self.optimizer, self.names)
            tensors["state"] = self.state.state
            if self.best_weights:
                tensors["best"] = self.best_weights
            meta = {
                "identity": self.identity,
                "precision": self.precision,
                "strengths": self.strengths,
                "prior": self.state.spec.prior,
                "best": list(self.best),
                "warnings": self.warnings,
                "bad_updates": self.bad_updates,
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                "guard": self.guard.seen,
                "world_size": self.accelerator.num_processes,
                "torch": torch.__version__,
            }
            checkpoint.save(
                self.output_dir / "checkpoints",
                checkpoint.Checkpoint(self.state.step, tensors, meta),
                keep=self.config.keep,
            )
        self.accelerator.wait_for_everyone()

    def _write_metrics(self, line: Mapping[str, Any]) -> None:
        if self.output_dir is not None and self.accelerator.is_main_process:
            with (self.output_dir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _restore_metrics(self, step: int) -> None:
        """Drops the lines of steps that will be run again."""
        if self.output_dir is None or not self.accelerator.is_main_process:
            return
        path = self.output_dir / "metrics.jsonl"
        kept = []
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            try:
                if json.loads(line)["step"] <= step and step > 0:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):  # the last line of a killed run may be cut
                continue
        atomic.write_text(path, "".join(kept))

    def _final_module(self) -> Module:
        return self.modules.get("average", self.modules[self.method.default_net()])

    def _finish(self, seconds: float) -> Result:
        module = self._final_module()
        if self.best_weights:
            module.load_state_dict(self.best_weights)
        config = self.config
        scores = score_splits(module, self.data, config.max_length, self.context, fgsm=config.eval_fgsm)
        module.eval()
        if self.output_dir is not None and self.accelerator.is_main_process:
            save_model(module, self.output_dir)
            write_result(self.output_dir, self.identity, Outcome(scores, self.state.step, seconds, self.warnings))
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:  # the process group stays: another run may follow in this process
            tracker.finish()
        return Result(scores, self.state.step, seconds, self.warnings, module=module)

    def _of_block(self, what: Callable[..., Tensor], role: str, block: str) -> Tensor:
        """Predictions or features of all rows of a block, the same on every rank and whatever came before."""
        at = self.data.labeled if block == "x" else self.data.unlabeled
        return what(self.modules[role], self.data.store, at, self.config.max_length, self.context).to(self.device)

    def _labels(self) -> Tensor:
        """Labels of all labeled rows."""
        if self.data.targets is not None:
            return torch.from_numpy(self.data.targets).float().to(self.device)
        return torch.from_numpy(self.data.labels[self.data.labeled]).to(self.device)

    def _bind_policy(self, augment: Mapping[str, Any]) -> None:
        """Lets the controlled view read the rates that the method steers."""
        if "controlled" not in self.method.wanted_views().values():
            return
        if self.config.workers:
            raise ConfigError(275, "a view that learns its strength needs the batches in order: use --workers 0")
        policy = augment["controlled"]
        self.state.policy = policy
        self.state.state["rates"] = policy.initial_rates()
        self.loader.augment = {
            **self.loader.augment, "controlled": policy.bound(lambda: self.state.state["rates"].cpu().numpy())
        }  # fmt: skip

    @contextmanager
    def _bar(self) -> Iterator[Callable[[int], None]]:
        if not sys.stderr.isatty() or not self.accelerator.is_main_process:
            yield lambda step: None
            return
        columns = (TextColumn(self.method.name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True) as progress:
            task = progress.add_task(self.method.name, total=self.config.max_steps)
            yield lambda step: progress.update(task, completed=step)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Weights and float buffers become decay * average + (1 - decay) * module; other buffers are copied."""
    old, new = average.state_dict(), module.state_dict()
    floats = [k for k, v in new.items() if v.is_floating_point()]
    torch._foreach_lerp_([old[k] for k in floats], [new[k] for k in floats], 1.0 - decay)
    for name in new.keys() - set(floats):
        old[name].copy_(new[name])


def _still(module: Module) -> Module:
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


def _check_given(method: Method, given: Mapping[str, Module | Tensor], data: Data) -> None:
    classes = len(data.classes)
    for role, net in given.items():
        if method.nets.get(role) != "frozen":
            frozen = [r for r, kind in method.nets.items() if kind == "frozen"]
            raise ConfigError(233, f"{method.name} takes no net {role!r}; it takes: {', '.join(frozen) or 'none'}")
        known = net.shape[1] if isinstance(net, Tensor) else net.classifier.out_features
        if known != classes:
            raise ConfigError(234, f"the {role} knows {known} classes, the data have {classes}")
        if isinstance(net, Tensor) and len(net) != len(data.unlabeled):
            raise ConfigError(234, f"logits of the {role} for {len(net)} rows, the pool has {len(data.unlabeled)}")


def _fingerprint(net: Module | Tensor) -> str:
    """Tells nets of other weights, and other logits, apart."""
    found = hashlib.sha256()
    for name, value in {"": net}.items() if isinstance(net, Tensor) else net.state_dict().items():
        found.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _mix(*parts: int) -> int:
    """A seed that is a pure function of its parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _to(batch: Batch, device: torch.device) -> Batch:
    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        return {k: move(v) for k, v in value.items()} if isinstance(value, dict) else value

    return cast(Batch, {k: move(v) for k, v in batch.items()})


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for k, v in value.items():
        out |= _flat(v, f"{prefix}{k}.") if isinstance(v, Mapping) else {f"{prefix}{k}": v}
    return out


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, now = _flat(old), _flat(json.loads(json.dumps(new)))
    return [f"{k}: {before.get(k)} -> {now.get(k)}" for k in sorted({*before, *now}) if before.get(k) != now.get(k)]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
