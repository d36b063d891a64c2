"""Answers of a saved classifier for rows of any number, a block of them in memory at a time."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import PartialState
from torch import Tensor

from nlp_ssl.config import MixedPrecision
from nlp_ssl.data.sources import TextRow
from nlp_ssl.inference.export import OnnxClassifier, check_reads, is_exported
from nlp_ssl.inference.predict import logits_of_texts, longest_text, probabilities
from nlp_ssl.nets.text import check_pairs, class_names, load_trained
from nlp_ssl.types import Kind
from nlp_ssl.utils.precision import autocast, resolve

log = logging.getLogger("nlp_ssl")
_ROWS = 4096  # of one block: within it texts are sorted by length
_CHARACTERS = 8_000_000  # of one block, from where it ends early


@dataclass(frozen=True)
class Predictor:
    """A classifier that is ready: its class names, and the logits [n, C] of texts, or of pairs of them."""

    classes: tuple[str, ...]
    logits: Callable[[Sequence[str], Sequence[str] | None], Tensor]
    kind: Kind = "single-label"

    def probabilities(self, texts: Sequence[str], second: Sequence[str] | None) -> np.ndarray:
        """Probabilities float64 [n, C]; of a multi-label classifier, each label's own."""
        p: np.ndarray = probabilities(self.logits(texts, second), self.kind).numpy()
        return p


@dataclass(frozen=True)
class Answers:
    """The answers to a block of rows, in their order.

    Attributes:
        rows: row numbers [N].
        probabilities: float64 [N, C], NaN in rows without a text.
    """

    rows: np.ndarray
    probabilities: np.ndarray


def open_predictor(
    folder: Path, *, max_length: int | None = None, precision: MixedPrecision = "auto", pairs: bool = False
) -> Predictor:
    """The classifier of a folder that `train` or `export` wrote.

    A model runs on the GPU where there is one; in bf16 if `precision` is "auto" and bf16 is measured to be faster
    there. A graph runs as it was exported, on the CPU.

    Raises:
        ConfigError: `max_length` is more than the model has positions for, fp16 is asked for without a GPU, or the
            model is one of pairs and there are none.
        DataError: the folder holds no whole model.
    """
    if is_exported(folder):
        graph = OnnxClassifier(folder)
        check_reads(folder, graph.of_pairs, pairs)
        cut = graph.longest_text(max_length)
        return Predictor(graph.classes, lambda texts, second: graph.logits(texts, cut, second), graph.kind)
    place = PartialState().device
    net = load_trained(folder, kinds=("single-label", "multi-label"))
    check_pairs(net.model.config, pairs)
    longest = longest_text(net, max_length)
    chosen = resolve(precision, place)
    if chosen != precision and chosen == "bf16":
        log.info("bf16 is faster here: two to three digits of a probability are true; more by --mixed-precision no")
    context = autocast(chosen, place)
    classes = tuple(class_names(net.model.config))
    net = net.to(place)
    return Predictor(classes, lambda texts, second: logits_of_texts(net, texts, longest, second, context), net.kind)


def answer(predictor: Predictor, rows: Iterable[TextRow]) -> Iterator[Answers]:
    """The answers to rows as they come, block by block.

    Raises:
        RunError: the model's answers are not numbers.
    """
    for block in _blocks(rows):
        probabilities = np.full((len(block), len(predictor.classes)), np.nan)
        filled = [i for i, (_, texts) in enumerate(block) if texts is not None]
        if filled:
            first, *second = zip(*(texts for _, texts in block if texts is not None), strict=True)
            probabilities[filled] = predictor.probabilities(first, second[0] if second else None)
        yield Answers(np.array([number for number, _ in block]), probabilities)


def _blocks(rows: Iterable[TextRow]) -> Iterator[list[TextRow]]:
    block: list[TextRow] = []
    characters = 0
    for row in rows:
        block.append(row)
        characters += sum(map(len, row[1] or ()))
        if len(block) == _ROWS or characters >= _CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block
