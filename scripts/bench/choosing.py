"""Methods chosen by held-out labels, beside the test accuracies that `methods.py` measured for them.

    python scripts/bench/choosing.py --data FOLDER --results methods.json --methods supervised,fixmatch --seeds 0,1

Data, labels and settings of the loop are those of the results. For every seed: how many held-out labels each method got
right, the one that is chosen, and what it and the others got right of the test rows. Runs are kept in the folder
--work, so that an interrupted measurement goes on.
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from methods import Bench, method_of, provenance, task_of

from nlp_ssl import RunFolder, TrainConfig
from nlp_ssl.cli import console, options
from nlp_ssl.experiments.tuning import Candidate, best, tune
from nlp_ssl.training.identity import as_identity
from nlp_ssl.utils.atomic import write_text


@dataclass(frozen=True)
class Choice:
    """What is chosen among."""

    data: Annotated[str, "as for methods.py"] = ""
    results: Annotated[Path | None, "JSON file of methods.py"] = None
    methods: str = "supervised,fixmatch"
    folds: int = 3
    seeds: tuple[int, ...] = (0, 1, 2)
    work: Path = Path("choosing")
    out: Annotated[Path | None, "JSON file of the choices"] = None


def main(argv):
    """Prints a line for each seed and method, and keeps all in a file."""
    (choice,) = options.parse(argv, Choice(), name="choosing.py", doc=__doc__)
    measured = json.loads(choice.results.read_text())
    data = measured["settings"]["bench"]
    length = data.get("max_length") or measured["settings"]["config"]["max_length"]  # of earlier results
    bench = replace(
        Bench(), data=choice.data, labels_per_class=int(data["labels_per_class"]), test_rows=int(data["test_rows"]),
        max_length=int(length),
    )  # fmt: skip
    config = TrainConfig(**as_identity(measured["settings"])["config"])
    whole = task_of(bench)
    accuracy = {(run["name"], run["seed"]): 100 * run["accuracy"] for run in measured["runs"]}
    names, rows = choice.methods.split(","), []
    for seed in choice.seeds:
        seeded = replace(config, seed=seed)
        candidates = [Candidate(name, method_of(name, images=False), seeded) for name in names]
        judged = tune(candidates, whole.draw(seed), choice.folds, RunFolder(choice.work / f"seed-{seed}", resume=True))
        chosen = names[best(judged)]
        for one in judged:
            mark = "<- chosen" if one.name == chosen else ""
            print(f"seed {seed} {one}; test {accuracy[one.name, seed]:.1f} {mark}", flush=True)
        rows.append({
            "seed": seed, "chosen": chosen, "test": {name: accuracy[name, seed] for name in names},
            "held out": {one.name: round(float(one.right.mean()), 4) for one in judged},
            "agreement": {one.name: round(one.agreement, 4) for one in judged},
        })  # fmt: skip
        if choice.out:
            settings = {"methods": names, "folds": choice.folds, "config": asdict(config)}
            write_text(
                choice.out, json.dumps({"settings": settings, "seeds": rows, "provenance": provenance()}, indent=1)
            )


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
