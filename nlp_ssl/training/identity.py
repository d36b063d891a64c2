"""What a run is: method, settings, rows and net. Two runs of one identity come to the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.method import Method
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.nets.base import Module
from nlp_ssl.task import Task

_NO_RESULT = ("save_steps", "save_total_limit", "logging_steps", "dataloader_num_workers")  # settings that change none
# Of version 0.1.0: settings under other names, and one that is of the task today.
_FORMER_NAMES = {
    "schedule": "lr_scheduler_type",
    "warmup": "warmup_steps",
    "clip": "max_grad_norm",
    "accumulate": "gradient_accumulation_steps",
    "eval_every": "eval_steps",
}
_FORMER_KIND = "several a row"


def applicable(method: Method, data: Data) -> Method:
    """The method itself, or supervised training where it wants unlabeled rows and there are none."""
    wants_pool = any(view.startswith("u") for view in method.wanted_views()) and not method.pool_optional
    return Supervised() if wants_pool and not len(data.unlabeled) else method


def identity(
    method: Method, task: Task, config: TrainConfig, frozen_nets: Mapping[str, Module | Tensor] | None = None
) -> dict[str, Any]:
    """What must be the same for a run to be resumed, or to count as already done."""
    method = applicable(method, task.data)
    described = describe_run(method.name, asdict(method), task, config)
    if frozen_nets:
        described["frozen_nets"] = {
            role: fingerprint({"": net} if isinstance(net, Tensor) else net.state_dict())
            for role, net in frozen_nets.items()
        }
    return described


def describe_run(name: str, options: Mapping[str, Any], task: Task, config: TrainConfig) -> dict[str, Any]:
    """The settings, rows and net of a run: what its identity consists of."""
    return {
        "method": name,
        "options": dict(options),
        "config": {k: v for k, v in asdict(config).items() if k not in _NO_RESULT},
        "data": task.data.content_hash,
        "task": dict(task.origin),
    }


def as_identity(saved: Any) -> dict[str, Any]:
    """The identity of a run as it was saved, under today's names.

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
    return _renamed(saved)


def current_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that version 0.1.0 saved, under today's names."""
    return {_FORMER_NAMES.get(name, name): value for name, value in config.items()}


def _renamed(saved: dict[str, Any]) -> dict[str, Any]:
    if "config" not in saved:
        return saved
    config = current_names(saved["config"])
    task = dict(saved.get("task", {}))
    if "max_length" in config:
        length = config.pop("max_length")
        if task.get("model") is not None and "pooling" in task:  # of images it meant nothing
            task["max_length"] = str(length)
    if task.get("labels") == _FORMER_KIND:
        task["labels"] = "multi-label"
    frozen_nets = {"frozen_nets": saved["given"]} if "given" in saved else {}
    return {**{k: v for k, v in saved.items() if k != "given"}, "config": config, "task": task, **frozen_nets}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between the identities of two runs, in words."""
    before, now = flat(old), flat(json.loads(json.dumps(new)))
    return [f"{k}: {before.get(k)} -> {now.get(k)}" for k in sorted({*before, *now}) if before.get(k) != now.get(k)]


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by dots."""
    out: dict[str, Any] = {}
    for k, v in value.items():
        out |= flat(v, f"{prefix}{k}.") if isinstance(v, Mapping) else {f"{prefix}{k}": v}
    return out


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Tells weights, or logits, apart."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
