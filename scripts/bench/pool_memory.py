"""Peak memory and speed of building a token store of a large pool of short texts."""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer

from nlp_ssl.data.tokens import TokenStore


def peak_mb() -> float:
    """Highest resident memory of this process so far, mapped file pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True, help="folder or name of a tokenizer")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=30)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    rng = np.random.default_rng(0)
    words = np.array(
        ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9))) for _ in range(50_000)]
    )
    frequency = 1.0 / np.arange(1, len(words) + 1)
    chunks = []
    for start in range(0, args.rows, 50_000):
        count = min(50_000, args.rows - start)
        drawn = words[rng.choice(len(words), (count, args.words), p=frequency / frequency.sum())]
        chunks.append(pa.array([" ".join(row) for row in drawn], pa.large_string()))
    texts = pa.chunked_array(chunks)
    print(f"{args.rows:,} texts, {texts.nbytes / 2**20:.0f} MB; before the build: {peak_mb():.0f} MB resident")
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        store = TokenStore.build(texts, tokenizer, cache_dir=Path(cache))
        seconds = time.perf_counter() - start
        print(f"build: {seconds:.1f} s, {args.rows / seconds:,.0f} texts/s, {len(store.vocabulary):,} distinct words")
        start = time.perf_counter()
        TokenStore.build(texts, tokenizer, cache_dir=Path(cache))
        size = sum(path.stat().st_size for path in Path(cache).rglob("*.arrow"))
        print(f"found again: {time.perf_counter() - start:.2f} s; on disk {size / 2**20:.0f} MB")
    print(f"peak resident memory: {peak_mb():.0f} MB")


if __name__ == "__main__":
    main()
