"""Noisy Student on movie reviews (Xie et al. 2020, arXiv:1911.04252): a clean teacher, noised students, in rounds.

\b
accelerate launch recipes/noisy_student_reviews.py                 bundled reviews and encoder, 3 seeds, with a baseline
accelerate launch recipes/noisy_student_reviews.py --data FOLDER   your own train and test rows
"""

from pathlib import Path

import click

from nlp_ssl import NoisyStudent, RunFolder, Task, TrainConfig, compare, is_main, log_to_console
from nlp_ssl.data.bundled import load_bundled, load_named
from nlp_ssl.data.splits import draw_rows


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--data", default="bundled", help="bundled, or a file, folder or hub data set with train and test rows")
@click.option("--model", default="bundled", help="folder or hub name of the encoder")
@click.option("--labels-per-class", default=40, help="labels drawn by each seed; the other rows are the pool")
@click.option("--max-steps", default=100, help="steps of the teacher and of each student")
@click.option("--rounds", default=3, help="students, each taught by the one before")
@click.option("--seeds", default=3, help="runs, each with its own labels")
@click.option("--output-dir", type=Path, default=Path("runs/noisy_student"), help="where the runs are written")
@click.option("--resume", is_flag=True, help="go on where an earlier run stopped")
@click.option("--overwrite", is_flag=True, help="replace an earlier run")
def main(
    data: str, model: str, labels_per_class: int, max_steps: int, rounds: int, seeds: int, output_dir: Path,
    resume: bool, overwrite: bool,
) -> None:  # fmt: skip
    log_to_console()
    folder = RunFolder(output_dir, resume=resume)
    folder.check(overwrite=overwrite)

    if data == "bundled":
        (train, test), dev = load_bundled("reviews"), None
        test = test.take(draw_rows(len(test), 1000, seed=0))  # enough to score on
    else:
        train, dev, test = load_named(data)
    task = Task.from_files(train, dev=dev, test=test, model=model, labels_per_class=labels_per_class, drop_leaks=True)
    method, config = NoisyStudent(rounds=rounds), TrainConfig(max_steps=max_steps)
    result = compare(method, task, config, seeds=seeds, folder=folder, overwrite=overwrite)
    if is_main():
        print(result)


if __name__ == "__main__":
    main()
