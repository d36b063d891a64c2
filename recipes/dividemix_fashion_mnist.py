"""DivideMix on images whose labels are partly wrong (Li et al. 2020, arXiv:2002.07394).

accelerate launch recipes/dividemix_fashion_mnist.py --label-noise 0.4

A share of the labels is replaced by another class. Two nets find out which, each for the other; the baseline believes
them all.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from nlp_ssl import DivideMix, Task, TrainConfig
from nlp_ssl.cli import console
from nlp_ssl.cli.recipe import IMAGE_LOOP, Images, run
from nlp_ssl.data.splits import with_label_noise


@dataclass(frozen=True, kw_only=True)
class NoisyImages(Images):
    """Images with wrong labels among the right ones."""

    labels_per_class: int = 200
    pool_size: Annotated[int | None, "unlabeled images beside the labeled ones"] = 0
    label_noise: Annotated[float, "share of the labels that are replaced by another class"] = 0.4

    def tasks(self, config: TrainConfig) -> Callable[[int], Task]:
        """The images' tasks with noise put on the labels of each seed."""
        clean = super().tasks(config)

        def task_of(seed: int) -> Task:
            task = clean(seed)
            return replace(task, data=with_label_noise(task.data, self.label_noise, seed))

        return task_of


CONFIG = replace(IMAGE_LOOP, batch_size=64, unlabeled_ratio=1)


def main(argv: list[str]) -> None:
    """Parses the flags, trains, and prints DivideMix beside training on all labels as they are."""
    run(argv, __file__, __doc__, NoisyImages(output_dir=Path("runs/dividemix")), CONFIG, DivideMix.for_images())


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(sys.argv[1:])))
