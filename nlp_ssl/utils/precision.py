"""Which floating-point format a training pass should use on this machine."""

import contextlib
import json
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from nlp_ssl.config import MixedPrecision, cache_folder
from nlp_ssl.errors import ConfigError, SSLError
from nlp_ssl.ops import distributed
from nlp_ssl.utils import atomic

Format = Literal["no", "bf16", "fp16"]
Autocast = Callable[[], AbstractContextManager[None]]


def autocast(precision: Format, device: torch.device) -> Autocast:
    """A factory of contexts for the forward pass."""
    if precision == "no":
        return nullcontext
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return lambda: torch.autocast(device.type, dtype=dtype)


def resolve(wanted: MixedPrecision, device: torch.device) -> Format:
    """`auto` becomes bf16 where a transformer-like forward and backward pass is at least 15 % faster in it.

    Measured once per machine, torch version and thread count and then remembered, so that a run that is repeated or
    resumed on a busier day takes the same format. All ranks take what the first one measured.

    Raises:
        ConfigError: fp16 was asked for on a CPU, which has no fast kernels for it.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError(212, "fp16 needs a GPU: use --mixed-precision bf16, no or auto")
    if wanted != "auto":
        return wanted
    fast = measured_here(device)
    return "bf16" if distributed.from_first(fast) else "no"


def measured_here(device: torch.device) -> bool:
    """Whether bf16 is faster, from the notes of this machine or by measuring."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    name = f"{platform.machine()} {card} torch {torch.__version__} threads {torch.get_num_threads()}"
    notes = cache_folder() / "precision.json"
    try:
        known = json.loads(notes.read_text())
    except (OSError, ValueError):
        known = {}
    if not isinstance(known.get(name), bool):
        known[name] = bf16_is_faster(device)
        with contextlib.suppress(OSError, SSLError):  # a read-only home costs a measurement per process
            notes.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(notes, json.dumps(known, indent=1))
    return bool(known[name])


def bf16_is_faster(device: torch.device, repeats: int = 4) -> bool:
    block = nn.Sequential(nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384)).to(device)
    rows = torch.randn(1024, 384, device=device, generator=torch.Generator(device).manual_seed(0))
    seconds = {
        name: min(seconds_of(block, rows, autocast(name, device)) for _ in range(repeats)) for name in ("no", "bf16")
    }
    return seconds["bf16"] * 1.15 < seconds["no"]


def seconds_of(block: nn.Module, rows: Tensor, context: Autocast) -> float:
    if rows.device.type == "cuda":
        torch.cuda.synchronize(rows.device)
    start = time.perf_counter()
    with context():
        loss = block(rows).float().square().mean()
    loss.backward()
    block.zero_grad()
    if rows.device.type == "cuda":
        torch.cuda.synchronize(rows.device)
    return time.perf_counter() - start
