"""Texts per second of TF-IDF replacement: array gathers against the published per-word loop.

The loop does per text what the reference implementation does: copy the words, look up the scores, normalize them to
probabilities, take cached random numbers. Both start from texts already cut into words and end with changed words.
"""

import argparse
import copy
import gzip
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from nlp_ssl.augment.base import Identity
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.data.tokens import TokenStore
from nlp_ssl.utils.counter_rng import row_keys


def zipf_texts(rows: int, words: int, size: int, seed: int = 0) -> list[str]:
    """Texts of about `words` words from a Zipf vocabulary of `size`."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1, size + 1)
    lengths = rng.integers(words // 2, words + words // 2 + 1, rows)
    drawn = rng.choice(size, lengths.sum(), p=frequency / frequency.sum())
    return [" ".join(f"w{word}" for word in part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def read_texts(path: Path, rows: int) -> list[str]:
    """The first `rows` texts of a gzipped JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(rows), strict=False)]


def word_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """One token per word, so that the comparison is about replacement, not about pieces."""
    splitter = Whitespace()
    words = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text)})
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {word: i for i, word in enumerate(words, start=2)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")


class RoundMethod:
    """The per-word algorithm, written as published, over lists of words."""

    def __init__(self, rows: list[list[str]], p: float) -> None:
        self.p = p
        df: dict[str, int] = defaultdict(int)
        for row in rows:
            for word in set(row):
                df[word] += 1
        self.idf = {word: float(np.log(len(rows) / count)) for word, count in df.items()}
        summed: dict[str, float] = defaultdict(float)
        for row in rows:
            for word in row:
                summed[word] += self.idf[word] / len(row)
        self.words = list(summed)
        mass = max(summed.values()) - np.array(list(summed.values()))
        self.mass = mass / mass.sum()
        self.rng = np.random.default_rng(0)
        self.numbers: list[float] = []
        self.drawn: list[int] = []

    def number(self) -> float:
        if not self.numbers:
            self.numbers = self.rng.random(100_000).tolist()
        return self.numbers.pop()

    def word(self) -> str:
        if not self.drawn:
            self.drawn = self.rng.choice(len(self.words), 100_000, p=self.mass).tolist()
        return self.words[self.drawn.pop()]

    def __call__(self, row: list[str]) -> list[str]:
        words = copy.deepcopy(row)
        scores: dict[str, float] = defaultdict(float)
        for word in words:
            scores[word] += 1.0 / len(words) * self.idf[word]
        gap = np.array([scores[word] for word in words])
        gap = gap.max() - gap
        total = gap.sum()
        probability = gap / total * self.p * len(words) if total > 0 else gap
        for i in range(len(words)):
            if self.number() < probability[i]:
                words[i] = self.word()
        return words


def rate(work: Callable[[], None], rows: int, repeats: int) -> float:
    """Median rows per second after one unmeasured call."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return rows / statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help='gzipped JSONL with "text"; default: synthetic Zipf texts')
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--words", type=int, default=40, help="mean words of a synthetic text")
    parser.add_argument("--size", type=int, default=30_000, help="vocabulary of the synthetic texts")
    parser.add_argument("--p", type=float, default=0.4)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    texts = read_texts(args.data, args.rows) if args.data else zipf_texts(args.rows, args.words, args.size)
    tokenizer, splitter, augment = word_tokenizer(texts), Whitespace(), TfidfReplace(args.p)
    rows = [row for row in ([word for word, _ in splitter.pre_tokenize_str(text)] for text in texts) if row]
    with tempfile.TemporaryDirectory() as cache:
        store = TokenStore.build(
            pa.chunked_array([pa.array(texts, pa.large_string())]), tokenizer, cache_dir=Path(cache), max_length=512
        )
        index = np.random.default_rng(0).permutation(len(store))
        keys = row_keys(0, 0, index)

        def gathers(batch: int) -> None:
            for start in range(0, len(index), batch):
                words, weights = store.words(index[start : start + batch])
                augment(words, weights, keys[start : start + batch], store.vocabulary)

        loop = RoundMethod(rows, args.p)

        def plain() -> None:
            for row in rows:
                loop(row)

        mean = sum(map(len, rows)) / len(rows)
        print(f"{len(rows)} texts, {mean:.0f} words each, {len(store.vocabulary)} distinct words, p {args.p}")
        slow = rate(plain, len(rows), args.repeats)
        print(f"{'per-word loop':24} {slow:12,.0f} texts/s")
        for batch in (32, 256, 4096):
            fast = rate(lambda batch=batch: gathers(batch), len(index), args.repeats)
            print(f"{f'gathers, batch {batch}':24} {fast:12,.0f} texts/s   {fast / slow:6.1f} x the loop")
        few, few_keys = index[:32], keys[:32]
        for name, view in (("weak", Identity()), ("replaced", augment)):
            batches = rate(lambda view=view: store.views([(few, view, few_keys)]), 1, 100 * args.repeats)
            print(f"one padded {name} batch of 32 rows: {1000 / batches:.3f} ms")


if __name__ == "__main__":
    main()
