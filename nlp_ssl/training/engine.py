"""A method at work: its nets, state, batches and losses, whoever steps the optimizer and writes the files."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.loader import Loader, Sizes
from nlp_ssl.errors import ConfigError, RunError, listed
from nlp_ssl.inference.predict import features, predict
from nlp_ssl.method import Method
from nlp_ssl.nets.base import Module, Net, Recorded
from nlp_ssl.ops import distributed
from nlp_ssl.ops.multilabel import binary_logits, binary_targets
from nlp_ssl.ops.targets import estimate_prior
from nlp_ssl.run import StepContext
from nlp_ssl.task import Task
from nlp_ssl.training import roles
from nlp_ssl.training.checkpoint import Checkpoint
from nlp_ssl.training.guard import Guard
from nlp_ssl.training.imbalance import adjustment, with_class_weights
from nlp_ssl.training.view_strength import Strongest
from nlp_ssl.training.warm_start import start_kind
from nlp_ssl.types import Batch, Forward, Losses
from nlp_ssl.utils.precision import Format, autocast

log = logging.getLogger("nlp_ssl")
_PRIOR_ROWS = 1000  # pool rows that class shares are estimated on
_MAX_BAD_UPDATES = 5  # updates in a row that may be skipped for a gradient that is not finite


class Wrapped(nn.ModuleDict):
    """The trained nets by role, in their wrappers for data-parallel training."""

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Passes whose gradients stay on their rank."""
        with ExitStack() as stack:
            for module in self.values():
                if isinstance(module, DistributedDataParallel):
                    stack.enter_context(module.no_sync())
            yield


