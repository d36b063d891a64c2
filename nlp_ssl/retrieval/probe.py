"""Run as a separate program: opens a FAISS file that is not known to be safe, where a crash harms nothing else."""

import contextlib
import sys

import faiss
import numpy as np


def _whole(index: faiss.Index, count: int) -> bool:
    """Whether the index has every id below `count` once; only lists store ids, elsewhere the position is the id."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):  # no index that was built here has one
        return False
    if isinstance(index, faiss.IndexPreTransform):
        return _whole(index.index, count)
    if isinstance(index, faiss.IndexRefine):
        return _whole(index.base_index, count) and index.refine_index.ntotal == count
    if not isinstance(index, faiss.IndexIVF):
        return True
    lists, seen = index.invlists, np.zeros(count, dtype=bool)
    if lists is None:
        return False
    sizes = [lists.list_size(number) for number in range(lists.nlist)]
    if sum(sizes) != count:
        return False
    for number, size in enumerate(sizes):
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if ids.min() < 0 or ids.max() >= count:
                return False
            seen[ids] = True
    return bool(seen.all())


def main(path: str, dim: int, count: int) -> int:
    """0 where the file holds an index of this size that can be searched."""
    index = faiss.read_index(path)
    if (index.d, index.ntotal) != (dim, count) or not _whole(index, count):
        return 3
    for knob, value in (("nprobe", count), ("efSearch", min(count, 4096))):  # so that much of the file is used
        with contextlib.suppress(RuntimeError):
            faiss.ParameterSpace().set_index_parameter(index, knob, value)
    _, ids = index.search(np.random.default_rng(0).normal(size=(16, dim)).astype(np.float32), min(count, 10))
    if ids.max() >= count or ids.min() < -1:
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
