"""The stages of `nlp-ssl pipeline` beside the labels alone, on the data, settings and seeds of methods.py; writes JSON.

    python scripts/bench/pipeline.py --data FOLDER --method fixmatch --labels-per-class 10 --out results.json

A finished seed is not run again. Seconds are those of training, without warm starts and pre-training, which
`nlp_ssl` reports as it goes on.
"""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from methods import TEXT_LOOP, Bench, provenance, table, task_of

from nlp_ssl import RunFolder, get_method
from nlp_ssl.cli import console, options
from nlp_ssl.experiments.pipeline import Stages, run_stages
from nlp_ssl.utils.atomic import write_text


@dataclass(frozen=True)
class Stacked:
    """Flags beside those of methods.py and of the pipeline."""

    method: str = "fixmatch"


def main(argv):
    """Runs the seeds that are missing and prints the table."""
    bench, stacked, stages, config = options.parse(
        argv, Bench(), Stacked(), Stages(), TEXT_LOOP, name="pipeline.py", doc=__doc__
    )
    flags = {k: str(v) for k, v in {**asdict(bench), **asdict(stacked), **asdict(stages)}.items()}
    settings = {
        "bench": {k: v for k, v in flags.items() if k not in ("out", "methods", "seeds", "show", "data")},
        "data": Path(bench.data).name,
        "config": asdict(replace(config, seed=0)),
    }
    results = json.loads(bench.out.read_text()) if bench.out and bench.out.exists() else {}
    runs = results.setdefault("runs", [])
    if results.setdefault("settings", settings) != settings:
        raise SystemExit(f"{bench.out} holds results of other settings: name another file")
    whole = task_of(bench)
    for seed in bench.seeds:
        if any(run["seed"] == seed for run in runs):
            continue
        with tempfile.TemporaryDirectory() as folder:
            runs_of_seed = RunFolder(Path(folder) / "out")
            method = get_method(stacked.method)()
            compared = run_stages(stages, method, whole, config, seeds=[seed], folder=runs_of_seed)
        for name, (outcome,) in compared.results.items():
            scores = asdict(outcome.scores["test"])
            runs.append({"name": name, "seed": seed, **scores, "seconds": round(outcome.seconds, 1),
                         "steps": outcome.steps, "peak_mib": 0, "warnings": outcome.warnings})  # fmt: skip
            print(f"seed {seed} {name}: {scores['accuracy']:.3f}", file=sys.stderr, flush=True)
        if bench.out:
            results["provenance"] = provenance()
            write_text(bench.out, json.dumps(results, indent=1))
    table(runs)


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
