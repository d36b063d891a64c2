"""Checkpoints: everything a run needs to go on, as `step-N` directories that are complete or absent.

A checkpoint holds safetensors and JSON only; nothing in it is ever unpickled.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlp_ssl.utils import atomic
from nlp_ssl.utils.atomic import CheckpointError

_SUFFIX = ".safetensors"
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# A kill between the two renames of a replacement leaves the former checkpoint, whole, under the second form.
_FOLDER = re.compile(rf"(?:{re.escape(atomic.REPLACED)})?step-(0|[1-9][0-9]*)")
_LIKE_PARAMETER = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after `step` updates.

    `tensors` maps a group ("net.student", "optimizer", "state", ...) to its flat named tensors, one file per group.
    `meta` holds JSON values: config, data hash, world size, versions. Loaded tensors are on the CPU.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, keep: int = 2, protect: frozenset[int] = frozenset()) -> Path:
    """Writes `folder/step-N` in one step, then removes older ones beyond the last `keep` complete ones.

    Tensors that share memory are saved each in full. Steps in `protect` are never removed. Call it from one process
    only: it also clears what killed writers left in `folder`.

    Raises RunError when the disk is full or `folder` cannot be written (the older checkpoints are then intact), and
    ValueError for a negative step, `keep` below 1, or a group that cannot name a file.
    """
    if checkpoint.step < 0 or keep < 1:
        raise ValueError(f"step must be >= 0 and keep >= 1, not {checkpoint.step} and {keep}")
    for group in checkpoint.tensors:
        if not _GROUP.fullmatch(group):
            raise ValueError(f"group {group!r} cannot name a file: use letters, digits and _ . -")
    atomic.clean(folder)
    target = folder / f"step-{checkpoint.step}"
    with atomic.write_dir(target, {"step": checkpoint.step, "meta": checkpoint.meta}) as temporary:
        for group, tensors in checkpoint.tensors.items():
            _write_group(temporary / f"{group}{_SUFFIX}", tensors)
    _rotate(folder, checkpoint.step, keep, protect)
    return target


def load_latest(folder: Path) -> tuple[Checkpoint, list[str]] | None:
    """The complete checkpoint with the highest step, and one line for each damaged one passed over on the way to it.

    Returns None when `folder` holds no checkpoint at all; raises CheckpointError when all it holds are damaged.
    """
    candidates = _candidates(folder)
    damaged: list[str] = []
    for step, path in candidates:
        try:
            return _load(path, step), damaged
        except CheckpointError as error:
            damaged.append(str(error))
    if not candidates:
        return None
    message = f"no checkpoint in {folder} is complete: delete it to start afresh. The newest: {damaged[0]}"
    raise CheckpointError(318, message)


def flatten_optimizer(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors: `exp_avg.<name>`, `step.<name>`, `momentum_buffer.<name>`, ...

    `names` belong to the optimizer's parameters in the order of its groups. One more entry for each parameter,
    `<class of the optimizer>.<name>`, counts its state tensors [scalar int64; 0 when it was never stepped], so that
    `restore_optimizer` can tell a lost entry from one that never was. Learning rates and the like are not included:
    they follow from the configuration and the step.

    Raises CheckpointError when the optimizer keeps something else than tensors, ValueError when `names` does not fit.
    """
    _check_names(optimizer, names)
    state = optimizer.state_dict()["state"]
    flat: dict[str, Tensor] = {}
    for index, name in enumerate(names):
        entries = state.get(index, {})
        flat[_counter(optimizer, name)] = torch.tensor(len(entries))
        for key, value in entries.items():
            if not isinstance(value, Tensor):
                message = f"{type(optimizer).__name__} keeps {key!r} of {name} as a {type(value).__name__}: "
                raise CheckpointError(319, message + "only tensors can be saved, so use AdamW or SGD")
            flat[f"{key}.{name}"] = value
    return flat


