"""Predictions over positions of a store, and what they are worth."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlp_ssl import atomic
from nlp_ssl.adversary import AddNoise, Measure, sized
from nlp_ssl.augment.counter_rng import row_keys
from nlp_ssl.data.dataset import Data, Store
from nlp_ssl.data.values import refuse_one_text
from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.functional import ce
from nlp_ssl.many import known_answers
from nlp_ssl.method import Batch, Kind
from nlp_ssl.nets.base import Module, Net
from nlp_ssl.nets.text import TextNet
from nlp_ssl.precision import Autocast

_TOKENS = 8192  # tokens of one prediction batch
_ROWS = 256
_CPU_TOKENS = 2048  # fastest of 512 to 16384, measured (scripts/bench/predict.py)
_GPU_TOKENS = 131_072  # more fills no GPU better


@dataclass(frozen=True)
class Scores:
    """Quality of predictions: shares between 0 and 1, `nll` in nats.

    With several labels a row, accuracy is the share of rows with all labels right (exact match), and micro F1 leads.
    """

    accuracy: float
    macro_f1: float
    nll: float
    calibration_error: float
    micro_f1: float | None = None  # with several labels a row alone

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Scores":
        """Scores as they were saved.

        Raises:
            TypeError, ValueError: one is missing, unknown, of another kind or out of range.
        """
        made = cls(**saved)
        for name, value in asdict(made).items():
            most = 1e30 if name == "nll" else 1.001
            if not (atomic.is_number(value) and 0 <= value <= most) and not (name == "micro_f1" and value is None):
                raise ValueError(f"{name} is {value!r}")
        return made

    @property
    def leading(self) -> Literal["accuracy", "micro_f1"]:
        """Name of the score that methods are compared by."""
        return "accuracy" if self.micro_f1 is None else "micro_f1"

    @property
    def lead(self) -> float:
        """The score that methods are compared by."""
        return self.accuracy if self.micro_f1 is None else self.micro_f1

    def named(self) -> dict[str, float]:
        """The scores that count, by their names in words."""
        if self.micro_f1 is None:
            return {"accuracy": self.accuracy, "macro F1": self.macro_f1}
        return {"micro F1": self.micro_f1, "macro F1": self.macro_f1, "exact match": self.accuracy}


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
    max_length: int,
    context: Autocast = nullcontext,
    *,
    augment: Any = None,
    seed: int = 0,
) -> Tensor:
    """Features [n, D] float32 on the CPU in the order of `positions`, in eval mode; of augmented rows on request."""
    with evaluating(module):
        return _features(module, store, positions, max_length, context, augment, seed)


def _features(
    module: Module,
    store: Store,
    positions: np.ndarray,
    max_length: int,
    context: Autocast,
    augment: Any = None,
    seed: int = 0,
) -> Tensor:
    device = next(module.parameters()).device
    lengths = np.minimum(store.lengths[positions], max_length)
    out = torch.empty(0)
    for rows in batches(lengths):
        keys = row_keys(seed, 0, positions[rows])
        inputs, _ = store.views([(positions[rows], augment, keys)], max_length)
        with context():
            part = module.embed({k: v.to(device) for k, v in inputs.items()}).float().cpu()
        out = out if len(out) else torch.empty(len(positions), part.shape[1])
        out[torch.from_numpy(rows)] = part
    return out


@torch.no_grad()
def predict(
    module: Module,
    store: Store,
    positions: np.ndarray,
    max_length: int,
    context: Autocast = nullcontext,
    *,
    augment: Any = None,
    seed: int = 0,
) -> Tensor:
    """Logits [n, C] float32 on the CPU in the order of `positions`, in eval mode; of augmented rows on request."""
    if not len(positions):
        return torch.empty(0, 0)
    device = next(module.parameters()).device
    found = features(module, store, positions, max_length, context, augment=augment, seed=seed)
    with evaluating(module):
        return module.head(found.to(device)).float().cpu()


@torch.no_grad()
def predict_sampled(
    module: Module,
    store: Store,
    positions: np.ndarray,
    max_length: int,
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
            found = _features(module, store, positions, max_length, context)
            logits = module.head(found.to(device)).float().cpu()
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
    """Probabilities [n, C] of logits [n, C], float64; where a row has several labels, each label's own."""
    return logits.double().sigmoid() if kind == "many" else logits.double().softmax(-1)


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
    device = _place(net)

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
    found = tokenizer(list(texts), second, truncation=True, max_length=max_length, return_attention_mask=False)
    # Which text a token is of matters in pairs alone, and not to every model.
    names = [name for name in ("input_ids", *["token_type_ids"] * (pairs is not None)) if name in found]
    out = torch.empty(0)
    for rows in batches(np.array([len(t) for t in found["input_ids"]]), tokens, len(texts)):
        part = forward(dict(tokenizer.pad({n: [found[n][i] for i in rows] for n in names}, return_tensors="pt")))
        out = out if len(out) else torch.empty(len(texts), *part.shape[1:])
        out[torch.from_numpy(rows)] = part
    return out


