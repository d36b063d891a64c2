"""Two ranks over gloo, and what they run. Spawned processes import this file by name."""

import gc
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from datasets import Dataset
from safetensors.torch import save_file
from tiny import neutral_draws, tiny_bert, tiny_task, tiny_texts, tiny_tokenizer, trained
from transformers import AutoModelForSequenceClassification

from nlp_ssl import SSLTrainer, SSLTrainingArguments, get_method, list_methods
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.method import Method
from nlp_ssl.methods import UDA
from nlp_ssl.nets.base import Module
from nlp_ssl.ops import distributed
from nlp_ssl.task import Task
from nlp_ssl.testing import step_losses
from nlp_ssl.types import DataSpec
from nlp_ssl.utils.ranges import from_options

WORLD = 2


def spawn(work: Callable[[int, Path], None], folder: Path) -> None:
    """Runs `work(rank, folder)` on both ranks; an exception of either is raised here.

    Ranks are forked from a process that has imported this file and trained nothing. It starts with the first ranks.
    """
    multiprocessing.set_forkserver_preload(["ranks"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))  # else it finds none of our modules
        forkserver.ensure_running()
    mp.start_processes(_rank, args=(work, folder), nprocs=WORLD, start_method="forkserver")


def _rank(rank: int, work: Callable[[int, Path], None], folder: Path) -> None:
    torch.set_num_threads(1)
    gc.freeze()
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    os.environ |= {name: str(value) for name, value in names.items()}
    dist.init_process_group("gloo", init_method=f"file://{folder / 'init'}", rank=rank, world_size=WORLD)
    work(rank, folder)
    dist.barrier()
    dist.destroy_process_group()


# --- the loop


# With no threshold these would be FixMatch, or its thresholds would not move.
MOVING = {"adamatch": 0.9, "flexmatch": 0.8, "marginmatch": 0.8}
# The other options under which a method takes its own way: with hard labels its student would be FixMatch's.
OPTIONS = {"meta_pseudo_labels": {"labels": "soft"}}


def methods() -> dict[str, Method]:
    """Every registered method with all rows of the pool taking part, and UDA whose annealing keeps other numbers of
    labeled rows on each rank.
    """
    found = {}
    for name in list_methods(in_rounds=False):
        cls = get_method(name)
        open_ = {"threshold": MOVING.get(name, 0.0)} if "threshold" in cls.__dataclass_fields__ else {}
        found[name] = from_options(cls, open_ | OPTIONS.get(name, {}))
    return found | {"uda with annealing": UDA(threshold=0.0, tsa="exp")}


def still_task(folder: Path) -> Task:
    """Without dropout, so that it does not matter which rank computes a row, and with a net that starts decided."""
    task = tiny_task(folder, dropout=0.0, strong=TfidfReplace(0.4))

    def build(number: int) -> Module:
        module = task.build(number)
        with torch.no_grad():
            module.get_submodule("classifier").get_parameter("weight").mul_(40.0)
        return module

    return replace(task, build=build)


def fit_all(rank: int, folder: Path) -> None:
    """Every method after three steps, one after the other in the same process group."""
    task = still_task(folder)
    neutral_draws(pytest.MonkeyPatch())
    for name, method in methods().items():
        weights = trained(method, task, folder=folder / "apart" / name)
        assert distributed.world_size() == WORLD
        save_file(weights, folder / f"{name}-{rank}.safetensors")


# --- the arithmetic


VALUES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])  # three rows for each rank
KEPT = {"some": [1, 1, 0, 0, 0, 1], "one rank": [1, 0, 1, 0, 0, 0], "none": [0] * 6, "all": [1] * 6}


def reduce_all(rank: int, folder: Path) -> None:
    """What each function of `reduce` gives on this rank, as JSON."""
    mine = slice(3 * rank, 3 * rank + 3)
    found: dict[str, object] = {"world": distributed.world_size()}
    for name, kept in KEPT.items():
        weight = torch.tensor(1.0, requires_grad=True)
        distributed.mean((weight * VALUES[mine]).square(), where=torch.tensor(kept)[mine] > 0).backward()
        assert weight.grad is not None
        found[f"gradient {name}"] = weight.grad.item()
    found["total"] = distributed.total(VALUES[mine]).tolist()
    uneven = VALUES[:2] if rank == 0 else VALUES[2:]
    found["stat"] = distributed.stat(torch.stack([uneven, -uneven], 1).requires_grad_()).tolist()
    for name, rows in (("uneven", 2 - rank), ("one side", 2 * rank), ("nothing", 0)):
        ids, values = distributed.gather(
            10 * rank + torch.arange(rows), torch.full((rows, 2), float(rank)).requires_grad_()
        )
        found[f"gather {name}"] = [ids.tolist(), values.tolist()]
        assert not values.requires_grad
    (folder / f"{rank}.json").write_text(json.dumps(found))


# --- what methods remember

REMEMBERING = ("adamatch", "flexmatch", "freematch", "marginmatch", "softmatch")


def remembered(part: int, parts: int) -> dict[str, list[list[float]]]:
    """By method, losses and state after each of three steps on this part of the rows; the first half is less sure."""
    found = {}
    for name in REMEMBERING:
        method = from_options(get_method(name), {"threshold": 0.7} if name in MOVING else {})
        state = method.init_state(DataSpec(3, pool_size=24))
        found[name] = []
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            mine = {}
            for view, rows in {"x": 4, "x_s": 4, "u_w": 8, "u_s": 8}.items():
                z = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
                z[rows // 2 :] *= 8
                mine[view] = z.chunk(parts)[part]
            ids = (torch.randperm(12, generator=generator)[:8] * 2).chunk(parts)[part]
            views = {view: mine[view] for view in method.views}
            labels = torch.tensor([0, 1, 2, 0]).chunk(parts)[part]
            losses = step_losses(method, views, labels, ids=ids, state=state)
            found[name].append([v.item() for v in losses.values()])
            found[name].append(torch.cat([v.double().flatten() for v in state.values()]).tolist())
    return found


def remember_all(rank: int, folder: Path) -> None:
    """What each of these methods came to on this rank, as JSON."""
    (folder / f"{rank}.json").write_text(json.dumps(remembered(rank, WORLD)))


# --- the Trainer

TRAINED = ("fixmatch", "dividemix", "mean_teacher")


def still_trainer(folder: Path, name: str, size: int) -> SSLTrainer:
    """One without dropout, so that it does not matter which rank computes a row; `size` labeled rows on each."""
    if not (folder / "model").exists():
        tiny_bert(folder / "model", dropout=0.0)
    texts, labels = tiny_texts(128, seed=1)
    y = [int(label == "pos") for label in labels]
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    with torch.no_grad():
        model.classifier.weight.mul_(40.0)
    return SSLTrainer(
        model=model,
        args=SSLTrainingArguments(
            str(folder / name),
            max_steps=3,
            per_device_train_batch_size=size,
            use_cpu=True,
            warmup_steps=0,
            per_device_eval_batch_size=4,
            learning_rate=1e-3,
            head_learning_rate=1e-3,
            lr_scheduler_type="constant",
            save_steps=2,
            disable_tqdm=True,
            unlabeled_ratio=2,
            warm_start="none",
            max_length=24,
        ),
        train_dataset=Dataset.from_dict({"text": texts[:16], "label": y[:16]}),
        eval_dataset=Dataset.from_dict({"text": texts[112:], "label": y[112:]}),
        unlabeled_dataset=Dataset.from_dict({"text": texts[16:112]}),
        processing_class=tiny_tokenizer(),
        method=methods()[name],
    )


def train_all(rank: int, folder: Path) -> None:
    """The model after three steps of each method on both ranks."""
    neutral_draws(pytest.MonkeyPatch())
    if rank == 0:
        tiny_bert(folder / "model", dropout=0.0)
    dist.barrier()
    for name in TRAINED:
        trainer = still_trainer(folder, name, size=4 // WORLD)
        assert trainer.args.world_size == WORLD
        trainer.train()
        found = {**trainer.model.state_dict(), "eval_loss": torch.tensor(trainer.evaluate()["eval_loss"])}
        save_file(found, folder / f"{name}-{rank}.safetensors")
