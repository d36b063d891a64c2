"""What an index costs and withstands: encoding, kinds of index, a million vectors, damaged files, kills.

    python scripts/bench/index.py build CORPORA --texts 100000 --folder bank --precision bf16
    python scripts/bench/index.py kinds --folder bank
    python scripts/bench/index.py million --folder big
    python scripts/bench/index.py damage --times 1000
    python scripts/bench/index.py kill --kills 10

With --out FILE the numbers are added to a JSON file. Rates of encoding are of processor time, which other work on the
machine changes little; bf16 vectors are compared with those of float32. `million` takes vectors drawn around 10,000
centres.
"""

import argparse
import itertools
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from methods import provenance

from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.sources import stream_texts
from nlp_ssl.errors import DataError
from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.retrieval import BankOptions, Index, ann, build, index
from nlp_ssl.utils.atomic import write_text
from nlp_ssl.utils.sentences import split

DIM = 384


def main():
    """Runs one measurement and prints its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "kinds", "million", "damage", "kill"])
    parser.add_argument("corpora", nargs="*")
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if given.what == "build":
            found = measured_build(folder, given.corpora, given.texts, given.precision)
        elif given.what == "kinds":
            found = kinds(folder)
        elif given.what == "million":
            found = million(folder)
        elif given.what == "damage":
            found = damage(folder, given.times)
        else:
            found = kill(folder, given.kills)
    found["peak MiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(found, indent=1))
    if given.out:
        known = json.loads(given.out.read_text()) if given.out.exists() else {}
        name = f"build {given.precision}" if given.what == "build" else given.what
        write_text(given.out, json.dumps(known | {name: found | provenance()}, indent=1))


def measured_build(folder, corpora, count, precision):
    """Texts a second of a build, against the encoder alone on the same texts sorted by length."""
    counts, path = Counter(), folder.with_suffix(".txt")
    sources = [(s for line in stream_texts(c, counts=counts) for s in split(line)) for c in corpora]
    lines = itertools.chain(*(itertools.islice(source, count // len(sources)) for source in sources))
    path.write_text("".join(f"{line}\n" for line in lines))
    encoder = encoder_name("bundled")
    embed, spent = Embedder(encoder, precision), []
    embed(["a first text, so that the model is loaded"])

    def clocked(texts):
        began = time.process_time()
        found = embed(texts)
        spent.append(time.process_time() - began)
        return found

    began, clock = time.perf_counter(), time.process_time()
    made = build(folder, [str(path)], BankOptions(), encoder=encoder, precision=precision, embed=clocked)
    seconds, used = time.perf_counter() - began, time.process_time() - clock
    sample = sorted((made.bank.text(i) for i in range(0, len(made), max(len(made) // 2000, 1))), key=len)
    alone = []
    for _ in range(3):
        clock = time.process_time()
        vectors = embed(sample)
        alone.append(round(len(sample) / (time.process_time() - clock), 1))
    exact = Embedder(encoder)(sample) if precision == "bf16" else vectors
    near, true = (np.argsort(-(rows @ rows.T - 2 * np.eye(len(rows))), axis=1)[:, :10] for rows in (vectors, exact))
    same = np.mean([np.isin(*two).mean() for two in zip(near, true, strict=True)])
    return {
        "lines": count, "texts": len(made), "seconds": round(seconds, 1), "processor seconds": round(used, 1),
        "of them encoding": round(sum(spent), 1), "texts a processor second": round(len(made) / used, 1),
        "the same in the encoder": round(len(made) / sum(spent), 1), "encoder alone, 2,000 sorted": alone,
        "ten nearest as in float32": round(float(same), 4),
    }  # fmt: skip


def kinds(folder):
    """Every kind of index over a bank that was built."""
    bank, rows = Index.open(folder).bank, {}
    rng = np.random.default_rng(5)
    queries = bank.vectors(rng.choice(len(bank), min(1000, len(bank)), replace=False))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for kind in ("flat", "sq8", "pq", "rabitq", "hnsw"):
        factory = ann.factory_of(kind, len(bank), bank.dim)
        began = time.perf_counter()
        made = ann.make_index(factory, bank)
        seconds = time.perf_counter() - began
        reach, _ = ann.tune_search(made, factory, bank, 0.95)
        ann.set_reach(made, reach)
        file = folder / "measured.faiss"
        ann.write(made, file)
        find = partial(ann.search, made, bank, k=10, candidates=reach.candidates)
        one = [timed(partial(find, queries=q[None])) for q in queries[:100]]
        many = min(timed(partial(find, queries=queries)) for _ in range(3))
        rows[kind] = {
            "factory": factory, "seconds": round(seconds, 1), "bytes a text": round(file.stat().st_size / len(bank)),
            "reach": f"{reach.knob} {reach.value}, {reach.candidates} candidates", "recall": round(reach.recall, 3),
            "ms a query alone": round(1000 * float(np.median(one)), 2),
            "ms a query of 1,000": round(1000 * many / len(queries), 3),
        }  # fmt: skip
        file.unlink()
    return {"texts": len(bank), "kinds": rows}


def million(folder):
    """An index of a million made-up vectors, through the builder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lines.txt"
    with path.open("w") as file:
        file.writelines(f"line number {i} of them\n" for i in range(1_000_000))
    centres = np.random.default_rng(0).normal(size=(10_000, DIM)).astype(np.float32)

    def embed(texts):
        rng = np.random.default_rng(number_in(texts[0]))
        drawn = centres[rng.integers(0, len(centres), len(texts))]
        return drawn + 0.7 * rng.normal(size=drawn.shape).astype(np.float32)

    began = time.perf_counter()
    made = build(folder / "bank", [str(path)], BankOptions(part_size=65_536), encoder="none", embed=embed)
    seconds = round(time.perf_counter() - began, 1)
    return {"texts": len(made), "seconds": seconds, "factory": made.meta["factory"], "reach": made.meta["reach"]}


