"""Methods against the label-only start and baseline on real data; writes JSON and prints a table.

    python scripts/bench/compare.py --data embedded --labels-per-class 40 --methods uda,fixmatch --seeds 0,1,2
    python scripts/bench/compare.py --data FOLDER --labels-per-class 10 --test-rows 0

Every seed draws its labels, tunes the start once and runs all methods from it. "start" is the accuracy of the warm
start itself, "supervised" goes on with the labels alone for the same steps. What the JSON file holds is not repeated.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import transformers

from nlp_ssl import TfidfReplace, TrainConfig, build_data, fit, get_method, text_task
from nlp_ssl.atomic import write_text
from nlp_ssl.cli import console, options
from nlp_ssl.cli.train import model_name
from nlp_ssl.data.embedded import load_embedded, load_named
from nlp_ssl.data.splits import draw_rows
from nlp_ssl.evaluate import predict, score
from nlp_ssl.experiment import SharedStart
from nlp_ssl.nets.text import Pooling
from nlp_ssl.task import TFIDF


@dataclass(frozen=True)
class Bench:
    """Flags beside those of the loop."""

    data: Annotated[str, "embedded, embedded:bbc or a folder with train and test rows"] = "embedded"
    model: str = "embedded"
    pooling: Pooling = "auto"
    labels_per_class: int = 10
    replace_words: Annotated[float | None, "fixed share of words the strong view replaces; chosen if not given"] = None
    test_rows: Annotated[int, "test rows to score, drawn once; 0 takes all"] = 0
    methods: Annotated[str, "comma-separated names"] = "supervised,uda,fixmatch"
    seeds: tuple[int, ...] = (0, 1, 2)
    out: Annotated[Path | None, "JSON file of the results"] = None


def main(argv):
    """Runs what is missing and prints the table."""
    bench, config = options.parse(argv, Bench(), TrainConfig(), name="compare.py", doc=__doc__)
    if bench.data.startswith("embedded"):
        train, test = load_embedded("bbc" if bench.data.endswith("bbc") else "reviews")
    else:
        train, _, test = load_named(bench.data)
    if 0 < bench.test_rows < len(test):
        test = test.take(draw_rows(len(test), bench.test_rows, seed=0))
    told = {k: str(v) for k, v in asdict(bench).items() if k not in ("out", "methods", "seeds")}
    told["data"] = Path(bench.data).name
    settings = {"bench": told, "config": asdict(replace(config, seed=0))}
    results = json.loads(bench.out.read_text()) if bench.out and bench.out.exists() else {}
    if results and results["settings"] != settings:
        raise SystemExit(f"{bench.out} holds results of other settings: name another file")
    results.setdefault("settings", settings)
    results["provenance"] = provenance()
    runs = results.setdefault("runs", [])
    for seed in bench.seeds:
        missing = [m for m in bench.methods.split(",") if not any(r["seed"] == seed and r["name"] == m for r in runs)]
        if not missing:
            continue
        data = build_data(train, None, None, test, labels_per_class=bench.labels_per_class, seed=seed, drop_leaks=True)
        strong = TFIDF if bench.replace_words is None else TfidfReplace(bench.replace_words)
        task = text_task(
            data, model_name(bench.model), pooling=bench.pooling, strong=strong, max_length=config.max_length
        )
        seeded = replace(config, seed=seed)
        start = SharedStart(task, seeded)
        began = time.perf_counter()
        torch.manual_seed(seed)
        module = task.build(0)
        start(module, 0)
        seconds = time.perf_counter() - began
        logits = predict(module, task.data.store, task.data.test, config.max_length)
        runs[:] = [r for r in runs if not (r["seed"] == seed and r["name"] == "start")]
        runs.append(record("start", seed, score(logits, task.data.labels[task.data.test]), seconds, {}))
        for name in missing:
            method = get_method(name)()
            used = task.data.without_pool() if name == "supervised" else task.data
            found = fit(method, used, task.build, seeded, augment=task.augment, start=start)
            runs.append(record(name, seed, found.scores["test"], found.seconds, asdict(method), found.warnings))
            if bench.out:
                write_text(bench.out, json.dumps(results, indent=1))
        table(runs)
    table(runs)


def record(name, seed, scores, seconds, method_options, warnings=()):
    """One row of the JSON file."""
    return {"name": name, "seed": seed, **asdict(scores), "seconds": round(seconds, 1), "options": method_options,
            "warnings": list(warnings)}  # fmt: skip


def provenance():
    """Commit, versions and machine of the results."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {"commit": commit.stdout.strip(), "torch": torch.__version__, "transformers": transformers.__version__,
            "python": platform.python_version(), "threads": torch.get_num_threads()}  # fmt: skip


def table(runs):
    """Mean and spread of accuracy over seeds, macro F1 and seconds."""
    print(f"{'':14s} {'accuracy':>16s} {'macro F1':>10s} {'ECE':>6s} {'seconds':>8s}  per seed")
    for name in dict.fromkeys(r["name"] for r in runs):
        mine = sorted((r for r in runs if r["name"] == name), key=lambda r: r["seed"])
        accuracy = [100 * r["accuracy"] for r in mine]
        spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
        f1, ece, seconds = (statistics.mean(r[k] for r in mine) for k in ("macro_f1", "calibration_error", "seconds"))
        each = " ".join(f"{a:.1f}" for a in accuracy)
        row = f"{name:14s} {statistics.mean(accuracy):9.1f} +-{spread:4.1f}"
        print(f"{row} {100 * f1:10.1f} {ece:6.2f} {seconds:8.1f}  {each}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
