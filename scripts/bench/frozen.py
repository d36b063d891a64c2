"""First answers on frozen embeddings, without fine-tuning: accuracy and seconds; writes JSON.

    python scripts/bench/frozen.py --data FOLDER --labels-per-class 10 --seeds 0,1,2 --out results.json

Texts are embedded once, for all classifiers and seeds; a seed draws its labels. "logistic" sees the labels alone,
"self-training" and "spreading" are scikit-learn's, "propagation" is the package's. "even" is told that the classes are
of one size. Seconds are those of fitting and of answering the test texts, without the embedding of either.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from methods import provenance, spread
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from nlp_ssl import LabelPropagationClassifier, SentenceEmbedding
from nlp_ssl.cli import console
from nlp_ssl.data.bundled import load_bundled, load_named
from nlp_ssl.data.schema import build_data
from nlp_ssl.utils.atomic import write_text

# The logistic regression of all of them is the one of `LabelPropagationClassifier`; the graphs have as many neighbors.
CLASSIFIERS = {
    "logistic": lambda: LogisticRegression(C=1.0, max_iter=1000),
    "logistic, C=10": lambda: LogisticRegression(C=10.0, max_iter=1000),
    "self-training": lambda: SelfTrainingClassifier(LogisticRegression(C=10.0, max_iter=1000)),
    "spreading": lambda: LabelSpreading(kernel="knn", n_neighbors=50, alpha=0.9),
    "propagation": LabelPropagationClassifier,
    "propagation, neighbors": lambda: LabelPropagationClassifier(head="neighbors"),
    "propagation, even": lambda: LabelPropagationClassifier(alpha=0.99, prior="even"),
}


def main(argv):
    """Runs all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bundled", help="bundled, bundled:bbc, or a folder with train and test")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--labels-per-class", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    if given.data.startswith("bundled"):
        train, test = load_bundled("bbc" if given.data.endswith("bbc") else "reviews")
    else:
        train, _, test = load_named(given.data)
    drawn = {seed: build_data(train, None, None, test, labels_per_class=given.labels_per_class, seed=seed,
                         drop_leaks=True) for seed in map(int, given.seeds.split(","))}  # fmt: skip
    data = next(iter(drawn.values()))
    began = time.perf_counter()
    vectors = SentenceEmbedding(given.model).transform(data.texts.to_pylist())
    embedding = round(time.perf_counter() - began, 1)
    print(f"{len(vectors)} texts embedded in {embedding} s", file=sys.stderr, flush=True)
    runs = [measure(name, seed, data, vectors) for seed, data in drawn.items() for name in CLASSIFIERS]
    table(runs)
    if given.out:
        settings = {k: v for k, v in vars(given).items() if k != "out"} | {"data": Path(given.data).name}
        found = {"settings": settings, "texts": len(vectors), "embedding_seconds": embedding, "runs": runs,
                 "provenance": provenance()}  # fmt: skip
        write_text(given.out, json.dumps(found, indent=1))


def measure(name, seed, data, vectors):
    """One classifier on the labels of one seed."""
    rows = data.labeled if name.startswith("logistic") else np.concatenate([data.labeled, data.unlabeled])
    known = np.where(np.isin(rows, data.labeled), data.labels[rows], -1)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # LabelSpreading divides by 0 where no label arrives
        model = CLASSIFIERS[name]().fit(vectors[rows], known)
        answers = model.predict(vectors[data.test])
    seconds, truth = time.perf_counter() - began, data.labels[data.test]
    return {"name": name, "seed": seed, "accuracy": accuracy_score(truth, answers),
            "macro_f1": f1_score(truth, answers, average="macro"), "seconds": round(seconds, 2)}  # fmt: skip


def table(runs):
    """Mean and spread of accuracy, macro F1, seconds."""
    print(f"{'':24s} {'accuracy':>13s} {'macro F1':>9s} {'seconds':>8s}  per seed")
    for name in CLASSIFIERS:
        mine = [run for run in runs if run["name"] == name]
        accuracy = [100 * run["accuracy"] for run in mine]
        f1, seconds = (np.mean([run[key] for run in mine]) for key in ("macro_f1", "seconds"))
        print(f"{name:24s} {spread(accuracy)} {100 * f1:9.1f} {seconds:8.2f}  {' '.join(f'{a:.1f}' for a in accuracy)}")


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
