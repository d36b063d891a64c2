"""Parameter groups and the learning-rate schedule (a pure function of the step)."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from nlp_ssl.config import TrainConfig
from nlp_ssl.nets.base import Module


def make_optimizer(nets: Mapping[str, Module], config: TrainConfig) -> tuple[torch.optim.AdamW, list[str]]:
    """One AdamW over all trained nets, and the parameters' names in the order of its groups.

    Parameters without a gradient in an update are skipped, so a method that updates its nets in turn needs no more.
    Biases and norms do not decay; encoder layers take `layer_decay` per layer from the top, the head its own rate.
    """
    groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for role, module in nets.items():
        rate_of = learning_rates(module, config)
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            decay = config.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate_of(name), decay), []).append((f"{role}.{name}", parameter))
    names = [name for members in groups.values() for name, _ in members]
    settings = [
        {"params": [p for _, p in members], "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
    return torch.optim.AdamW(settings, fused=True), names


def learning_rates(module: Module, config: TrainConfig) -> Callable[[str], float]:
    """The rate of each parameter of a net, by its name: the head has its own, the encoder's falls with the depth."""
    scale = _layer_scales(module, config.layer_decay)
    heads = (*module.head_prefixes(), "extra.")
    return lambda name: config.head_learning_rate if name.startswith(heads) else config.learning_rate * scale(name)


def _layer_scales(module: Module, decay: float) -> Callable[[str], float]:
    layers = module.layers()

    def scale(name: str) -> float:
        for depth, prefix in enumerate(layers):
            if name.startswith(prefix):
                return decay ** (len(layers) - 1 - depth)
        return 1.0

    return scale


def rate_factor(step: int, config: TrainConfig) -> float:
    """What the learning rates are multiplied by in update number `step` (from 0)."""
    rise = round(config.warmup_steps * (config.max_steps if config.warmup_steps < 1 else 1))
    if step < rise:
        return (step + 1) / rise
    left = (config.max_steps - step) / max(config.max_steps - rise, 1)
    if config.lr_scheduler_type == "linear":
        return left
    return 0.5 * (1 - math.cos(math.pi * left)) if config.lr_scheduler_type == "cosine" else 1.0


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scales every group's own rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