def restore_optimizer(optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `flatten_optimizer` returned, bit by bit, into an optimizer of the same class and parameters.

    Raises CheckpointError when an entry is missing, foreign or of another shape (the optimizer is then unchanged), and
    ValueError when `names` does not fit.
    """
    _check_names(optimizer, names)
    indices = {name: index for index, name in enumerate(names)}
    counts = {_counter(optimizer, name): name for name in names}
    state: dict[int, dict[str, Tensor]] = {index: {} for index in indices.values()}
    for entry in sorted(tensors.keys() - counts.keys()):
        key, _, name = entry.partition(".")
        if name not in indices:
            raise _unfit(optimizer, f"has the unknown entry {entry!r}")
        state[indices[name]][key] = tensors[entry].clone()
    for counter, name in counts.items():
        _check_count(optimizer, name, state[indices[name]], tensors.get(counter))
    _check_shapes(optimizer, names, state)
    used = {index: entries for index, entries in state.items() if entries}
    optimizer.load_state_dict({"state": used, "param_groups": optimizer.state_dict()["param_groups"]})


def _write_group(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # Each tensor gets memory of its own: safetensors refuses tied weights and views.
    own = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    save_file(own, path)


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Step and directory of what looks like a checkpoint, highest step first; by number, as clocks and mtimes lie."""
    with atomic.reading(folder):
        paths = sorted(folder.iterdir(), reverse=True) if folder.exists() else []  # step-7 before .replaced-step-7
    numbered = [(int(match[1]), path) for path in paths if (match := _FOLDER.fullmatch(path.name))]
    return sorted(numbered, key=lambda candidate: candidate[0], reverse=True)


def _rotate(folder: Path, newest: int, keep: int, protect: frozenset[int]) -> None:
    """Removes checkpoints older than `newest`, but not the protected nor the last `keep - 1` complete ones."""
    kept = 1
    for step, path in _candidates(folder):
        if step >= newest:
            continue
        if kept < keep and _is_complete(path):
            kept += 1
        elif step not in protect:
            atomic.discard(path)


def _is_complete(path: Path) -> bool:
    try:
        atomic.verify(path)
    except CheckpointError:
        return False
    return True


def _load(path: Path, step: int) -> Checkpoint:
    content = atomic.verify(path)
    if content.get("step") != step:
        message = f"{path} holds step {content.get('step')}, not {step}: give the directory its own name again"
        raise CheckpointError(311, message)
    try:
        with atomic.reading(path):
            tensors = {file.name.removesuffix(_SUFFIX): load_file(file) for file in sorted(path.glob(f"*{_SUFFIX}"))}
    except SafetensorError as error:
        raise CheckpointError(315, f"cannot read the tensors in {path} ({error}): delete it") from error
    return Checkpoint(step, tensors, content["meta"])


def _counter(optimizer: torch.optim.Optimizer, name: str) -> str:
    return f"{type(optimizer).__name__}.{name}"


def _check_names(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> None:
    parameters = sum(len(group["params"]) for group in optimizer.param_groups)
    if len(names) != parameters or len(set(names)) != parameters:
        raise ValueError(f"{parameters} distinct parameter names are needed, not {len(set(names))} of {len(names)}")


def _check_count(
    optimizer: torch.optim.Optimizer, name: str, entries: Mapping[str, Tensor], count: Tensor | None
) -> None:
    if count is None:
        raise _unfit(optimizer, f"has no entry {_counter(optimizer, name)!r}")
    if count.item() != len(entries):
        present = ", ".join(entries) or "none"
        raise _unfit(optimizer, f"should have {count.item()} entries for {name} and has {present}")


def _check_shapes(
    optimizer: torch.optim.Optimizer, names: Sequence[str], state: Mapping[int, Mapping[str, Tensor]]
) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, name in enumerate(names):
        for key, value in state[index].items():
            if key in _LIKE_PARAMETER and value.shape != parameters[index].shape:
                shapes = f"{list(value.shape)} instead of {list(parameters[index].shape)}"
                raise _unfit(optimizer, f"has {key}.{name} of shape {shapes}")


def _unfit(optimizer: torch.optim.Optimizer, what: str) -> CheckpointError:
    kind = type(optimizer).__name__
    return CheckpointError(319, f"the saved state for {kind} {what}: resume with the model and optimizer that saved it")
