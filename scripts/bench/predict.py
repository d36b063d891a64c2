"""Texts per second of a trained classifier: what `nlp-ssl predict` does, and two plain ways of doing it.

    python scripts/bench/predict.py --data FOLDER [--texts 5000] [--rounds 3] [--model OUT] [--out FILE.json]

- pipeline: the pipeline of transformers, batches of 32 in the order of the file, float32.
- sorted: the bare forward pass, texts sorted by length, batches of 32 padded to their longest, float32.
- predict: `open_predictor` and `answer`, from texts to probabilities, in float32 and in bf16.
- onnx, int8: the same with the exported graph, and with its int8 weights.

All take the same texts, cut at the same length, with the threads that torch takes, in turns within every round; the
median of the rounds is reported, in texts per second and per second of processor time (which other programs on the
machine hardly change; of use with one thread), and how far the answers are from those of the pipeline. Then `budgets`:
tokens of a batch against texts per second of processor time, on a tenth of the texts. Without --model, a classifier is
trained first: the bundled encoder, 50 labeled texts of each class, 60 steps of `supervised`.
"""

import argparse
import json
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from nlp_ssl import Supervised, Task, TrainConfig, fit
from nlp_ssl.data.bundled import load_named
from nlp_ssl.data.splits import draw_per_class
from nlp_ssl.inference import export, predict
from nlp_ssl.inference.predictor import answer, open_predictor
from nlp_ssl.utils.atomic import write_text
from nlp_ssl.utils.precision import resolve

BATCH = 32
BUDGETS = (512, 1024, 2048, 4096, 8192, 16384)


def train(data, folder):
    """A classifier of the labels alone."""
    rows, _, test = load_named(data)
    drawn = rows.take(draw_per_class(rows.labels, 50, 0))
    task = Task.from_files(drawn, test=test, model="bundled", cache_dir=folder / "cache")
    config = TrainConfig(max_steps=60, warm_start="none", align=False)
    fit(Supervised(), task, config).model.save_pretrained(folder / "model")
    return folder / "model"


def with_pipeline(folder, max_length):
    """Probabilities [n, C] by the pipeline."""
    run = pipeline("text-classification", str(folder), device="cpu", dtype=torch.float32)
    names = list(run.model.config.id2label.values())

    def answers(texts):
        rows = run(texts, batch_size=BATCH, truncation=True, max_length=max_length, top_k=None)
        return np.array([[{one["label"]: one["score"] for one in row}[name] for name in names] for row in rows])

    return answers


def with_sorted_batches(folder, max_length):
    """Probabilities [n, C] by bare forward passes."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def answers(texts):
        order = np.argsort([-len(text) for text in texts], kind="stable")
        out = np.empty((len(texts), model.config.num_labels))
        for start in range(0, len(texts), BATCH):
            rows = order[start : start + BATCH]
            inputs = tokenizer([texts[i] for i in rows], truncation=True, max_length=max_length, padding=True,
                               return_tensors="pt")  # fmt: skip
            out[rows] = model(**inputs).logits.softmax(-1).numpy()
        return out

    return answers


def with_predict(folder, max_length, precision="no"):
    """Probabilities [n, C] as `nlp-ssl predict` makes them."""
    predictor = open_predictor(folder, max_length=max_length, precision=precision)

    def answers(texts):
        rows = ((number, (text,)) for number, text in enumerate(texts, 1))
        return np.concatenate([block.probabilities for block in answer(predictor, rows)])

    return answers


def measured(ways, texts, rounds):
    """(seconds, processor seconds) of every way in every round, and its last answers."""
    seconds, found = {name: [] for name in ways}, {}
    for way in ways.values():
        way(texts[:64])
    for number in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter(), time.process_time()
            found[name] = way(texts)
            seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
            shown = " and ".join(f"{len(texts) / one:.0f}" for one in seconds[name][-1])
            print(f"round {number + 1} {name}: {shown} texts a second and processor second", flush=True)
    return seconds, found


def budgets(ways, texts, rounds):
    """Texts per second of processor time by tokens of a batch, the best of the rounds."""
    usual = predict._CPU_TOKENS, export._TOKENS
    best = {name: dict.fromkeys(BUDGETS, 0.0) for name in ways}
    for _ in range(rounds):
        for tokens in BUDGETS:
            predict._CPU_TOKENS = export._TOKENS = tokens
            for name, way in ways.items():
                start = time.process_time()
                way(texts)
                best[name][tokens] = max(best[name][tokens], len(texts) / (time.process_time() - start))
    predict._CPU_TOKENS, export._TOKENS = usual
    return best


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True)
    arguments.add_argument("--texts", type=int, default=5000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--max-length", type=int, default=128)
    arguments.add_argument("--model", type=Path)
    arguments.add_argument("--out", type=Path)
    asked = arguments.parse_args()
    rows, _, test = load_named(asked.data)
    texts = [text for table in (test, rows) if table is not None for text in table.texts.to_pylist()][: asked.texts]
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model or train(asked.data, Path(folder))
        parity = {
            name: export.export(model, Path(folder) / name, quantize=quantize, texts=texts[:512], tolerance=1.0)
            for name, quantize in (("onnx", "no"), ("int8", "int8"))
        }
        ours = {
            "predict": with_predict(model, asked.max_length),
            "predict bf16": with_predict(model, asked.max_length, "bf16"),
            **{name: with_predict(Path(folder) / name, asked.max_length) for name in parity},
        }
        plain = {"pipeline": with_pipeline, "sorted": with_sorted_batches}
        plain = {name: make(model, asked.max_length) for name, make in plain.items()}
        seconds, found = measured({**plain, **ours}, texts, asked.rounds)
        by_budget = budgets(ours, texts[: len(texts) // 10], asked.rounds)
    result = {
        "data": Path(asked.data).name,
        "texts": len(texts),
        "max_length": asked.max_length,
        "batch_tokens": {"model": predict._CPU_TOKENS, "graph": export._TOKENS},
        "threads": torch.get_num_threads(),
        "auto_is": resolve("auto", torch.device("cpu")),
        "versions": {name: version(name) for name in ("torch", "transformers", "onnxruntime", "tokenizers")},
        "ways": {name: compared(seconds[name], found[name], found["pipeline"]) for name in seconds},
        "budgets": by_budget,
        "export": {name: vars(one) for name, one in parity.items()},
    }
    print(json.dumps(result, indent=1))
    if asked.out:
        write_text(asked.out, json.dumps(result, indent=1) + "\n")


def compared(seconds, found, reference):
    """Speed of one way and the distance of its answers from the reference."""
    return {
        "texts_per_second": len(found) / statistics.median(wall for wall, _ in seconds),
        "texts_per_processor_second": len(found) / statistics.median(processor for _, processor in seconds),
        "largest_difference": float(np.abs(found - reference).max()),
        "same_labels": float((found.argmax(1) == reference.argmax(1)).mean()),
    }


if __name__ == "__main__":
    main()
