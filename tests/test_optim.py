"""Parameter groups, layer-wise rates and the schedule."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import tiny_bert, tiny_images

from nlp_ssl.config import TrainConfig
from nlp_ssl.nets.text import load_text_net
from nlp_ssl.training.optim import make_optimizer, rate_factor, set_rates

CONFIG = TrainConfig(max_steps=100, learning_rate=1e-4, head_learning_rate=1e-2, weight_decay=0.1)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return load_text_net(str(tiny_bert(tmp_path_factory.mktemp("optim"))), ["a", "b"])


def settings(nets, config):
    """Name -> (rate, weight decay)."""
    optimizer, names = make_optimizer(nets, config)
    each = [(g["lr"], g["weight_decay"], p) for g in optimizer.param_groups for p in g["params"]]
    assert len(each) == len(names)
    by_name = {f"{role}.{k}": p for role, module in nets.items() for k, p in module.named_parameters()}
    assert all(by_name[name] is p for name, (_, _, p) in zip(names, each, strict=True)), "names follow the groups"
    return {name: (rate, decay) for name, (rate, decay, _) in zip(names, each, strict=True)}


def test_every_parameter_is_in_one_group(net):
    found = settings({"student": net}, CONFIG)
    assert found.keys() == {f"student.{name}" for name, _ in net.named_parameters()}


def test_biases_and_norms_do_not_decay(net):
    for name, (_, decay) in settings({"student": net}, CONFIG).items():
        assert decay == (0.0 if name.endswith("bias") or "LayerNorm" in name else 0.1), name


def test_the_head_has_its_own_rate(net):
    for name, (rate, _) in settings({"student": net}, CONFIG).items():
        assert rate == (1e-2 if name.startswith("student.classifier.") else 1e-4), name


def test_layers_take_a_factor_each_from_the_top(net):
    """Two encoder layers: the upper keeps the rate, the lower has half of it, the embeddings a quarter."""
    found = settings({"student": net}, replace(CONFIG, layer_decay=0.5))
    wanted = {
        "embeddings.": 0.25e-4,
        "layer.0.": 0.5e-4,
        "layer.1.": 1e-4,
        "pooler.": 1e-4,
        "student.classifier.": 1e-2,
    }
    for part, rate in wanted.items():
        rates = {r for name, (r, _) in found.items() if part in name}
        assert sorted(rates) == [pytest.approx(rate)], part


def test_a_fresh_image_net_takes_the_rate_of_new_layers():
    found = settings({"student": tiny_images().build(0)}, CONFIG)
    assert {rate for rate, _ in found.values()} == {1e-2}


def test_frozen_parameters_are_left_out(net):
    net.model.bert.embeddings.requires_grad_(False)
    try:
        assert not [name for name in settings({"student": net}, CONFIG) if "embeddings" in name]
    finally:
        net.model.bert.embeddings.requires_grad_(True)


def test_two_nets_share_one_optimizer(net):
    found = settings({"one": net, "two": tiny_images().build(0)}, CONFIG)
    assert {name.split(".")[0] for name in found} == {"one", "two"}


def test_parameters_without_a_gradient_stay(net):
    """As long as they have none: weight decay and momentum move only what took part in the update."""
    optimizer, _ = make_optimizer({"student": net}, CONFIG)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.classifier.weight.grad = torch.ones_like(net.classifier.weight)
    optimizer.step()
    changed = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["classifier.weight"]


SCHEDULES = {
    # 100 steps, of which 10 of warm-up: factors of updates 0, 4, 9, 10, 55 and 99.
    # linear: 1/10, 5/10, 10/10, then (100 - s) / 90; cosine: (1 - cos(pi (100 - s) / 90)) / 2.
    "linear": [0.1, 0.5, 1.0, 1.0, 0.5, 1 / 90],
    "cosine": [0.1, 0.5, 1.0, 1.0, 0.5, 0.5 * (1 - math.cos(math.pi / 90))],
    "constant": [0.1, 0.5, 1.0, 1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule(schedule):
    config = replace(CONFIG, lr_scheduler_type=schedule, warmup_steps=0.1)
    assert [rate_factor(s, config) for s in (0, 4, 9, 10, 55, 99)] == pytest.approx(SCHEDULES[schedule])
    in_steps = replace(config, warmup_steps=10)
    assert [rate_factor(s, in_steps) for s in range(100)] == [rate_factor(s, config) for s in range(100)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 1), (0.0, 7), (7.0, 7), (0.5, 2)])
def test_no_update_is_without_a_rate(schedule, warmup, steps):
    """Every update moves the weights, the first and the last too."""
    config = replace(CONFIG, lr_scheduler_type=schedule, warmup_steps=warmup, max_steps=steps)
    assert all(0 < rate_factor(s, config) <= 1 for s in range(steps))


def test_set_rates_scales_each_groups_own_rate(net):
    optimizer, _ = make_optimizer({"student": net}, CONFIG)
    for factor in (0.5, 0.1):
        set_rates(optimizer, factor)
        assert {g["lr"] for g in optimizer.param_groups} == {factor * 1e-4, factor * 1e-2}
