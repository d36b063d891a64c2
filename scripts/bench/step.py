"""Time of one UDA step: the loop, the bare passes over the same tokens, and a straightforward loop.

    python scripts/bench/step.py [--data FOLDER] [--steps 20] [--rounds 3]

- loop: `nlp_ssl.fit` without warm start and alignment, all else included (batches, TF-IDF views, losses, clipping,
  AdamW, logging).
- bare: the same batches, made beforehand: target pass without gradient, forward and backward of the other rows, AdamW.
- straightforward: tokenizes in the collator, random batches padded to their longest row, TF-IDF word by word, three
  forward passes of the stock model in float32 (the target pass without gradient), AdamW.

All three see 8 labeled and 24 unlabeled texts a step and run in turn within every round. Prints the median of the
rounds and the ratios. The default data are the bundled reviews.
"""

import argparse
import random
import statistics
import tempfile
import time

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from nlp_ssl import UDA, Task, TfidfReplace, TrainConfig, fit
from nlp_ssl.data.bundled import bundled_encoder, load_bundled, load_named
from nlp_ssl.data.loader import Loader, Sizes
from nlp_ssl.nets.base import Net
from nlp_ssl.utils.precision import autocast, resolve


def bare_seconds(task, config, batches, precision):
    """Seconds per step of the passes alone, on batches made beforehand."""
    module = task.build(0).train()
    net = Net(module, None, autocast(precision, torch.device("cpu")))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)
    start = time.perf_counter()
    for batch in batches:
        with torch.no_grad():
            net(batch, "u_w", dropout=False)
        x, s = net(batch, "x", "u_s")
        (x.sum() + s.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - start) / len(batches)


def straightforward_seconds(task, texts, labels, config, steps, tokenizer):
    """Seconds per step of a loop as one writes it first."""
    model = AutoModelForSequenceClassification.from_pretrained(
        str(bundled_encoder()), num_labels=len(task.data.classes), dtype=torch.float32
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    idf = _idf(texts[i] for i in task.data.unlabeled)
    common = sorted(idf, key=idf.get)[:1000]
    rng = random.Random(0)
    start = time.perf_counter()
    for _ in range(steps):
        x = [int(i) for i in rng.choices(task.data.labeled, k=config.batch_size)]
        u = [int(i) for i in rng.choices(task.data.unlabeled, k=config.batch_size * config.unlabeled_ratio)]
        views = [
            [texts[i] for i in x],
            [texts[i] for i in u],
            [_replace(texts[i], idf, common, rng) for i in u],
        ]
        blocks = [
            tokenizer(v, truncation=True, max_length=task.data.tokens.max_length, padding=True, return_tensors="pt")
            for v in views
        ]
        zx = model(**blocks[0]).logits
        with torch.no_grad():
            p = model(**blocks[1]).logits.softmax(-1)
        zs = model(**blocks[2]).logits
        keep = (p.amax(-1) > 0.8).float()
        unsup = (keep * F.kl_div(zs.log_softmax(-1), p, reduction="none").sum(-1)).mean()
        loss = F.cross_entropy(zx, torch.tensor([int(labels[i]) for i in x])) + unsup
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    return (time.perf_counter() - start) / steps


def _idf(texts):
    counts, n = {}, 0
    for text in texts:
        n += 1
        for word in set(text.lower().split()):
            counts[word] = counts.get(word, 0) + 1
    return {word: float(np.log(n / c)) for word, c in counts.items()}


def _replace(text, idf, common, rng):
    words = text.split()
    scores = [idf.get(w.lower(), 10.0) * words.count(w) / len(words) for w in words]
    gaps = [max(scores) - s for s in scores]
    total = sum(gaps) or 1.0
    return " ".join(
        rng.choice(common) if rng.random() < 0.4 * len(words) * gap / total else word
        for word, gap in zip(words, gaps, strict=True)
    )


def main():
    """Measures in rounds and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder with train and test rows; the bundled reviews by default")
    parser.add_argument("--labels-per-class", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mixed-precision", default="auto")
    given = parser.parse_args()
    if given.data:
        train, _, _ = load_named(given.data)
    else:
        train, _ = load_bundled("reviews")
    config = TrainConfig(
        max_steps=given.steps, warm_start="none", align=False, mixed_precision=given.mixed_precision, warmup_steps=0.0
    )
    precision = resolve(config.mixed_precision, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as cache:
        task = Task.from_files(
            train, model="bundled", strong=TfidfReplace(0.2), labels_per_class=given.labels_per_class, cache_dir=cache
        )
        texts, labels = task.data.texts.to_pylist(), task.data.labels
        tokenizer = task.build(0).tokenizer
        loader = Loader(task.data, UDA.views, task.augment, Sizes(8, 24), seed=0, max_steps=given.steps)
        batches = [loader[i] for i in range(given.steps)]
        rows = {"loop": [], "bare": [], "straightforward": []}
        for number in range(given.rounds + 1):
            measured = {
                "loop": fit(UDA(), task, config).seconds / given.steps,
                "bare": bare_seconds(task, config, batches, precision),
                "straightforward": straightforward_seconds(task, texts, labels, config, given.steps, tokenizer),
            }
            if number:  # the first round warms caches and threads
                for name, seconds in measured.items():
                    rows[name].append(seconds)
    tokens = sum(int(b["lengths"].sum()) for b in batches) / len(batches)
    print(f"{tokens:.0f} tokens a step, {torch.get_num_threads()} threads, loop and bare in {precision}")
    for name, seconds in rows.items():
        spread = f"{min(seconds) * 1e3:.0f}-{max(seconds) * 1e3:.0f}"
        print(f"{name:16s} {statistics.median(seconds) * 1e3:7.1f} ms a step ({spread})")
    ratios = {
        n: statistics.median(np.divide(rows[n], rows[m])) for n, m in (("loop", "bare"), ("straightforward", "loop"))
    }
    print(f"loop / bare {ratios['loop']:.3f}   straightforward / loop {ratios['straightforward']:.2f}")


if __name__ == "__main__":
    main()
