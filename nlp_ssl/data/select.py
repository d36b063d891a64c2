"""The texts of a large pool that look most like the task's own (Xie et al. 2020, arXiv:1904.12848, section 3.3)."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

IN_DOMAIN = "in_domain"
_BLOCK = 4096  # texts scored at once

# Texts -> (class, probability of that class) of each.
Scorer = Callable[[Sequence[str]], Sequence[tuple[str, float]]]


class Picked(NamedTuple):
    """A text of the pool, its row in its file (from 1), the class it looks like and the probability of that."""

    text: str
    row: int
    predicted: str
    probability: float


def select(rows: Iterable[tuple[int, str]], score: Scorer, per_class: int, floor: float = 0.0) -> list[Picked]:
    """The `per_class` surest texts of every predicted class, in the order of the pool.

    One pass; only the picked texts are in memory, beside a few thousand others. Of equal texts and of equally sure ones
    the first stays, so that the result does not depend on how the pool is cut into blocks. Equal texts count once even
    where they are given to two classes: a model's answers differ in the last digits from block to block.

    Args:
        rows: (row number, text), in the order of the pool; the numbers may start again with each of its files.
        score: the classifier.
        per_class: texts kept of each class at most.
        floor: probability of a kept text, at least.
    """
    best: dict[str, list[tuple[float, int, Picked]]] = {}  # heaps: the least sure and latest first
    known: set[str] = set()
    left, place = iter(rows), 0
    while block := list(islice(left, _BLOCK)):
        for (row, text), (label, p) in zip(block, score([text for _, text in block]), strict=True):
            place += 1
            heap = best.setdefault(label, [])
            full = len(heap) == per_class
            if p < floor or text in known or (full and p <= heap[0][0]):
                continue
            if full:
                known.discard(heapq.heappop(heap)[2].text)
            heapq.heappush(heap, (p, -place, Picked(text, row, label, p)))
            known.add(text)
    by_place = sorted((-minus, one) for heap in best.values() for _, minus, one in heap)
    return [one for _, one in by_place]


def domain_scorer(
    in_domain: Sequence[str], pool: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray], seed: int = 0
) -> Scorer:
    """A scorer that tells texts of the domain from those of the pool: logistic regression on embeddings.

    As many texts of either side as the smaller one has are learned from, drawn by the seed. The pool may hold texts of
    the domain; they only make the probabilities lower.
    """
    rng, size = np.random.default_rng(seed), min(len(in_domain), len(pool))
    ours = [in_domain[i] for i in rng.permutation(len(in_domain))[:size]]
    theirs = [pool[i] for i in rng.permutation(len(pool))[:size]]
    model = LogisticRegression(max_iter=1000).fit(embed([*ours, *theirs]), np.repeat([1, 0], size))

    def score(texts: Sequence[str]) -> list[tuple[str, float]]:
        return [(IN_DOMAIN, float(p)) for p in model.predict_proba(embed(texts))[:, 1]]

    return score
