"""Flags that are chosen by held-out labels, for `train`."""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.folds import parts_of
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.tuning import Candidate, best, held_out_start, threshold_for, tune
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.task import Task
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.utils.ranges import check

log = logging.getLogger("nlp_ssl")
Parsed = tuple[Method | RoundMethod, TrainConfig]


@dataclass(frozen=True)
class Tuning:
    """Flags that say what is to be chosen."""

    tune: Annotated[str | None, "choose by held-out labels, e.g. 'threshold=0.8,0.95 max-steps=100,200'"] = None
    folds: Annotated[int | None, "parts of the labels that are held out in turn; by default 3"] = None
    threshold_precision: Annotated[float | None, "choose --threshold: pseudo-labels above it are right this often"] = (
        None
    )

    def __post_init__(self) -> None:
        if self.folds is not None:
            check(self.folds, "folds", 2, 100)
        if self.threshold_precision is not None:
            check(self.threshold_precision, "threshold_precision", 0.0, 1.0)
        if self.folds is not None and not self.wanted:
            raise ConfigError(407, "--folds is of --tune and --threshold-precision: give one of them, too")
        if self.threshold_precision is not None and {"method", "threshold"} & self._values().keys():
            raise ConfigError(409, "--threshold-precision chooses the threshold of one method: take both out of --tune")

    @property
    def wanted(self) -> bool:
        """Whether anything is to be chosen."""
        return self.tune is not None or self.threshold_precision is not None

    def grid(self) -> list[list[str]]:
        """Every combination of the values, as flags.

        Raises:
            ConfigError: a word is not `flag=value,value`.
        """
        return [] if self.tune is None else [list(flags) for flags in itertools.product(*self._values().values())]

    def _values(self) -> dict[str, list[str]]:
        """The flags that each name may become."""
        sides: dict[str, list[str]] = {}
        for word in () if self.tune is None else self.tune.split() or [""]:
            name, sign, values = word.removeprefix("--").partition("=")
            if not (name and sign and all(values.split(","))):
                raise ConfigError(407, f"--tune {word!r}: write a flag and its values, e.g. threshold=0.8,0.95")
            name = name.replace("_", "-")
            if name in sides:
                raise ConfigError(407, f"--tune names {name} twice: give all of its values at once")
            sides[name] = [_flag(name, value) for value in values.split(",")]
        return sides

    def runs(self, task: Task) -> int:
        """Trainings that the choice takes, each as long as the one that follows."""
        return parts_of(task.data, self._folds) * len(self.grid())

    @property
    def _folds(self) -> int:
        return 3 if self.folds is None else self.folds

    def check(self, parsed: Callable[[Sequence[str]], Parsed]) -> None:
        """Refuses candidates that cannot be trained, before anything is.

        Raises:
            ConfigError: a flag is unknown, no setting of method and loop, or has no such value.
        """
        for flags in self.grid():
            parsed(flags)

    def chosen(self, parsed: Callable[[Sequence[str]], Parsed], task: Task, folder: RunFolder) -> list[str]:
        """The flags to train with; `parsed` makes method and settings of further flags.

        Raises:
            ConfigError: a flag is unknown or no setting of method and loop, or there are too few labels.
        """
        flags: list[str] = []
        if self.threshold_precision is not None:
            method, config = parsed([])
            if "threshold" not in method.__dict__:
                raise ConfigError(408, f"{method.name} has no threshold: leave out --threshold-precision")
            p = held_out_start(task, config, self._folds)
            threshold = threshold_for(p, task.data.labels[task.data.labeled], self.threshold_precision)
            if threshold is None:
                log.warning(
                    "no threshold makes held-out labels right %g %% of the time: it stays at %g",
                    100 * self.threshold_precision,
                    method.__dict__["threshold"],
                )
            else:
                flags.append(f"--threshold={threshold:.3f}")
        if self.tune is not None:
            tried = [[*flags, *more] for more in self.grid()]
            judged = tune([Candidate(" ".join(one), *parsed(one)) for one in tried], task, self._folds, folder)
            for one in judged:
                log.info("%s", one)
            flags = tried[best(judged)]
        if flags:
            log.info("chosen: %s", " ".join(flags))
        return flags


def _flag(name: str, value: str) -> str:
    if value in ("true", "false"):
        return f"--{'' if value == 'true' else 'no-'}{name}"
    return f"--{name}={value}"
