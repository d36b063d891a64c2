"""What a finished run leaves for its report: predictions, a sample of the pool and its views, in one Parquet file."""

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize
from torch import Tensor

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.image_store import ImageStore
from nlp_ssl.inference.predict import evaluating, features
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.text import TextNet
from nlp_ssl.ops.functional import align
from nlp_ssl.run import StepContext
from nlp_ssl.training.imbalance import adjustment
from nlp_ssl.utils.counter_rng import row_keys
from nlp_ssl.utils.parquet import write_parquet
from nlp_ssl.utils.precision import Autocast

FACTS = b"nlp_ssl"  # key of the file's metadata
_ROWS = 10_000  # scored rows kept of a split, at most
_NUMBERS = 2_000_000  # logits kept of a split, at most
_POOL, _LABELED = 400, 100  # rows of the map
_VIEWS = 8  # pool rows whose views are kept
_CHARACTERS = 400  # of a text
_WIDTH = 32  # main directions kept of features

_NUMBER_LIST = pa.list_(pa.float32())
SCHEMA = pa.schema([
    ("part", pa.string()),  # test, dev, pool or labeled
    ("row", pa.int64()),
    ("label", pa.int64()),  # -1 where it is not known; that of pool rows is hidden truth
    ("logits", _NUMBER_LIST),
    ("pseudo", _NUMBER_LIST),  # of pool rows: probabilities that the pseudo-label is made from
    ("before", _NUMBER_LIST),  # of pool and labeled rows: main directions of the features of the untrained net
    ("after", _NUMBER_LIST),
    ("content", pa.binary()),  # the beginning of the text in UTF-8, or a PNG image
    ("weak", pa.binary()),  # of some pool rows: what the method trained on in their place
    ("strong", pa.binary()),
])  # fmt: skip


@dataclass(frozen=True)
class Finish:
    """The end of a run: the trained module, the module before any training, and what they are fed with."""

    module: Module
    fresh: Module
    data: Data
    logits: Mapping[str, Tensor]  # of the dev and test rows
    run: StepContext
    augment: Mapping[str, Any]  # augmentation of each kind of view
    config: TrainConfig
    context: Autocast
    temperature: float


def write_predictions(path: Path, finish: Finish) -> None:
    """Writes the file, whole or not at all; none for multi-label data.

    Raises:
        RunError: the file cannot be written.
    """
    data = finish.data
    if data.kind == "multi-label":
        return
    rows = [*_sample(finish)]
    for split, at in (("dev", data.dev), ("test", data.test)):
        if len(at):
            rows += _scored(finish, split, at)
    write_parquet(path, rows, SCHEMA.with_metadata({FACTS: json.dumps(_facts(finish)).encode()}))


def _facts(finish: Finish) -> dict[str, Any]:
    data = finish.data
    original = data.original_labeled
    pseudo_labeled = np.setdiff1d(data.labeled, original)
    pool = np.union1d(data.unlabeled, pseudo_labeled)
    counts = {
        "labeled": original,
        "pseudo_labeled": pseudo_labeled,
        "unlabeled": pool,
        "dev": data.dev,
        "test": data.test,
    }
    hard = data.targets is None or data.came_labeled is not None
    strong = finish.augment.get(_strong_kind(finish) or "")
    return {
        "format": 1,
        "classes": data.classes,
        "kind": "image" if isinstance(data.store, ImageStore) else "text",
        "rows": {name: len(at) for name, at in counts.items()},
        "labels": np.bincount(data.labels[original], minlength=len(data.classes)).tolist() if hard else None,
        "notes": data.notes,
        "strong": None if strong is None else repr(strong),
        "prior": finish.run.spec.prior,
        "temperature": finish.temperature,
    }


