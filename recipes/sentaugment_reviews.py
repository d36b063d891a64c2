"""SentAugment (Du et al. 2021, arXiv:2010.02194): sentences of a bank, labeled by a teacher, teach a student.

\b
nlp-ssl index build news.txt books.txt --sentences --out bank
accelerate launch recipes/sentaugment_reviews.py --bank bank
"""

from pathlib import Path

import click

from nlp_ssl import Comparison, RunFolder, Supervised, Task, TrainConfig, fit, is_main, log_to_console
from nlp_ssl.data.bundled import load_bundled, load_named
from nlp_ssl.data.splits import draw_per_class, draw_rows
from nlp_ssl.inference.predict import logits_of_texts
from nlp_ssl.retrieval import Index
from nlp_ssl.retrieval.sentaugment import Retrieval, augment, write_sentences


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--bank", type=Path, required=True, help="folder that `nlp-ssl index build` made")
@click.option("--data", default="bundled", help="bundled, or a file, folder or hub data set with train and test rows")
@click.option("--model", default="bundled", help="folder or hub name of the encoder")
@click.option("--labels-per-class", default=40, help="labels drawn by each seed")
@click.option("--per-class", default=500, help="sentences kept per class")
@click.option("--max-steps", default=100, help="steps of the teacher and of the student, each after its warm start")
@click.option("--seeds", default=3, help="runs, each with its own labels")
@click.option("--output-dir", type=Path, default=Path("runs/sentaugment"), help="where the runs are written")
@click.option("--resume", is_flag=True, help="go on where an earlier run stopped")
@click.option("--overwrite", is_flag=True, help="replace an earlier run")
def main(
    bank: Path, data: str, model: str, labels_per_class: int, per_class: int, max_steps: int, seeds: int,
    output_dir: Path, resume: bool, overwrite: bool,
) -> None:  # fmt: skip
    log_to_console()
    runs = RunFolder(output_dir, resume=resume)
    runs.check(overwrite=overwrite)
    index = Index.open(bank)
    if overwrite:
        runs.clear()

    if data == "bundled":
        (train, test), dev = load_bundled("reviews"), None
        test = test.take(draw_rows(len(test), 1000, seed=0))  # enough to score on
    else:
        train, dev, test = load_named(data)
    outcomes = {"supervised": [], "sentaugment": []}
    for seed in range(seeds):
        folder, config = runs.of_seed(seed), TrainConfig(max_steps=max_steps, seed=seed)
        labeled = train.take(draw_per_class(train.labels, labels_per_class, seed))
        task = Task.from_files(labeled, dev=dev, test=test, model=model, drop_leaks=True)
        teacher = fit(Supervised(), task, config, folder=folder.within("teacher"))

        rows = task.data
        sentences = augment(
            index,
            rows.texts.take(rows.labeled).to_pylist(),
            rows.labels[rows.labeled],
            [*rows.texts.take(rows.dev).to_pylist(), *rows.texts.take(rows.test).to_pylist()],  # not to be trained on
            lambda texts, net=teacher.module: logits_of_texts(net, texts, 128),
            Retrieval(per_class=per_class),
        )
        path = folder.path / "sentences.parquet"
        write_sentences(path, sentences, rows.classes)
        task = Task.from_files(labeled, dev=dev, test=test, model=model, pseudo_labels=path, drop_leaks=True)
        student = fit(Supervised(), task, config, folder=folder.within("student"))
        outcomes["supervised"].append(teacher)
        outcomes["sentaugment"].append(student)
    if is_main():
        print(Comparison("sentaugment", tuple(range(seeds)), outcomes))


if __name__ == "__main__":
    main()
