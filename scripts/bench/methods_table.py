"""The results of `methods.py` on several data sets as one Markdown table, best mean difference to "supervised" first.

python scripts/bench/methods_table.py trec6=results/methods_trec6.json "AG News=results/methods_ag_news.json"
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from methods import spread


def main(argv: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", metavar="NAME=FILE", help="name of a data set and its file of results")
    files = [given.split("=", 1) for given in parser.parse_args(argv).results]
    sets = {name: json.loads(Path(path).read_text())["runs"] for name, path in files}
    gains = {name: paired(runs) for name, runs in sets.items()}
    names = {method for found in gains.values() for method in found}
    order = sorted(names, key=lambda m: -statistics.mean(statistics.mean(g[m]) for g in gains.values() if m in g))
    print("| method | " + " | ".join(f"{name} | - supervised" for name in sets) + " |")
    print("| --- |" + " --- | --- |" * len(sets))
    for method in ("start", "supervised", *(m for m in order if m not in ("start", "supervised"))):
        cells = []
        for name, runs in sets.items():
            gain = gains[name].get(method, []) if method != "supervised" else []
            cells += [cell([100 * r["accuracy"] for r in runs if r["name"] == method]), cell(gain, "+")]
        print(f"| {method if method in ('start', 'supervised') else f'`{method}`'} | " + " | ".join(cells) + " |")


def cell(values: list[float], sign: str = "") -> str:
    """Mean and spread; the value alone where there is one."""
    if len(values) < 2:
        return f"{values[0]:{sign}.1f}" if values else "-"
    return " ".join(spread(values, sign).split())


def paired(runs: list[dict]) -> dict[str, list[float]]:
    """Differences to the supervised run of the same seed, in points, by method."""
    base = {r["seed"]: r["accuracy"] for r in runs if r["name"] == "supervised"}
    found: dict[str, list[float]] = {}
    for r in runs:
        if r["seed"] in base:
            found.setdefault(r["name"], []).append(100 * (r["accuracy"] - base[r["seed"]]))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
