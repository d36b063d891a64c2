"""DivideMix on images whose labels are partly wrong (Li et al. 2020, arXiv:2002.07394).

accelerate launch recipes/dividemix_fashion_mnist.py --label-noise 0.4

A share of the labels is replaced by another class. Two nets find out which, each for the other; the baseline believes
them all. Reads Fashion-MNIST where the Debian package `dataset-fashion-mnist` is installed, scikit-learn's digits
otherwise.
"""

from dataclasses import replace
from pathlib import Path

import click

from nlp_ssl import Comparison, DivideMix, RunFolder, Supervised, Task, TrainConfig, fit, is_main, log_to_console
from nlp_ssl.data.label_noise import with_label_noise


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--data", default="auto", help="fashion_mnist, digits, or auto: the former where it is installed")
@click.option("--backbone", default="wrn-10-1", help="wrn-DEPTH-WIDTH, or a classifier of torchvision")
@click.option("--labels-per-class", default=200, help="labels drawn by each seed")
@click.option("--label-noise", default=0.4, help="share of the labels that are replaced by another class")
@click.option("--max-steps", default=600, help="steps of training")
@click.option("--seeds", default=3, help="runs, each with its own labels")
@click.option("--output-dir", type=Path, default=Path("runs/dividemix"), help="where the runs are written")
@click.option("--resume", is_flag=True, help="go on where an earlier run stopped")
@click.option("--overwrite", is_flag=True, help="replace an earlier run")
def main(
    data: str, backbone: str, labels_per_class: int, label_noise: float, max_steps: int, seeds: int, output_dir: Path,
    resume: bool, overwrite: bool,
) -> None:  # fmt: skip
    log_to_console()
    runs = RunFolder(output_dir, resume=resume)
    runs.check(overwrite=overwrite)
    if overwrite:
        runs.clear()

    methods = {"supervised": Supervised(), "dividemix": DivideMix.for_images()}
    outcomes = {name: [] for name in methods}
    for seed in range(seeds):
        task = Task.from_images(data, backbone=backbone, labels_per_class=labels_per_class, pool_size=0, seed=seed)
        noisy = replace(task, data=with_label_noise(task.data, label_noise, seed))
        config = TrainConfig(  # for a small net that starts at random
            max_steps=max_steps, batch_size=64, unlabeled_ratio=1, learning_rate=2e-3, head_learning_rate=2e-3,
            lr_scheduler_type="cosine", eval_ema_decay=0.99, seed=seed,
        )  # fmt: skip
        for name, method in methods.items():
            outcomes[name].append(fit(method, noisy, config, folder=runs.of_seed(seed).within(name)))
    if is_main():
        print(Comparison("dividemix", tuple(range(seeds)), outcomes))


if __name__ == "__main__":
    main()
