"""Label propagation against scikit-learn's LabelSpreading with a kNN kernel: time, accuracy, agreement.

    python scripts/bench/propagation.py --rows 10000,50000,200000 --most 50000 --out results.json

Rows are drawn around 100 centres of 10 classes, in 384 dimensions; 10 labels a class. scikit-learn runs up to --most
rows. Its graph has edges of weight 1 where ours has the third power of the cosine, so that answers may differ.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from methods import provenance
from sklearn.semi_supervised import LabelSpreading

from nlp_ssl.graph.propagation import propagate
from nlp_ssl.utils.atomic import write_text

CLASSES, CENTRES, DIM, LABELS = 10, 100, 384, 10


def main():
    """Prints one line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,50000,200000")
    parser.add_argument("--most", type=int, default=50_000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = []
    for n in map(int, given.rows.split(",")):
        features, truth = drawn(n)
        labels = torch.from_numpy(truth[: CLASSES * LABELS])
        began = time.perf_counter()
        ours = propagate(torch.from_numpy(features), labels, CLASSES, k=given.k).p.argmax(1).numpy()
        row = {"rows": n, "seconds": round(time.perf_counter() - began, 2),
               "accuracy": round(float((ours == truth)[len(labels) :].mean()), 4)}  # fmt: skip
        if n <= given.most:
            known = np.where(np.arange(n) < len(labels), truth, -1)
            began = time.perf_counter()
            theirs = LabelSpreading(kernel="knn", n_neighbors=given.k, alpha=0.99).fit(features, known).transduction_
            row |= {"scikit-learn seconds": round(time.perf_counter() - began, 2),
                    "scikit-learn accuracy": round(float((theirs == truth)[len(labels) :].mean()), 4),
                    "agreement": round(float((ours == theirs).mean()), 4)}  # fmt: skip
            row["times faster"] = round(row["scikit-learn seconds"] / row["seconds"], 1)
        print(row, flush=True)
        found.append(row)
    if given.out:
        write_text(given.out, json.dumps({"runs": found, "k": given.k, "provenance": provenance()}, indent=1))


def drawn(n):
    """(features [n, D], classes [n]); the first rows have LABELS of each class in turn."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, DIM))
    of = np.concatenate([np.arange(CLASSES * LABELS) % CENTRES, rng.integers(0, CENTRES, n - CLASSES * LABELS)])
    features = centres[of] + 2.0 * rng.normal(size=(n, DIM))
    return features.astype(np.float32), of % CLASSES


if __name__ == "__main__":
    main()
