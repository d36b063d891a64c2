"""Texts as sentences and back: models translate sentences, and batches of like length waste little."""

import re
from collections.abc import Callable, Iterator, Sequence

# After the mark: a space and something that may begin a sentence; or the mark stands alone, as in tokenized corpora.
_BOUNDARY = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[¿¡]*[^\Wa-z_])|(?<=\s[.!?…])\s+")
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|No|e\.g|i\.e|etc)\.$")
_WORDS = 120  # of a sentence; more are cut off into the next: models know some 500 tokens


def split(text: str) -> list[str]:
    """The sentences of a text, none of them blank; a very long one in pieces."""
    sentences, start = [], 0
    for match in _BOUNDARY.finditer(text):
        if not _ABBREVIATION.search(text, start, match.start()):
            sentences.append(text[start : match.end()])
            start = match.end()
    words = (sentence.split() for sentence in [*sentences, text[start:]])
    return [" ".join(part[i : i + _WORDS]) for part in words for i in range(0, len(part), _WORDS)]


def by_sentence(
    texts: Sequence[str],
    size: Callable[[str], int],
    budget: int,
    translate: Callable[[list[str]], list[str]],
) -> Iterator[tuple[int, str]]:
    """(number, translation) of every text, as soon as its last sentence is done.

    Args:
        texts: texts of any length; one without words stays as it is.
        size: tokens of a sentence.
        budget: tokens of a batch, padding included.
        translate: translates a batch of sentences; a sentence that becomes nothing stays as it is.
    """
    sentences = [split(text) for text in texts]
    done: list[list[str]] = [list(parts) for parts in sentences]
    left = [len(parts) for parts in sentences]
    yield from ((number, texts[number]) for number, count in enumerate(left) if not count)
    places = [(number, i) for number, parts in enumerate(sentences) for i in range(len(parts))]
    sizes = [size(sentences[number][i]) for number, i in places]
    for batch in batches(sizes, budget):
        chosen = [places[at] for at in batch]
        for (number, i), new in zip(chosen, translate([sentences[n][j] for n, j in chosen]), strict=True):
            done[number][i] = new.strip() or sentences[number][i]
            left[number] -= 1
            if not left[number]:
                yield number, " ".join(done[number])


def batches(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions sorted by size, in batches whose longest member times their number stays within the budget."""
    batch: list[int] = []
    for at in sorted(range(len(sizes)), key=sizes.__getitem__):
        if batch and sizes[at] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch
