"""UDA with word replacement, back-translation, both, and published back-translations as its strong view; writes JSON.

    python scripts/bench/strong_views.py --data bundled --labels-per-class 20 --out results.json
    python scripts/bench/strong_views.py --data FOLDER --published FOLDER/train.csv --out results.json

Every seed draws its labels, tunes the start once and runs all views from it. Apertium makes the back-translations, once
for all seeds. --published names a CSV file with columns content and back_translation. What the JSON file holds is not
run again.
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.csv as pc
from methods import Bench, forget_peak, provenance, record, table, task_of

from nlp_ssl import UDA, Supervised, TrainConfig
from nlp_ssl.augment.policy import parse_policy
from nlp_ssl.cli import console, options
from nlp_ssl.data.bundled import load_bundled, load_named
from nlp_ssl.experiments.runs import run_one
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.paraphrase.back_translation import back_translate
from nlp_ssl.utils.atomic import write_text


@dataclass(frozen=True)
class Views:
    """Flags beside those of the loop."""

    data: Annotated[str, "bundled, or a folder with train and test rows"] = "bundled"
    published: Annotated[Path | None, "CSV file of published back-translations of the training texts"] = None
    labels_per_class: int = 20
    max_length: Annotated[int, "tokens of a text; longer ones are cut"] = 128
    seeds: tuple[int, ...] = (0, 1, 2)
    out: Annotated[Path, "JSON file of the results"] = Path("strong_views.json")


def main(argv):
    """Runs what is missing and prints the table."""
    flags, config = options.parse(argv, Views(), TrainConfig(max_steps=100), name="strong_views.py", doc=__doc__)
    results = json.loads(flags.out.read_text()) if flags.out.exists() else {}
    runs = results.setdefault("runs", [])
    data = {name: asdict(flags)[name] for name in ("labels_per_class", "max_length")}
    data["data"] = Path(flags.data).name
    settings = {"bench": data, "config": asdict(replace(config, seed=0))}
    if results.setdefault("settings", settings) != settings:
        raise SystemExit(f"{flags.out} holds results of other settings: name another file")
    train = (load_bundled("reviews") if flags.data == "bundled" else load_named(flags.data))[0]
    apertium = back_translate(train.texts)
    strong = {"supervised": None, "TF-IDF": (None, None), "Apertium": (None, apertium),
              "Apertium + TF-IDF": (parse_policy("back_translation+tfidf(p=0.1)"), apertium)}  # fmt: skip
    if flags.published:
        strong["published"] = (None, published(flags.published))
    bench = Bench(data=flags.data, labels_per_class=flags.labels_per_class, max_length=flags.max_length)
    tasks = {name: task_of(bench, *(view or ())) for name, view in strong.items()}
    for seed in flags.seeds:
        seeded = replace(config, seed=seed)
        start = SharedStart(tasks["supervised"].draw(seed), seeded)
        for name, view in strong.items():
            if any(r["seed"] == seed and r["name"] == name for r in runs):
                continue
            method, task = (Supervised() if view is None else UDA()), tasks[name].draw(seed)
            forget_peak()
            run = run_one(method, task.without_pool() if view is None else task, seeded, start=start)
            row = record(name, seed, run.scores["test"], run.seconds, run.steps, asdict(method), run.warnings)
            runs.append(row)
            print(f"seed {seed} {name}: {row['accuracy']:.3f}, {row['seconds']} s", file=sys.stderr, flush=True)
            results["provenance"] = provenance()
            write_text(flags.out, json.dumps(results, indent=1))
    table(runs)


def published(path):
    """The rewritings of a CSV file."""
    columns = pc.read_csv(path, parse_options=pc.ParseOptions(newlines_in_values=True))
    return pa.table({"text": columns["content"], "view": columns["back_translation"]}).filter(
        pa.compute.is_valid(columns["back_translation"])
    )


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
