"""Measure SetFit, the label-only competitor, on one data set: the row to put beside every semi-supervised result.

SetFit fine-tunes a sentence encoder on pairs of labeled texts and fits a logistic regression on its embeddings; it
never sees unlabeled text. Everything stays at its documented default (one epoch over the oversampled pairs, batch 16,
body learning rate 2e-5), except the encoder and the length at which texts are cut, which are given here so that both
sides of a comparison share them.

    pip install setfit==1.2.0
    python scripts/bench/setfit_baseline.py --data trec6 --labels-per-class 10 --seeds 0,1,2 --encoder MiniLM \
        --max-length 128 --out trec6.json

`--data` is a folder with one file `<folder name>.jsonl.gz`, a JSON object per line: text, label, split. The labeled
rows are drawn from split "train" by the project's own `draw_per_class`, so a seed names the same rows for both sides;
training texts that also occur in split "test" are left out first. The whole test split is scored. `--encoder` is a
sentence-transformers folder.
"""

import argparse
import gzip
import hashlib
import json
import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from nlp_ssl.data.splits import draw_per_class

PACKAGES = ("setfit", "sentence-transformers", "transformers", "torch", "scikit-learn", "numpy")
PREDICT_BATCH = 128

Row = dict[str, str]


def normalised(text: str) -> str:
    return " ".join(text.casefold().split())


def read_splits(folder: Path) -> tuple[list[Row], list[Row]]:
    """Labeled train rows whose text is not in the test split, in file order, and all test rows."""
    with gzip.open(folder / f"{folder.resolve().name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    test = [row for row in rows if row["split"] == "test"]
    seen = {normalised(row["text"]) for row in test}
    train = [row for row in rows if row["split"] == "train" and row["label"] is not None]
    return [row for row in train if normalised(row["text"]) not in seen], test


def measure(labeled: list[Row], test: list[Row], encoder: Path, max_length: int, seed: int) -> dict[str, object]:
    """Train on `labeled`, score on `test`; the times leave out the loading of the encoder."""
    body = SentenceTransformer(str(encoder))
    # SetFit's own `max_length` argument reaches only its differentiable head: the body cuts the texts.
    body.max_seq_length = max_length
    # Built from its parts because `from_pretrained` would unpickle a head found in the folder.
    model = SetFitModel(model_body=body, model_head=LogisticRegression())
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch, seed=seed, save_strategy="no", report_to="none", show_progress_bar=False
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=Dataset.from_list(labeled))
        start = time.perf_counter()
        trainer.train()
        trained = time.perf_counter()
    load_after = os.getloadavg()[0]
    predicted = model.predict([row["text"] for row in test], batch_size=PREDICT_BATCH, show_progress_bar=False)
    scored = time.perf_counter()
    truth = [row["label"] for row in test]
    return {
        "seed": seed,
        "labeled_rows": len(labeled),
        "steps": trainer.st_trainer.state.global_step,
        "accuracy": accuracy_score(truth, predicted),
        "macro_f1": f1_score(truth, predicted, average="macro"),
        "train_seconds": trained - start,
        "predict_seconds": scored - trained,
        "load_average": [load_before, load_after],
        "device": str(body.device),
    }


def mean_and_sd(runs: list[dict[str, object]], key: str) -> dict[str, float]:
    values = [float(str(run[key])) for run in runs]
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def write_json(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy and training time of SetFit on one data set.")
    parser.add_argument("--data", type=Path, required=True, help="folder holding <folder name>.jsonl.gz")
    parser.add_argument("--labels-per-class", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated; a seed sets the draw and the training")
    parser.add_argument("--encoder", type=Path, required=True, help="sentence-transformers folder")
    parser.add_argument("--max-length", type=int, default=128, help="tokens kept of a text")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    train, test = read_splits(arguments.data)
    labels = [row["label"] for row in train]
    runs = []
    for seed in map(int, arguments.seeds.split(",")):
        labeled = [train[position] for position in draw_per_class(labels, arguments.labels_per_class, seed)]
        runs.append(measure(labeled, test, arguments.encoder, arguments.max_length, seed))
        print(json.dumps(runs[-1]), flush=True)
    weights = (arguments.encoder / "model.safetensors").read_bytes()
    result = {
        "method": "setfit",
        "data": arguments.data.resolve().name,
        "labels_per_class": arguments.labels_per_class,
        "classes": len(set(labels)),
        "train_rows": len(train),
        "test_rows": len(test),
        "max_length": arguments.max_length,
        "encoder_sha256": hashlib.sha256(weights).hexdigest(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in PACKAGES},
        "summary": {key: mean_and_sd(runs, key) for key in ("accuracy", "macro_f1", "train_seconds")},
        "runs": runs,
    }
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
