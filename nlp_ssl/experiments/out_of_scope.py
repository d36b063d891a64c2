"""Texts of the pool that belong to none of the classes: far from the labeled rows, as a started net sees them."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.inference.predict import features
from nlp_ssl.nets.base import Module
from nlp_ssl.ops.fits import without_remarks
from nlp_ssl.ops.multilabel import refuse_multilabel
from nlp_ssl.task import Task
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.training.warm_start import start_kind
from nlp_ssl.types import PseudoLabels
from nlp_ssl.utils import atomic
from nlp_ssl.utils.parquet import write_parquet
from nlp_ssl.utils.ranks import is_main

log = logging.getLogger("nlp_ssl")
# Every text of a pool, how like the labeled ones it is, and what was done.
_SCHEMA = pa.schema(
    [("id", pa.int64()), ("text", pa.large_string()), ("likeness", pa.float64()), ("left_out", pa.bool_())]
)
_APART = 2.5  # of two groups (Ashman's D); pools of one domain reached 1.9
_EVIDENCE = 10.0  # of two groups against one, by BIC: "very strong"
LeftOutShare = float | Literal["auto"]


def share_of(value: str) -> LeftOutShare:
    """A share between 0 and 1, or "auto", from a word.

    Raises:
        ConfigError: it is neither.
    """
    if value == "auto":
        return "auto"
    with contextlib.suppress(ValueError):
        if 0 < (share := float(value)) < 1:
            return share
    raise ConfigError(455, f"--drop-out-of-scope {value}: say auto, or a share between 0 and 1, e.g. 0.3")


def likeness(known: np.ndarray, y: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Cosine [U] of each pool row with the mean direction of the class nearest to it.

    known [L, D] and pool [U, D] are features, y [L] classes. What all dimensions of a row share is no direction.
    """
    known, pool = _directions(known), _directions(pool)
    means = np.stack([known[y == c].mean(0) for c in np.unique(y)])
    nearest_mean: np.ndarray = (pool @ _unit(means).T).max(1)
    return nearest_mean.clip(-1, 1)  # rounding goes beyond


@without_remarks()
def foreign(like: np.ndarray, share: LeftOutShare) -> np.ndarray:
    """Which rows of these likenesses [U] are out of scope: that share of them, the least like ones first.

    With "auto", those of the lower of two groups (a mixture of two Gaussians), where there clearly are two; else none.
    """
    out = np.zeros(len(like), dtype=bool)
    if share != "auto":
        out[np.argsort(like, kind="stable")[: round(share * len(like))]] = True
        return out
    if len(like) < 20 or np.ptp(like) < 1e-9:
        return out
    from sklearn.mixture import GaussianMixture

    values = like[:, None].astype(np.float64)
    one, two = (GaussianMixture(n, n_init=3, random_state=0).fit(values) for n in (1, 2))
    gap = abs(float(np.diff(two.means_.ravel())[0]))
    apart = gap / np.sqrt(two.covariances_.mean())
    if apart < _APART or one.bic(values) - two.bic(values) < _EVIDENCE:
        return out
    low, high = np.argsort(two.means_.ravel())
    # A wide lower group must not take what lies above the other one.
    return np.asarray((two.predict(values) == low) & (like < two.means_[high, 0]))


def in_scope(
    task: Task,
    start: Callable[[Module, int], None],
    config: TrainConfig,
    share: LeftOutShare,
    *,
    folder: RunFolder | None = None,
) -> Task:
    """The task without the texts of its pool that are out of scope, seen with the net that `start` makes.

    `folder` gets `out_of_scope.parquet`, which says of every text whether it was left out; in one that is resumed
    what it says is done again without looking.

    Raises:
        ConfigError: the net has no start.
        DataError: the file is damaged, or of another run.
    """
    data = task.data
    if data.kind == "multi-label":
        refuse_multilabel("drop_out_of_scope")
    if not len(data.unlabeled):
        return task
    module = task.build(0)
    if start_kind(module, config) == "none":
        raise ConfigError(456, "--drop-out-of-scope looks at the pool with a started net: choose another --warm-start")
    path = None if folder is None else folder.out_of_scope
    if folder is not None and folder.resume and path is not None and path.exists():
        out = _read(path, len(data.unlabeled))
    else:
        start(module, 0)
        known, pool = (features(module, data.store, at).numpy() for at in (data.labeled, data.unlabeled))
        like = likeness(known, data.labels[data.labeled], pool)
        out = foreign(like, share)
        if path is not None and is_main():
            with atomic.writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_parquet(path, _rows(task, like, out), _SCHEMA)
        _tell(task, like, out)
    return without(task, out, f"out of scope {share}")


def without(task: Task, out: np.ndarray, why: str) -> Task:
    """The task without these rows of its pool [U]; `why` tells its runs from those on the whole pool."""
    stay = ~out
    mark = f" {why} {xxhash.xxh3_128_hexdigest(np.packbits(out).tobytes())}"

    def kept(data: Data) -> Data:
        note = f"out of scope: {out.sum()} of {len(out)} pool rows left out"
        return replace(
            data,
            unlabeled=data.unlabeled[stay],
            content_hash=data.content_hash + mark,
            notes=(*data.notes, note) if out.any() else data.notes,
        )

    labels, student = task.pseudo_labels, task.student
    if labels is not None:
        labels = PseudoLabels(labels.p[stay], labels.copies[stay], labels.weights[stay], labels.hard)
    return replace(
        task,
        data=kept(task.data),
        pseudo_labels=labels,
        teacher=None if task.teacher is None else task.teacher[stay],
        student=None if student is None else replace(student, data=kept(student.data)),
    )


def _rows(task: Task, like: np.ndarray, out: np.ndarray) -> Iterator[tuple[Any, ...]]:
    texts = task.data.whole_texts
    for i, row in enumerate(task.data.unlabeled.tolist()):
        yield i, None if texts is None else texts[row].as_py(), float(like[i]), bool(out[i])


def _read(path: Path, size: int) -> np.ndarray:
    try:
        left_out = np.asarray(pq.read_table(path, columns=["left_out"])["left_out"].to_numpy(), dtype=bool)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(151, f"{path} is damaged ({type(error).__name__}): use --overwrite") from error
    if len(left_out) != size:
        raise DataError(151, f"{path} is of another run: use --overwrite or another folder")
    return left_out


def _tell(task: Task, like: np.ndarray, out: np.ndarray) -> None:
    if not out.any():
        log.info("out of scope: none of %d pool rows stand apart from the labeled ones", len(out))
        return
    log.info("out of scope: %d of %d pool rows are left out (likeness to a class up to %.2f, median of the "
             "others %.2f)", out.sum(), len(out), like[out].max(), np.median(like[~out]))  # fmt: skip
    texts = task.data.whole_texts
    if texts is not None:
        for i in np.flatnonzero(out)[np.argsort(like[out], kind="stable")[:3]]:
            text = " ".join(texts[int(task.data.unlabeled[i])].as_py().split())
            log.info("  %.2f  %s", like[i], text if len(text) <= 100 else text[:97] + "...")


def _directions(features: np.ndarray) -> np.ndarray:
    return _unit(features - features.mean(1, keepdims=True))


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
