"""Losses of three steps and a checksum of the weights of every method, on the tiny task of the tests; writes JSON.

    python scripts/same_loss.py --out before.json                          at one commit
    python scripts/same_loss.py --out after.json --against before.json     at another: adds what differs, by method

A change that only moves code leaves all of it equal, bit by bit, on the same machine with the same packages. Each run
is that of `nlp_ssl.fit`: warm start (contrastive on texts, none on images), alignment, three steps; methods in rounds
make one round. Texts run through a random two-layer BERT, images (digits) through the smallest Wide-ResNet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import xxhash

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from tiny import FAST, tiny_images, tiny_task  # noqa: E402

from nlp_ssl import fit, get_method, list_methods  # noqa: E402
from nlp_ssl.utils.atomic import write_text  # noqa: E402

CONFIG = replace(FAST, warm_start="auto", warm_steps=2, logging_steps=1)  # three steps, with dropout
IN_ROUNDS = {"self_training": {}, "noisy_student": {}, "ust": {"passes": 2, "sample": 32}}


def checksum(module):
    """A hash of the weights, in the order of their names."""
    digest = xxhash.xxh3_128()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}\0".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def losses(folder):
    """The loss of every logged step, of all runs in the folder in their order (a method in rounds has several)."""
    files = sorted(folder.glob("**/metrics.jsonl"))
    return [json.loads(line)["loss"] for file in files for line in file.read_text().splitlines()]


def measure(method, task, folder):
    """Losses and the checksum of a short run."""
    result = fit(method, task, CONFIG, folder=folder)
    return {"losses": losses(folder), "weights": checksum(result.module)}


def all_methods(folder):
    """The measurements by name: of texts, and of images as "NAME (images)"."""
    texts, images = tiny_task(folder / "texts"), tiny_images()
    methods = {name: get_method(name)() for name in list_methods(in_rounds=False)}
    methods |= {name: get_method(name)(rounds=1, **options) for name, options in IN_ROUNDS.items()}
    measured = {name: measure(method, texts, folder / name) for name, method in methods.items()}
    for name in list_methods(in_rounds=False):
        measured[f"{name} (images)"] = measure(get_method(name).for_images(), images, folder / f"{name}-images")
    return measured


def difference(one, other):
    """0 where two measurements are equal to the bit, the largest difference of a loss otherwise."""
    if one == other:
        return 0.0
    pairs = zip(one["losses"], other["losses"], strict=True)
    return max((abs(a - b) for a, b in pairs), default=0.0) or "weights alone"


def main():
    """Measures, compares where there is something to compare with, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="a file of this script, of another commit")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout
    with tempfile.TemporaryDirectory() as folder:
        table = {"commit": commit.strip(), "torch": torch.__version__, "methods": all_methods(Path(folder))}
    if flags.against is not None:
        before = json.loads(flags.against.read_text())
        differs = {name: difference(before["methods"][name], now) for name, now in table["methods"].items()
                   if name in before["methods"]}  # fmt: skip
        table |= {"against": before["commit"], "difference": differs}
        unequal = {name: value for name, value in differs.items() if value}
        print(f"{len(differs) - len(unequal)} of {len(differs)} equal to the bit; {unequal or 'none differs'}")
    write_text(flags.out, json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
