"""Predictions over positions of a store, and what they are worth."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlp_ssl.data.dataset import Data, Store
from nlp_ssl.data.values import refuse_one_text
from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.text import TextNet
from nlp_ssl.types import Batch, Kind
from nlp_ssl.utils.counter_rng import row_keys
from nlp_ssl.utils.precision import Autocast
from nlp_ssl.utils.progress import bar

_TOKENS = 8192  # tokens of one prediction batch
_ROWS = 256
_CPU_TOKENS = 2048  # fastest of 512 to 16384, measured (scripts/bench/predict.py)
_GPU_TOKENS = 131_072  # more fills no GPU better


def batches(lengths: np.ndarray, tokens: int = _TOKENS, most: int = _ROWS) -> Iterator[np.ndarray]:
    """Row numbers in batches of like length within a token budget and at `most` so many, longest first."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = min(max(tokens // int(lengths[order[start]]), 1), most)
        yield order[start : start + rows]
        start += rows


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


@contextmanager
def sampling(module: nn.Module, seed: int) -> Iterator[None]:
    """Dropout on for a while, drawn by the seed; norms stay as in eval mode."""
    was_training = {m: m.training for m in module.modules()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for m in was_training:
            m.training = not isinstance(m, _BatchNorm)
        try:
            yield
        finally:
            for m, training in was_training.items():
                m.training = training


@torch.no_grad()
def features(
    module: Module,
    store: Store,
    positions: np.ndarray,
    context: Autocast = nullcontext,
    *,
    augment: Any = None,
    seed: int = 0,
) -> Tensor:
    """Features [n, D] float32 on the CPU in the order of `positions`, in eval mode; of augmented rows on request."""
    with evaluating(module):
        return _features(module, store, positions, context, augment, seed)


def _features(
    module: Module,
    store: Store,
    positions: np.ndarray,
    context: Autocast,
    augment: Any = None,
    seed: int = 0,
) -> Tensor:
    device = next(module.parameters()).device
    lengths = np.minimum(store.lengths[positions], store.max_length)
    out = torch.empty(0)
    with bar("embedding", len(positions)) as advance:
        for rows in batches(lengths):
            keys = row_keys(seed, 0, positions[rows])
            inputs, _ = store.views([(positions[rows], augment, keys)])
            with context():
                part = module.embed({k: v.to(device) for k, v in inputs.items()}).float().cpu()
            out = out if len(out) else torch.empty(len(positions), part.shape[1])
            out[torch.from_numpy(rows)] = part
            advance(len(rows))
    return out


@torch.no_grad()
def predict(
    module: Module,
    store: Store,
    positions: np.ndarray,
    context: Autocast = nullcontext,
    *,
    augment: Any = None,
    seed: int = 0,
) -> Tensor:
    """Logits [n, C] float32 on the CPU in the order of `positions`, in eval mode; of augmented rows on request."""
    if not len(positions):
        return torch.empty(0, 0)
    device = next(module.parameters()).device
    vectors = features(module, store, positions, context, augment=augment, seed=seed)
    with evaluating(module):
        return module.head(vectors.to(device)).float().cpu()


@torch.no_grad()
def predict_sampled(
    module: Module,
    store: Store,
    positions: np.ndarray,
    context: Autocast = nullcontext,
    *,
    passes: int,
    seed: int,
) -> Iterator[Tensor]:
    """Logits [n, C] float32 on the CPU of each of several passes with dropout (Gal and Ghahramani 2016).

    Every row has a mask of its own. Batches are those of `predict`, so that a pass is a function of the seed.
    """
    device = next(module.parameters()).device
    for number in range(passes):
        with sampling(module, int(np.random.SeedSequence((seed, number)).generate_state(1)[0])):
            vectors = _features(module, store, positions, context)
            logits = module.head(vectors.to(device)).float().cpu()
        yield logits


def longest_text(net: TextNet, asked: int | None = None) -> int:
    """Tokens per text: what was asked for or trained with, within what the model has positions for."""
    longest = net.longest()
    wanted = asked if asked is not None else min(int(net.tokenizer.model_max_length), 512)
    if longest is not None and asked is not None and asked > longest:
        raise ConfigError(229, f"max_length is {asked}, the model has positions for {longest} tokens: lower it")
    return wanted if longest is None else min(wanted, longest)


def predict_texts(
    net: TextNet, texts: Sequence[str], max_length: int, pairs: Sequence[str] | None = None
) -> list[tuple[str, float]]:
    """(label, probability) of each text, or of each pair of a text and its second one.

    Raises:
        RunError: the model's answers are not numbers.
    """
    if not len(texts):
        return []
    confidence, label = logits_of_texts(net, texts, max_length, pairs).softmax(-1).max(-1)
    return [(net.model.config.id2label[c], p) for p, c in zip(confidence.tolist(), label.tolist(), strict=True)]


def logits_of_texts(
    net: TextNet,
    texts: Sequence[str],
    max_length: int,
    pairs: Sequence[str] | None = None,
    context: Autocast = nullcontext,
) -> Tensor:
    """Logits [n, C] of texts or pairs of texts, float32 on the CPU, computed in batches of like length.

    Raises:
        RunError: the model's answers are not numbers.
    """
    # Without the heads that a method may have attached.
    return finite(_of_texts(net, texts, max_length, lambda inputs: net.head(net.embed(inputs)), pairs, context))


def probabilities(logits: Tensor, kind: Kind) -> Tensor:
    """Probabilities [n, C] of logits [n, C], float64; of multi-label data, each label's own."""
    return logits.double().sigmoid() if kind == "multi-label" else logits.double().softmax(-1)


def finite(logits: Tensor) -> Tensor:
    """The logits as they are.

    Raises:
        RunError: some are not numbers.
    """
    if not bool(torch.isfinite(logits).all()):
        raise RunError(304, "the model's answers are not numbers: its weights are damaged, train it again")
    return logits


def features_of_texts(net: TextNet, texts: Sequence[str], max_length: int) -> Tensor:
    """Features [n, D] of texts that the classifier of the net would see, float32, in batches of like length."""
    return _of_texts(net, texts, max_length, net.embed)


@torch.no_grad()
def _of_texts(
    net: TextNet,
    texts: Sequence[str],
    max_length: int,
    wanted: Callable[[dict[str, Tensor]], Tensor],
    pairs: Sequence[str] | None = None,
    context: Autocast = nullcontext,
) -> Tensor:
    """What the net, or the part of it that is `wanted`, makes of each text [n, ...], in the order of the texts."""
    device = device_of(net)

    def forward(inputs: dict[str, Tensor]) -> Tensor:
        return wanted({name: value.to(device) for name, value in inputs.items()}).float().cpu()

    with context():  # around all batches: half-precision copies of the weights are made once
        return by_length(net.tokenizer, texts, max_length, forward, token_budget(net), pairs)


def by_length(
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    forward: Callable[[dict[str, Tensor]], Tensor],
    tokens: int,
    pairs: Sequence[str] | None = None,
) -> Tensor:
    """What `forward` makes of each text or pair [n, ...], in the order of the texts; in batches of like length.

    Raises:
        ConfigError: `texts` or `pairs` is one text instead of a list.
    """
    refuse_one_text(texts, "texts")
    refuse_one_text(pairs, "second texts")
    second = None if pairs is None else list(pairs)
    encoded = tokenizer(list(texts), second, truncation=True, max_length=max_length, return_attention_mask=False)
    # Which text a token is of matters in pairs alone, and not to every model.
    names = [name for name in ("input_ids", *["token_type_ids"] * (pairs is not None)) if name in encoded]
    out = torch.empty(0)
    with bar("predicting", len(texts)) as advance:
        for rows in batches(np.array([len(t) for t in encoded["input_ids"]]), tokens, len(texts)):
            part = forward(dict(tokenizer.pad({n: [encoded[n][i] for i in rows] for n in names}, return_tensors="pt")))
            out = out if len(out) else torch.empty(len(texts), *part.shape[1:])
            out[torch.from_numpy(rows)] = part
            advance(len(rows))
    return out


def token_budget(net: TextNet) -> int:
    """Tokens of one batch of texts: what stays in the caches of a CPU, or a share of a GPU's free memory."""
    device = device_of(net)
    if device.type != "cuda":
        return _CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    # What a layer holds at once in float32: its input, queries, keys, values, their mixture, and the wide layer twice.
    width = int(net.model.config.hidden_size)
    wide = int(net.model.config.to_dict().get("intermediate_size", 4 * width))
    return max(min(free // 4 // (4 * (6 * width + 2 * wide)), _GPU_TOKENS), _CPU_TOKENS)


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def as_batch(inputs: dict[str, Tensor], lengths: np.ndarray, labels: np.ndarray) -> Batch:
    """Labeled rows as a batch of one view "x"."""
    n = len(labels)
    y = torch.from_numpy(labels)
    return Batch(
        inputs=inputs,
        lengths=lengths,
        rows={"x": slice(0, n)},
        y=y,
        w=torch.ones(n),
        id={"x": torch.arange(n)},
        keys={},
        true_labels=y.new_empty(0),
    )


def predict_splits(module: Module, data: Data, context: Autocast = nullcontext) -> dict[str, Tensor]:
    """Logits [n, C] of the dev and test rows, as far as there are any."""
    positions = {"dev": data.dev, "test": data.test}
    return {split: predict(module, data.store, at, context) for split, at in positions.items() if len(at)}
