"""Every method against the label-only start and baseline on one data set, with the same steps; writes JSON.

    python scripts/bench/methods.py --data FOLDER --labels-per-class 10 --seeds 0,1,2 --out results.json
    python scripts/bench/methods.py --data fashion_mnist --methods supervised,fixmatch
    python scripts/bench/methods.py --data FOLDER --show --out results.json

Every seed draws its labels, tunes the start once and runs all methods from it. "start" is the accuracy of the warm
start itself, "supervised" goes on with the labels alone for the same steps. What the JSON file holds is not run
again, so an interrupted measurement goes on where it stopped. Text methods have their defaults, images
`Method.for_images`.
"""

import contextlib
import json
import platform
import resource
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import transformers

from nlp_ssl import Task, TfidfReplace, TrainConfig, get_method, list_methods
from nlp_ssl.cli import console, options
from nlp_ssl.data.bundled import load_bundled, load_named
from nlp_ssl.data.splits import draw_rows
from nlp_ssl.experiments.runs import run_one
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.nets.text import Pooling
from nlp_ssl.utils.atomic import write_text
from nlp_ssl.utils.ranges import from_options


@dataclass(frozen=True)
class Bench:
    """Flags beside those of the loop."""

    data: Annotated[str, "bundled, bundled:bbc, a folder with train and test rows, fashion_mnist or digits"] = "bundled"
    model: str = "bundled"
    pooling: Pooling = "auto"
    max_length: Annotated[int, "tokens of a text; longer ones are cut"] = 128
    backbone: Annotated[str, "net of the images"] = "wrn-10-1"
    labels_per_class: int = 10
    replace_words: Annotated[float | None, "fixed share of words the strong view replaces; chosen if not given"] = None
    test_rows: Annotated[int, "test rows to score, drawn once; 0 takes all"] = 0
    pool_size: Annotated[int, "unlabeled images, drawn by the seed; 0 takes all"] = 0
    methods: Annotated[
        str, "comma-separated names, methods in rounds too, e.g. fixmatch,self_training:source=graph; empty takes all"
    ] = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    out: Annotated[Path | None, "JSON file of the results"] = None
    show: Annotated[bool, "only print what the file holds"] = False


IMAGES = ("fashion_mnist", "digits")
TEXT_LOOP = TrainConfig(max_steps=100)
IMAGE_LOOP = TrainConfig(  # for a small net that starts at random
    max_steps=600, batch_size=32, unlabeled_ratio=4, learning_rate=2e-3, head_learning_rate=2e-3,
    lr_scheduler_type="cosine", eval_ema_decay=0.99,
)  # fmt: skip


def main(argv):
    """Runs what is missing and prints the table."""
    of_images = any(f"--data{sign}{name}" in " ".join(argv) for name in IMAGES for sign in " =")
    loop = IMAGE_LOOP if of_images else TEXT_LOOP
    bench, config = options.parse(argv, Bench(), loop, name="methods.py", doc=__doc__)
    flags = {k: str(v) for k, v in asdict(bench).items() if k not in ("out", "methods", "seeds", "show")}
    flags["data"] = Path(bench.data).name
    settings = {"bench": flags, "config": asdict(replace(config, seed=0))}
    results = json.loads(bench.out.read_text()) if bench.out and bench.out.exists() else {}
    runs = results.setdefault("runs", [])
    if bench.show:
        return table(runs)
    if results.setdefault("settings", settings) != settings:
        raise SystemExit(f"{bench.out} holds results of other settings: name another file")
    whole = task_of(bench)
    names = bench.methods.split(",") if bench.methods else ["supervised", *list_methods(in_rounds=False)]
    for seed in bench.seeds:
        missing = [m for m in dict.fromkeys(names) if not any(r["seed"] == seed and r["name"] == m for r in runs)]
        if not missing:
            continue
        task, seeded = whole.draw(seed), replace(config, seed=seed)
        start = SharedStart(task, seeded)
        torch.manual_seed(seed)
        start(task.build(0))
        if (tuned := start.outcome()) is not None:
            runs[:] = [r for r in runs if not (r["seed"] == seed and r["name"] == "start")]
            runs.append(record("start", seed, tuned.scores["test"], tuned.seconds, 0, {}))
        for name in missing:
            method = method_of(name, bench.data in IMAGES)
            used = task.without_pool() if name == "supervised" else task
            forget_peak()
            run = run_one(method, used, seeded, start=start)
            row = record(name, seed, run.scores["test"], run.seconds, run.steps, asdict(method), run.warnings)
            runs.append(row)
            print(f"seed {seed} {name}: {row['accuracy']:.3f}, {row['seconds']} s", file=sys.stderr, flush=True)
            if bench.out:
                results["provenance"] = provenance()
                write_text(bench.out, json.dumps(results, indent=1))
    table(runs)


