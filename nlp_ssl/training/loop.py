"""The only training loop: trains any method on any task through Accelerate."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.errors import ConfigError, Interrupted
from nlp_ssl.inference.metrics import score, score_splits
from nlp_ssl.inference.predict import predict, predict_splits
from nlp_ssl.method import Method
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.text import TextNet
from nlp_ssl.ops.multilabel import known_binary
from nlp_ssl.task import Task
from nlp_ssl.training import checkpoint
from nlp_ssl.training.calibration import apply_temperature, temperature_of
from nlp_ssl.training.callbacks import Callbacks
from nlp_ssl.training.checks import check_run
from nlp_ssl.training.engine import Engine
from nlp_ssl.training.identity import applicable, flat, identity
from nlp_ssl.training.launcher import check_processes
from nlp_ssl.training.optim import make_optimizer, rate_factor, set_rates
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.training.predictions import Finish, write_predictions
from nlp_ssl.training.roles import AVERAGE, mix_seeds
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.training.signals import signals
from nlp_ssl.training.trackers import check_trackers, start_trackers
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.precision import Format, resolve
from nlp_ssl.utils.progress import bar

log = logging.getLogger("nlp_ssl")


class Start(Protocol):
    """The stage before a method."""

    def __call__(self, module: Module, number: int) -> None:
        """Changes the i-th fresh net in place, called with i = 0, 1, ..."""
        ...

    def held_out_temperature(self, method: Method, frozen_nets: Mapping[str, Module | Tensor]) -> float:
        """The temperature of runs that each did without a part of the labels, fitted on these parts."""
        ...


@dataclass
class Trained(Outcome):
    """An outcome with the trained net; None where the run was complete before, and its net is on disk alone.

    `stopped` says that a callback ended the training early.
    """

    module: Module | None = field(kw_only=True, default=None)
    stopped: bool = field(kw_only=True, default=False)


def train(
    method: Method,
    task: Task,
    config: TrainConfig,
    *,
    start: Start | None = None,
    folder: RunFolder | None = None,
    frozen_nets: Mapping[str, Module | Tensor] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trained:
    """Trains a method from nets that `start` prepares; `nlp_ssl.fit` is the way in that knows which start it is.

    Args:
        method: the method with its hyper-parameters.
        task: the rows, the net and the views.
        config: settings of the loop.
        start: the stage before the method. Not called where a checkpoint is resumed.
        folder: where metrics, checkpoints and the trained model are written; nothing is written without it.
        frozen_nets: modules for frozen nets of the method, by role, e.g. a larger teacher; they are copied. Of a net
            that reads the rows in another way its logits [U, C] for the pool. A frozen net that is not among them is a
            copy of the started student.
        callbacks: called as by `transformers.Trainer`.

    Raises:
        ConfigError: settings do not fit together, or the folder holds another run.
        RunError: the loss stopped being finite.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved first.
    """
    data = task.data
    check_processes()
    check_trackers(() if folder is None else folder.trackers, folder is not None)
    check_run(method, data, config, folder=folder is not None)
    _check_frozen(method, frozen_nets or {}, data)
    used = applicable(method, data)
    if used is not method:
        log.warning("no unlabeled rows: %s becomes supervised training", method.name)
    with nullcontext() if folder is None else folder.lock(), ExitStack() as stack:
        loop = TrainLoop(used, task, config, start, folder, frozen_nets or {}, callbacks)
        stack.callback(loop.close)
        return loop.run()


class TrainLoop:
    """The state of `fit`, from set-up to the saved model."""

    def __init__(
        self,
        method: Method,
        task: Task,
        config: TrainConfig,
        start: Start | None,
        folder: RunFolder | None,
        frozen_nets: Mapping[str, Module | Tensor],
        callbacks: Sequence[TrainerCallback],
    ) -> None:
        self.method, self.task, self.data, self.config, self.folder = method, task, task.data, config, folder
        self.start, self.frozen_nets = start, frozen_nets
        trackers = () if folder is None else folder.trackers
        self.callbacks = Callbacks(callbacks, config, None if folder is None else folder.path)
        AcceleratorState._reset_state()  # the precision of an earlier run in this process must not bind this one
        self.accelerator = Accelerator(
            mixed_precision="fp16" if config.mixed_precision == "fp16" else "no",
            log_with=list(trackers) or None,
            project_dir=None if folder is None else str(folder),
        )
        self.device = self.accelerator.device
        self.identity = identity(method, task, config, frozen_nets)
        saved = None
        if folder is not None and folder.resume:
            folder.check_same(self.identity)
            saved = self._checkpoint(folder)
        self.precision: Format = saved.meta["precision"] if saved else resolve(config.mixed_precision, self.device)
        self.engine = Engine(
            method, task, config, self.accelerator, self.precision, start=start, frozen_nets=frozen_nets, saved=saved
        )
        self.state, self.loader, self.warnings = self.engine.run, self.engine.loader, self.engine.warnings
        self.optimizer, self.names = make_optimizer(self.engine.trained, config)
        self.prepared = self.accelerator.prepare(self.optimizer)
        self.best: tuple[float, int] = (-1.0, 0)  # leading score on the dev rows, evaluations since
        self.best_weights: dict[str, Tensor] = {}
        student = self.engine.student
        self.callbacks.init_ends(
            model=student.model if isinstance(student, TextNet) else student,
            tokenizer=student.tokenizer if isinstance(student, TextNet) else None,
            optimizer=self.optimizer, main=self.accelerator.is_main_process,
        )  # fmt: skip
        if saved:
            self._restore(saved)
        if folder is not None:  # not before: a start that is refused leaves nothing
            folder.claim(self.identity)
        if trackers:
            start_trackers(self.accelerator, flat(self.identity))

    # --- set-up ---

    def _checkpoint(self, folder: RunFolder) -> checkpoint.Checkpoint | None:
        latest = checkpoint.load_latest(folder.checkpoints)
        if latest is None:
            return None
        saved, messages = latest
        for message in messages:
            log.warning(message)
        folder.check_same(self.identity, saved.meta["identity"])
        return saved

    def _restore(self, saved: checkpoint.Checkpoint) -> None:
        checkpoint.restore_optimizer(self.optimizer, self.names, saved.tensors["optimizer"])
        self.best = (saved.meta["best"][0], saved.meta["best"][1])
        self.best_weights = saved.tensors.get("best", {})
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.meta["scaler"])
        if self.folder is not None:
            self.folder.cut_metrics(saved.step)
        log.info("resumed from step %d", saved.step)

    def close(self) -> None:
        """Lets go of the nets at once: where thirty methods are compared in one process, they would fill its memory
        until the garbage collector comes by.
        """
        self.engine.close()

    # --- the loop ---

    def run(self) -> Trained:
        """Trains from the step that the state is at to the last one, and finishes the run."""
        config, state = self.config, self.state
        if state.step == 0 and self.folder is not None:
            self.folder.cut_metrics(0)
        if state.step == 0 and config.save_steps:
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
        self.callbacks.begin(first)
        with (
            signals(self.accelerator.num_processes) as caught,
            bar(self.method.name, config.max_steps) as advance,
        ):
            advance(first)
            while state.step < config.max_steps and not self._out_of_patience() and not self.callbacks.stop:
                self.callbacks.step_begins(state.step)
                self.engine.enter(state.step)
                self.update([next(batches) for _ in range(config.gradient_accumulation_steps)])
                state.step += 1
                advance()
                self.callbacks.step_ends(state.step)
                self.after_step(started, first)
                if caught:
                    if self.folder is not None:
                        self._save()
                    raise Interrupted(caught[0], self._final_module())
        seconds = time.perf_counter() - started
        self.callbacks.end(state.step, seconds)
        return self._finish(seconds)

    def update(self, micros: list[Batch]) -> None:
        """One batch in micro-batches: one or, for generator methods, several optimizer updates."""
        set_rates(self.optimizer, rate_factor(self.state.step, self.config))
        begun: list[Iterator[Losses]] = []
        more = True
        while more:
            for i, batch in enumerate(micros):
                last = i + 1 == len(micros)
                with nullcontext() if last else self.engine.wrapped.no_sync():
                    if len(begun) == i:
                        begun.append(self.engine.begin(batch, i))
                    more = self.engine.backward(begun[i]) is not None
                if more and not last:
                    self.callbacks.substep_ends(self.state.step)
            if more:
                self._apply()

    def _apply(self) -> None:
        self.engine.clip()
        self.callbacks.before_update(self.state.step)
        if self.engine.updates:
            self.prepared.step()
        self.callbacks.after_update(self.state.step)
        self.engine.after_update()
        self.prepared.zero_grad(set_to_none=True)

    def after_step(self, started: float, first: int) -> None:
        config, step = self.config, self.state.step
        if step == first + 5 and config.max_steps > step:
            seconds = (time.perf_counter() - started) / 5 * (config.max_steps - step)
            log.info("about %s left (measured on the first steps)", _duration(seconds))
        asked = self.callbacks
        if step % config.logging_steps == 0 or step == config.max_steps or asked.log:
            self._record(time.perf_counter() - started)
        if len(self.data.dev) and ((config.eval_steps and step % config.eval_steps == 0) or asked.evaluate):
            self._evaluate_dev()
        if config.save_steps and (step % config.save_steps == 0 or step == config.max_steps) or asked.save:
            self._save()

    def _record(self, seconds: float) -> None:
        line = {"step": self.state.step, "seconds": round(seconds, 3), **self.engine.record()}
        line["learning_rate"] = self.config.learning_rate * rate_factor(self.state.step - 1, self.config)
        if self.folder is not None:
            self.folder.add_metrics(line)
        self.callbacks.logged(self.state.step, line)
        self.accelerator.log({k: v for k, v in line.items() if isinstance(v, (int, float))}, step=self.state.step)

    def _evaluate_dev(self) -> None:
        module = self._final_module()
        logits = predict(module, self.data.store, self.data.dev, self.engine.context)
        scores = score(logits, self.data.labels[self.data.dev])
        line = {"step": self.state.step, f"dev_{scores.primary_name}": scores.primary}
        if self.folder is not None:
            self.folder.add_metrics(line)
        metrics = {f"eval_{scores.primary_name}": scores.primary}
        self.callbacks.logged(self.state.step, metrics)
        self.callbacks.evaluated(self.state.step, metrics)
        if scores.primary > self.best[0]:
            self.best = (scores.primary, 0)
            self.best_weights = {k: v.detach().cpu().clone() for k, v in module.state_dict().items()}
        else:
            self.best = (self.best[0], self.best[1] + 1)

    def _out_of_patience(self) -> bool:
        return self.config.patience > 0 and self.best[1] >= self.config.patience

    # --- what is written ---

    def _save(self) -> None:
        if self.folder is None:
            raise ConfigError(215, "saving a checkpoint needs an output folder, and a callback asks for one")
        tensors = self.engine.tensors()
        if self.accelerator.is_main_process:
            tensors["optimizer"] = checkpoint.flatten_optimizer(self.optimizer, self.names)
            if self.best_weights:
                tensors["best"] = self.best_weights
            meta = {
                **self.engine.meta(),
                "identity": self.identity,
                "precision": self.precision,
                "best": list(self.best),
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                "world_size": self.accelerator.num_processes,
                "torch": torch.__version__,
            }
            checkpoint.save(
                self.folder.checkpoints,
                checkpoint.Checkpoint(self.state.step, tensors, meta),
                keep=self.config.save_total_limit,
            )
        self.accelerator.wait_for_everyone()
        self.callbacks.saved(self.state.step)

    def _final_module(self) -> Module:
        return self.engine.modules.get(AVERAGE, self.engine.student)

    def _finish(self, seconds: float) -> Trained:
        module = self._final_module()
        if self.best_weights:
            module.load_state_dict(self.best_weights)
        config = self.config
        context = self.engine.context
        temperature = self._calibrate(module)
        logits = predict_splits(module, self.data, context)
        scores = score_splits(module, self.data, context, fgsm=config.eval_fgsm, logits=logits)
        module.eval()
        if self.folder is not None and self.accelerator.is_main_process:
            self.folder.save_model(module)
            torch.manual_seed(mix_seeds(config.seed, 7, 0))
            fresh, views = self.task.build(0).to(self.device), self.loader.augment
            finish = Finish(module, fresh, self.data, logits, self.state, views, config, context, temperature)
            write_predictions(self.folder.predictions, finish)
            self.folder.write_result(self.identity, Outcome(scores, self.state.step, seconds, self.warnings))
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:  # the process group stays: another run may follow in this process
            tracker.finish()
        return Trained(
            scores, self.state.step, seconds, self.warnings, module=module, stopped=self.callbacks.stop
        )  # fmt: skip

    def _calibrate(self, module: Module) -> float:
        """Makes the module's probabilities fit, as the settings say; the temperature it took, 1 for none."""
        config, data = self.config, self.data
        if config.calibrate == "none":
            return 1.0
        if config.calibrate == "dev":
            logits = predict(module, data.store, data.dev, self.engine.context)
            truth = data.labels[data.dev]
            logits, truth = (logits, truth) if data.kind == "single-label" else known_binary(logits, truth)
            temperature = temperature_of(logits.numpy(), truth)
        else:
            assert self.start is not None  # `fit` has one, also where nothing is to be started
            temperature = self.start.held_out_temperature(self.method, self.frozen_nets)
        apply_temperature(module.classifier, temperature)
        log.info("temperature %.2f", temperature)
        return temperature


def _check_frozen(method: Method, frozen_nets: Mapping[str, Module | Tensor], data: Data) -> None:
    classes = len(data.classes)
    for role, net in frozen_nets.items():
        if method.nets.get(role) != "frozen":
            frozen = [r for r, kind in method.nets.items() if kind == "frozen"]
            raise ConfigError(233, f"{method.name} takes no net {role!r}; it takes: {', '.join(frozen) or 'none'}")
        if not isinstance(net, Module | Tensor):
            raise ConfigError(
                234, f"the {role} is a {type(net).__name__} that knows no classes: give a net (of a classifier its "
                "net_), or logits as a tensor"
            )  # fmt: skip
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


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
