"""The nets of a method by role: how they are made, and how the averaged ones follow."""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from nlp_ssl.config import TrainConfig
from nlp_ssl.method import Method
from nlp_ssl.nets.base import Module

AVERAGE = "average"  # role of the engine's own weight average


def make_nets(
    method: Method,
    build: Callable[[int], Module],
    config: TrainConfig,
    device: torch.device,
    start: Callable[[Module, int], None] | None,
    given: Mapping[str, Module | Tensor],
) -> dict[str, Module]:
    """Trained nets first, each built and started, then copies for the others."""
    modules: dict[str, Module] = {}
    for i, role in enumerate(r for r, kind in method.nets.items() if kind == "trained"):
        torch.manual_seed(mix_seeds(config.seed, 7, i))
        modules[role] = build(i).to(device)
        if start is not None:
            start(modules[role], i)
        torch.manual_seed(mix_seeds(config.seed, 8, i))
        modules[role].attach(method.wanted_heads())
    first = modules[method.default_net()]
    for role in (r for r, kind in method.nets.items() if kind != "trained"):
        other = given.get(role, first)
        if not isinstance(other, Tensor):
            modules[role] = _still(other).to(device)
    if config.eval_ema_decay:
        modules[AVERAGE] = _still(first)
    for role, module in modules.items():
        module.train(method.nets.get(role) != "frozen")  # statistics of a frozen net's norms are those it was made with
    return modules


def move_averages(modules: Mapping[str, Module], method: Method, step: int, config: TrainConfig) -> None:
    """Averaged nets follow the first one after update number `step` (from 1)."""
    first = modules[method.default_net()]
    for role, module in modules.items():
        if method.nets.get(role) == "ema":
            update_average(module, first, method.ema(step))
    if AVERAGE in modules:
        update_average(modules[AVERAGE], first, min(1 - 1 / (step + 1), config.eval_ema_decay))


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Weights and float buffers become decay * average + (1 - decay) * module; other buffers are copied."""
    old, new = average.state_dict(), module.state_dict()
    floats = [k for k, v in new.items() if v.is_floating_point()]
    torch._foreach_lerp_([old[k] for k in floats], [new[k] for k in floats], 1.0 - decay)
    for name in new.keys() - set(floats):
        old[name].copy_(new[name])


def mix_seeds(*parts: int) -> int:
    """A seed that is a pure function of its parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _still(module: Module) -> Module:
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin
