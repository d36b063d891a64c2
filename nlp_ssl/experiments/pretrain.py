"""In-domain pre-training of the encoder on all texts or images, before any label is used."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.dataset import Data
from nlp_ssl.errors import ConfigError
from nlp_ssl.method import Method, documented_method
from nlp_ssl.nets.base import Module
from nlp_ssl.ops.distributed import mean
from nlp_ssl.ops.functional import ce
from nlp_ssl.run import StepContext
from nlp_ssl.task import Task
from nlp_ssl.training.identity import fingerprint, identity
from nlp_ssl.training.loop import train
from nlp_ssl.training.model_files import place_files
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import Batch, Head, Losses
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranges import Range

_NEVER = -1e9  # logit of a pair that is not counted


@documented_method
@dataclass(frozen=True)
class MaskedWords(Method):
    """Masked language modelling (Devlin et al. 2019, arXiv:1810.04805): predict hidden words of the task's own texts.

    Loss: mean over the hidden tokens of all rows of CE(token, its scores).
    15 % of a text's own tokens are hidden, drawn anew each time. The word embeddings are the output layer. On the texts
    of the task this is task-adaptive pre-training (Gururangan et al. 2020, arXiv:2004.10964).

    Differs from the paper: BERT's own transform before the output layer is left out, sentence encoders come without.

    Example:
        from nlp_ssl.experiments.pretrain import MaskedWords
        method = MaskedWords()
    """

    name: ClassVar[str] = "mlm"
    views = {"u_w": "weak"}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        tokens, count = run.nets["student"].masked_tokens(batch, "u_w")  # [N], [N]
        return {"mlm": mean(tokens, where=count)}


@documented_method
@dataclass(frozen=True)
class Contrastive(Method):
    """SimCSE (Gao et al. 2021, arXiv:2104.08821): two views of a row lie closer than views of two rows.

    Loss: mean over the 2N views of CE(its twin, cosines with all other views / temperature).
    Cosines are of features behind a head of one hidden layer that is thrown away. Repeats of a row in a batch do not
    count against it. On several processes a view is compared with those of its own process. With strong views of images
    this is SimCLR (Chen et al. 2020, arXiv:2002.05709).

    Differs from the paper: the batch is that of the loop, far smaller than SimCLR's; twins are compared both ways, as
    in SimCLR, for texts too.

    Example:
        from nlp_ssl.experiments.pretrain import Contrastive
        method = Contrastive(strong=True, temperature=0.1)  # views of a text differ by words, not by dropout alone
    """

    name: ClassVar[str] = "contrastive"
    heads = {"projection": Head("mlp", 128)}
    images = {"temperature": 0.5, "strong": True}
    temperature: Annotated[
        float, Range(1e-3, 1e3), "temperature of the cosines; lower values look at the nearest views alone"
    ] = 0.05
    strong: Annotated[bool, "compare strong views; off compares weak ones, which for texts differ by dropout alone"] = (
        False
    )

    def wanted_views(self) -> dict[str, str]:
        return {"u_s": "strong", "u_s2": "strong"} if self.strong else {"u_w": "weak", "u_w2": "weak"}

    def step(self, run: StepContext, batch: Batch) -> Losses:
        one, two = run.nets["student"].outputs(batch, *self.wanted_views())
        z = F.normalize(torch.cat([one["projection"], two["projection"]]), dim=-1)  # [2N, 128]
        return {"contrast": mean(contrast(z, batch["id"]["u"], self.temperature))}


def contrast(z: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Loss [2N] of views z [2N, D] of length 1, the twins of the first N the last N; rows of equal ids [N] are one."""
    n, who = len(ids), torch.cat([ids, ids])
    twin = torch.cat([torch.arange(n, 2 * n), torch.arange(n)]).to(z.device)
    itself = who[:, None] == who[None, :]
    itself[torch.arange(2 * n), twin] = False
    return ce((z @ z.T / temperature).masked_fill(itself, _NEVER), twin)


def objective_of(name: str, images: bool = False) -> Method:
    """The objective of a name, with the defaults of the modality.

    Raises:
        ConfigError: there is none for images.
    """
    if name == "mlm" and images:
        raise ConfigError(252, "masked words need texts: use --pretrain contrastive")
    if name == "mlm":
        return MaskedWords()
    return Contrastive.for_images() if images else Contrastive()


def unlabeled_only(data: Data) -> Data:
    """All rows that are not for scoring, as a pool."""
    pool = np.union1d(data.labeled, data.unlabeled)
    return replace(data, unlabeled=pool, dev=pool[:0], test=pool[:0], prior=None)


def pretrain(
    method: Method, task: Task, config: TrainConfig, steps: int, *, folder: RunFolder | None = None
) -> dict[str, Tensor]:
    """Weights of the task's net after pre-training on its labeled and unlabeled rows, without a label.

    A batch has as many rows as one of a method that sees the pool. With `folder` the weights are kept there.

    Raises:
        ConfigError, RunError, Interrupted: as `fit`.
    """
    rows = config.batch_size * (1 + config.unlabeled_ratio)
    config = replace(
        config, max_steps=steps, batch_size=rows, unlabeled_ratio=1, align=False, warm_start="none", eval_steps=0,
        patience=0, eval_fgsm=0.0,
    )  # fmt: skip
    task = replace(task, data=unlabeled_only(task.data))
    if folder is not None and folder.encoder.exists() and folder.finished(identity(method, task, config)):
        return load_file(folder.encoder)
    module = train(method, task, config, folder=folder).module
    assert module is not None
    weights = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items() if k[:6] != "extra."}
    if folder is not None:
        with atomic.write_file(folder.encoder) as temporary, atomic.writing(folder.encoder):
            save_file(weights, temporary)
    return weights


def start_from(task: Task, weights: dict[str, Tensor]) -> Task:
    """The task with nets that start from these weights, but for the last layer; its runs count as other runs."""

    def build(number: int) -> Module:
        net = task.build(number)
        net.load_state_dict({k: v for k, v in weights.items() if not k.startswith("classifier.")}, strict=False)
        return net

    return replace(task, build=build, origin=(*task.origin, ("begun_from", fingerprint(weights))))


def save_encoder(net: Any, folder: Path) -> None:
    """Writes the encoder of a text net with its tokenizer, as `AutoModel` opens it.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """

    def write(place: Path) -> None:
        net.model.base_model.save_pretrained(place)
        net.tokenizer.save_pretrained(place)

    place_files(folder, write)
