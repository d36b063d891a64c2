"""The net and the pool's labels of a task: their flags, and the way from tables to tasks, for commands that train."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nlp_ssl.cli.files import Files, tables
from nlp_ssl.cli.options import Seeds
from nlp_ssl.cli.strong import StrongView
from nlp_ssl.config import DEFAULT_MODEL
from nlp_ssl.errors import ConfigError
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.nets.text import Pooling
from nlp_ssl.registry import list_methods
from nlp_ssl.task import EncoderChoice, NoisyLabels, Task, TextSource
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.utils.ranges import check


@dataclass(frozen=True)
class TaskOptions:
    """Flags of commands that train, beside those of the files, the loop and the method."""

    method: Annotated[str, "name of the method; `nlp-ssl methods` lists them"] = "uda"
    model: Annotated[str, "folder or hub name of a pre-trained encoder; `bundled` for the one from the demo extra"] = (
        DEFAULT_MODEL
    )
    pooling: Annotated[Pooling, "how token vectors become one"] = "auto"
    pseudo_labels: Annotated[str | None, "file of noisy labels for texts of the pool, or for more texts"] = None
    teacher: Annotated[Path | None, "saved classifier whose answers for the pool are learned"] = None
    student: Annotated[str | None, "encoder of the students, for methods in rounds"] = None
    max_length: Annotated[int, "tokens of a text; longer ones are cut"] = 128
    seeds: Annotated[Seeds | None, "how many seeds from --seed on, e.g. 3; or a list of them, e.g. 5,6"] = None
    output_dir: Annotated[Path | None, "where the model, metrics and checkpoints go"] = None
    resume: Annotated[bool, "go on where an earlier run in output-dir stopped"] = False
    overwrite: Annotated[bool, "replace an earlier run in output-dir; other files there are kept"] = False
    cache_dir: Annotated[Path | None, "where tokenized texts are kept"] = None

    def __post_init__(self) -> None:
        check(self.max_length, "max_length", 3, 1e6)

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

    def check(self, files: Files, command: str) -> RunFolder:
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
        folder = RunFolder(self.output_dir, resume=self.resume)
        folder.check(overwrite=self.overwrite, models=(self.model, self.teacher, self.student))
        return folder


def task_of(options: TaskOptions, files: Files, strong: StrongView, seed: int) -> Task:
    """The task of the flags, as a seed draws it.

    Raises:
        ConfigError, DataError: a file, a model or a label cannot be used.
    """
    by_role, policy = tables(files), strong.policy()
    views = strong.rewritings([table for name in ("labeled", "unlabeled") if (table := by_role[name]) is not None])
    noisy = None if options.pseudo_labels is None else NoisyLabels(
        options.pseudo_labels, files.text_column, files.label_column, files.encoding, files.unlabeled_value,
        files.minus_one,
    )  # fmt: skip
    source = TextSource(
        by_role,
        EncoderChoice(options.model, options.pooling, options.max_length, policy, views, options.cache_dir),
        files.labels_per_class,
        drop_leaks=files.drop_leaks,
        allow_transductive=files.allow_transductive,
        pseudo_labels=noisy,
        teacher=options.teacher,
        student=options.student,
    )
    return source.task(seed, None)


def check_student(options: TaskOptions, method: Method | RoundMethod) -> None:
    """Refuses other students where the method has none.

    Raises:
        ConfigError: there are none.
    """
    if options.student is not None and not isinstance(method, RoundMethod):
        raise ConfigError(
            237, f"--student is for {', '.join(list_methods(in_rounds=True))}: {method.name} trains --model itself"
        )
