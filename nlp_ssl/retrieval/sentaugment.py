"""SentAugment: sentences of a large bank that are like the task's, labeled by a teacher (Du et al. 2021,
arXiv:2010.02194).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from nlp_ssl.data.pseudo_labels import SCHEMA, named
from nlp_ssl.data.splits import text_keys
from nlp_ssl.data.values import refuse_one_text
from nlp_ssl.errors import DataError
from nlp_ssl.ops.functional import softmax
from nlp_ssl.ops.targets import top_k_per_class
from nlp_ssl.retrieval import Hit, Index
from nlp_ssl.utils.parquet import write_parquet
from nlp_ssl.utils.ranges import Range, Share, check_ranges

_BLOCK = 1024  # hits whose vectors are compared at once


@dataclass(frozen=True)
class Retrieval:
    """How many sentences are retrieved, and which of them are kept.

    Differs from the paper: near copies of the task's own texts are recognised by the cosine of the embeddings.
    """

    query_by: Annotated[
        Literal["label", "average", "text"], "one query per class, one for the whole task, or one per labeled text"
    ] = "label"
    per_query: Annotated[int, Range(1, 1e7), "sentences retrieved for each query"] = 2000
    per_class: Annotated[int, Range(1, 1e9), "sentences kept per class, at most"] = 500
    near: Annotated[Share, "cosine from which a sentence counts as a copy of a text of the task"] = 0.95

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class LabeledSentence:
    """A sentence of the bank with its cosine to the nearest query and the teacher's probabilities [C]."""

    id: int
    score: float
    text: str
    p: tuple[float, ...]


def task_queries(embeddings: np.ndarray, labels: np.ndarray, kind: str) -> np.ndarray:
    """Queries [Q, D] of length 1 from embeddings [L, D] of length 1 of labeled texts with classes [L].

    "average": the mean of all; "label": the mean of each class; "text": every text by itself.
    """
    if kind == "text":
        return embeddings
    groups = [np.arange(len(labels))] if kind == "average" else [np.flatnonzero(labels == c) for c in np.unique(labels)]
    means = np.stack([embeddings[rows].mean(0) for rows in groups])
    unit: np.ndarray = means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    return unit


def retrieve(index: Index, queries: np.ndarray, own: Sequence[str], options: Retrieval) -> list[Hit]:
    """The nearest sentences to the queries [Q, D], best first, each once, without those of the task itself.

    Args:
        index: of the bank.
        queries: of length 1.
        own: texts of the task: labeled, dev and test ones. Sentences that equal one but for case and white space, or
            are nearer to one than `options.near`, are left out.
        options: how many, and how near is too near.
    """
    best: dict[int, Hit] = {}
    for nearest in index.search(queries, options.per_query):
        for hit in nearest:
            if hit.id not in best or hit.score > best[hit.id].score:
                best[hit.id] = hit
    hits = sorted(best.values(), key=lambda hit: (-hit.score, hit.id))
    if not hits:
        return []
    known = index.embed(own)
    keep = ~np.isin(_keys([hit.text for hit in hits]), _keys(own))
    for at in range(0, len(hits), _BLOCK):
        block = slice(at, at + _BLOCK)
        vectors = index.bank.vectors(np.array([hit.id for hit in hits[block]]))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        keep[block] &= (vectors @ known.T).max(1) < options.near
    _, first = np.unique(_keys([hit.text for hit in hits]), return_index=True)
    once = np.isin(np.arange(len(hits)), first)
    return [hit for hit, kept in zip(hits, keep & once, strict=True) if kept]


def label(hits: Sequence[Hit], teacher: Callable[[Sequence[str]], Tensor], keep: int) -> list[LabeledSentence]:
    """Of every predicted class the `keep` sentences that the teacher is surest of, in the order of the hits.

    Args:
        hits: sentences.
        teacher: logits [n, C] of texts, without dropout.
        keep: sentences per class, at most: choosing over all classes at once would keep those of easy classes alone.
    """
    if not hits:
        return []
    p = softmax(teacher([hit.text for hit in hits]).double())  # [n, C]
    kept = top_k_per_class(p, keep).nonzero().squeeze(1).tolist()
    return [LabeledSentence(hits[i].id, hits[i].score, hits[i].text, tuple(p[i].tolist())) for i in kept]


def augment(
    index: Index,
    texts: Sequence[str],
    labels: np.ndarray,
    scored: Sequence[str],
    teacher: Callable[[Sequence[str]], Tensor],
    options: Retrieval,
) -> list[LabeledSentence]:
    """Sentences for a task of labeled texts with classes [L]: queries, retrieval and the teacher's labels in one.

    `scored` are texts that must not be trained on: those of dev and test.

    Raises:
        ConfigError: `texts` or `scored` is one text instead of a list.
        DataError: the bank has no such sentence.
    """
    refuse_one_text(scored, "scored")
    queries = task_queries(index.embed(texts), labels, options.query_by)
    sentences = label(retrieve(index, queries, [*texts, *scored], options), teacher, options.per_class)
    if not sentences:
        raise DataError(148, "the bank has no sentences like these: retrieve more, or raise --near")
    return sentences


def write_sentences(path: Path, sentences: Sequence[LabeledSentence], classes: Sequence[str]) -> None:
    """Writes sentences with a teacher's probabilities, as `given_labels` reads them; "id" is the bank's.

    Raises:
        RunError: the file cannot be written.
    """
    schema = pa.schema(
        [
            *(SCHEMA.field(n) for n in ("id", "text", "label", "probabilities", "weight", "learn")),
            ("score", pa.float64()),
        ]
    )
    rows = (
        (one.id, one.text, classes[int(np.argmax(one.p))], one.p, 1.0, "probabilities", one.score) for one in sentences
    )
    write_parquet(path, rows, named(schema, classes))


def _keys(texts: Sequence[str]) -> np.ndarray:
    return text_keys(pa.chunked_array([pa.array(texts, pa.large_string())]))


def by_class(sentences: Sequence[LabeledSentence], classes: Sequence[str]) -> list[tuple[str, int, float]]:
    """(class, sentences, least probability) of every class, those without a sentence too."""
    p = torch.tensor([one.p for one in sentences]).reshape(len(sentences), len(classes))
    sure, label = p.max(1) if len(sentences) else (torch.zeros(0), torch.zeros(0))
    return [
        (name, int((label == c).sum()), float(sure[label == c].min()) if bool((label == c).any()) else 0.0)
        for c, name in enumerate(classes)
    ]