def _scored(finish: Finish, split: str, at: np.ndarray) -> list[tuple[Any, ...]]:
    """Rows of a split with their logits, drawn evenly where there are too many: the same ones in every run."""
    most = max(min(_ROWS, _NUMBERS // len(finish.data.classes)), 1)
    kept = np.sort(np.random.default_rng(0).permutation(len(at))[:most])
    none = [None] * len(kept)
    columns = (
        [split] * len(kept), at[kept], finish.data.labels[at[kept]], finish.logits[split][torch.from_numpy(kept)],
        none, none, none, _contents(finish, at[kept]), none, none,
    )  # fmt: skip
    return list(zip(*(_plain(c) for c in columns), strict=True))


def _sample(finish: Finish) -> list[tuple[Any, ...]]:
    """Pool rows and labeled rows with features before and after training; the first pool rows with their views."""
    data, rng = finish.data, np.random.default_rng(0)
    pool = rng.permutation(data.unlabeled)[:_POOL]
    labeled = rng.permutation(data.original_labeled)[:_LABELED]
    at = np.concatenate([pool, labeled])
    context = finish.context
    before = features(finish.fresh, data.store, at, context)
    after = features(finish.module, data.store, at, context)
    with torch.no_grad(), evaluating(finish.module):
        logits = finish.module.head(after.to(next(finish.module.parameters()).device)).float().cpu()
    shift = adjustment(data, finish.config)
    seen = logits if shift is None else logits + shift  # as the method sees them
    pseudo: list[Any] = [*_pseudo(finish.run, seen[: len(pool)]).numpy(), *[None] * len(labeled)]
    shown = pool[:_VIEWS]
    rest = [None] * (len(at) - len(shown))
    views = [[*_view(finish, shown, kind), *rest] for kind in ("weak", _strong_kind(finish))]
    columns = (
        ["pool"] * len(pool) + ["labeled"] * len(labeled), at, _labels(data, pool, labeled), logits, pseudo,
        _directions(before), _directions(after), _contents(finish, at), *views,
    )  # fmt: skip
    return list(zip(*(_plain(c) for c in columns), strict=True))


def _labels(data: Data, pool: np.ndarray, labeled: np.ndarray) -> np.ndarray:
    """Classes of both, the likeliest one where labeled rows have probabilities."""
    known = data.labels[labeled]
    if data.targets is not None:
        place = {int(row): i for i, row in enumerate(data.labeled)}
        known = data.targets[[place[int(row)] for row in labeled]].argmax(1)
    return np.concatenate([data.labels[pool], known])


def _pseudo(run: StepContext, logits: Tensor) -> Tensor:
    """Probabilities as `StepContext.aligned` makes them, without moving its running mean."""
    p, mean = logits.softmax(-1), run.state.get("pool_mean")
    if run.spec.prior is None or mean is None or not len(p):
        return p
    return align(p, p.new_tensor(run.spec.prior), mean.cpu().to(p.dtype))


def _directions(features: Tensor) -> np.ndarray:
    """The main directions [n, at most 32] of features scaled to length 1."""
    if len(features) < 2:
        return np.zeros((len(features), 1))
    scaled = normalize(np.nan_to_num(features.double().numpy()))
    reduced: np.ndarray = PCA(min(_WIDTH, *scaled.shape), svd_solver="full").fit_transform(scaled)
    return reduced


def _strong_kind(finish: Finish) -> str | None:
    """The kind of view beside the weak one that the method trains on."""
    wanted = finish.run.method.wanted_views().values()
    return next((kind for kind in ("strong", "controlled") if kind in wanted), None)


def _view(finish: Finish, at: np.ndarray, kind: str | None) -> list[bytes | None]:
    """The rows as a kind of view shows them to the method."""
    augment = None if kind is None else finish.augment.get(kind)
    if kind is None or not len(at):
        return [None] * len(at)
    store, seed = finish.data.store, finish.config.seed
    inputs, _ = store.views([(at, augment, row_keys(seed, 0, at))])
    if isinstance(store, ImageStore):
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (store.mean, store.std))
        pixels = (inputs["pixel_values"] * std + mean).mul(255).round().clamp(0, 255).byte()
        return [_png(image) for image in pixels.permute(0, 2, 3, 1).numpy()]
    tokenizer = cast(TextNet, finish.module).tokenizer
    return [_begin(text) for text in tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=True)]


def _contents(finish: Finish, at: np.ndarray) -> list[bytes | None]:
    data = finish.data
    if isinstance(data.store, ImageStore):
        return [_png(image) for image in data.store.images[at]]
    texts = data.whole_texts
    return [None] * len(at) if texts is None else [_begin(text) for text in texts.take(pa.array(at)).to_pylist()]


def _begin(text: str) -> bytes:
    cut = text if len(text) <= _CHARACTERS else text[:_CHARACTERS] + "\u2026"
    return cut.encode(errors="replace")


def _png(image: np.ndarray) -> bytes | None:
    """A small image [H, W, C]; None where Pillow is not installed."""
    with suppress(ImportError):
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(out, "PNG")
        return out.getvalue()
    return None


def _plain(column: Any) -> list[Any]:
    """A column as Arrow takes it."""
    return [v.tolist() if isinstance(v, np.ndarray | np.generic | Tensor) else v for v in column]
