"""Run as a program of its own: opens a FAISS file that nobody has vouched for, where a crash harms nothing else."""

import sys

import faiss
import numpy as np


def main(path: str, dim: int, count: int) -> int:
    """0 where the file holds an index of this size that can be searched."""
    index = faiss.read_index(path)
    if (index.d, index.ntotal) != (dim, count):
        return 3
    for query in (np.ones((1, dim), np.float32), -np.ones((1, dim), np.float32)):
        _, found = index.search(query, min(count, 10))
        if found.max() >= count:
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
