"""Every method inside a `transformers.Trainer`."""

import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import TrainOutput

from nlp_ssl.augment.base import Augment
from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.integrations.hf_data import Pass, only, texts_of, tokenized
from nlp_ssl.method import Method
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.text import TextNet, set_task
from nlp_ssl.registry import as_method
from nlp_ssl.task import task_of_nets
from nlp_ssl.training import checkpoint
from nlp_ssl.training.engine import Engine
from nlp_ssl.training.identity import applicable, as_identity, differences, identity
from nlp_ssl.training.view_strength import Strongest
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.precision import Format

log = logging.getLogger("nlp_ssl")
_FOLDER = "ssl"  # in a checkpoint: what the method keeps beside the model
# What TrainingArguments have no word for; all other settings are theirs.
_OWN = (
    "unlabeled_ratio", "warm_start", "warm_steps", "align", "guard", "class_weights", "effective_beta",
    "logit_adjustment",
)  # fmt: skip


class SSLTrainer(Trainer):
    """A `Trainer` that also learns from unlabeled texts, by any method of the package.

    Arguments, callbacks, checkpoints, logs and evaluation are those of `Trainer`, and `model` is trained in place, with
    its own pooling. Batches are those of `nlp_ssl.fit`: an epoch is a pass over the unlabeled texts, and
    `per_device_train_batch_size` counts labeled rows. Further nets of a method are copies of the model, those that are
    trained with a new last layer; checkpoints hold them too. These are written as `Trainer` does it, in several steps.

    Args:
        train_dataset: labeled texts in a column "text" or one of its usual names, classes in "label" or "labels". Rows
            without a class (-1 or None) join the unlabeled ones. Tokens beside the texts are not used: views are made
            from words.
        eval_dataset: tokenized as for any `Trainer`, or texts. Its texts must not be among those trained on.
        processing_class: the model's tokenizer.
        method: name of the method, or the method with its hyper-parameters.
        unlabeled_dataset: texts without labels; labels that are there only show how right the pseudo-labels are.
        settings: of these `unlabeled_ratio`, `warm_start` and `warm_steps`, `align`, `guard`, and
            `class_weights`, `effective_beta` and `logit_adjustment` count.
        strong: the strong view of a text, if it is not to be chosen.
        max_length: tokens of a text; longer ones are cut.
        allow_transductive: whether texts of `eval_dataset` may be trained on, without their labels.
        pair_column: column of the second texts, where rows are pairs of texts.

    Raises:
        ConfigError: arguments do not fit together, or are not supported here.
        DataError: texts or labels cannot be used as they are.
    """

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        model_init: Callable[..., PreTrainedModel] | None = None,
        *,
        method: str | Method,
        unlabeled_dataset: Dataset | None = None,
        settings: TrainConfig | None = None,
        strong: Augment | Strongest | None = None,
        max_length: int = 128,
        allow_transductive: bool = False,
        pair_column: str | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        args = args if args is not None else TrainingArguments("tmp_trainer")
        self.settings = settings if settings is not None else TrainConfig()
        _check(args, self.settings, model, processing_class)
        wanted = as_method(method)
        if not isinstance(wanted, Method):
            raise ConfigError(201, f"{wanted.name} works in rounds: use SSLClassifier, or nlp_ssl.fit")
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # it counts one pass for each update, methods take several
        self.args, self.tokenizer = args, cast(PreTrainedTokenizerBase, processing_class)
        self.pair_column, self.max_length = pair_column, max_length
        many = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
        ready = {name: self._tokenized(one) for name, one in many.items()}
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=ready if isinstance(eval_dataset, dict) else ready[""],
            processing_class=processing_class,
            model_init=model_init,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        # It takes encoders for models that divide their loss by what it hands them; a loss is then too large by the
        # number of processes.
        self.model_accepts_loss_kwargs = False
        self.given_optimizer = self.optimizer is not None
        self.engine: Engine | None = None
        self.begun: list[Iterator[Losses]] = []  # the losses of the step's micro-batches
        config = cast(PreTrainedModel, self.model).config
        text = texts_of(config, train_dataset, unlabeled_dataset, list(many.values()), allow_transductive, pair_column)
        self.task = task_of_nets(text, self._net, strong=strong, max_length=self.max_length)
        self.method = applicable(wanted, self.task.data)
        if self.method is not wanted:
            log.warning("no unlabeled rows: %s becomes supervised training", wanted.name)
        self.add_callback(_FurtherUpdates(self))

    # --- data ---

    def _tokenized(self, dataset: Any) -> Any:
        with self.args.main_process_first():
            return tokenized(dataset, self.tokenizer, self.max_length, self.pair_column)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Of texts or tokens."""
        return super().get_eval_dataloader(self._tokenized(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """Of texts or tokens."""
        return super().get_test_dataloader(self._tokenized(test_dataset))

    def get_train_dataloader(self) -> Any:
        """The method's batches of the pass that the training is in; they exist within `train` alone."""
        engine = self._now()
        order = Pass(self.state_step, self._pass_steps(engine.config.batch_size), engine.config)
        workers = self.args.dataloader_num_workers
        return DataLoader(engine.loader, batch_sampler=order, collate_fn=only, num_workers=workers)

    def state_step(self) -> int:
        """Optimizer steps done."""
        return int(self.state.global_step)

    def num_examples(self, dataloader: Any) -> int:
        """Rows of a pass: labeled ones in training."""
        if isinstance(dataloader.batch_sampler, Pass):
            return dataloader.batch_sampler.steps * self._now().config.batch_size
        return int(super().num_examples(dataloader))

    def _pass_steps(self, rows: int) -> int:
        """Steps of `rows` labeled rows in a pass over the pool, or over the labeled rows where none is used."""
        data, uses_pool = self.task.data, any(v.startswith("u") for v in self.method.wanted_views())
        if uses_pool and len(data.unlabeled):
            return math.ceil(len(data.unlabeled) / (rows * self.settings.unlabeled_ratio))
        return math.ceil(len(data.labeled) / rows)

    # --- a run ---

    def _inner_training_loop(
        self,
        batch_size: int | None = None,
        args: TrainingArguments | None = None,
        resume_from_checkpoint: str | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        if not self.given_optimizer:
            self.optimizer = None  # of an earlier run, with its nets
        self.engine, self.begun = self._open(batch_size or self.args.train_batch_size, resume_from_checkpoint), []
        return super()._inner_training_loop(batch_size, args, resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _open(self, batch_size: int, folder: str | None) -> Engine:
        args, format_ = self.args, cast(Format, self.accelerator.mixed_precision)
        set_task(self._model().config, "one", self.pair_column is not None)  # saved with the model: predict goes by it
        rows = batch_size * args.gradient_accumulation_steps * args.world_size
        steps = math.ceil(args.num_train_epochs * self._pass_steps(rows))
        config = replace(
            self.settings,
            max_steps=args.max_steps if args.max_steps > 0 else steps,
            batch_size=rows,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            max_grad_norm=args.max_grad_norm,
            mixed_precision=format_,
            dataloader_num_workers=args.dataloader_num_workers,
            seed=args.seed,
        )
        trained = [role for role, kind in self.method.nets.items() if kind == "trained"]
        nets = [self._net(i) for i in range(len(trained))]  # at once: a warm start changes the model

        def make(number: int) -> Module:
            if number:
                nets[number].classifier.reset_parameters()
            return nets[number]

        return Engine(
            self.method,
            replace(self.task, build=make),
            config,
            self.accelerator,
            format_,
            start=SharedStart(self.task, config),
            frozen_nets={},
            saved=None if folder is None else self._saved(Path(folder)),
        )

    def _net(self, number: int) -> TextNet:
        """The model as methods call it; number 0 has the same weights, in the same memory, others have a copy."""
        model = self._model()
        tensors = itertools.chain(model.parameters(), model.buffers())
        twin = copy.deepcopy(model, {id(t): t for t in tensors} if number == 0 else {})
        return TextNet(twin, self.tokenizer, "stock")

    def _model(self) -> PreTrainedModel:
        return cast(PreTrainedModel, self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False))

    def _now(self) -> Engine:
        if self.engine is None:
            raise RunError(357, "there are no batches and no nets before the training: call train() first")
        return self.engine

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> Any:
        return self._now().wrapped if training else model

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As `TrainingArguments` say, over all trained nets of the method.

        Raises:
            ConfigError: an optimizer was given that lacks parameters of further nets or heads.
        """
        trained = nn.ModuleDict(self._now().trained)
        optimizer = super().create_optimizer(trained)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        held |= {id(p) for p in self._model().parameters()}  # of the model's own some may be left out on purpose
        if any(id(p) not in held for p in trained.parameters()):
            raise ConfigError(
                474,
                f"{self.method.name} trains more than the model, which `optimizers` does not know: give "
                "`optimizer_cls_and_kwargs`, or optim in TrainingArguments",
            )
        return optimizer

    # --- a step ---

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Gradients of a micro-batch for the first update of its step; the share it has in the step's loss."""
        engine = self._now()
        if not self.begun:
            engine.enter(self.state_step())
        self.begun.append(engine.begin(cast(Batch, inputs), len(self.begun)))
        loss = engine.backward(self.begun[-1])
        assert loss is not None
        return loss / engine.config.gradient_accumulation_steps

    def further_updates(self) -> None:
        """What remains of a step after the Trainer's own update: averages, and updates of methods with several."""
        engine, optimizer = self._now(), cast(torch.optim.Optimizer, self.optimizer)
        engine.after_update()
        while True:
            optimizer.zero_grad()
            for i, losses in enumerate(self.begun):
                last = i + 1 == len(self.begun)
                with nullcontext() if last else engine.wrapped.no_sync():
                    more = engine.backward(losses) is not None
            if not more:
                break
            self._clip_grad_norm(engine.wrapped)
            optimizer.step()
            engine.after_update()
        self.begun = []

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        engine = self._now()
        norm = engine.clip()
        if not engine.updates:
            model.zero_grad()  # the optimizer then leaves all as it is
        return norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        return grad_norm if grad_norm is not None else self._clip_grad_norm(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the named losses and the health of pseudo-labels to the lines about training."""
        if "loss" in logs:
            engine = self._now()
            engine.run.step = self.state_step()
            logs |= {k: v for k, v in engine.record().items() if isinstance(v, float) and k not in logs}
        super().log(logs, start_time)

    # --- checkpoints ---

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        engine, student = self._now(), f"net.{self.method.default_net()}"
        tensors = engine.tensors()
        if self.args.should_save:
            heads = {k: v for k, v in tensors[student].items() if k.startswith("extra.")}
            tensors[student] = heads  # the rest is the saved model
            meta = engine.meta() | {"identity": identity(self.method, self.task, self.settings)}
            checkpoint.save(Path(output_dir) / _FOLDER, checkpoint.Checkpoint(self.state_step(), tensors, meta), keep=1)

    def _saved(self, folder: Path) -> checkpoint.Checkpoint:
        """What the method kept in a checkpoint."""
        latest = checkpoint.load_latest(folder / _FOLDER)
        if latest is None:
            raise RunError(
                356,
                f"{folder} holds no state of the method: resume from a checkpoint of SSLTrainer, saved without "
                "save_only_model, or start anew with its model",
            )
        saved, student = latest[0], f"net.{self.method.default_net()}"
        changed = differences(as_identity(saved.meta["identity"]), identity(self.method, self.task, self.settings))
        if changed:
            raise ConfigError(214, f"cannot resume: the run was started with other settings ({'; '.join(changed)})")
        saved.tensors[student] |= self._net(0).state_dict()
        return saved


class _FurtherUpdates(TrainerCallback):
    """Is called between the optimizer's step and the next one of its schedule."""

    def __init__(self, trainer: SSLTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.further_updates()


def _check(args: TrainingArguments, settings: TrainConfig, model: Any, tokenizer: Any) -> None:
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(470, "processing_class is not a tokenizer: give that of the model")
    for field in fields(TrainConfig):
        if field.name not in _OWN and settings.__dict__[field.name] != field.default:
            raise ConfigError(472, f"{field.name} is not taken from settings: set what is like it in TrainingArguments")
    if settings.warm_start == "supervised":
        raise ConfigError(472, 'no warm start "supervised" here: train with method="supervised" first, then again')
    unknown = {
        "a model that is not a PreTrainedModel": not isinstance(model, PreTrainedModel | None),
        "FSDP": args.fsdp,
        "DeepSpeed": args.deepspeed,
        "torch_compile": args.torch_compile,
        "label smoothing": args.label_smoothing_factor,
        "several GPUs in one process (start it with torchrun)": args.n_gpu > 1,
        "this precision": args.mixed_precision not in get_args(Format),
    }
    for what, there in unknown.items():
        if there:
            raise ConfigError(473, f"SSLTrainer does not support {what}: leave it out")
