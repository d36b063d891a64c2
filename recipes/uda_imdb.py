"""UDA on movie reviews (Xie et al. 2020, arXiv:1904.12848): few labels, many unlabeled reviews.

\b
accelerate launch recipes/uda_imdb.py                       bundled reviews and encoder, 3 seeds, with a baseline
accelerate launch recipes/uda_imdb.py --back-translation    translations to Spanish and back as the strong view
accelerate launch recipes/uda_imdb.py --data FOLDER         your own train and test rows
accelerate launch recipes/uda_imdb.py --data hub            the paper's setting: bert-base-uncased, stanfordnlp/imdb
torchrun --nproc_per_node 2 recipes/uda_imdb.py             the same arithmetic on two processes
"""

from pathlib import Path

import click

from nlp_ssl import UDA, RunFolder, Task, TrainConfig, compare, is_main, log_to_console
from nlp_ssl.data.bundled import load_bundled, load_named
from nlp_ssl.data.splits import draw_rows
from nlp_ssl.paraphrase.back_translation import back_translate
from nlp_ssl.paraphrase.views import read_views
from nlp_ssl.report.page import write_report


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--data", default="bundled", help="bundled, hub, or a file or folder with train and test rows")
@click.option("--model", help="folder or hub name of the encoder [default: bundled]")
@click.option(
    "--labels-per-class", type=int, help="labels drawn by each seed; the other rows are the pool [default: 40]"
)
@click.option("--max-steps", type=int, help="steps after the warm start [default: 100]")
@click.option("--seeds", default=3, help="runs, each with its own labels")
@click.option("--baseline/--no-baseline", default=True, help="also train on the labels alone")
@click.option("--back-translation", is_flag=True, help="back-translate with Apertium; without, words are replaced")
@click.option("--views", type=Path, help="rewritings that `nlp-ssl augment` wrote, as the strong view")
@click.option("--output-dir", type=Path, default=Path("runs/uda_imdb"), help="where the runs are written")
@click.option("--resume", is_flag=True, help="go on where an earlier run stopped")
@click.option("--overwrite", is_flag=True, help="replace an earlier run")
def main(
    data: str, model: str | None, labels_per_class: int | None, max_steps: int | None, seeds: int, baseline: bool,
    back_translation: bool, views: Path | None, output_dir: Path, resume: bool, overwrite: bool,
) -> None:  # fmt: skip
    log_to_console()
    folder = RunFolder(output_dir, resume=resume)
    folder.check(overwrite=overwrite)

    if data == "bundled":
        (train, test), dev = load_bundled("reviews"), None
        test = test.take(draw_rows(len(test), 1000, seed=0))  # enough to score on
    else:
        train, dev, test = load_named("stanfordnlp/imdb" if data == "hub" else data)
    rewritings = back_translate(train.texts) if back_translation else read_views(views) if views else None

    if data == "hub":  # the setting of the paper
        model, labels_per_class = model or "bert-base-uncased", labels_per_class or 10
        method = UDA(threshold=0.0, temperature=1.0, tsa="linear", target_dropout=True)
        config = TrainConfig(max_steps=max_steps or 10_000, warm_start="none", head_learning_rate=2e-5, save_steps=1000)
    else:
        model, labels_per_class = model or "bundled", labels_per_class or 40
        method, config = UDA(), TrainConfig(max_steps=max_steps or 100)

    task = Task.from_files(
        train, dev=dev, test=test, model=model, labels_per_class=labels_per_class, rewritings=rewritings,
        drop_leaks=True,
    )  # fmt: skip
    result = compare(method, task, config, seeds=seeds, baseline=baseline, folder=folder, overwrite=overwrite)
    if is_main():
        print(result)
        print(f"report: {write_report(output_dir)}; to predict: nlp-ssl predict {output_dir} FILE")


if __name__ == "__main__":
    main()
