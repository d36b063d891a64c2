"""Which of the models of a comparison is the one that is used, and what is kept of the others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from nlp_ssl.data.dataset import Data
from nlp_ssl.errors import ConfigError
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranks import is_main

Save = Literal["best", "method"]


@dataclass(frozen=True)
class Saved:
    """Whose model is in the output folder.

    Attributes:
        side: name of the side of the comparison.
        seed: of its run.
        judged_by: "dev" rows, or "" where nothing could judge or nothing was to be judged.
    """

    side: str
    seed: int
    judged_by: str

    def __str__(self) -> str:
        """In words."""
        return f"{self.side}, seed {self.seed}" + (", the best on the dev rows" if self.judged_by else "")

    @classmethod
    def read(cls, folder: RunFolder) -> "Saved | None":
        """What the run in a folder noted; None where it noted nothing that can be read."""
        try:
            saved = atomic.read_json(folder.saved)
            return cls(str(saved["side"]), int(saved["seed"]), str(saved["judged_by"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def check_save(save: Save | None, data: Data) -> None:
    """Refuses to look for the best where nothing can tell.

    Raises:
        ConfigError: it is asked for and there are no dev rows.
    """
    if save == "best" and not len(data.dev):
        raise ConfigError(495, "--save best needs dev rows that tell which side is best: give --dev, or --save method")


def choose(results: Mapping[str, Sequence[Outcome]], seeds: Sequence[int], method: str, save: Save | None) -> Saved:
    """The side and the seed whose model is to be used: by dev rows where there are some, never by test rows.

    Args:
        results: outcomes per seed of the sides that have models.
        seeds: of the runs.
        method: name of the side of the method.
        save: "best" takes the side that is best on the mean of the dev rows, the method's among equals; "method" always
            the method's; None is "best" where there are dev rows and "method" elsewhere.
    """
    judged = all("dev" in outcome.scores for side in results.values() for outcome in side)
    if not judged:
        return Saved(method, seeds[0], "")
    scores = {name: [outcome.scores["dev"].primary for outcome in side] for name, side in results.items()}
    side = method if save == "method" else max(scores, key=lambda name: (sum(scores[name]), name == method))
    return Saved(
        side, seeds[scores[side].index(max(scores[side]))], "dev" if len(seeds) > 1 or len(results) > 1 else ""
    )


def keep(saved: Saved, method: str, seeds: Sequence[int], folder: RunFolder) -> None:
    """Puts the chosen model into the output folder, and removes the weights of the label-only models.

    The weights of the folder and those of the seed's own folder are one file on the disk. What the label-only models
    scored and predicted stays. The first process does it.

    Raises:
        ConfigError: the run that is to be used has no model left.
        RunError: the folder cannot be written.
    """
    if not is_main():
        return
    own = folder if len(seeds) == 1 else folder.of_seed(saved.seed)
    source = own if saved.side == method else own.baseline
    former = Saved.read(folder)
    if former != saved or not folder.has_model():
        replaced = source is folder and former is not None and former.side != saved.side
        if replaced or not source.has_model():
            raise ConfigError(496, f"{source} holds no model any more: --save as before, or --overwrite the run")
        if source is not folder:
            folder.copy_model(source, predictions=False)
        atomic.write_text(folder.saved, json.dumps(asdict(saved)))
    for seed in seeds:
        (folder if len(seeds) == 1 else folder.of_seed(seed)).baseline.remove_model()
