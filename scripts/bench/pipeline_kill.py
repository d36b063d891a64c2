"""A pipeline that is killed again and again, against an unbroken one.

    python scripts/bench/pipeline_kill.py --kills 10 --out results/pipeline_kill.json

A short `nlp-ssl pipeline` on bundled reviews (5 labels a class, 120 texts without, the bundled encoder) gets SIGKILL,
with all its processes, after a tenth to three tenths of the time of an unbroken run, and is started again with the same
command. Each restart comes further by at least the steps between two checkpoints, or else starts the stage anew; in the
end all models, labels and scores must be those of the unbroken run. Seconds and times of day may differ.
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from methods import provenance

from nlp_ssl.data.bundled import load_bundled
from nlp_ssl.utils.atomic import write_text

LABELED, POOL, TEST = 10, 120, 60
FLAGS = "--method fixmatch --seed 0 --pretrain-steps 8 --max-steps 8 --warm-steps 8 --batch-size 4 --max-length 32"
MORE = "--model bundled --unlabeled-ratio 2 --save-steps 2 --logging-steps 1 --mixed-precision no --resume"
TIMES = re.compile(r"\d+(\.\d+)?( ?s\b|\s*$)")


def main():
    """Prints what the killed run left, and how it ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="kept, instead of a temporary one")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = kill(given.folder or Path(temporary), given.kills, random.Random(given.seed))
    print(json.dumps(found, indent=1))
    if given.out:
        write_text(given.out, json.dumps(found | provenance(), indent=1))
    sys.exit(bool(found["differ"]) or found["codes"][-1] != 0)


def kill(folder, kills, rng):
    """Both runs, and how the files that they left compare."""
    written(folder)
    began = time.monotonic()
    code, table = finished(started(folder, "whole"))
    seconds = time.monotonic() - began
    if code:
        raise SystemExit(f"the unbroken run ended with {code}")
    at = []
    for _ in range(kills):
        process = started(folder, "broken")
        at.append(round(rng.uniform(0.1, 0.3) * seconds, 1))
        try:
            process.wait(at[-1])
            at[-1] = f"done before {at[-1]}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    code, again = finished(started(folder, "broken"))
    whole, broken = state(folder / "whole"), state(folder / "broken")
    return {
        "seconds unbroken": round(seconds, 1), "killed after": at, "codes": [0, code],
        "files": len(whole), "differ": sorted(n for n in whole.keys() | broken.keys() if whole.get(n) != broken.get(n)),
        "tables alike": TIMES.sub("", table) == TIMES.sub("", again),
    }  # fmt: skip


def written(folder):
    """l.csv, u.txt and t.csv of bundled reviews."""
    folder.mkdir(parents=True, exist_ok=True)
    train, test = load_bundled("reviews")
    texts = [" ".join(text.split()) for text in train.texts.to_pylist()]
    of = {
        name: [t for t, label in zip(texts, train.labels, strict=True) if label == name]
        for name in sorted(set(train.labels))
    }
    labeled = [(name, t) for name, found in of.items() for t in found[: LABELED // len(of)]]
    rest = [t for found in of.values() for t in found[LABELED // len(of) :][: POOL // len(of)]]
    tested = list(zip(test.labels, test.texts.to_pylist(), strict=True))[:TEST]
    for name, rows in (("l.csv", labeled), ("t.csv", tested)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("label", "text"), *rows])
    (folder / "u.txt").write_text("".join(f"{t}\n" for t in rest))


def started(folder, name):
    """The pipeline as a group of its own."""
    argv = ["-m", "nlp_ssl.cli", "pipeline", "--labeled", "l.csv", "--unlabeled", "u.txt", "--test", "t.csv"]
    where = ["--output-dir", name, "--cache-dir", f"cache-{name}"]
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen([sys.executable, *argv, *where, *FLAGS.split(), *MORE.split()], cwd=folder, text=True,
                                stdout=subprocess.PIPE, stderr=log, start_new_session=True)  # fmt: skip


def finished(process):
    """(exit code, standard output) of a run that is left alone."""
    said, _ = process.communicate()
    return process.returncode, said


def state(place):
    """What every file of a run says, without seconds and times of day: name -> contents."""
    found = {}
    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        name = str(path.relative_to(place))
        if path.name == ".lock" or "checkpoints" in path.parts or path.suffix == ".html" or path.name == "README.md":
            continue  # reports and cards hold the folder's name and seconds
        if path.suffix in (".json", ".jsonl"):
            found[name] = [timeless(json.loads(line)) for line in documents(path)]
        else:
            found[name] = path.read_bytes()
    return found


def documents(path):
    """The JSON documents of a file."""
    return path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]


def timeless(value):
    """JSON without seconds."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "seconds"}
    return [timeless(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