def token_budget(net: TextNet) -> int:
    """Tokens of one batch of texts: what stays in the caches of a CPU, or a share of a GPU's free memory."""
    device = _place(net)
    if device.type != "cuda":
        return _CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    # What a layer holds at once in float32: its input, queries, keys, values, their mixture, and the wide layer twice.
    width = int(net.model.config.hidden_size)
    wide = int(net.model.config.to_dict().get("intermediate_size", 4 * width))
    return max(min(free // 4 // (4 * (6 * width + 2 * wide)), _GPU_TOKENS), _CPU_TOKENS)


def _place(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def predict_attacked(
    module: Module,
    store: Store,
    positions: np.ndarray,
    labels: np.ndarray,
    max_length: int,
    size: float,
    context: Autocast = nullcontext,
) -> Tensor:
    """Logits [n, C] float32 on the CPU under the noise that hurts most, in eval mode, in the order of `positions`.

    Every value of a row's word embeddings (not those of special tokens) or pixels moves by `size` times their standard
    deviation, in the direction of the sign of the gradient of the loss for the true labels [n]: the fast gradient sign
    method (Goodfellow et al. 2015, arXiv:1412.6572).
    """
    net, device = Net(module, autocast=context), next(module.parameters()).device
    lengths = np.minimum(store.lengths[positions], max_length)
    out = torch.empty(len(positions), module.classifier.out_features)
    with evaluating(module):
        for rows in batches(lengths):
            inputs, _ = store.views([(positions[rows], None, row_keys(0, 0, positions[rows]))], max_length)
            batch = _batch({k: v.to(device) for k, v in inputs.items()}, lengths[rows], labels[rows])
            out[torch.from_numpy(rows)] = _attacked(net, batch, size).cpu()
    return out


@torch.no_grad()
def _attacked(net: Net, batch: Batch, size: float) -> Tensor:
    def loss(logits: Sequence[Tensor]) -> Tensor:
        return ce(logits[0], batch["y"].to(logits[0].device)).sum()

    inputs = Measure()
    net(batch, "x", edit=inputs, dropout=False)
    noise = sized(net.gradient(batch, "x", loss=loss), inputs, size, "linf")
    return net(batch, "x", edit=AddNoise(noise), dropout=False)[0]


def _batch(inputs: dict[str, Tensor], lengths: np.ndarray, labels: np.ndarray) -> Batch:
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
        hidden=y.new_empty(0),
    )


def predict_splits(module: Module, data: Data, max_length: int, context: Autocast = nullcontext) -> dict[str, Tensor]:
    """Logits [n, C] of the dev and test rows, as far as there are any."""
    positions = {"dev": data.dev, "test": data.test}
    return {split: predict(module, data.store, at, max_length, context) for split, at in positions.items() if len(at)}


def score_splits(
    module: Module,
    data: Data,
    max_length: int,
    context: Autocast = nullcontext,
    *,
    fgsm: float = 0.0,
    logits: Mapping[str, Tensor] | None = None,
) -> dict[str, Scores]:
    """Scores on the dev and test rows, as far as there are any; and on attacked test rows, "test_fgsm", if fgsm > 0.

    `logits` are those of `predict_splits`, where they are known already.
    """
    labels = {"dev": data.labels[data.dev], "test": data.labels[data.test]}
    logits = predict_splits(module, data, max_length, context) if logits is None else logits
    found = {split: score(found, labels[split]) for split, found in logits.items()}
    if fgsm and len(data.test):
        truth = data.labels[data.test]
        attacked = predict_attacked(module, data.store, data.test, truth, max_length, fgsm, context)
        found["test_fgsm"] = score(attacked, truth)
    return found


def score(logits: Tensor, labels: np.ndarray, bins: int = 15) -> Scores:
    """Accuracy, macro F1 over the classes present, negative log-likelihood and expected calibration error.

    Labels [n] are classes; with several labels a row [n, C], 1, 0 or -1 where a label is not known and does not count.
    """
    if labels.ndim == 2:
        return _score_many(logits, labels, bins)
    p = logits.double().softmax(-1)
    truth = torch.from_numpy(labels)
    confidence, guess = p.max(-1)
    right = (guess == truth).double()
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, confidence - right)
    return Scores(
        accuracy=float(right.mean()),
        macro_f1=float(f1_score(labels, guess.numpy(), average="macro", labels=np.unique(labels), zero_division=0.0)),
        nll=float(-p[torch.arange(len(p)), truth].clamp(min=1e-12).log().mean()),
        calibration_error=float(gap.abs().sum() / len(p)),
    )


def _score_many(logits: Tensor, labels: np.ndarray, bins: int) -> Scores:
    """Scores over the labels that are known; a label applies from a probability of 0.5 on."""
    guess = logits.numpy() >= 0
    known, wanted = labels >= 0, labels == 1
    each = [f1_score(wanted[k, c], guess[k, c], zero_division=0.0) for c, k in enumerate(known.T) if wanted[:, c].any()]
    asked = score(*known_answers(logits, labels), bins)
    return Scores(
        accuracy=float((~known | (guess == wanted))[known.any(1)].all(1).mean()),
        macro_f1=float(np.mean(each)) if each else 0.0,
        nll=asked.nll,
        calibration_error=asked.calibration_error,
        micro_f1=float(f1_score(wanted[known], guess[known], zero_division=0.0)),
    )


def confusion(logits: Tensor, labels: np.ndarray) -> np.ndarray:
    """How many rows of each class [C] are given to each class [C], from logits [n, C] and labels [n].

    Of several labels a row, labels [n, C], the same for no and yes of each label: [C, 2, 2].
    """
    if labels.ndim == 2:
        yes = logits.numpy() >= 0
        known = [(y[y >= 0], p[y >= 0]) for y, p in zip(labels.T, yes.T, strict=True)]
        none = np.zeros((2, 2), dtype=np.int64)
        return np.stack([confusion_matrix(y, p, labels=(0, 1)) if len(y) else none for y, p in known])
    found: np.ndarray = confusion_matrix(labels, logits.argmax(-1).numpy(), labels=range(logits.shape[1]))
    return found
