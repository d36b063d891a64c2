"""Teachers that are not part of a run: saved classifiers that may read texts in their own way."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import xxhash
from torch import Tensor

from nlp_ssl.config import cache_folder
from nlp_ssl.data.markers import MINUS_ONE, stripped
from nlp_ssl.data.splits import text_keys
from nlp_ssl.data.table import Table
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.predict import logits_of_texts, longest_text
from nlp_ssl.nets.text import class_names, load_trained
from nlp_ssl.utils import atomic
from nlp_ssl.utils.hashing import contents

log = logging.getLogger("nlp_ssl")
_BLOCK = 16_384  # texts whose logits are computed between two lines of progress


def logits_of(folder: Path, texts: pa.ChunkedArray, classes: Sequence[str], cache_dir: Path | None = None) -> Tensor:
    """Logits [n, C] of a saved classifier for texts, columns in the order of `classes`; kept on disk by contents.

    It may be of any family and size: texts go through its own tokenizer, cut at the length it was trained with.

    Raises:
        ConfigError: it knows other classes.
        DataError: the folder holds no whole model.
    """
    net = load_trained(folder)
    known = [stripped(name) for name in class_names(net.model.config)]
    if sorted(known) != sorted(classes):
        only = set(known) ^ set(classes) == {MINUS_ONE}
        hint = ": --minus-one class and --minus-one unlabeled say whether -1 is one" if only else ""
        raise ConfigError(
            238, f"the teacher {folder} knows the classes {', '.join(known)}, the task has {', '.join(classes)}{hint}"
        )
    digest = xxhash.xxh3_128(contents([folder]).encode())
    for chunk in texts.iterchunks():
        digest.update("\0".join(chunk.to_pylist()).encode() + b"\1")
    path = (cache_dir or cache_folder()) / "teachers" / f"{digest.hexdigest()}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):  # none yet, or a damaged one
        logits = np.load(path, allow_pickle=False)
        if logits.shape == (len(texts), len(known)):
            return torch.from_numpy(logits[:, [known.index(name) for name in classes]])
    longest, parts = longest_text(net), []
    for at in range(0, len(texts), _BLOCK):
        parts.append(logits_of_texts(net, texts.slice(at, _BLOCK).to_pylist(), longest).numpy())
        if at:
            log.info("teacher: %d of %d texts", at, len(texts))
    logits = np.concatenate(parts) if parts else np.zeros((0, len(known)), dtype=np.float32)
    with atomic.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.write_file(path) as temporary, atomic.writing(path), temporary.open("wb") as file:
        np.save(file, logits)
    return torch.from_numpy(logits[:, [known.index(name) for name in classes]])


def joined(pool: Table | None, more: Table, *others: Table) -> Table:
    """A pool with the texts of another table that neither it nor `others` hold, as rows without labels."""
    held = np.concatenate([np.zeros(0, np.uint64), *(text_keys(t.texts) for t in (pool, *others) if t is not None)])
    keys = text_keys(more.texts)
    _, first = np.unique(keys, return_index=True)
    new = more.take(np.sort(first[~np.isin(keys[first], held)]))
    if pool is None:
        return Table(new.texts, None, new.rows, new.source, None, new.notes)
    none = [None] * len(new)
    return replace(
        pool,
        texts=pa.chunked_array([*pool.texts.chunks, *new.texts.chunks], pa.large_string()),
        labels=None if pool.labels is None else [*pool.labels, *none],
        label_sets=None,
        markers=None if pool.markers is None else [*pool.markers, *none],
        rows=np.concatenate([pool.rows, new.rows]),
        splits=None,
    )
