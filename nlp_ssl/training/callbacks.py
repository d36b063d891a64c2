"""Callbacks written for `transformers.Trainer`, called at the same moments of the training loop."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.opening import quiet


class Callbacks:
    """Calls them; `stop`, `save`, `log` and `evaluate` are what they asked for at the end of the last step.

    The whole training is one epoch. Made before the loop has its accelerator: `TrainingArguments` sets one up.
    """

    def __init__(self, callbacks: Sequence[TrainerCallback], config: TrainConfig, folder: Path | None) -> None:
        if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
            raise ConfigError(486, f"callbacks is {callbacks!r}, no list of callbacks: give callbacks=[...]")
        for callback in callbacks:
            if not isinstance(callback, TrainerCallback):
                raise ConfigError(486, f"{callback!r} is no callback: give instances of transformers.TrainerCallback")
        self.callbacks = list(callbacks)
        self.handler: Any = None
        self.control = TrainerControl()
        self.state = TrainerState(
            max_steps=config.max_steps, num_train_epochs=1, train_batch_size=config.batch_size,
            logging_steps=config.logging_steps, eval_steps=config.eval_steps, save_steps=config.save_steps,
        )  # fmt: skip
        self.args = TrainingArguments(
            output_dir=str(folder or "."), max_steps=config.max_steps, learning_rate=config.learning_rate,
            weight_decay=config.weight_decay, logging_steps=config.logging_steps, seed=config.seed,
            gradient_accumulation_steps=config.gradient_accumulation_steps, max_grad_norm=config.max_grad_norm,
            per_device_train_batch_size=config.batch_size, save_strategy="no", report_to=[], disable_tqdm=True,
        ) if callbacks else None  # fmt: skip

    @property
    def stop(self) -> bool:
        """Whether one of them wants the training to end."""
        return self.control.should_training_stop or self.control.should_epoch_stop

    @property
    def save(self) -> bool:
        """Whether one of them wants a checkpoint."""
        return self.control.should_save

    @property
    def log(self) -> bool:
        """Whether one of them wants a line of metrics."""
        return self.control.should_log

    @property
    def evaluate(self) -> bool:
        """Whether one of them wants the dev rows scored."""
        return self.control.should_evaluate

    def init_ends(
        self, *, model: torch.nn.Module, tokenizer: Any, optimizer: torch.optim.Optimizer, main: bool
    ) -> None:
        """The loop is set up; the callbacks are handed what it trains."""
        self.state.is_local_process_zero = self.state.is_world_process_zero = main
        if self.callbacks:
            handler: Any = CallbackHandler  # has no types
            with quiet():  # it misses a callback that says when to log, which is the loop's own business
                self.handler = handler(self.callbacks, model, tokenizer, optimizer, None)
        self._call("on_init_end", 0)

    def begin(self, step: int) -> None:
        """Training begins, at this step."""
        self._call("on_train_begin", step)
        self._call("on_epoch_begin", step)

    def step_begins(self, step: int) -> None:
        """A step begins, after so many others."""
        self.control.should_save = self.control.should_log = self.control.should_evaluate = False
        self._call("on_step_begin", step)

    def substep_ends(self, step: int) -> None:
        """A micro-batch of the step is done, and it is not the last one."""
        self._call("on_substep_end", step)

    def before_update(self, step: int) -> None:
        """Gradients are clipped; the optimizer comes next."""
        self._call("on_pre_optimizer_step", step)

    def after_update(self, step: int) -> None:
        """The optimizer has made its update; gradients are still there."""
        self._call("on_optimizer_step", step)

    def step_ends(self, step: int) -> None:
        """So many steps are done."""
        self._call("on_step_end", step)

    def logged(self, step: int, line: Mapping[str, Any]) -> None:
        """A line of metrics was written."""
        numbers = {k: v for k, v in line.items() if isinstance(v, int | float)}
        if self.handler is not None:
            self.state.log_history.append({**numbers, "step": step})
            self._call("on_log", step, logs=numbers)

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """The dev rows were scored."""
        self._call("on_evaluate", step, metrics=dict(metrics))

    def saved(self, step: int) -> None:
        """A checkpoint was written."""
        self._call("on_save", step)

    def end(self, step: int, seconds: float) -> None:
        """Training has ended, after so many seconds."""
        self._call("on_epoch_end", step)
        self.logged(step, {"train_runtime": round(seconds, 3)})
        self._call("on_train_end", step)

    def _call(self, event: str, step: int, **values: Any) -> None:
        if self.handler is not None and self.args is not None:
            self.state.global_step, self.state.epoch = step, step / max(self.state.max_steps, 1)
            self.control = self.handler.call_event(event, self.args, self.state, self.control, **values)
