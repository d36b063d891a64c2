"""Two cores, many small processes: one thread each, no hub, no progress bars, and little for the garbage collector."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # the same numbers on machines with an accelerator
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """Half a million objects of imported modules are looked through at the end of every training, which takes several
    times as long as the training of a tiny net: what is there by now is left out.
    """
    gc.collect()
    gc.freeze()