def method_of(name, images):
    """The method of a name like fixmatch or self_training:source=graph, with the defaults of the modality."""
    name, _, option = name.partition(":")
    kind = get_method(name)
    if option:
        field, value = option.split("=")
        return from_options(kind, {field: int(value) if value.isdigit() else value})
    return kind.for_images() if images else kind()


def task_of(bench, strong=None, rewritings=None):
    """The task whose labels every seed draws, of texts with this strong view if one is given."""
    if bench.data in IMAGES:
        pool = bench.pool_size or None
        return Task.from_images(
            bench.data, backbone=bench.backbone, labels_per_class=bench.labels_per_class, pool_size=pool
        )
    if bench.data.startswith("bundled"):
        train, test = load_bundled("bbc" if bench.data.endswith("bbc") else "reviews")
    else:
        train, _, test = load_named(bench.data)
    if 0 < bench.test_rows < len(test):
        test = test.take(draw_rows(len(test), bench.test_rows, seed=0))
    if bench.replace_words is not None and strong is None:
        strong = TfidfReplace(bench.replace_words)
    return Task.from_files(
        train, test=test, model=bench.model, pooling=bench.pooling, max_length=bench.max_length, strong=strong,
        rewritings=rewritings, labels_per_class=bench.labels_per_class, drop_leaks=True,
    )  # fmt: skip


def forget_peak():
    """Lets the peak of resident memory count from here (Linux; elsewhere it is that of the whole process)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib():
    """Peak of resident memory in MiB."""
    with contextlib.suppress(OSError):
        line = next(v for v in Path("/proc/self/status").read_text().splitlines() if v.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def record(name, seed, scores, seconds, steps, method_options, warnings=()):
    """One row of the JSON file."""
    return {"name": name, "seed": seed, **asdict(scores), "seconds": round(seconds, 1), "steps": steps,
            "peak_mib": peak_mib(), "options": method_options, "warnings": list(warnings)}  # fmt: skip


def provenance():
    """Commit, versions and machine of the results."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {"commit": commit.stdout.strip(), "torch": torch.__version__, "transformers": transformers.__version__,
            "python": platform.python_version(), "threads": torch.get_num_threads()}  # fmt: skip


def table(runs):
    """Mean and spread of accuracy and of its difference to supervised, macro F1, seconds a step, peak memory."""
    by = {(r["name"], r["seed"]): r for r in runs}
    print(f"{'':20s} {'accuracy':>13s} {'- supervised':>13s} {'macro F1':>9s} {'s/step':>7s} {'MiB':>6s}  per seed")
    for name in dict.fromkeys(r["name"] for r in runs):
        mine = sorted((r for r in runs if r["name"] == name), key=lambda r: r["seed"])
        accuracy = [100 * r["accuracy"] for r in mine]
        base = [100 * by["supervised", r["seed"]]["accuracy"] for r in mine if ("supervised", r["seed"]) in by]
        gain = [a - b for a, b in zip(accuracy, base, strict=False)]
        f1, each = 100 * statistics.mean(r["macro_f1"] for r in mine), " ".join(f"{a:.1f}" for a in accuracy)
        step = statistics.mean(r["seconds"] / max(r["steps"], 1) for r in mine)
        row = f"{name:20s} {spread(accuracy)} {spread(gain, '+') if gain else '':>13s} {f1:9.1f}"
        print(f"{row} {step:7.3f} {max(r['peak_mib'] for r in mine):6d}  {each}")
    sys.stdout.flush()


def spread(values, sign=""):
    """`81.2 +- 1.3`."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}6.1f} +-{deviation:4.1f}"


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