class Engine:
    """One run of a method up to the gradients of its updates.

    An optimizer loop calls `enter` before a step, `begin` for each of its micro-batches, then in turns `backward` for
    each of these, `clip`, its own optimizer and `after_update`, until `backward` has no more.
    """

    def __init__(
        self,
        method: Method,
        task: Task,
        config: TrainConfig,
        accelerator: Accelerator,
        precision: Format,
        *,
        start: Callable[[Module, int], None] | None = None,
        frozen_nets: Mapping[str, Module | Tensor],
        saved: Checkpoint | None = None,
    ) -> None:
        data, augment = task.data, task.augment
        self.method, self.data, self.config, self.accelerator = (
            method,
            with_class_weights(data, config),
            config,
            accelerator,
        )
        self.device, self.context = accelerator.device, autocast(precision, accelerator.device)
        ranks = accelerator.num_processes
        sizes = Sizes(
            config.batch_size, config.batch_size * config.unlabeled_ratio, ranks * config.gradient_accumulation_steps
        )
        self.modules = roles.make_nets(
            method, task.build, config, self.device, start if saved is None else None, frozen_nets
        )
        self.strengths: dict[str, int] = saved.meta["strengths"] if saved else {}
        self.loader = Loader(
            self.data,
            method.wanted_views(),
            self._with_strengths(augment),
            sizes,
            seed=config.seed,
            max_steps=config.max_steps,
            rank=accelerator.process_index,
            world=ranks,
        )
        self.trained = {r: m for r, m in self.modules.items() if method.nets.get(r) == "trained"}
        self.wrapped = Wrapped({r: cast(nn.Module, accelerator.prepare(m)) for r, m in self.trained.items()})
        for module in self.wrapped.values():  # of Accelerate's fp16 the scaler only: nets choose their own autocast
            accelerator.unwrap_model(module, keep_fp32_wrapper=False)
        self.shift = adjustment(self.data, config)
        self.frozen_nets = frozenset(frozen_nets)  # they are what they are: nothing is added to their logits
        self.nets = {role: self._net(role) for role in self.modules if role in method.nets}
        recorded = {
            r: cast(Forward, Recorded(v.to(self.device))) for r, v in frozen_nets.items() if isinstance(v, Tensor)
        }
        self.run = StepContext(
            method,
            {**self.nets, **recorded},
            data.spec,
            max_steps=config.max_steps,
            predict=lambda role, block: self._seen(self._of_block(predict, role, block), role).softmax(-1),
            features=lambda role, block: self._of_block(features, role, block),
            labels=self._labels(),
        )
        self.run.state = {k: v.to(self.device) for k, v in method.init_state(data.spec).items()}
        self._bind_policy(augment)
        self.run.spec = replace(data.spec, prior=None)
        known = start is not None and start_kind(self.student, config) != "none"
        if saved is None:
            self._estimate_prior(known)
        self.warnings = [] if saved else self._untrained(known, frozen_nets)
        self.bad_updates, self.finite = 0, True
        self.guard = self._guard()
        if saved is not None:
            self._restore(saved)

    @property
    def student(self) -> Module:
        """The net that is evaluated and saved."""
        return self.modules[self.method.default_net()]

    # --- a step ---

    def enter(self, step: int) -> None:
        """Comes to a step, from 0; what the method does now and then happens here."""
        self.run.step, self.run.epoch = step, self.loader.epoch(step)
        if step % self.method.refresh_steps(self.loader.steps_per_epoch) == 0:
            self.method.begin_epoch(self.run)

    def begin(self, batch: Batch, number: int) -> Iterator[Losses]:
        """The losses of the step's micro-batch of this number on this rank, one after the other for each update."""
        part = number * self.accelerator.num_processes + self.accelerator.process_index
        torch.manual_seed(roles.mix_seeds(self.config.seed, 11, self.run.step, part))
        out = self.method.step(self.run, _to(batch, self.device))
        return out if isinstance(out, Iterator) else iter([out])

    def backward(self, losses: Iterator[Losses]) -> Tensor | None:
        """Adds a micro-batch's gradient for its next update; its loss, or None where there is no further update."""
        named = next(losses, None)
        if named is None:
            return None
        total = torch.stack([v.float() for v in named.values()]).sum()
        self.accelerator.backward(total / self.config.gradient_accumulation_steps)
        for name, value in named.items():
            self.run.log(name, value)
        self.run.log("loss", total)
        return total.detach()

    def clip(self) -> Tensor:
        """Clips the gradients of each net; the largest of their norms. `finite` tells whether it is a number."""
        self.accelerator.unscale_gradients()  # once for all nets: they share an optimizer
        norms = []
        for module in self.trained.values():
            parameters = [p for p in module.parameters() if p.grad is not None]
            if parameters:
                norms.append(nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm or float("inf")))
        norm = torch.stack(norms).max()
        # The one host sync of a step. Gradients are summed over ranks by now, so all ranks decide alike.
        self.finite = bool(torch.isfinite(norm))
        self.run.log("grad_norm", norm)
        return norm

    @property
    def updates(self) -> bool:
        """Whether the optimizer is to step: a scaler leaves out what is not finite by itself, and lowers its scale."""
        return self.finite or self.accelerator.scaler is not None

    def after_update(self) -> None:
        """Moves the averaged nets, while the gradients of the update are still there.

        Raises:
            RunError: too many updates in a row had to be skipped.
        """
        scaler = self.accelerator.scaler
        if self.finite and any(p.grad is not None for p in self.student.parameters()):  # not after another net's update
            roles.move_averages(self.modules, self.method, self.run.step + 1, self.config)
        # A scaler skips updates while it looks for its scale; below 1 it is no longer the scale that overflows.
        if self.finite or (scaler is not None and scaler.get_scale() >= 1.0):
            self.bad_updates = 0
        else:
            self._count_bad_update()

    def record(self) -> dict[str, Any]:
        """Means over all ranks of what was logged since the last call. A new warning of the guard is kept and told."""
        means = {k: self._over_ranks(v) for k, v in self.run.flush().items()}
        line: dict[str, Any] = {k: v.tolist() for k, v in means.items()}
        known, right = line.pop("pseudo_known", 0.0), line.pop("pseudo_right", 0.0)
        if known:
            line["pseudo_accuracy"] = right / known
        for net in self.nets.values():
            if net.computed_tokens:
                line["padding_fraction"] = 1 - net.real_tokens / net.computed_tokens
                net.real_tokens = net.computed_tokens = 0
        if self.config.guard and (warning := self.guard.check(line, self.run.progress)):
            self.warnings.append(f"step {self.run.step}: {warning}")
            log.warning("step %d: %s", self.run.step, warning)
        return {**line, "state": self._small_state()}

    def _over_ranks(self, v: Tensor) -> Tensor:
        return distributed.total(v.to(self.device)) / distributed.world_size()

    def _small_state(self) -> dict[str, Any]:
        """What the method keeps that is one number, or one a class: running thresholds and shares."""
        small = ((), (1,), (len(self.data.classes),))
        kept = {k: v for k, v in self.run.state.items() if v.is_floating_point() and v.shape in small}
        return {k: v.tolist() for k, v in kept.items()}

    # --- what is kept in checkpoints ---

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Weights of every net, the method's state and the begun line of metrics, by group. All ranks call it."""
        nets = {f"net.{role}": dict(module.state_dict()) for role, module in self.modules.items()}
        log_sums = {name: self._over_ranks(v) for name, v in self.run.log_sums.items()}
        return {**nets, "state": self.run.state, "log": log_sums}

    def meta(self) -> dict[str, Any]:
        """What else there is to restore."""
        return {
            "strengths": self.strengths,
            "prior": self.run.spec.prior,
            "warnings": self.warnings,
            "bad_updates": self.bad_updates,
            "guard": self.guard.seen,
            "log_counts": self.run.log_counts,
            "tokens": {role: [net.real_tokens, net.computed_tokens] for role, net in self.nets.items()},
        }

    def _restore(self, saved: Checkpoint) -> None:
        for role, module in self.modules.items():
            module.load_state_dict(saved.tensors[f"net.{role}"])
        self.run.state = {k: v.to(self.device) for k, v in saved.tensors.get("state", {}).items()}
        self.run.step = saved.step
        prior = saved.meta["prior"]
        self.run.spec = replace(self.data.spec, prior=None if prior is None else tuple(prior))
        self.warnings = list(saved.meta["warnings"])
        self.bad_updates = saved.meta["bad_updates"]
        self.guard = self._guard()
        self.guard.seen = dict(saved.meta["guard"])
        # Version 0.1.0 kept none of these: the line of metrics that was begun then holds the steps from here on alone.
        self.run.log_sums = {k: v.to(self.device) for k, v in saved.tensors.get("log", {}).items()}
        self.run.log_counts = dict(saved.meta.get("log_counts", {}))
        for role, (real, computed) in saved.meta.get("tokens", {}).items():
            self.nets[role].real_tokens, self.nets[role].computed_tokens = real, computed

    def close(self) -> None:
        """Lets go of the nets; no further step can be taken."""
        self.nets, self.wrapped, self.loader.augment = {}, Wrapped(), {}
        self.run = StepContext(self.method, {}, self.run.spec)

    # --- set-up ---

    def _untrained(self, known: bool, frozen_nets: Mapping[str, Module | Tensor]) -> list[str]:
        """A warning where the frozen nets are copies of a student that nothing has trained yet."""
        copied = [role for role, kind in self.method.nets.items() if kind == "frozen" and role not in frozen_nets]
        if known or not copied:
            return []
        warning = (
            f"{self.method.name}: the {' and '.join(copied)} is a copy of the student before training: add "
            "--warm-start supervised, or start from a model that is trained already"
        )
        log.warning("%s", warning)
        return [warning]

    def _with_strengths(self, augment: Mapping[str, Any]) -> dict[str, Any]:
        """The augmentations with a fixed strength: chosen once, with the started model, and kept in checkpoints."""
        settled = dict(augment)
        for kind in set(self.method.wanted_views().values()):
            if kind not in settled:
                raise ConfigError(274, f"{self.method.name} needs a {kind} view, this task has {', '.join(settled)}")
            wanted = settled[kind]
            if isinstance(wanted, Strongest):
                if kind not in self.strengths:
                    self.strengths[kind] = wanted.settle(self.student, self.data, self.config.seed, self.context)
                settled[kind] = wanted.candidates[self.strengths[kind]]
        return settled

    def _estimate_prior(self, known: bool) -> None:
        """Class shares of the pool as the started model sees them; a model without a start has no idea of them."""
        if self.data.kind == "multi-label" or not (
            self.config.align and self.loader.uses_pool and (known or self.data.prior)
        ):
            return
        seed = (self.config.seed, 6)
        rows = np.random.default_rng(seed).permutation(self.data.unlabeled)[:_PRIOR_ROWS]
        z = predict(self.student, self.data.store, rows, self.context)
        p = self._seen(z, self.method.default_net()).softmax(-1)
        prior = self.data.prior or estimate_prior(p, torch.from_numpy(self.data.labeled_shares()))
        self.run.spec = replace(self.data.spec, prior=prior)
        self.run.state["pool_mean"] = p.mean(0).to(self.device)
        shares = sorted(zip(self.data.classes, prior, strict=True), key=lambda one: -one[1])
        log.info("class shares of the pool: %s", listed([f"{name!r} {share:.2f}" for name, share in shares]))

    def _net(self, role: str) -> Net:
        """The net of a role as methods call it."""
        heads = [name for name, head in self.method.wanted_heads().items() if head.kind == "classifier"]
        shift = None if role in self.frozen_nets else self.shift
        return Net(self.modules[role], self.wrapped[role] if role in self.trained else None, self.context,
                   shift=shift, classifiers=heads, kind=self.data.kind)  # fmt: skip

    def _seen(self, logits: Tensor, role: str) -> Tensor:
        """Logits [n, C] of a net's module as methods see them."""
        if self.data.kind == "multi-label":
            return binary_logits(logits)
        return logits if self.shift is None or role in self.frozen_nets else logits + self.shift.to(logits.device)

    def _guard(self) -> Guard:
        """A guard that expects the pool's class shares; for multi-label data, as many yes as among the labels."""
        prior = tuple(self.data.labeled_shares()) if self.data.kind == "multi-label" else self.run.spec.prior
        return Guard(self.data.classes, prior)

    def _of_block(self, what: Callable[..., Tensor], role: str, block: str) -> Tensor:
        """Predictions or features of all rows of a block, the same on every rank and whatever came before."""
        at = self.data.labeled if block == "x" else self.data.unlabeled
        return what(self.modules[role], self.data.store, at, self.context).to(self.device)

    def _labels(self) -> Tensor:
        """Labels of all labeled rows."""
        if self.data.targets is not None:
            return torch.from_numpy(self.data.targets).float().to(self.device)
        labels = torch.from_numpy(self.data.labels[self.data.labeled]).to(self.device)
        return labels if self.data.kind == "single-label" else binary_targets(labels)

    def _bind_policy(self, augment: Mapping[str, Any]) -> None:
        """Lets the controlled view read the rates that the method steers."""
        if "controlled" not in self.method.wanted_views().values():
            return
        policy = augment["controlled"]
        self.run.policy = policy
        self.run.state["rates"] = policy.initial_rates()
        self.loader.augment = {
            **self.loader.augment, "controlled": policy.bound(lambda: self.run.state["rates"].cpu().numpy())
        }  # fmt: skip

    def _count_bad_update(self) -> None:
        self.bad_updates += 1
        log.warning("step %d: gradient is not finite, update skipped", self.run.step)
        if self.bad_updates >= _MAX_BAD_UPDATES:
            raise RunError(
                301,
                f"the loss was not finite {self.bad_updates} times in a row up to step {self.run.step}: "
                "lower the learning rate, or use --mixed-precision no",
            )


def _to(batch: Batch, device: torch.device) -> Batch:
    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        return {k: move(v) for k, v in value.items()} if isinstance(value, dict) else value

    return cast(Batch, {k: move(v) for k, v in batch.items()})
