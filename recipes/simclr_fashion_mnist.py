"""Pre-train, fine-tune, distill on images (Chen et al. 2020, SimCLRv2, arXiv:2006.10029).

accelerate launch recipes/simclr_fashion_mnist.py

Reads Fashion-MNIST where the Debian package `dataset-fashion-mnist` is installed, scikit-learn's digits otherwise.
`nlp-ssl pipeline` does the same for texts, on files.
"""

from dataclasses import replace
from pathlib import Path

import click

from nlp_ssl import (
    Comparison,
    Distillation,
    RunFolder,
    Supervised,
    Task,
    TrainConfig,
    fit,
    is_main,
    log_to_console,
)
from nlp_ssl.experiments.pretrain import Contrastive, pretrain, start_from
from nlp_ssl.inference.predict import predict


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--data", default="auto", help="fashion_mnist, digits, or auto: the former where it is installed")
@click.option("--backbone", default="wrn-10-1", help="wrn-DEPTH-WIDTH, or a classifier of torchvision")
@click.option("--labels-per-class", default=10, help="labels drawn by each seed")
@click.option("--pool-size", default=5000, help="unlabeled images drawn by each seed")
@click.option("--pretrain-steps", default=600, help="steps before any label is used")
@click.option("--max-steps", default=300, help="steps of each of the other stages")
@click.option("--seeds", default=3, help="runs, each with its own labels")
@click.option("--output-dir", type=Path, default=Path("runs/simclr"), help="where the runs are written")
@click.option("--resume", is_flag=True, help="go on where an earlier run stopped")
@click.option("--overwrite", is_flag=True, help="replace an earlier run")
def main(
    data: str, backbone: str, labels_per_class: int, pool_size: int, pretrain_steps: int, max_steps: int, seeds: int,
    output_dir: Path, resume: bool, overwrite: bool,
) -> None:  # fmt: skip
    log_to_console()
    runs = RunFolder(output_dir, resume=resume)
    runs.check(overwrite=overwrite)
    if overwrite:
        runs.clear()

    outcomes = {"supervised": [], "pretrained": [], "distilled": []}
    for seed in range(seeds):
        folder = runs.of_seed(seed)
        config = TrainConfig(  # for a small net that starts at random
            max_steps=max_steps, batch_size=32, unlabeled_ratio=4, learning_rate=2e-3, head_learning_rate=2e-3,
            lr_scheduler_type="cosine", eval_ema_decay=0.99, seed=seed,
        )  # fmt: skip
        task = Task.from_images(
            data, backbone=backbone, labels_per_class=labels_per_class, pool_size=pool_size, seed=seed
        )
        supervised = fit(Supervised(), task.without_pool(), config, folder=folder.within("supervised"))
        weights = pretrain(Contrastive.for_images(), task, config, pretrain_steps, folder=folder.within("pretrain"))
        task = start_from(task, weights)
        tuned = fit(Supervised(), task.without_pool(), config, folder=folder.within("pretrained"))
        teacher = predict(tuned.module, task.data.store, task.data.unlabeled)  # its logits for the pool
        distilled = fit(Distillation(), replace(task, teacher=teacher), config, folder=folder.within("distilled"))
        for name, result in (("supervised", supervised), ("pretrained", tuned), ("distilled", distilled)):
            outcomes[name].append(result)
    if is_main():
        print(Comparison("distilled", tuple(range(seeds)), outcomes))


if __name__ == "__main__":
    main()
