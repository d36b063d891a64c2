"""A run on two ranks, or in several micro-batches, does the arithmetic of one process with the whole batch."""

import json
from dataclasses import replace

import pytest
import ranks
from safetensors.torch import load_file
from tiny import FAST, difference, neutral_draws, trained

from nlp_ssl.errors import ConfigError
from nlp_ssl.methods import Supervised


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ddp")
    ranks.still_task(path)  # model and tokens are written once, by this process
    return path


@pytest.fixture(scope="module")
def together(folder):
    """Weights of one process with the whole batch."""
    task = ranks.still_task(folder)
    with pytest.MonkeyPatch.context() as patch:
        neutral_draws(patch)
        return {name: trained(m, task, folder=folder / "together" / name) for name, m in ranks.methods().items()}


@pytest.fixture(scope="module")
def apart(folder):
    ranks.spawn(ranks.fit_all, folder)
    return {
        (name, rank): load_file(folder / f"{name}-{rank}.safetensors")
        for name in ranks.methods()
        for rank in range(ranks.WORLD)
    }


def near(name):
    """How close weights must be. A student that starts as its teacher has a gradient of rounding alone on words that
    only unlabeled rows have, and the optimizer scales it up: how much depends on the processor.
    """
    return 1e-4 if name == "distillation" else 1e-5


def metrics(folder):
    """Loss and gradient norm of every step. The optimizer hides the gradient's scale: weights would not tell."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [value for line in lines for value in (line["loss"], line["grad_norm"])]


@pytest.mark.ddp
@pytest.mark.parametrize("name", ranks.methods())
def test_two_ranks_are_one_process(name, folder, apart, together):
    assert difference(apart[name, 0], apart[name, 1]) == 0.0
    assert difference(apart[name, 0], together[name]) < near(name)
    assert metrics(folder / "apart" / name) == pytest.approx(metrics(folder / "together" / name), rel=1e-4)


# What these remember or average over changes with every micro-batch, or depends on which rows come together.
SEES_MICRO_BATCHES: tuple[str, ...] = (
    "adamatch",
    "debiaspl",
    "dividemix",
    "freematch",
    "marginmatch",
    "mixup_pseudo_label",
    "remixmatch",
    "softmatch",
    "comatch",
    "multimatch",
    "simmatch",
    "meta_pseudo_labels",  # each micro-batch is judged by its own labeled rows
)


@pytest.mark.parametrize("name", [name for name in ranks.methods() if name not in SEES_MICRO_BATCHES])
def test_micro_batches_are_one_batch(name, folder, together, monkeypatch):
    """Except where a mean divides by the rows that annealing keeps: each micro-batch divides by its own number."""
    neutral_draws(monkeypatch)
    config, place = replace(FAST, gradient_accumulation_steps=2), folder / "accumulated" / name
    weights = trained(ranks.methods()[name], ranks.still_task(folder), config, place)
    if name == "uda with annealing":
        assert difference(weights, together[name]) > 1e-4
    else:
        assert difference(weights, together[name]) < near(name)
        assert metrics(place) == pytest.approx(metrics(folder / "together" / name), rel=1e-4)


def test_the_runs_differ(together):
    """The comparisons above are worth something: other methods end elsewhere."""
    names = list(together)
    for i, one in enumerate(names):
        for other in names[:i]:
            if {one, other} <= {"supervised", "r_drop", "pi_model"}:  # the same without dropout
                continue
            a, b = ({k: v for k, v in together[m].items() if not k.startswith("extra.")} for m in (one, other))
            assert difference(a, b) > 1e-5, (one, other)


def test_parts_must_divide_the_batch(folder):
    task = ranks.still_task(folder)
    with pytest.raises(ConfigError, match="SSL210: batch_size = 4 cannot be divided over 3 parts"):
        trained(Supervised(), task, replace(FAST, gradient_accumulation_steps=3))
