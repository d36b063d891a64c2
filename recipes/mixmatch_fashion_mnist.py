"""MixMatch on images (Berthelot et al. 2019, arXiv:1905.02249): guess, sharpen, mix.

accelerate launch recipes/mixmatch_fashion_mnist.py

Reads Fashion-MNIST where the Debian package `dataset-fashion-mnist` is installed, scikit-learn's digits otherwise.
"""

from pathlib import Path

import click

from nlp_ssl import MixMatch, RunFolder, Task, TrainConfig, compare, is_main, log_to_console


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--data", default="auto", help="fashion_mnist, digits, or auto: the former where it is installed")
@click.option("--backbone", default="wrn-10-1", help="wrn-DEPTH-WIDTH, or a classifier of torchvision")
@click.option("--labels-per-class", default=10, help="labels drawn by each seed")
@click.option("--pool-size", type=int, help="unlabeled images drawn by each seed; all if not given")
@click.option("--max-steps", default=1000, help="steps of training")
@click.option("--seeds", default=3, help="runs, each with its own labels")
@click.option("--output-dir", type=Path, default=Path("runs/mixmatch_fashion_mnist"), help="where the runs are written")
@click.option("--resume", is_flag=True, help="go on where an earlier run stopped")
@click.option("--overwrite", is_flag=True, help="replace an earlier run")
def main(
    data: str, backbone: str, labels_per_class: int, pool_size: int | None, max_steps: int, seeds: int,
    output_dir: Path, resume: bool, overwrite: bool,
) -> None:  # fmt: skip
    log_to_console()
    folder = RunFolder(output_dir, resume=resume)
    folder.check(overwrite=overwrite)

    task = Task.from_images(data, backbone=backbone, labels_per_class=labels_per_class, pool_size=pool_size)
    config = TrainConfig(  # for a small net that starts at random
        max_steps=max_steps,
        batch_size=64,
        unlabeled_ratio=2,
        learning_rate=2e-3,
        head_learning_rate=2e-3,
        lr_scheduler_type="cosine",
        eval_ema_decay=0.99,
    )
    result = compare(MixMatch.for_images(), task, config, seeds=seeds, folder=folder, overwrite=overwrite)
    if is_main():
        print(result)


if __name__ == "__main__":
    main()
