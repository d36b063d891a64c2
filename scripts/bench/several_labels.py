"""Several labels a row: methods against the labels alone on joined pieces of texts that have one label each.

    python scripts/bench/several_labels.py --data FOLDER --methods fixmatch,uda --seeds 0,1,2 --out results.json

A row joins the beginnings of one to three texts of different classes and has the labels of all of them. Every seed
draws its rows. The number is micro F1 on the test rows.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from methods import provenance, spread

from nlp_ssl import Comparison, Task, TrainConfig, compare
from nlp_ssl.cli import console, options
from nlp_ssl.data.bundled import load_named
from nlp_ssl.utils.atomic import write_text


@dataclass(frozen=True)
class Bench:
    """Flags beside those of the loop."""

    data: Annotated[Path | None, "folder with train and test rows"] = None
    methods: Annotated[str, "comma-separated names"] = "fixmatch"
    labeled: int = 60
    unlabeled: int = 1500
    test: int = 1000
    words: Annotated[int, "of each text that is joined"] = 12
    max_length: Annotated[int, "tokens of a text; longer ones are cut"] = 48
    seeds: tuple[int, ...] = (0, 1, 2)
    out: Annotated[Path | None, "JSON file of the results"] = None


def main(argv):
    """Runs every method beside the labels alone and prints mean, spread and gain."""
    loop = TrainConfig(max_steps=60, unlabeled_ratio=2)
    bench, config = options.parse(argv, Bench(), loop, name="several_labels.py", doc=__doc__)
    train, _, test = load_named(str(bench.data))
    sides = {}
    for name in bench.methods.split(","):
        each = [compare(name, task_of(bench, train, test, seed), config, seeds=[seed]) for seed in bench.seeds]
        outcomes = {side: tuple(one.results[side][0] for one in each) for side in each[0].results}
        compared = Comparison(name, bench.seeds, outcomes)
        sides |= {side: [100 * float(v) for v in values] for side, values in compared.accuracies().items()}
        print(name, compared.verdict(), sep=": ", file=sys.stderr)
    for name, values in sides.items():
        gains = [a - b for a, b in zip(values, sides["supervised"], strict=True)]
        print(f"{name:20s} {spread(values)} {spread(gains, '+')}  {' '.join(f'{v:.1f}' for v in values)}")
    if bench.out:
        settings = {k: str(v) for k, v in asdict(bench).items() if k not in ("data", "out")}
        results = {"settings": settings, "config": asdict(config), "micro F1": sides, "provenance": provenance()}
        write_text(bench.out, json.dumps(results, indent=1))


def task_of(bench, train, test, seed):
    """The task of a seed, whose rows are joined anew."""
    rng = np.random.default_rng(seed)
    known = joined(train, bench.labeled, bench.words, rng)
    pool = joined(train, bench.unlabeled, bench.words, rng)
    scored = joined(test, bench.test, bench.words, rng)
    return Task.from_texts(
        *known, unlabeled=pool[0], test=scored, model="bundled", max_length=bench.max_length, drop_leaks=True
    )


def joined(table, rows, words, rng):
    """Texts [n], and their lists of labels."""
    by_class = {name: np.flatnonzero(np.array(table.labels) == name) for name in sorted(set(table.labels))}
    texts, labels = [], []
    for _ in range(rows):
        names = rng.choice(list(by_class), rng.integers(1, 4), replace=False).tolist()
        pieces = [table.texts[int(rng.choice(by_class[name]))].as_py().split()[:words] for name in names]
        texts.append(" ".join(word for piece in pieces for word in piece))
        labels.append(sorted(names))
    return texts, labels


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
