"""From tables and a model name to what the loop trains on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from torch import Tensor

from nlp_ssl.augment.base import Augment, Identity
from nlp_ssl.augment.ctaugment import ImagePolicy, TextPolicy
from nlp_ssl.augment.image import OPS, FlipShift, Strong
from nlp_ssl.augment.policy import Rewritten
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.config import cache_folder
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.images import ImageData
from nlp_ssl.data.schema import TextData, check_lengths
from nlp_ssl.data.tokens import TokenStore
from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.image import ImageNet, build_image_net
from nlp_ssl.nets.text import Pooling, TextNet, load_text_net, load_trained, set_task
from nlp_ssl.paraphrase.views import rewritings_of
from nlp_ssl.training.view_strength import Strongest
from nlp_ssl.types import PseudoLabels

# Word replacement as strong as the started model can stand.
TFIDF = Strongest((*(TfidfReplace(p) for p in (0.4, 0.2, 0.1, 0.05)), Identity()))
# Rewritings where there are some; how strongly words are replaced elsewhere is chosen in the same way.
REWRITTEN = Strongest(tuple(Rewritten(otherwise=way) for way in TFIDF.candidates))

_MAX_WORDS = 4096  # words kept of one text: far beyond any max_length in use


@dataclass(frozen=True)
class Task:
    """Data, the net to train on it and the augmentation of each kind of view: all that `fit` needs of a modality.

    "controlled" is a policy that becomes an augmentation once the loop lets it read its rates, "probe" its probes.
    """

    data: Data
    build: Callable[[int], Module]
    augment: Mapping[str, Any]
    saved: Callable[[Path], Module]  # opens the net that a run of this task left in a folder
    given: PseudoLabels | None = None  # labels of the pool from elsewhere
    teacher: Tensor | None = None  # logits [U, C] of a trained net for the pool: what a frozen teacher of a method says
    student: "Task | None" = None  # the same rows with the net of the students, where rounds give them another


def text_task(
    text: TextData,
    model: str,
    *,
    pooling: Pooling = "auto",
    strong: Augment | Strongest | None = None,
    views: pa.Table | None = None,
    max_length: int = 128,
    cache_dir: Path | None = None,
) -> Task:
    """Tokenizes the texts once (memory-mapped, cached by content) and prepares the classifier.

    Augmentation statistics come from the labeled and unlabeled rows alone, never from dev or test texts.

    Args:
        text: the texts and their parts.
        model: folder or hub name of the encoder.
        pooling: how token vectors become one.
        strong: the strong view; if not given words are replaced, or rewritings taken where `views` has them.
        views: rewritings of texts, columns "text" and "view" (`nlp_ssl.paraphrase.views.read_views`).
        max_length: tokens of a row at most.
        cache_dir: where tokenized texts are kept.

    Raises:
        ConfigError: the model cannot be opened.
    """

    def build(number: int) -> Module:
        net = load_text_net(model, text.classes, pooling=pooling)
        net.tokenizer.model_max_length = max_length  # saved with the model: it is used on texts cut alike
        set_task(net.model.config, text.kind, text.pairs is not None)
        return net

    origin = (("model", model), ("pooling", pooling))
    return task_of_nets(
        text, build, origin=origin, strong=strong, views=views, max_length=max_length, cache_dir=cache_dir
    )


def task_of_nets(
    text: TextData,
    build: Callable[[int], Module],
    *,
    origin: tuple[tuple[str, str], ...] = (),
    strong: Augment | Strongest | None = None,
    views: pa.Table | None = None,
    max_length: int = 128,
    cache_dir: Path | None = None,
) -> Task:
    """As `text_task`, for text nets that `build` makes; `origin` says in words what they are made from."""
    first = build(0)
    assert isinstance(first, TextNet)
    longest = first.longest()
    if longest is not None and max_length > longest:
        raise ConfigError(229, f"max_length is {max_length}, the model has positions for {longest} tokens: lower it")
    size, training = len(text.texts), np.concatenate([text.labeled, text.unlabeled])
    texts = text.texts if text.pairs is None else pa.chunked_array([*text.texts.chunks, *text.pairs.chunks])
    rewritings, positions = (None, None) if views is None else rewritings_of(texts, views)
    store = TokenStore.build(
        texts if rewritings is None else pa.chunked_array([*texts.chunks, *rewritings.chunks]),
        first.tokenizer,
        cache_dir=cache_dir or cache_folder(),
        fit_rows=np.sort(training if text.pairs is None else np.concatenate([training, training + size])),
        max_words=_MAX_WORDS,
    )
    if positions is not None:
        store.rewritings = positions
    if text.pairs is not None:
        store.join(np.arange(size, 2 * size), first.tokenizer)
    strong = strong or (TFIDF if views is None else REWRITTEN)
    note = check_lengths(store.lengths[:size], max_length)
    data = Data(
        classes=text.classes,
        store=store,
        labels=text.labels,
        labeled=text.labeled,
        unlabeled=text.unlabeled,
        dev=text.dev,
        test=text.test,
        notes=text.notes if note is None else (*text.notes, note),
        content_hash=text.content_hash,
        texts=text.whole,
        origin=(*origin, ("strong", repr(strong)), ("views", _name(rewritings)), *_labels_of(text)),
    )
    policy = TextPolicy()
    views = {"weak": Identity(), "strong": strong, "controlled": policy, "probe": policy.probe()}
    return Task(data, build, views, partial(load_trained, kinds=("one", "many")))


def _labels_of(text: TextData) -> tuple[tuple[str, str], ...]:
    """A note in the run's identity where rows have several labels."""
    return () if text.kind == "one" else (("labels", "several a row"),)


def _name(rewritings: pa.ChunkedArray | None) -> str:
    """A hash of the rewritings, so that a resumed run notices others."""
    if rewritings is None:
        return ""
    digest = xxhash.xxh3_128()
    for text in rewritings.to_pylist():
        digest.update(f"{text}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()


def image_task(images: ImageData, backbone: str) -> Task:
    """Prepares a torchvision backbone or a Wide-ResNet ("wrn-16-2") for images, with FixMatch's two views.

    Raises:
        ConfigError: no such backbone.
    """
    channels = images.store.images.shape[-1]
    weak = FlipShift(flip=images.flip)

    def build(number: int) -> Module:
        store = images.store
        return build_image_net(
            backbone, len(images.classes), channels, classes=images.classes, mean=store.mean, std=store.std
        )

    data = Data(
        classes=images.classes,
        store=images.store,
        labels=images.labels,
        labeled=images.labeled,
        unlabeled=images.unlabeled,
        dev=images.dev,
        test=images.test,
        notes=images.notes,
        content_hash=images.content_hash,
        origin=(("model", backbone),),
    )
    policy = ImagePolicy(tuple(op for op in OPS if op != "color" or channels == 3), flip_shift=weak)
    views = {"weak": weak, "strong": Strong(flip_shift=weak), "controlled": policy, "probe": policy.probe()}
    return Task(data, build, views, ImageNet.load)
