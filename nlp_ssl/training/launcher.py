"""What started this process, where it is not what it was asked to be."""

import logging
import os
from functools import cache
from pathlib import Path

log = logging.getLogger("nlp_ssl")


@cache
def check_processes() -> None:
    """Says once when a launcher was asked for several processes and started fewer.

    `accelerate launch --cpu --num_processes N` without MPI starts a single process and is silent about it.
    """
    asked, started = _asked_processes(), int(os.environ.get("WORLD_SIZE", "1"))
    if asked > started:
        log.warning(
            "%d processes were asked for, %d is running: on CPUs use `torchrun --nproc_per_node %d`",
            asked,
            started,
            asked,
        )


def _asked_processes() -> int:
    """--num_processes of the `accelerate launch` that is our parent, where it can be read; 1 otherwise."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return 1
    if not any(word.endswith("accelerate") for word in words) or "launch" not in words:
        return 1
    for word, following in zip(words, [*words[1:], ""], strict=True):
        for flag in ("--num_processes", "--num-processes"):
            value = following if word == flag else word.removeprefix(f"{flag}=") if word.startswith(f"{flag}=") else ""
            if value.isdigit():
                return int(value)
    return 1
