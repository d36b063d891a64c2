"""Run as a program of its own: opens a FAISS file that nobody has vouched for, where a crash harms nothing else."""

import contextlib
import sys

import faiss
import numpy as np


def main(path: str, dim: int, count: int) -> int:
    """0 where the file holds an index of this size that can be searched."""
    index = faiss.read_index(path)
    if (index.d, index.ntotal) != (dim, count):
        return 3
    for knob, value in (("nprobe", count), ("efSearch", min(count, 4096))):  # so that much of the file is used
        with contextlib.suppress(RuntimeError):
            faiss.ParameterSpace().set_index_parameter(index, knob, value)
    _, found = index.search(np.random.default_rng(0).normal(size=(16, dim)).astype(np.float32), min(count, 10))
    if found.max() >= count or found.min() < -1:
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