def damage(folder, times):
    """Index files with flipped bytes, cut short or of others, under a manifest that agrees with them."""
    (folder / "c.txt").write_text("".join(f"this is the text number {i}\n" for i in range(400)))

    def embed(texts):
        rng = np.random.default_rng(number_in(texts[0]))
        return rng.normal(size=(len(texts), 16)).astype(np.float32)

    index.cache_folder = lambda: folder / "cache"
    outcomes, rng = Counter(), random.Random(0)
    for kind in ("IVF8,SQ8", "HNSW8,SQ8", "IVF8,RaBitQ", "IVF8,PQ4x4"):
        made = build(folder / kind, [str(folder / "c.txt")], BankOptions(), encoder="none", kind=kind, embed=embed)
        whole = (folder / kind / "index" / "index.faiss").read_bytes()
        for _ in range(times // 4):
            data = bytearray(whole)
            for _ in range(rng.choice([1, 1, 4])):
                data[rng.randrange(min(len(data), rng.choice([200, len(data)])))] = rng.randrange(256)
            if rng.random() < 0.2:
                data = data[: rng.randrange(len(data))]
            (folder / "file").write_bytes(data)
            try:
                index.read_file(folder / "file", made.bank)
                outcomes["let in"] += 1
            except DataError as error:
                outcomes[str(error).split("(a trial ended with ")[1].split(")")[0]] += 1
    return {"files": sum(outcomes.values()), "exit codes of the child": dict(outcomes)}


def kill(folder, kills):
    """A build that is killed again and again, against an unbroken one."""
    (folder / "c.txt").write_text("".join(f"this is the text number {i} of many\n" for i in range(4000)))
    argv = [sys.executable, "-m", "nlp_ssl.cli", "index", "build", str(folder / "c.txt"), "--part-size", "100",
            "--kind", "sq8", "--out"]  # fmt: skip
    subprocess.run([*argv, str(folder / "whole")], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    rng, parts = random.Random(0), []
    for number in range(kills):
        process = subprocess.Popen([*argv, str(folder / "bank")], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and written(folder) < 40 * number // kills:  # of 40 parts
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        parts.append(written(folder))
    subprocess.run([*argv, str(folder / "bank")], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    files = [
        p.relative_to(folder / "whole") for p in (folder / "whole").rglob("*") if p.is_file() and p.name != ".lock"
    ]
    same = [(folder / "bank" / f).read_bytes() == (folder / "whole" / f).read_bytes() for f in files]
    return {"parts at each kill": parts, "files": len(files), "files alike": sum(same)}


def written(folder):
    """Parts of the bank that are there."""
    return len(list((folder / "bank" / "parts").glob("[0-9]*")))


def number_in(text):
    """The number in a made-up text; 0 of the one that an encoder is asked first for the width of its vectors."""
    return next((int(word) for word in text.split() if word.isdecimal()), 0)


def timed(call):
    """Seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
