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
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import transformers

from nlp_ssl import RoundMethod, TfidfReplace, TrainConfig, fit, list_methods
from nlp_ssl.cli import console, options
from nlp_ssl.cli.recipe import IMAGE_LOOP
from nlp_ssl.data.bundled import encoder_name, load_bundled, load_named
from nlp_ssl.data.images import load_images
from nlp_ssl.data.schema import build as build_data
from nlp_ssl.data.splits import draw_rows
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.inference.metrics import score
from nlp_ssl.inference.predict import predict
from nlp_ssl.nets.text import Pooling
from nlp_ssl.registry import get
from nlp_ssl.rounds.engine import fit_rounds
from nlp_ssl.task import image_task, text_task
from nlp_ssl.training.warm_start import start_kind
from nlp_ssl.utils.atomic import write_text
from nlp_ssl.utils.ranges import make


@dataclass(frozen=True)
class Bench:
    """Flags beside those of the loop."""

    data: Annotated[str, "bundled, bundled:bbc, a folder with train and test rows, fashion_mnist or digits"] = "bundled"
    model: str = "bundled"
    pooling: Pooling = "auto"
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


def main(argv):
    """Runs what is missing and prints the table."""
    of_images = any(f"--data{sign}{name}" in " ".join(argv) for name in IMAGES for sign in " =")
    loop = IMAGE_LOOP if of_images else TEXT_LOOP
    bench, config = options.parse(argv, Bench(), loop, name="methods.py", doc=__doc__)
    told = {k: str(v) for k, v in asdict(bench).items() if k not in ("out", "methods", "seeds", "show")}
    told["data"] = Path(bench.data).name
    settings = {"bench": told, "config": asdict(replace(config, seed=0))}
    results = json.loads(bench.out.read_text()) if bench.out and bench.out.exists() else {}
    runs = results.setdefault("runs", [])
    if bench.show:
        return table(runs)
    if results.setdefault("settings", settings) != settings:
        raise SystemExit(f"{bench.out} holds results of other settings: name another file")
    task_of, names = (
        tasks(bench, config),
        bench.methods.split(",") if bench.methods else ["supervised", *list_methods()],
    )
    for seed in bench.seeds:
        missing = [m for m in dict.fromkeys(names) if not any(r["seed"] == seed and r["name"] == m for r in runs)]
        if not missing:
            continue
        task, seeded = task_of(seed), replace(config, seed=seed)
        start = SharedStart(task, seeded)
        if start_kind(task.build(0), seeded) != "none":
            began = time.perf_counter()
            torch.manual_seed(seed)
            module = task.build(0)
            start(module, 0)
            seconds = time.perf_counter() - began
            logits = predict(module, task.data.store, task.data.test, config.max_length)
            runs[:] = [r for r in runs if not (r["seed"] == seed and r["name"] == "start")]
            runs.append(record("start", seed, score(logits, task.data.labels[task.data.test]), seconds, 0, {}))
        for name in missing:
            method = method_of(name, bench.data in IMAGES)
            used = task.data.without_pool() if name == "supervised" else task.data
            forget_peak()
            if isinstance(method, RoundMethod):
                found = fit_rounds(method, task, seeded, start=start)
            else:
                found = fit(method, used, task.build, seeded, augment=task.augment, start=start)
            row = record(name, seed, found.scores["test"], found.seconds, found.steps, asdict(method), found.warnings)
            runs.append(row)
            print(f"seed {seed} {name}: {row['accuracy']:.3f}, {row['seconds']} s", file=sys.stderr, flush=True)
            if bench.out:
                results["provenance"] = provenance()
                write_text(bench.out, json.dumps(results, indent=1))
    table(runs)


def method_of(name, images):
    """The method or loop of a name like fixmatch or self_training:source=graph, with the defaults of the modality."""
    name, _, option = name.partition(":")
    kind = get(name)
    if option:
        field, value = option.split("=")
        return make(kind, {field: int(value) if value.isdigit() else value})
    return kind.for_images() if images else kind()


def tasks(bench, config, strong=None, views=None):
    """Seed -> task, of texts with this strong view if one is given."""
    if bench.data in IMAGES:
        pool = bench.pool_size or None
        return lambda seed: image_task(
            load_images(bench.data, bench.labels_per_class, seed, pool_size=pool), bench.backbone
        )
    if bench.data.startswith("bundled"):
        train, test = load_bundled("bbc" if bench.data.endswith("bbc") else "reviews")
    else:
        train, _, test = load_named(bench.data)
    if 0 < bench.test_rows < len(test):
        test = test.take(draw_rows(len(test), bench.test_rows, seed=0))

    def task_of(seed):
        data = build_data(train, None, None, test, labels_per_class=bench.labels_per_class, seed=seed, drop_leaks=True)
        replaced = None if bench.replace_words is None else TfidfReplace(bench.replace_words)
        return text_task(data, encoder_name(bench.model), pooling=bench.pooling, strong=strong or replaced, views=views,
                         max_length=config.max_length)  # fmt: skip

    return task_of


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
