"""`nlp_ssl.fit`: one method on one task, from the warm start to a classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from transformers import TrainerCallback

from nlp_ssl.classifier import SSLClassifier, classifier_of
from nlp_ssl.config import TrainConfig
from nlp_ssl.experiments.runs import describe_outcome, learner, run_one
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.nets.base import Module
from nlp_ssl.registry import as_method
from nlp_ssl.task import Task
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.training.run_folder import RunFolder, free_folder


@dataclass(repr=False)
class Result(Outcome):
    """What a run came to, with the trained net, and with the classifier around it."""

    module: Module = field(kw_only=True)
    model: SSLClassifier = field(kw_only=True)

    def __repr__(self) -> str:
        return f"Result({describe_outcome(self)}, {self.steps} steps; {self.model!r})"


def fit(
    method: str | Method | RoundMethod,
    task: Task,
    config: TrainConfig | None = None,
    *,
    folder: str | Path | RunFolder | None = None,
    frozen_nets: Mapping[str, Module | Tensor] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Result:
    """Trains a method on a task: the warm start and the alignment as the config says, then the method.

    Args:
        method: name of the method, or the method with its hyper-parameters.
        task: what there is to learn: `Task.from_texts` and its siblings make one.
        config: settings of the loop; the defaults if not given.
        folder: where metrics, checkpoints and the trained model are written; nothing is written without it. With
            `RunFolder(path, resume=True)` an earlier run there goes on.
        frozen_nets: modules for frozen nets of the method, by role, e.g. a larger teacher; they are copied. Of a net
            that reads the rows in another way its logits [U, C] for the pool. A frozen net that is not among them is a
            copy of the started student.
        callbacks: called as by `transformers.Trainer`; they may end the run early.

    Raises:
        ConfigError: settings do not fit together, or the folder holds another run.
        RunError: the loss stopped being finite.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved first.

    Example:
        from nlp_ssl import UDA, Task, TrainConfig, fit

        task = Task.from_texts(["great fun", "a joy", "so dull", "a bore"], ["pos", "pos", "neg", "neg"],
                               unlabeled=["pure joy", "what a bore"])
        result = fit(UDA(threshold=0.9), task, TrainConfig(max_steps=2, warm_steps=2))
        print(result.model.predict(["great acting"]))
    """
    method, config = as_method(method), config or TrainConfig()
    place = free_folder(folder)
    trained = run_one(method, task, config, folder=place, frozen_nets=frozen_nets, callbacks=callbacks)
    module = trained.module
    if module is None:  # it was complete before
        assert place is not None
        module = learner(method, task).load(place.path)
    model = classifier_of(module, task, method, config)
    if place is not None:
        model.save_params(place.path)
    return Result(trained.scores, trained.steps, trained.seconds, trained.warnings, module=module, model=model)
