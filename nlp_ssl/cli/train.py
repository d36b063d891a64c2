"""`nlp-ssl train`: any method on files."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa

from nlp_ssl.cli.console import show
from nlp_ssl.cli.options import parse
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.config import TrainConfig
from nlp_ssl.data.embedded import encoder_name
from nlp_ssl.data.schema import TextData, build
from nlp_ssl.data.sources import Table, read_table
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.experiment import compare
from nlp_ssl.functional import softmax
from nlp_ssl.loop import Loop, PseudoLabels
from nlp_ssl.loops.table import given_labels
from nlp_ssl.method import Method
from nlp_ssl.nets.text import Pooling
from nlp_ssl.outside import joined, logits_of
from nlp_ssl.process import check_output
from nlp_ssl.registry import get, list_loops
from nlp_ssl.task import Task, text_task

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class Files:
    """Flags of `train` beside those of the loop and of the method."""

    method: Annotated[str, "name of the method; `nlp-ssl methods` lists them"] = "uda"
    model: Annotated[str, "folder or hub name of a pre-trained encoder; `embedded` for the one from the demo extra"] = (
        "embedded"
    )
    labeled: Annotated[str | None, "file (csv, tsv, jsonl, json, parquet), folder or hub data set with labels"] = None
    unlabeled: Annotated[str | None, "the same without labels, or a txt file with a text per line"] = None
    dev: Annotated[str | None, "labeled rows for early stopping"] = None
    test: Annotated[str | None, "labeled rows for the closing table"] = None
    text_column: Annotated[str | None, "column of the texts, where it is not found by itself"] = None
    label_column: Annotated[str | None, "column of the labels, where it is not found by itself"] = None
    encoding: Annotated[str, "of the files"] = "utf-8"
    on_bad_lines: Annotated[Literal["error", "skip"], "what to do with ragged rows"] = "error"
    unlabeled_value: Annotated[str | None, "label that marks an unlabeled row, beside the empty one and -1"] = None
    labels_per_class: Annotated[int | None, "draw that many labels a class; the other rows join the pool"] = None
    allow_transductive: Annotated[bool, "keep pool texts that are also test texts"] = False
    drop_leaks: Annotated[bool, "remove training and pool texts that are also test texts"] = False
    pooling: Annotated[Pooling, "how token vectors become one"] = "auto"
    pseudo_labels: Annotated[str | None, "file of noisy labels for texts of the pool, or for more texts"] = None
    teacher: Annotated[Path | None, "saved classifier whose answers for the pool are learned"] = None
    student: Annotated[str | None, "encoder of the students, for methods in rounds"] = None
    baseline: Annotated[bool, "also train on the labels alone, and compare"] = False
    seeds: Annotated[tuple[int, ...] | None, "repeat with these seeds, e.g. 0,1,2 (instead of --seed)"] = None
    trackers: Annotated[str | None, "Accelerate trackers, e.g. tensorboard or tensorboard,wandb"] = None
    output_dir: Annotated[Path | None, "where the model, metrics and checkpoints go"] = None
    resume: Annotated[bool, "go on where an earlier run in output-dir stopped"] = False
    overwrite: Annotated[bool, "replace an earlier run in output-dir; other files there are kept"] = False
    cache_dir: Annotated[Path | None, "where tokenized texts are kept"] = None


def main(argv: Sequence[str]) -> None:
    """Parses the flags of the files, the loop and the chosen method, trains, and prints the closing table."""
    cls = get(_chosen_method(argv))
    doc = f"Trains {cls.name} on your files. Every hyper-parameter of the method is a flag (the last ones below)."
    files, strong, config, method = parse(
        argv, Files(), StrongView(), TrainConfig(), cls(), name="nlp-ssl train", doc=doc
    )
    if files.labeled is None or files.output_dir is None:
        raise ConfigError(206, "train needs --labeled FILE and --output-dir DIR")
    check_output(files.output_dir, files.resume, files.overwrite)
    _check_sources(files, method)
    tables = _tables(files)
    comparison = compare(
        method,
        _cached_task(lambda seed: _text(files, tables, seed), files, strong, config, tables, method),
        config,
        files.seeds or (config.seed,),
        baseline=files.baseline,
        output_dir=files.output_dir,
        resume=files.resume,
        overwrite=files.overwrite,
        trackers=tuple(files.trackers.split(",")) if files.trackers else (),
    )
    show(comparison)
    log.info("the model lies in %s", files.output_dir)


def _chosen_method(argv: Sequence[str]) -> str:
    for i, word in enumerate(argv):
        if word == "--method" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith("--method="):
            return word.removeprefix("--method=")
    return Files().method


def _tables(files: Files) -> dict[str, Table | None]:
    def read(source: str | None, labels: bool) -> Table | None:
        if source is None:
            return None
        return read_table(
            source,
            text_column=files.text_column,
            label_column=files.label_column if labels else None,
            encoding=files.encoding,
            on_bad_lines=files.on_bad_lines,
            unlabeled_value=files.unlabeled_value,
            expect_labels=labels,
        )

    tables = {
        "labeled": read(files.labeled, True),
        "unlabeled": read(files.unlabeled, False),
        "dev": read(files.dev, True),
        "test": read(files.test, True),
    }
    noisy, labeled = read(files.pseudo_labels, True), tables["labeled"]
    if noisy is not None and labeled is not None:
        tables["unlabeled"] = joined(tables["unlabeled"], noisy, labeled)
    return tables


def _text(files: Files, tables: dict[str, Table | None], seed: int) -> TextData:
    labeled = tables["labeled"]
    if labeled is None:
        raise DataError(136, "no labeled rows")
    return build(
        labeled,
        tables["unlabeled"],
        tables["dev"],
        tables["test"],
        labels_per_class=files.labels_per_class,
        seed=seed,
        allow_transductive=files.allow_transductive,
        drop_leaks=files.drop_leaks,
    )


def _cached_task(
    text_of: Callable[[int], TextData],
    files: Files,
    strong: StrongView,
    config: TrainConfig,
    tables: dict[str, Table | None],
    method: Method | Loop,
) -> Callable[[int], Task]:
    policy = strong.policy()
    views = strong.rewritings([table for name in ("labeled", "unlabeled") if (table := tables[name]) is not None])

    def made(text: TextData, model: str) -> Task:
        return text_task(
            text,
            encoder_name(model),
            pooling=files.pooling,
            strong=policy,
            views=views,
            max_length=config.max_length,
            cache_dir=files.cache_dir,
        )

    def task_of(seed: int) -> Task:
        text = text_of(seed)
        task = made(text, files.model)
        for note in task.data.notes:
            log.info("%s", note)
        student = None if files.student is None else made(text, files.student)
        return _told(replace(task, student=student), text, files, method)

    return task_of


def _told(task: Task, text: TextData, files: Files, method: Method | Loop) -> Task:
    """The task with what others say of its pool: a file of labels, or a teacher."""
    pool = text.texts.take(pa.array(text.unlabeled))
    if files.pseudo_labels is not None:
        given = given_labels(
            files.pseudo_labels, pool, text.classes,
            text_column=files.text_column, label_column=files.label_column, encoding=files.encoding,
        )  # fmt: skip
        log.info("labels for %d of %d pool texts from %s", (given.copies > 0).sum(), len(pool), files.pseudo_labels)
        return replace(task, given=given)
    if files.teacher is None:
        return task
    logits = logits_of(files.teacher, pool, text.classes, files.cache_dir)
    if isinstance(method, Method) and "frozen" in method.nets.values():
        return replace(task, teacher=logits)
    every = np.ones(len(pool))
    return replace(task, given=PseudoLabels(softmax(logits.double()).numpy(), every.astype(int), every, hard=False))


def _check_sources(files: Files, method: Method | Loop) -> None:
    """Refuses flags that do not go together.

    Raises:
        ConfigError: they do not.
    """
    if files.student is not None and not isinstance(method, Loop):
        raise ConfigError(237, f"--student is for {', '.join(list_loops())}: {method.name} trains --model itself")
    if files.pseudo_labels is not None and files.teacher is not None:
        raise ConfigError(232, "--pseudo-labels and --teacher both label the pool: give one of them")
