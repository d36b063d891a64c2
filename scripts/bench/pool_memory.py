"""Peak memory of a run over a large pool of short texts: read a file, check, tokenize, train a few real steps.

    python scripts/bench/pool_memory.py [--rows 1000000] [--model FOLDER] [--steps 5]

The texts are made up and lie in a JSONL file, so that nothing of them is in memory before they are read. Every line
gives the seconds of its stage and the highest resident memory up to its end: mapped file pages included, and the
imports, which the first line shows. The second `Task.from_files` finds the tokenized texts of the first.

The default model is a small random BERT with the tokenizer of the bundled encoder, so that what is measured is the
pool; `--model` takes a real one, whose weights, optimizer state and activations come on top.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, BertConfig, BertModel

from nlp_ssl import UDA, Task, TrainConfig, fit
from nlp_ssl.data.bundled import bundled_encoder
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import table_of

_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def zipf_words(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Made-up words [size] and the probability of each [size]."""
    words = np.array(["".join(rng.choice(_LETTERS, rng.integers(2, 9))) for _ in range(size)])
    frequency = 1.0 / np.arange(1, size + 1)
    return words, frequency / frequency.sum()


def write_pool(path: Path, rows: int, mean: int, rng: np.random.Generator) -> None:
    """A JSONL file of `rows` texts of `mean` words on average."""
    words, probability = zipf_words(50_000, rng)
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, rows, 10_000):
            lengths = rng.integers(mean // 2, mean + mean // 2 + 1, min(10_000, rows - start))
            drawn = words[rng.choice(len(words), lengths.sum(), p=probability)]
            for text in np.split(drawn, np.cumsum(lengths)[:-1]):
                file.write(json.dumps({"text": " ".join(text)}) + "\n")


def small_bert(folder: Path) -> str:
    """A random two-layer BERT of width 64, saved with the tokenizer of the bundled encoder."""
    tokenizer = AutoTokenizer.from_pretrained(bundled_encoder())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextmanager
def stage(name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{name:22} {time.perf_counter() - start:8.1f} s   peak {peak_mb():6,.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=30, help="mean words of a text")
    parser.add_argument("--model", help="folder of an encoder")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    labeled = table_of([f"{'good' if i % 2 else 'bad'} film number {i}" for i in range(16)], ["no", "yes"] * 8)
    config = TrainConfig(max_steps=args.steps, warm_start="none", align=False, warmup_steps=0.0)
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "pool.jsonl", Path(folder) / "cache"
        model = args.model or small_bert(Path(folder) / "model")
        with stage("write the file"):
            write_pool(path, args.rows, args.words, np.random.default_rng(0))
        size = path.stat().st_size / 2**20
        with stage("read_table"):
            pool = read_table(path)
        for name in ("Task.from_files", "again, from the cache"):
            with stage(name):
                task = Task.from_files(labeled, pool, model=model, cache_dir=cache)
        with stage(f"fit, {args.steps} steps"):
            fit(UDA(), task, config)
        stored = sum(file.stat().st_size for file in cache.rglob("*.arrow")) / 2**20
        print(
            f"{len(task.data.unlabeled):,} pool texts, {size:,.0f} MiB of JSONL, {stored:,.0f} MiB of tokenized store"
        )


if __name__ == "__main__":
    main()
