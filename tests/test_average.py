"""Averaged nets: teachers start as exact copies, move after the update, and are out of the optimizer's reach."""

from dataclasses import replace

import pytest
import torch
from tiny import FAST, difference, tiny_images, tiny_task, trained

from nlp_ssl import fit, get_method, list_methods
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.methods import DivideMix, MetaPseudoLabels, Supervised
from nlp_ssl.training import loop, roles

WITH_EMA = [c for c in map(get_method, list_methods(in_rounds=False)) if "ema" in c.nets.values()]


@pytest.fixture(scope="module", params=["text", "images"])
def task(request, tmp_path_factory):
    if request.param == "images":
        return tiny_images()
    return tiny_task(tmp_path_factory.mktemp("text"), dropout=0.2, strong=TfidfReplace(0.4))


def copy_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def one_step(method, task, monkeypatch, **settings):
    """(nets by role, their weights before the update, optimizer) of a run of one step."""
    nets, before, optimizers = {}, {}, []
    step, make_optimizer = type(method).step, loop.make_optimizer

    def watched(self, run, batch):
        nets.update({role: net.module for role, net in run.nets.items()})
        before.update({role: copy_of(module) for role, module in nets.items()})
        return step(self, run, batch)

    def noted(*arguments):
        found = make_optimizer(*arguments)
        optimizers.append(found[0])
        return found

    monkeypatch.setattr(type(method), "step", watched)
    monkeypatch.setattr(loop, "make_optimizer", noted)
    result = fit(method, task, replace(FAST, max_steps=1, **settings))
    return nets, before, optimizers[0], result.module


def assert_average(found, old, new, beta):
    """Floats are beta * old + (1 - beta) * new, buffers too; whole numbers (a counter of batches) are copied."""
    for name, value in new.items():
        if value.is_floating_point():
            expected = beta * old[name].double() + (1 - beta) * value.double()
            assert torch.allclose(found[name].double(), expected, rtol=1e-6, atol=1e-7), name
        else:
            assert torch.equal(found[name], value), name


@pytest.mark.parametrize("cls", WITH_EMA, ids=lambda c: c.name)
def test_teacher(cls, task, monkeypatch):
    method = cls()
    nets, before, optimizer, _ = one_step(method, task, monkeypatch)
    student = cls.default_net()
    for role in (r for r, kind in cls.nets.items() if kind == "ema"):
        assert before[role].keys() == before[student].keys()
        assert all(torch.equal(before[role][k], v) for k, v in before[student].items())
        assert all(p.grad is None and not p.requires_grad for p in nets[role].parameters())
        assert difference(nets[role].state_dict(), before[role]) > 1e-5
        assert_average(nets[role].state_dict(), before[role], nets[student].state_dict(), method.ema(1))
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in nets[student].parameters()}


def test_average_for_evaluation(task, monkeypatch):
    """The net that is returned, after step 1: beta = min(1 - 1 / 2, decay)."""
    for decay, beta in ((0.9, 0.5), (0.2, 0.2)):
        nets, before, _, returned = one_step(Supervised(), task, monkeypatch, eval_ema_decay=decay)
        assert_average(returned.state_dict(), before["student"], nets["student"].state_dict(), beta)
        monkeypatch.undo()


def test_decay_zero_follows_and_decay_one_stays():
    module, average = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    module.weight.data += 1.0
    module(torch.randn(8, 3))
    start = copy_of(average)
    roles.update_average(average, module, 1.0)
    assert torch.equal(average.weight, start["weight"]) and int(average.num_batches_tracked) == 1
    roles.update_average(average, module, 0.0)
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in average.state_dict().items())


@pytest.mark.parametrize("cls", [Supervised, DivideMix, MetaPseudoLabels], ids=lambda c: c.name)
def test_the_average_moves_once_a_step_though_another_net_is_updated_too(cls, task, monkeypatch):
    """Its decay would be squared."""
    moved = []
    monkeypatch.setattr(roles, "update_average", lambda *given: moved.append(1))
    trained(cls(), task, replace(FAST, max_steps=3, eval_ema_decay=0.9))
    assert len(moved) == 3
