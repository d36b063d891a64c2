"""Every method inside a `transformers.Trainer`."""

import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
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
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.integrations.hf_arguments import SSLTrainingArguments
from nlp_ssl.integrations.hf_data import Pass, classes_of, only, texts_of, tokenized
from nlp_ssl.integrations.hf_model import load_classifier
from nlp_ssl.method import Method
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.mean_pooling import pools_first_token
from nlp_ssl.nets.opening import open_tokenizer
from nlp_ssl.nets.text import TextNet, final_linear, set_task
from nlp_ssl.registry import as_method
from nlp_ssl.task import task_of_nets
from nlp_ssl.training import checkpoint
from nlp_ssl.training.engine import Engine
from nlp_ssl.training.identity import applicable, as_identity, differences, identity
from nlp_ssl.training.optim import learning_rates, rate_factor
from nlp_ssl.training.roles import mix_seeds
from nlp_ssl.training.view_strength import Strongest
from nlp_ssl.types import Batch, Losses
from nlp_ssl.utils.precision import Format

log = logging.getLogger("nlp_ssl")
_FOLDER = "ssl"  # in a checkpoint: what the method keeps beside the model


class SSLTrainer(Trainer):
    """A `Trainer` that also learns from unlabeled texts, by any method of the package.

    Callbacks, checkpoints, logs and evaluation are those of `Trainer`, and the model is trained in place, with its own
    pooling: `load_classifier` makes one that suits few labels. Batches are those of `nlp_ssl.fit`, and so are the
    weights that the same settings come to: an epoch is a pass over the unlabeled texts, and
    `per_device_train_batch_size` counts labeled rows. Further nets of a method are copies of the model, those that are
    trained with a new last layer; checkpoints hold them too. These are written as `Trainer` does it, in several steps.

    Args:
        model: a sequence classifier, or the folder or hub name of an encoder: `load_classifier` then makes it for the
            classes of the training rows.
        args: the settings, with the method; `SSLTrainingArguments` tells them.
        data_collator: of the evaluated rows.
        train_dataset: labeled texts in a column "text" or one of its usual names, classes in "label" or "labels":
            names, or numbers of the model's outputs. Rows without a class (-1 or None) join the unlabeled ones. Tokens
            beside the texts are not used: views are made from words.
        eval_dataset: tokenized as for any `Trainer`, or texts. Its texts must not be among those trained on.
        processing_class: the model's tokenizer; that of the encoder where `model` is a name.
        model_init: makes the model anew for each training.
        method: a method with its hyper-parameters, or its name, where `args` name none.
        unlabeled_dataset: texts without labels; labels that are there only show how right the pseudo-labels are.
        strong: the strong view of a text, if it is not to be chosen.
        allow_transductive: whether texts of `eval_dataset` may be trained on, without their labels.
        pair_column: column of the second texts, where rows are pairs of texts.
        compute_metrics: scores of logits and labels.
        callbacks: further callbacks.
        optimizers: an optimizer and a schedule over the parameters of `model`.
        optimizer_cls_and_kwargs: an optimizer's class and arguments, for methods that train more than the model.
        preprocess_logits_for_metrics: what is kept of the logits.

    Raises:
        ConfigError: arguments do not fit together, or are not supported here.
        DataError: texts or labels cannot be used as they are.

    Example:
        from datasets import Dataset
        from nlp_ssl import SSLTrainer, SSLTrainingArguments

        rows = Dataset.from_dict({"text": ["great fun", "a joy", "so dull", "a bore"], "label": ["+", "+", "-", "-"]})
        pool = Dataset.from_dict({"text": ["great acting", "dull acting", "what fun", "what a bore"]})
        args = SSLTrainingArguments("out", method="uda", max_steps=2, warm_steps=2, save_strategy="no")
        trainer = SSLTrainer("bundled", args, train_dataset=rows, unlabeled_dataset=pool)
        trainer.train()
    """

    def __init__(
        self,
        model: PreTrainedModel | str | Path | None = None,
        args: SSLTrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        model_init: Callable[..., PreTrainedModel] | None = None,
        *,
        method: str | Method | None = None,
        unlabeled_dataset: Dataset | None = None,
        strong: Augment | Strongest | None = None,
        allow_transductive: bool = False,
        pair_column: str | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        args = args if args is not None else SSLTrainingArguments()
        _check_args(args)
        wanted = _method(args, method)
        if isinstance(model, str | Path):
            classes = classes_of(train_dataset, pair_column)
            torch.manual_seed(mix_seeds(args.seed, 7, 0))  # the last layer is that of `nlp_ssl.fit`
            processing_class = processing_class or open_tokenizer(encoder_name(str(model)))
            model = load_classifier(model, id2label=dict(enumerate(classes)))
        _check_model(model, processing_class)
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # it counts one pass for each update, methods take several
        self.tokenizer, self.pair_column = cast(PreTrainedTokenizerBase, processing_class), pair_column
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
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
        self.args: SSLTrainingArguments = args
        self.given_optimizer = self.optimizer is not None
        self.engine: Engine | None = None
        self.begun: list[Iterator[Losses]] = []  # the losses of the step's micro-batches
        evaluated = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
        text = texts_of(
            self._model().config, train_dataset, unlabeled_dataset, [*evaluated.values()], allow_transductive,
            pair_column,
        )  # fmt: skip
        ready = {name: self._tokenized(dataset) for name, dataset in evaluated.items()}
        self.eval_dataset = ready if isinstance(eval_dataset, dict) else ready[""]
        self.task = task_of_nets(text, self._net, strong=strong, max_length=args.max_length)
        self.method = applicable(wanted, self.task.data)
        if self.method is not wanted:
            log.warning("no unlabeled rows: %s becomes supervised training", wanted.name)
        _warn_of_first_token(self._model())
        self.add_callback(_FurtherUpdates(self))

    # --- data ---

    def _tokenized(self, dataset: Any, scored: bool = True) -> Any:
        with self.args.main_process_first():
            return tokenized(
                dataset, self.tokenizer, self._model().config, self.args.max_length, self.pair_column, scored=scored
            )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Of texts or tokens."""
        return super().get_eval_dataloader(self._tokenized(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """Of texts or tokens."""
        return super().get_test_dataloader(self._tokenized(test_dataset, scored=False))

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
            return math.ceil(len(data.unlabeled) / (rows * self.args.unlabeled_ratio))
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
        set_task(
            self._model().config, "single-label", self.pair_column is not None
        )  # saved with the model: predict goes by it
        rows = batch_size * args.gradient_accumulation_steps * args.world_size
        steps = math.ceil(args.num_train_epochs * self._pass_steps(rows))
        config = replace(
            args.loop_config(),
            max_steps=args.max_steps if args.max_steps > 0 else steps,
            batch_size=rows,
            mixed_precision=format_,
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
        """As the arguments say, over all trained nets of the method, the layers that start untrained at their own rate.

        Raises:
            ConfigError: an optimizer was given that lacks parameters of further nets or heads.
        """
        engine, made_here = self._now(), self.optimizer is None and self.optimizer_cls_and_kwargs is None
        trained = nn.ModuleDict(engine.trained)
        optimizer = super().create_optimizer(trained)
        if made_here:
            _set_rates(optimizer, engine)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        held |= {id(p) for p in self._model().parameters()}  # of the model's own some may be left out on purpose
        if any(id(p) not in held for p in trained.parameters()):
            raise ConfigError(
                474,
                f"{self.method.name} trains more than the model, which `optimizers` does not know: give "
                "`optimizer_cls_and_kwargs`, or optim in TrainingArguments",
            )
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """That of `TrainConfig` where it has one of this name, else the stock one."""
        if self.lr_scheduler is None and self.args.has_own_schedule():
            stepped = cast(torch.optim.Optimizer, optimizer or self.optimizer)
            factor = partial(rate_factor, config=self._now().config)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(stepped, factor)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

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
            meta = engine.meta() | {"identity": self._identity()}
            checkpoint.save(Path(output_dir) / _FOLDER, checkpoint.Checkpoint(self.state_step(), tensors, meta), keep=1)

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must share; of what `TrainingArguments` say the Trainer itself warns."""
        return identity(self.method, self.task, self.args.own_config())

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
        changed = differences(as_identity(saved.meta["identity"]), self._identity())
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


def _method(args: SSLTrainingArguments, method: Any) -> Method:
    """The method to train with: of the arguments, or of the trainer.

    Raises:
        ConfigError: there is none, there are two, or it works in rounds.
    """
    named = args.named_method()
    if method is not None and named is not None:
        raise ConfigError(487, f"method {args.method!r} in args and another for SSLTrainer: give one of them")
    if method is None and named is None:
        raise ConfigError(
            487,
            "SSLTrainer has no default method: give one, as in SSLTrainingArguments(method='uda'); SSLClassifier "
            "chooses one by itself, and takes those that work in rounds",
        )
    wanted = as_method(method) if named is None else named
    if not isinstance(wanted, Method):
        raise ConfigError(201, f"{wanted.name} works in rounds: use SSLClassifier, or nlp_ssl.fit")
    return wanted


def _set_rates(optimizer: torch.optim.Optimizer, engine: Engine) -> None:
    """Gives every parameter its own learning rate, in as many groups as there are rates."""
    rates: dict[int, float] = {}
    for module in engine.trained.values():
        rate_of = learning_rates(module, engine.config)
        rates |= {id(parameter): rate_of(name) for name, parameter in module.named_parameters()}
    for group in list(optimizer.param_groups):
        parts: dict[float, list[Tensor]] = {}
        for parameter in group["params"]:
            parts.setdefault(rates[id(parameter)], []).append(parameter)
        for i, (rate, parameters) in enumerate(parts.items()):
            if i == 0:
                group |= {"params": parameters, "lr": rate}
            else:
                optimizer.add_param_group({**group, "params": parameters, "lr": rate})


def _warn_of_first_token(model: PreTrainedModel) -> None:
    """Warns of a new last layer on the first token: no training leaves a bias of zeros."""
    bias = final_linear(model)[1].bias
    if pools_first_token(model) and bias is not None and not bias.any():
        log.warning(
            "the model pools the first token, on which its last layer is untrained: nlp_ssl.load_classifier(%r, "
            "num_labels=%d) pools the mean, which suits few labels", model.name_or_path or "NAME", len(bias),
        )  # fmt: skip


def _check_args(args: Any) -> None:
    if not isinstance(args, SSLTrainingArguments):
        raise ConfigError(
            472, f"args is a {type(args).__name__}: give SSLTrainingArguments, which takes the same and more"
        )
    unknown = {
        "FSDP": args.fsdp,
        "DeepSpeed": args.deepspeed,
        "torch_compile": args.torch_compile,
        "label smoothing": args.label_smoothing_factor,
        "several GPUs in one process (start it with torchrun)": args.n_gpu > 1,
        "this precision": args.mixed_precision not in get_args(Format),
    }
    for what, is_set in unknown.items():
        if is_set:
            raise ConfigError(473, f"SSLTrainer does not support {what}: leave it out")


def _check_model(model: Any, tokenizer: Any) -> None:
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(470, "processing_class is not a tokenizer: give that of the model")
    if not isinstance(model, PreTrainedModel | None):
        raise ConfigError(473, "SSLTrainer does not support a model that is not a PreTrainedModel: leave it out")
