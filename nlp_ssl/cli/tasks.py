"""The net and the pool's labels of a task: their flags, and the way from tables to tasks, for commands that train."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa

from nlp_ssl.cli.files import Files, Tables, tables, text
from nlp_ssl.cli.options import Seeds
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.config import TrainConfig
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.pseudo_labels import given_labels
from nlp_ssl.data.schema import TextData, log_notes
from nlp_ssl.data.sources import read_table
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.teacher import joined, logits_of
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.nets.text import Pooling
from nlp_ssl.ops.functional import softmax
from nlp_ssl.ops.multilabel import refuse
from nlp_ssl.registry import list_loops
from nlp_ssl.task import Task, text_task
from nlp_ssl.training.run_folder import check_output
from nlp_ssl.types import PseudoLabels

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class Options:
    """Flags of commands that train, beside those of the files, the loop and the method."""

    method: Annotated[str, "name of the method; `nlp-ssl methods` lists them"] = "uda"
    model: Annotated[str, "folder or hub name of a pre-trained encoder; `bundled` for the one from the demo extra"] = (
        "bundled"
    )
    pooling: Annotated[Pooling, "how token vectors become one"] = "auto"
    pseudo_labels: Annotated[str | None, "file of noisy labels for texts of the pool, or for more texts"] = None
    teacher: Annotated[Path | None, "saved classifier whose answers for the pool are learned"] = None
    student: Annotated[str | None, "encoder of the students, for methods in rounds"] = None
    seeds: Annotated[Seeds | None, "how many seeds from --seed on, e.g. 3; or a list of them, e.g. 5,6"] = None
    output_dir: Annotated[Path | None, "where the model, metrics and checkpoints go"] = None
    resume: Annotated[bool, "go on where an earlier run in output-dir stopped"] = False
    overwrite: Annotated[bool, "replace an earlier run in output-dir; other files there are kept"] = False
    cache_dir: Annotated[Path | None, "where tokenized texts are kept"] = None

    def chosen_seeds(self, seed: int) -> tuple[int, ...]:
        """The seeds of the runs: `seed` alone, as many as were asked for from it on, or those that were listed.

        Raises:
            ConfigError: no seed was asked for.
        """
        if not isinstance(self.seeds, int):
            return self.seeds or (seed,)
        if self.seeds < 1:
            raise ConfigError(209, f"--seeds {self.seeds}: ask for 1 or more; one seed of your choice is --seed {seed}")
        return tuple(range(seed, seed + self.seeds))

    def check(self, files: Files, command: str) -> Path:
        """The output folder, once the flags make sense together.

        Raises:
            ConfigError: a flag is missing, two contradict each other, or the folder is in use.
        """
        if files.labeled is None or self.output_dir is None:
            raise ConfigError(206, f"{command} needs --labeled FILE and --output-dir DIR")
        if self.pseudo_labels is not None and self.teacher is not None:
            raise ConfigError(232, "--pseudo-labels and --teacher both label the pool: give one of them")
        if files.pair_column is not None and (self.pseudo_labels is not None or self.teacher is not None):
            raise ConfigError(
                453, "--pseudo-labels and --teacher are for single texts: leave out --pair-column, or them"
            )
        check_output(self.output_dir, self.resume, self.overwrite, (self.model, self.teacher, self.student))
        return self.output_dir


def tasks(
    options: Options, files: Files, strong: StrongView, config: TrainConfig, method: Method | RoundMethod
) -> Callable[[int], Task]:
    """Reads all files; what comes back makes the task of a seed.

    Raises:
        ConfigError, DataError: a file, a model or a label cannot be used.
    """
    found = _with_noisy(tables(files), options, files)
    policy = strong.policy()
    views = strong.rewritings([table for name in ("labeled", "unlabeled") if (table := found[name]) is not None])

    def made(texts: TextData, model: str) -> Task:
        return text_task(
            texts,
            encoder_name(model),
            pooling=options.pooling,
            strong=policy,
            views=views,
            max_length=config.max_length,
            cache_dir=options.cache_dir,
        )

    def task_of(seed: int) -> Task:
        texts = text(files, found, seed)
        task = made(texts, options.model)
        log_notes(task.data.notes)
        student = None if options.student is None else made(texts, options.student)
        return _told(replace(task, student=student), texts, options, files, method)

    return task_of


def check_student(options: Options, method: Method | RoundMethod) -> None:
    """Refuses other students where the method has none.

    Raises:
        ConfigError: there are none.
    """
    if options.student is not None and not isinstance(method, RoundMethod):
        raise ConfigError(237, f"--student is for {', '.join(list_loops())}: {method.name} trains --model itself")


def _with_noisy(found: Tables, options: Options, files: Files) -> Tables:
    """The tables, texts that have noisy labels among the pool."""
    labeled = found["labeled"]
    if options.pseudo_labels is None or labeled is None:
        return found
    noisy = read_table(options.pseudo_labels, text_column=files.text_column, encoding=files.encoding, label_columns=())
    return {**found, "unlabeled": joined(found["unlabeled"], noisy, labeled)}


def _told(task: Task, texts: TextData, options: Options, files: Files, method: Method | RoundMethod) -> Task:
    """The task with what others say of its pool: a file of labels, or a teacher."""
    if texts.kind == "many" and (options.pseudo_labels is not None or options.teacher is not None):
        refuse("--pseudo-labels or --teacher")
    pool = texts.texts.take(pa.array(texts.unlabeled))
    if options.pseudo_labels is not None:
        given = given_labels(
            options.pseudo_labels, pool, texts.classes,
            text_column=files.text_column, label_column=files.label_column, encoding=files.encoding,
            unlabeled_value=files.unlabeled_value, minus_one=files.minus_one,
        )  # fmt: skip
        log.info("labels for %d of %d pool texts from %s", (given.copies > 0).sum(), len(pool), options.pseudo_labels)
        return replace(task, given=given)
    if options.teacher is None:
        return task
    logits = logits_of(options.teacher, pool, texts.classes, options.cache_dir)
    if isinstance(method, Method) and "frozen" in method.nets.values():
        return replace(task, teacher=logits)
    every = np.ones(len(pool))
    return replace(task, given=PseudoLabels(softmax(logits.double()).numpy(), every.astype(int), every, hard=False))
