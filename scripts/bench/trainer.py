"""Test accuracy of the README's Trainer script: `AutoModelForSequenceClassification` beside `load_classifier`.

    python scripts/bench/trainer.py --data FOLDER --labels-per-class 10 --max-steps 100

Both models come from the same encoder and learn from the same labels and pool by the same settings, those of
`SSLTrainingArguments`.
"""

import argparse
import tempfile

from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ssl import SSLTrainer, SSLTrainingArguments, load_classifier
from nlp_ssl.data.bundled import bundled_encoder, load_named
from nlp_ssl.data.schema import build_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train and test rows")
    parser.add_argument("--labels-per-class", type=int, default=10)
    parser.add_argument("--max-steps", type=int, default=100)
    parser.add_argument("--method", default="uda")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, _, test = load_named(given.data)
    drawn = {"labels_per_class": given.labels_per_class, "seed": given.seed}
    data = build_data(train, None, None, test, **drawn, drop_leaks=True)
    labels = dict(enumerate(data.classes))

    def rows(at):
        return Dataset.from_dict({"text": data.texts.take(at).to_pylist(), "label": data.labels[at].tolist()})

    name = str(bundled_encoder())
    stock = AutoModelForSequenceClassification.from_pretrained(name, num_labels=len(labels), id2label=labels)
    for maker, model in (
        ("AutoModelForSequenceClassification", stock),
        ("load_classifier", load_classifier(name, id2label=labels)),
    ):
        trainer = SSLTrainer(
            model=model,
            args=SSLTrainingArguments(
                tempfile.mkdtemp(), method=given.method, max_steps=given.max_steps, seed=given.seed,
                save_strategy="no", report_to=[],
            ),
            train_dataset=rows(data.labeled),
            unlabeled_dataset=rows(data.unlabeled).remove_columns("label"),
            eval_dataset=rows(data.test),
            processing_class=AutoTokenizer.from_pretrained(name),
            compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
        )  # fmt: skip
        trainer.train()
        print(f"{maker}: {trainer.evaluate()['eval_accuracy']:.3f}", flush=True)


if __name__ == "__main__":
    main()
