"""Methods with a teacher of their own: distillation and Meta Pseudo Labels, against numbers worked out by hand.

    ZX  [ 2.0,  0.5, -1.0]   class 0        ZW  [ 4.0,  0.0, -1.0]        ZS  [ 2.0,  1.0,  0.0]
        [ 0.2,  0.1,  0.4]   class 2            [ 1.0,  0.9,  0.8]            [ 0.5,  0.5,  0.0]
                                                [-2.0,  3.0,  0.5]            [ 0.0,  1.0,  1.5]
                                                [ 0.0,  0.0,  5.0]            [ 1.0, -1.0,  2.0]

Two updates a step need nets that learn: `Linear` is one, logits = rows @ weight, trained here by plain gradient
descent. The expected side is plain Python, every number of a docstring twice: its six digits and the formula.
"""

import json
import math
import shutil
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import ranks
import torch
import torch.distributed as dist
from tiny import FAST, difference, tiny_bert, tiny_images, tiny_task, trained
from torch import nn

from nlp_ssl import fit
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.errors import ConfigError
from nlp_ssl.methods import UDA, Distillation, MeanTeacher, MetaPseudoLabels, Supervised
from nlp_ssl.nets.text import load_teacher, load_text_net
from nlp_ssl.ops import distributed, random
from nlp_ssl.ops.functional import label_gradient
from nlp_ssl.run import StepContext
from nlp_ssl.testing import step_losses
from nlp_ssl.training import checkpoint
from nlp_ssl.training.loop import train
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import DataSpec

ZX = [[2.0, 0.5, -1.0], [0.2, 0.1, 0.4]]
ZW = [[4.0, 0.0, -1.0], [1.0, 0.9, 0.8], [-2.0, 3.0, 0.5], [0.0, 0.0, 5.0]]
ZS = [[2.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 1.5], [1.0, -1.0, 2.0]]
CLASSES = [0, 2]
SUP = 0.590571  # (0.241311 + 0.939831) / 2


# --- the expected side


def softmax(row, temperature=1.0):
    powers = [math.exp(v / temperature) for v in row]
    return [v / sum(powers) for v in powers]


def ce(target, z, temperature=1.0):
    return -sum(t * math.log(p) for t, p in zip(target, softmax(z, temperature), strict=True) if t > 0)


def average(values):
    values = list(values)
    return sum(values) / len(values)


def one_hot(y):
    return [[float(c == k) for c in range(3)] for k in y]


def logits(rows, weight):
    """rows [N, D] @ weight [D, C]."""
    return [[sum(r[d] * weight[d][c] for d in range(len(r))) for c in range(3)] for r in rows]


def loss(weight, rows, targets):
    return average(map(ce, targets, logits(rows, weight)))


def gradient(weight, rows, targets):
    """Of `loss`: rows^T (softmax - target) / N."""
    off = [
        [p - t for p, t in zip(softmax(z), target, strict=True)]
        for z, target in zip(logits(rows, weight), targets, strict=True)
    ]
    return [
        [sum(r[d] * o[c] for r, o in zip(rows, off, strict=True)) / len(rows) for c in range(3)]
        for d in range(len(rows[0]))
    ]


def moved(weight, by, rate):
    return [[w - rate * g for w, g in zip(*pair, strict=True)] for pair in zip(weight, by, strict=True)]


def near(value):
    return pytest.approx(value, abs=1e-6)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


# --- distillation


def distilled(method, teacher=ZW, student=ZS, *, grad=False, **more):
    """Losses, or gradients by net and view, of a teacher and a student that see the same rows differently."""
    nets = {"teacher": {"u_w": tensor(teacher)}, "student": {"u_w": tensor(student)}}
    x = tensor(ZX).requires_grad_(grad)
    for views in nets.values():
        views["u_w"].requires_grad_(grad)
    found = step_losses(method, {"x": x, "u_w": tensor(ZW)}, torch.tensor(CLASSES), logits_by_net=nets, **more)
    if not grad:
        return {name: value.item() for name, value in found.items()}
    torch.stack(list(found.values())).sum().backward()
    return {role: views["u_w"].grad for role, views in nets.items()} | {"x": x.grad}


def test_distillation():
    """CE(softmax(ZW / T), ZS / T), mean of four rows: 0.748794 at T = 1, 0.922188 at T = 2.

    With alpha 0.5 and no factor: 0.590571 / 2 + 0.922188 / 2 = 0.756380. The factor of T^2 = 4: 3.688752.
    """
    plain = {t: average(ce(softmax(w, t), s, t) for w, s in zip(ZW, ZS, strict=True)) for t in (1.0, 2.0)}
    assert plain == {1.0: near(0.748794), 2.0: near(0.922188)}
    assert distilled(Distillation(temperature=1.0, alpha=1.0)) == {"sup": 0.0, "unsup": near(0.748794)}
    assert distilled(Distillation(alpha=1.0, scale_t2=False))["unsup"] == near(0.922188)
    assert distilled(Distillation(alpha=1.0))["unsup"] == near(3.688752)
    half = distilled(Distillation(scale_t2=False))
    assert half == {"sup": near(SUP / 2), "unsup": near(plain[2.0] / 2)} and sum(half.values()) == near(0.756380)
    assert distilled(Distillation(alpha=0.25))["sup"] == near(0.75 * SUP)


def test_distillation_without_a_teacher_is_supervised():
    assert distilled(Distillation(alpha=0.0)) == {"sup": near(SUP), "unsup": 0.0}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_gradient_of_distillation(temperature):
    """T^2 alpha / N * (softmax(s / T) - softmax(t / T)) / T for the student, none for the teacher."""
    found = distilled(Distillation(temperature=temperature), grad=True)
    wanted = [
        [temperature * 0.5 / 4 * (a - b) for a, b in zip(softmax(s, temperature), softmax(w, temperature), strict=True)]
        for w, s in zip(ZW, ZS, strict=True)
    ]
    assert torch.allclose(found["student"], tensor(wanted), atol=1e-9)
    assert found["teacher"] is None and found["x"].abs().sum() > 0


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it():
    found = distilled(Distillation(), student=ZW, grad=True)
    assert found["student"].abs().max() < 1e-12
    assert distilled(Distillation(), grad=True)["student"].abs().max() > 1e-2


def test_labels_of_distillation_are_aligned_with_the_shares_of_the_pool():
    """Shares wanted 0.2 0.3 0.5 and a running mean of the labels: the same target as from the aligned probabilities."""
    run = two_nets(Distillation(alpha=1.0, temperature=1.0), {"student": [[1.0, 0, 0]] * 2, "teacher": STUDENT})
    run.spec = replace(run.spec, prior=(0.2, 0.3, 0.5))
    run.state["pool_mean"] = torch.full((3,), 1 / 3)
    (u,) = run.nets["student"](batch(), "u_w")
    teacher = [softmax(z) for z in logits(VIEWS["u_w"].tolist(), STUDENT)]
    mean = [0.95 / 3 + 0.05 * average(column) for column in zip(*teacher, strict=True)]
    raised = [
        [p * (s + 1e-6) / (m + 1e-6) for p, s, m in zip(row, (0.2, 0.3, 0.5), mean, strict=True)] for row in teacher
    ]
    targets = [[v / sum(row) for v in row] for row in raised]
    found = run.method.step(run, batch())
    assert found["unsup"].item() == near(average(map(ce, targets, u.tolist())))


def test_the_teacher_of_distillation_has_neither_dropout_nor_gradient():
    run = two_nets(Distillation())
    run.method.step(run, batch())
    assert run.nets["teacher"].asked == ["u_w"] and run.nets["student"].asked == ["x u_w+g"]


def test_masked_tokens_beside_distillation():
    """Rows with losses 3, 1, 2 of 1, 4 and no hidden tokens: (3 x 1 + 1 x 4) / 5 = 1.4, times a weight of 0.5."""

    class Reader(Linear):
        def masked_tokens(self, batch, *views):
            assert views == ("u_w",)
            return self.weight.sum() * 0 + tensor([3.0, 1.0, 2.0]), tensor([1.0, 4.0, 0.0])

    plain, run = two_nets(Distillation()), two_nets(Distillation(mlm_weight=0.5))
    run.nets["student"] = Reader(STUDENT)
    found = run.method.step(run, batch())
    assert found["mlm"].item() == near(0.7) and found["mlm"].requires_grad
    assert {k: v.item() for k, v in plain.method.step(plain, batch()).items()} == {
        k: found[k].item() for k in ("sup", "unsup")
    }


# --- joint loss normalisation


def normalised(method, state, teacher=ZW):
    return distilled(method, teacher, state=state)


def test_normalised_losses():
    """First batch: both means are its own losses, so that sup + alpha * (sup / unsup) * unsup = (1 + alpha) sup.

    alpha 0.25: 0.590571 / 1.25 = 0.472457 and 0.25 x 0.590571 / 1.25 = 0.118114, whatever the teacher says.
    """
    for teacher in (ZW, ZS):
        found = normalised(Distillation(alpha=0.25, normalise=True), None, teacher)
        assert found == {"sup": near(0.472457), "unsup": near(0.118114)}


def test_normalised_losses_against_older_means():
    """Means of 1.0 and 0.5 that carry all the weight but the newest 0.05: 0.95 + 0.05 x 0.590571 = 0.979529, and
    0.475 + 0.05 x 0.748794 = 0.512440. Ratio 1.911502; unsup 0.25 x 1.911502 x 0.748794 / 1.25 = 0.286264."""
    state = {"mean_losses": tensor([1.0, 0.5]).float(), "mass": torch.tensor(1.0)}
    found = normalised(Distillation(temperature=1.0, alpha=0.25, normalise=True), state)
    sup, unsup = average([ce([1, 0, 0], ZX[0]), ce([0, 0, 1], ZX[1])]), average(map(ce, map(softmax, ZW), ZS))
    means = [0.95 + 0.05 * sup, 0.475 + 0.05 * unsup]
    assert means == [near(0.979529), near(0.512440)]
    assert state["mean_losses"].tolist() == near(means) and state["mass"].item() == near(1.0)
    assert found == {"sup": near(0.472457), "unsup": near(0.286264)}
    assert found["unsup"] == near(0.25 * means[0] / means[1] * unsup / 1.25)


def test_normalised_losses_follow_their_means_over_two_steps():
    """Weights of the first and second batch 0.95 x 0.05 : 0.05, so 0.487179 : 0.512821."""
    method, state = (
        Distillation(temperature=1.0, alpha=0.25, normalise=True),
        Distillation(normalise=True).init_state(DataSpec(3)),
    )
    normalised(method, state)
    normalised(method, state, teacher=ZS)
    both = [average(map(ce, map(softmax, t), ZS)) for t in (ZW, ZS)]
    assert state["mean_losses"][1].item() == near(0.487179 * both[0] + 0.512821 * both[1])
    assert state["mean_losses"][0].item() == near(SUP)


def test_normalisation_takes_the_scale_off():
    """The factor T^2 scales the loss and its running mean alike: nothing changes, beside 4 times as much without."""
    one, other = (
        distilled(Distillation(alpha=0.3, normalise=True, scale_t2=scaled))["unsup"] for scaled in (True, False)
    )
    assert one == near(other)
    assert distilled(Distillation(alpha=0.0, normalise=True)) == {"sup": near(SUP), "unsup": 0.0}


def test_the_ratio_carries_no_gradient():
    """With one, the student's rows would get none: the first batch's unsup is 0.25 x sup / 1.25, whatever they are."""
    found = distilled(Distillation(temperature=1.0, alpha=0.25, normalise=True), grad=True)
    sup, unsup = SUP, average(map(ce, map(softmax, ZW), ZS))
    share = 0.25 * sup / unsup / 1.25 / 4
    wanted = [
        [share * (a - b) for a, b in zip(softmax(s), softmax(w), strict=True)] for w, s in zip(ZW, ZS, strict=True)
    ]
    assert torch.allclose(found["student"], tensor(wanted), atol=1e-6)
    for k in range(2):
        off = [p - t for p, t in zip(softmax(ZX[k]), one_hot(CLASSES)[k], strict=True)]
        assert found["x"][k].tolist() == near([v / 2 / 1.25 for v in off])


def test_a_perfect_student_does_not_divide_by_zero():
    sure = [[60.0 if c == k % 3 else -60.0 for c in range(3)] for k in range(4)]
    found = distilled(Distillation(temperature=1.0, normalise=True), teacher=sure, student=sure)
    assert found["unsup"] == near(0.0)


def test_method_without_normalisation_keeps_nothing():
    assert Distillation().init_state(DataSpec(3)) == {}


# --- a net that learns

ROWS = {
    "x": [[1.0, -0.5], [-0.4, 0.8]],
    "u_w": [[0.9, -0.3], [-0.2, 1.1], [0.5, 0.4]],
    "u_s": [[0.8, -0.1], [-0.5, 0.9], [0.7, 0.2]],
}
VIEWS = {view: torch.tensor(rows, dtype=torch.float64) for view, rows in ROWS.items()}
STUDENT = [[0.3, -0.2, 0.1], [-0.1, 0.4, 0.2]]
TEACHER = [[0.9, -0.6, 0.2], [-0.8, 0.3, 0.7]]
RATE = 0.5


class Linear(nn.Module):
    """logits = rows @ weight. With dropout on, rows are halved, so that a pass with dropout can be told apart."""

    depth = 0

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(tensor(weight))
        self.asked = []  # views of each pass, with "+" where dropout was on, "g" where a gradient was wanted

    def forward(self, batch, *views, edit=None, dropout=True):
        marks = ("+" if dropout else "") + ("g" if torch.is_grad_enabled() else "")
        self.asked.append(" ".join(views) + marks)
        return [batch["inputs"][v] @ self.weight for v in views]

    def slope(self, batch, *views, of, loss):
        weight = self.weight.detach().requires_grad_()
        with torch.enable_grad():
            (way,) = torch.autograd.grad(loss([batch["inputs"][v] @ weight for v in of]), [weight])
        if distributed.world_size() > 1:
            dist.all_reduce(way)
            way = way / distributed.world_size()
        found = [(batch["inputs"][v] @ way, (batch["inputs"][v] @ weight.detach()).softmax(-1)) for v in views]
        return [v - (p * v).sum(-1, keepdim=True) for v, p in found]


def batch(views=None, y=(0, 2), w=None):
    views = views or VIEWS
    return {
        "inputs": dict(views),
        "lengths": np.ones(1, dtype=np.int32),
        "rows": {},
        "y": torch.tensor(y),
        "w": torch.ones(len(y), dtype=torch.float64) if w is None else tensor(w),
        "id": {"x": torch.arange(len(y)), "u": torch.arange(len(views["u_w"]))},
        "keys": {},
        "true_labels": torch.full((len(views["u_w"]),), -1),
    }


def two_nets(method, weights=None, *, progress=1.0):
    weights = weights or {"student": STUDENT, "teacher": TEACHER}
    spec = DataSpec(3, pool_size=3, labeled_size=2)
    run = StepContext(
        method, {role: Linear(w) for role, w in weights.items()}, spec, max_steps=1000, step=int(1000 * progress)
    )
    run.state = method.init_state(spec)
    return run


def steps(run, given=None, *, skipped=False):
    """One step of the method by gradient descent: of each update its losses, and the gradients it took."""
    found = []
    for losses in run.method.step(run, given or batch()):
        torch.stack(list(losses.values())).sum().backward()
        grads = {}
        for role, net in run.nets.items():
            if net.weight.grad is None:
                continue
            if distributed.world_size() > 1:
                dist.all_reduce(net.weight.grad)
                net.weight.grad /= distributed.world_size()
            grads[role] = net.weight.grad.clone()
            if not (skipped and role == "student"):
                with torch.no_grad():
                    net.weight -= RATE * net.weight.grad
            net.weight.grad = None
        found.append(({name: value.item() for name, value in losses.items()}, grads))
    return found


def fixed_labels(monkeypatch, *labels):
    monkeypatch.setattr(random, "classes", lambda p: torch.tensor(labels))


# --- Meta Pseudo Labels

PAPER = MetaPseudoLabels(label_weight=0.0, threshold=0.0, temperature=1.0, clip_h=10.0)
DRAWN = (0, 2, 1)


def expected(labels=DRAWN, label_weight=0.0, sign=1.0, usual=0.0):
    """(student's loss, its weights after the update, labeled loss before and after, h) in plain Python."""
    y = one_hot(CLASSES)
    first = loss(STUDENT, ROWS["u_s"], one_hot(labels))
    by = gradient(STUDENT, ROWS["u_s"], one_hot(labels))
    if label_weight:
        also = gradient(STUDENT, ROWS["x"], y)
        by = [[a + label_weight * b for a, b in zip(*pair, strict=True)] for pair in zip(by, also, strict=True)]
    after = moved(STUDENT, by, RATE)
    before, later = loss(STUDENT, ROWS["x"], y), loss(after, ROWS["x"], y)
    return first, after, before, later, sign * (before - later) - usual


def shown(values):
    return [near(v) for v in values]


def test_meta_pseudo_labels(monkeypatch):
    """Labels 0, 2, 1. The student's loss on u_s is 1.090489; its update takes the labeled loss from 0.946439 to
    0.844512, so h = 0.101927. Teacher: sup 0.555427, unsup 0.017872, and h x 0.830268 = 0.084627.
    """
    fixed_labels(monkeypatch, *DRAWN)
    run = two_nets(PAPER)
    (first, first_grads), (second, second_grads) = steps(run)
    student, after, before, later, h = expected()
    assert [student, before, later, h] == shown([1.090489, 0.946439, 0.844512, 0.101927])
    assert first == {"student": near(student), "student_sup": 0.0}
    assert set(first_grads) == {"student"} and set(second_grads) == {"teacher"}
    assert [row.tolist() for row in run.nets["student"].weight] == [shown(row) for row in after]
    sup, unsup, meta = parts_of_the_teacher()
    assert [sup, unsup, meta] == shown([0.555427, 0.017872, 0.830268])
    assert second == {"sup": near(sup), "unsup": near(unsup), "meta": near(h * meta)} and h * meta == near(0.084627)
    assert run.state["usual_gain"].item() == near(0.1 * h) and run.flush()["h"].item() == near(h)


def parts_of_the_teacher(labels=DRAWN):
    """Its labeled loss, KL(softmax(u_w) || u_s) and CE(label, u_w)."""
    p = [softmax(z) for z in logits(ROWS["u_w"], TEACHER)]
    s = logits(ROWS["u_s"], TEACHER)
    unsup = average(ce(q, z) + sum(v * math.log(v) for v in q) for q, z in zip(p, s, strict=True))
    return loss(TEACHER, ROWS["x"], one_hot(CLASSES)), unsup, loss(TEACHER, ROWS["u_w"], one_hot(labels))


def test_gradient_of_the_teacher(monkeypatch):
    """sup + unsup + h * (rows^T (softmax - label) / N) through u_w; targets and h carry none."""
    fixed_labels(monkeypatch, *DRAWN)
    (_, _), (_, grads) = steps(two_nets(PAPER))
    h = expected()[-1]
    p = [softmax(z) for z in logits(ROWS["u_w"], TEACHER)]
    terms = [
        (1.0, gradient(TEACHER, ROWS["x"], one_hot(CLASSES))),
        (1.0, gradient(TEACHER, ROWS["u_s"], p)),
        (h, gradient(TEACHER, ROWS["u_w"], one_hot(DRAWN))),
    ]
    for d in range(2):
        assert grads["teacher"][d].tolist() == shown(sum(f * g[d][c] for f, g in terms) for c in range(3))


def test_gradient_of_the_student(monkeypatch):
    """rows^T (softmax - label) / N through u_s, and label_weight times the same through x."""
    fixed_labels(monkeypatch, *DRAWN)
    (losses, grads), _ = steps(two_nets(replace(PAPER, label_weight=0.5)))
    by = gradient(STUDENT, ROWS["u_s"], one_hot(DRAWN)), gradient(STUDENT, ROWS["x"], one_hot(CLASSES))
    for d in range(2):
        assert grads["student"][d].tolist() == shown(a + 0.5 * b for a, b in zip(by[0][d], by[1][d], strict=True))
    assert losses["student_sup"] == near(0.5 * 0.946439)


def test_without_the_meta_term_the_teacher_is_uda(monkeypatch):
    """h is 0 at clip_h 0, and the term counts nothing at meta_weight 0: losses and gradient of UDA on the teacher."""
    fixed_labels(monkeypatch, *DRAWN)
    at = {"threshold": 0.45, "temperature": 0.4, "weight": 3.0}  # p of the rows: 0.66, 0.52, 0.43
    z = {view: (rows @ tensor(TEACHER)).requires_grad_() for view, rows in VIEWS.items()}
    wanted = step_losses(UDA(**at), z, torch.tensor(CLASSES))
    sum(wanted.values()).backward()
    by = sum(VIEWS[view].T @ z[view].grad for view in ("x", "u_s"))
    for off in ({"clip_h": 0.0}, {"meta_weight": 0.0}):
        (_, _), (losses, grads) = steps(two_nets(MetaPseudoLabels(**at, **off)))
        assert losses == {**{k: near(v.item()) for k, v in wanted.items()}, "meta": 0.0}
        assert torch.allclose(grads["teacher"], by, atol=1e-9)
    (_, _), (losses, grads) = steps(two_nets(MetaPseudoLabels(**at, clip_h=10.0)))
    assert losses["meta"] > 0.01 and not torch.allclose(grads["teacher"], by, atol=1e-3)


def test_sign_and_weight_of_the_meta_term(monkeypatch):
    """The released code has after - before: -0.084627. Weight 3: 0.253881."""
    fixed_labels(monkeypatch, *DRAWN)
    found = [
        steps(two_nets(replace(PAPER, **changed)))[1][0]["meta"]
        for changed in ({"sign": "official"}, {"meta_weight": 3.0})
    ]
    assert found == shown([-0.084627, 0.253881])


@pytest.mark.parametrize(
    ("usual", "sign", "h"), [(0.0, "theory", 0.02), (0.3, "theory", -0.02), (0.0, "official", -0.02)]
)
def test_h_is_cut_on_both_sides(monkeypatch, usual, sign, h):
    """0.101927 and 0.101927 - 0.3 lie beyond +-0.02; the running mean takes the gain as it is."""
    fixed_labels(monkeypatch, *DRAWN)
    run = two_nets(replace(PAPER, clip_h=0.02, sign=sign))
    run.state["usual_gain"] = torch.tensor(usual)
    assert steps(run)[1][0]["meta"] == near(h * 0.830268)
    gain = -0.101927 if sign == "official" else 0.101927
    assert run.state["usual_gain"].item() == near(0.9 * usual + 0.1 * gain)


def test_usual_gain_over_two_steps(monkeypatch):
    """The second h is its own gain less half of the first, at a decay of 0.5; then the mean takes it in."""
    fixed_labels(monkeypatch, *DRAWN)
    run = two_nets(replace(PAPER, baseline_decay=0.5))
    steps(run)
    run.flush()
    y = one_hot(CLASSES)
    before = loss(run.nets["student"].weight.tolist(), ROWS["x"], y)
    steps(run)
    gain = before - loss(run.nets["student"].weight.tolist(), ROWS["x"], y)
    first = expected()[-1]
    assert abs(gain - first) > 1e-3
    assert run.flush()["h"].item() == near(gain - first / 2)
    assert run.state["usual_gain"].item() == near(first / 4 + gain / 2)


def test_an_update_that_was_skipped_judges_nothing(monkeypatch):
    """As when a gradient is not finite: h is 0 whatever is usual, and what is usual stays."""
    fixed_labels(monkeypatch, *DRAWN)
    run = two_nets(PAPER)
    run.state["usual_gain"] = torch.tensor(0.25)
    (_, _), (losses, _) = steps(run, skipped=True)
    assert losses["meta"] == 0.0 and losses["sup"] > 0.1
    assert run.state["usual_gain"].item() == 0.25
    (_, _), (losses, _) = steps(run)
    assert losses["meta"] == near((0.101927 - 0.25) * parts_of_the_teacher_now(losses))


def parts_of_the_teacher_now(losses):
    """CE(label, u_w) of the teacher after it was updated once, by its other terms alone."""
    p = [softmax(z) for z in logits(ROWS["u_w"], TEACHER)]
    by = [gradient(TEACHER, ROWS["x"], one_hot(CLASSES)), gradient(TEACHER, ROWS["u_s"], p)]
    now = moved(moved(TEACHER, by[0], RATE), by[1], RATE)
    assert losses["sup"] == near(loss(now, ROWS["x"], one_hot(CLASSES)))
    return loss(now, ROWS["u_w"], one_hot(DRAWN))


def test_labels_that_are_right_are_made_more_likely():
    """The pool is the labeled rows once more and the label is the true one: h > 0, and the teacher comes to believe it
    more than it does by its other terms. The opposite label: h < 0."""
    views = {view: VIEWS["x"] for view in VIEWS}
    for labels, sign in (((0, 2), 1), ((2, 0), -1)):
        with pytest.MonkeyPatch.context() as patch:
            fixed_labels(patch, *labels)
            believed = []
            for weight in (1.0, 0.0):
                run = two_nets(replace(PAPER, meta_weight=weight))
                steps(run, batch(views))
                assert sign * run.flush()["h"].item() > 0.01
                p = (VIEWS["x"] @ run.nets["teacher"].weight.detach()).softmax(-1)
                believed.append(p[torch.arange(2), torch.tensor(CLASSES)].tolist())
            assert all(a > b + 1e-3 for a, b in zip(*believed, strict=True))


def test_argmax_labels():
    """Of the teacher on u_w, not of the student and not on u_s: 0, 2, 0 there."""
    teacher = [row.index(max(row)) for row in logits(ROWS["u_w"], TEACHER)]
    student = [row.index(max(row)) for row in logits(ROWS["u_w"], STUDENT)]
    assert teacher != student
    (losses, _), _ = steps(two_nets(replace(PAPER, labels="argmax")))
    assert losses["student"] == near(loss(STUDENT, ROWS["u_s"], one_hot(teacher)))


def test_sampled_labels_follow_the_teachers_probabilities():
    """1000 draws of one row's class; the labels' mean log-loss tells the shares."""
    torch.manual_seed(0)
    p = softmax(logits(ROWS["u_w"], TEACHER)[1])
    wanted = ce(p, logits(ROWS["u_w"], STUDENT)[1])
    views = {"x": VIEWS["x"], "u_w": VIEWS["u_w"][1:2].repeat(1000, 1), "u_s": VIEWS["u_w"][1:2].repeat(1000, 1)}
    (losses, _), _ = steps(two_nets(PAPER), batch(views))
    nll = [-math.log(v) for v in softmax(logits(ROWS["u_w"], STUDENT)[1])]
    spread = math.sqrt(sum(q * (v - wanted) ** 2 for q, v in zip(p, nll, strict=True)) / 1000)
    assert losses["student"] == pytest.approx(wanted, abs=3 * spread)
    assert abs(min(nll) - wanted) > 6 * spread, "always the likeliest class would be told apart"


def slopes(weight):
    """Slope of log softmax of u_s along the labeled loss's gradient, at these weights: v - sum_c p_c v_c."""
    v = logits(ROWS["u_s"], gradient(weight, ROWS["x"], one_hot(CLASSES)))
    p = [softmax(z) for z in logits(ROWS["u_s"], weight)]
    return [[a - sum(q * b for q, b in zip(s, row, strict=True)) for a in row] for s, row in zip(p, v, strict=True)]


def test_soft_labels():
    """The student learns p; the teacher's term is mean_N sum_c p_c J_c, J the slope at the updated student: its
    gradient by p is J / N, that of the labeled loss after the update up to the rate."""
    run = two_nets(replace(PAPER, labels="soft", weight=0.0, temperature=0.4))  # the temperature is UDA's alone
    (first, _), (second, grads) = steps(run)
    p = [softmax(row) for row in logits(ROWS["u_w"], TEACHER)]
    assert first["student"] == near(loss(STUDENT, ROWS["u_s"], p))
    j = slopes(moved(STUDENT, gradient(STUDENT, ROWS["u_s"], p), RATE))
    assert second["meta"] == near(
        sum(a * b for q, row in zip(p, j, strict=True) for a, b in zip(q, row, strict=True)) / 3
    )
    weight = tensor(TEACHER).requires_grad_()
    (torch.nn.functional.cross_entropy(VIEWS["x"] @ weight, torch.tensor(CLASSES))
     + ((VIEWS["u_w"] @ weight).softmax(-1) * tensor(j)).sum() / 3).backward()  # fmt: skip
    assert torch.allclose(grads["teacher"], weight.grad, atol=1e-6)
    small = two_nets(replace(PAPER, labels="soft", weight=0.0, clip_h=0.01))
    cut = steps(small)[1][0]["meta"]
    size = [0.01 / max(map(abs, row)) for row in j]
    assert max(size) < 1
    wanted = sum(k * a * b for k, q, row in zip(size, p, j, strict=True) for a, b in zip(q, row, strict=True)) / 3
    assert cut == near(wanted)
    back = steps(two_nets(replace(PAPER, labels="soft", weight=0.0, sign="official")))[1][0]["meta"]
    assert back == near(-second["meta"])


def test_soft_labels_with_weighted_rows():
    """The slope goes along the gradient of (2 a + 0.5 b) / 2: rows of x and their errors times 2 and 0.5."""
    run = two_nets(replace(PAPER, labels="soft", weight=0.0))
    (_, _), (second, _) = steps(run, batch(w=[2.0, 0.5]))
    after = run.nets["student"].weight.tolist()
    off = [
        [k * (p - t) for p, t in zip(softmax(z), target, strict=True)]
        for k, z, target in zip((2.0, 0.5), logits(ROWS["x"], after), one_hot(CLASSES), strict=True)
    ]
    way = [[average(r[d] * o[c] for r, o in zip(ROWS["x"], off, strict=True)) for c in range(3)] for d in range(2)]
    wanted = []
    for q, v, z in zip(logits(ROWS["u_w"], TEACHER), logits(ROWS["u_s"], way), logits(ROWS["u_s"], after), strict=True):
        centre = sum(a * b for a, b in zip(softmax(z), v, strict=True))
        wanted.append(sum(a * (b - centre) for a, b in zip(softmax(q), v, strict=True)))
    assert second["meta"] == near(average(wanted)) and abs(average(wanted)) > 1e-3


def test_labels_drawn_after_alignment_are_moved_there(monkeypatch):
    """Shares 0.5 0.2 0.3: labels come from the aligned probabilities q, and h moves q by h * (q - label)."""
    fixed_labels(monkeypatch, *DRAWN)
    run = two_nets(replace(PAPER, weight=0.0))
    run.spec = replace(run.spec, prior=(0.5, 0.2, 0.3))
    run.state["pool_mean"] = torch.full((3,), 1 / 3)
    (_, _), (_, grads) = steps(run)
    p = [softmax(z) for z in logits(ROWS["u_w"], TEACHER)]
    mean = [0.95 / 3 + 0.05 * average(column) for column in zip(*p, strict=True)]
    raised = [[v * s / m for v, s, m in zip(row, (0.5, 0.2, 0.3), mean, strict=True)] for row in p]
    q = [[v / sum(row) for v in row] for row in raised]
    h = expected()[-1]
    by = gradient(TEACHER, ROWS["x"], one_hot(CLASSES))
    for d in range(2):
        meta = [
            average(r[d] * (a[c] - t[c]) for r, a, t in zip(ROWS["u_w"], q, one_hot(DRAWN), strict=True))
            for c in range(3)
        ]
        assert grads["teacher"][d].tolist() == pytest.approx(
            [b + h * m for b, m in zip(by[d], meta, strict=True)], abs=1e-5
        )


def test_row_weights_count_in_both_nets_and_in_h(monkeypatch):
    """(2 a + 0.5 b) / 2 of the two labeled rows."""
    fixed_labels(monkeypatch, *DRAWN)
    run = two_nets(replace(PAPER, label_weight=1.0))
    (first, _), (second, _) = steps(run, batch(w=[2.0, 0.5]))

    def weighed(weight):
        a, b = (ce(t, z) for t, z in zip(one_hot(CLASSES), logits(ROWS["x"], weight), strict=True))
        return (2 * a + 0.5 * b) / 2

    assert first["student_sup"] == near(weighed(STUDENT)) and second["sup"] == near(weighed(TEACHER))
    assert run.flush()["h"].item() == near(weighed(STUDENT) - weighed(run.nets["student"].weight.tolist()))


def test_ramp_and_threshold(monkeypatch):
    """A quarter of ramp_up 0.4 at progress 0.1; the mask looks at p before sharpening: 0.655, 0.520, 0.426."""
    fixed_labels(monkeypatch, *DRAWN)
    whole = steps(two_nets(replace(PAPER, temperature=0.4)))[1][0]["unsup"]
    part = steps(two_nets(replace(PAPER, temperature=0.4, ramp_up=0.4), progress=0.1))[1][0]["unsup"]
    assert part == near(whole / 4) and whole > 0.01
    one = steps(two_nets(replace(PAPER, temperature=0.4, threshold=0.6)))[1][0]["unsup"]
    target = softmax(logits(ROWS["u_w"], TEACHER)[0], 0.4)
    z = logits(ROWS["u_s"], TEACHER)[0]
    assert one == near((ce(target, z) + sum(v * math.log(v) for v in target)) / 3)


def test_labels_and_judgement_have_no_dropout():
    """Labels: teacher on u_w. Judgement: student on x, before and after. What learns has dropout, in one pass each."""
    run = two_nets(PAPER)
    steps(run)
    assert run.nets["student"].asked == ["x", "x u_s+g", "x"]
    assert run.nets["teacher"].asked == ["u_w", "x u_w u_s+g"]


def test_last_stage_trains_the_student_on_labels_alone():
    """From progress 0.8 on: one update, and the teacher is not asked."""
    method = replace(PAPER, finetune=0.2)
    assert len(steps(two_nets(method, progress=0.799))) == 2
    run = two_nets(method, progress=0.8)
    ((losses, grads),) = steps(run)
    assert losses == {"student_sup": near(loss(STUDENT, ROWS["x"], one_hot(CLASSES)))}
    assert set(grads) == {"student"} and run.nets["teacher"].asked == []
    assert run.state["usual_gain"].item() == 0.0


# --- the exact gradient of soft labels


def linear(theta, rows):
    return rows @ theta


def update_loss(target, student=linear, theta=None):
    """Labeled loss after the student's step on soft labels, in plain tensor arithmetic."""
    theta = (tensor(STUDENT) if theta is None else theta).clone().requires_grad_()
    u = -(target * student(theta, VIEWS["u_s"]).log_softmax(-1)).sum(-1).mean()
    (by,) = torch.autograd.grad(u, [theta])
    after = theta.detach() - RATE * by
    y = torch.tensor(CLASSES)
    return -student(after, VIEWS["x"]).log_softmax(-1)[torch.arange(2), y].mean().item()


def finite_difference(f, at, size=1e-5):
    found = torch.zeros_like(at)
    for i in range(at.numel()):
        step = torch.zeros_like(at).view(-1)
        step[i] = size
        step = step.view_as(at)
        found.view(-1)[i] = (f(at + step) - f(at - step)) / (2 * size)
    return found


def curved(theta, rows):
    return torch.tanh(rows @ theta) @ torch.tensor([[1.0, 0.5, -1.0], [0.2, -0.7, 0.4], [-0.3, 0.8, 0.6]]).double()


@pytest.mark.parametrize("student", [linear, curved])
def test_label_gradient_is_the_finite_difference(student):
    """For a linear student and for one with a hidden layer."""
    target = (VIEWS["u_w"] @ tensor(TEACHER)).softmax(-1)
    found = label_gradient(student, tensor(STUDENT), VIEWS["u_s"], target, VIEWS["x"], torch.tensor(CLASSES), RATE)
    wanted = finite_difference(lambda t: update_loss(t, student), target)
    assert (found - wanted).abs().max() < 1e-9 and wanted.abs().min() > 1e-3


def test_label_gradient_by_hand():
    """rate / N * (v - softmax . v), v = u @ g of a row, g the labeled gradient after the update.

    Row 0: -0.041303 0.003742 0.047060.
    """
    target = [softmax(z) for z in logits(ROWS["u_w"], TEACHER)]
    after = moved(STUDENT, gradient(STUDENT, ROWS["u_s"], target), RATE)
    v = logits(ROWS["u_s"], gradient(after, ROWS["x"], one_hot(CLASSES)))
    s = [softmax(z) for z in logits(ROWS["u_s"], STUDENT)]
    wanted = [
        [RATE / 3 * (a - sum(p * b for p, b in zip(q, row, strict=True))) for a in row]
        for q, row in zip(s, v, strict=True)
    ]
    assert wanted[0] == shown([-0.041303, 0.003742, 0.047060])
    found = label_gradient(
        linear, tensor(STUDENT), VIEWS["u_s"], tensor(target), VIEWS["x"], torch.tensor(CLASSES), RATE
    )
    assert torch.allclose(found, tensor(wanted), atol=1e-9)


def test_the_teachers_gradient_through_the_students_update():
    """Chain rule through a linear teacher's softmax: its weights' gradient is the finite difference."""
    weight = tensor(TEACHER).requires_grad_()
    target = (VIEWS["u_w"] @ weight).softmax(-1)
    by = label_gradient(linear, tensor(STUDENT), VIEWS["u_s"], target, VIEWS["x"], torch.tensor(CLASSES), RATE)
    assert not by.requires_grad
    (target * by).sum().backward()
    wanted = finite_difference(lambda w: update_loss((VIEWS["u_w"] @ w).softmax(-1)), tensor(TEACHER))
    assert (weight.grad - wanted).abs().max() < 1e-9 and wanted.abs().max() > 1e-3


def test_on_average_h_points_where_the_exact_gradient_does():
    """Over all 27 draws of three labels: E[h * grad CE(label, u_w)] against the exact gradient of the loss after the
    update. Small steps, so that the loss is linear in the labels: they agree to a hundredth."""
    rate = 1e-3
    p = [softmax(z) for z in logits(ROWS["u_w"], TEACHER)]
    y = one_hot(CLASSES)
    total = torch.zeros(2, 3, dtype=torch.float64)
    for number in range(27):
        labels = (number // 9, number // 3 % 3, number % 3)
        after = moved(STUDENT, gradient(STUDENT, ROWS["u_s"], one_hot(labels)), rate)
        h = loss(STUDENT, ROWS["x"], y) - loss(after, ROWS["x"], y)
        chance = math.prod(row[k] for row, k in zip(p, labels, strict=True))
        # The mean over rows of the method stands for the sum that the expectation's derivative has: 3 rows.
        total += chance * h * 3 * tensor(gradient(TEACHER, ROWS["u_w"], one_hot(labels)))
    weight = tensor(TEACHER).requires_grad_()
    target = (VIEWS["u_w"] @ weight).softmax(-1)
    by = label_gradient(linear, tensor(STUDENT), VIEWS["u_s"], target, VIEWS["x"], torch.tensor(CLASSES), rate)
    (target * by).sum().backward()
    assert (total - weight.grad).norm() < 0.01 * weight.grad.norm()


# --- two ranks


def _of_rank(rank, world):
    """Labeled row and half of the pool of this rank; with one process all of them."""
    pool = torch.cat([VIEWS["u_w"], VIEWS["x"][:1]]), torch.cat([VIEWS["u_s"], VIEWS["x"][1:]])
    mine, half = slice(rank * 2 // world, (rank + 1) * 2 // world), slice(rank * 4 // world, (rank + 1) * 4 // world)
    views = {"x": VIEWS["x"][mine], "u_w": pool[0][half], "u_s": pool[1][half]}
    return batch(views, y=CLASSES[mine])


def two_steps(rank, world):
    """State, weights and h after two steps."""
    found = {}
    for method in (replace(PAPER, labels="argmax"), Distillation(normalise=True, alpha=0.4)):
        run = two_nets(method)
        given = _of_rank(rank, world)
        for _ in range(2):
            if method.name == "distillation":
                losses = method.step(run, given)
                found["ratio"] = (losses["unsup"] / distributed.mean(torch.ones(1))).item()
            else:
                steps(run, given)
                found["h"] = run.flush()["h"].item()
                found |= {role: net.weight.tolist() for role, net in run.nets.items()}
        found |= {name: value.tolist() for name, value in run.state.items()}
    return found


def on_rank(rank, folder):
    (folder / f"{rank}.json").write_text(json.dumps(two_steps(rank, ranks.WORLD)))


@pytest.mark.ddp
def test_two_ranks_judge_together(tmp_path):
    """h, both nets and the running means are those of one process with all rows, and equal on both ranks."""
    ranks.spawn(on_rank, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks.WORLD))
    whole = two_steps(0, 1)
    assert abs(whole["h"]) > 1e-3
    for name in ("h", "usual_gain", "mean_losses", "mass", "student", "teacher"):
        assert first[name] == second[name], name
        assert np.allclose(first[name], whole[name], atol=1e-6), name
    alone = two_steps(0, 2)  # what a rank would find if it judged for itself
    assert abs(alone["h"] - whole["h"]) > 1e-3 and abs(alone["mean_losses"][1] - whole["mean_losses"][1]) > 1e-3


# --- nets given to the loop


@dataclass(frozen=True)
class Watched(Distillation):
    """Keeps what the teacher is and says."""

    seen: ClassVar[list] = []

    def step(self, run, batch):
        net = run.nets["teacher"]
        with torch.no_grad():
            (z,) = net(batch, "u_w", dropout=False)
            whole = net.module.eval()(net.inputs_of(batch, ["u_w"])[0])
        self.seen.append((net.module, z, whole))
        return super().step(run, batch)


@pytest.fixture
def seen():
    Watched.seen.clear()
    return Watched.seen


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny_task(tmp_path_factory.mktemp("teachers"), dropout=0.0, strong=TfidfReplace(0.5))


@pytest.fixture(scope="module")
def larger(tmp_path_factory, task):
    """A saved classifier of another depth, trained on the labels."""
    folder = tmp_path_factory.mktemp("larger")
    tiny_bert(folder / "fresh", dropout=0.0)
    net = load_text_net(str(folder / "fresh"), task.data.classes)
    fit(Supervised(), replace(task.without_pool(), build=lambda i: net), FAST, folder=folder / "model")
    return str(folder / "model")


def distill(task, method=None, config=FAST, **more):
    return train(method or Distillation(), task, config, **more)


def back_to_step_2(folder):
    """As if the run of four steps had been killed after three."""
    (last,) = (folder / "checkpoints").glob("*4")
    shutil.rmtree(last)
    left = checkpoint.load_latest(folder / "checkpoints")
    assert left is not None and left[0].step == 2
    (folder / "result.json").unlink()


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_a_given_teacher_teaches_and_stays_as_it_is(task, larger, seen):
    teacher = load_teacher(larger, task.build(0))
    before, wanted = weights(teacher), [p.requires_grad for p in teacher.parameters()]
    found = distill(task, Watched(alpha=1.0), frozen_nets={"teacher": teacher})
    used = seen[0][0]
    assert used is not teacher and difference(weights(used), before) == 0.0
    assert not any(p.requires_grad for p in used.parameters())
    assert difference(weights(teacher), before) == 0.0
    assert teacher.training and [p.requires_grad for p in teacher.parameters()] == wanted
    assert difference(weights(found.module), weights(distill(task, Distillation(alpha=1.0)).module)) > 1e-3


def test_a_teacher_that_is_not_given_is_the_started_student(task, seen):
    started = []

    def start(module, number):
        with torch.no_grad():
            module.classifier.weight.add_(1.0)
        started.append(weights(module))

    found = distill(task, Watched(), start=start)
    assert difference(weights(seen[-1][0]), started[0]) == 0.0
    assert difference(weights(found.module), started[0]) > 1e-4


def test_a_teacher_that_nothing_has_trained_is_warned_of(task, larger):
    """Also where a start is there and set to none; not where it trains, where a teacher is given, where none is."""
    warning = "distillation: the teacher is a copy of the student before training: add --warm-start supervised"
    silent = replace(FAST, guard=False)

    def warned(*more, **given):
        return [w for w in distill(task, *more, **given).warnings if w.startswith(warning)]

    assert len(warned(config=silent)) == 1
    assert len(warned(config=replace(silent, warm_start="none"), start=lambda module, number: None)) == 1
    assert not warned(config=replace(silent, warm_start="auto"), start=lambda module, number: None)
    assert not warned(config=silent, frozen_nets={"teacher": load_teacher(larger, task.build(0))})
    assert not warned(MeanTeacher(), config=silent)


def test_a_student_on_labels_alone_does_not_hear_its_teacher(task):
    method = Distillation(alpha=0.0)
    assert difference(trained(Supervised(), task), trained(method, task)) < 1e-5
    assert difference(trained(Supervised(), task), trained(Distillation(alpha=0.9), task)) > 1e-4


@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_teacher_answers_as_it_would_when_predicting(kind, seen, tmp_path):
    """No dropout, and norms by the statistics they have, not by those of the batch."""
    task = tiny_images() if kind == "images" else tiny_task(tmp_path, dropout=0.3)
    fit(Watched(), task, FAST)
    for _, said, whole in seen:
        assert torch.allclose(said, whole, atol=1e-5)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("method", "role", "takes"),
    [(Distillation(), "techer", "it takes: teacher"), (Distillation(), "student", "it takes: teacher"),
     (MeanTeacher(), "teacher", "it takes: none")],
)  # fmt: skip
def test_only_frozen_nets_can_be_given(task, method, role, takes):
    with pytest.raises(ConfigError, match=f"SSL233: {method.name} takes no net '{role}'; {takes}") as error:
        distill(task, method, frozen_nets={role: task.build(0)})
    assert "\n" not in str(error.value)


def test_a_teacher_of_other_classes_is_refused(task, tmp_path):
    other = load_text_net(str(tiny_bert(tmp_path, classes=3)))
    with pytest.raises(ConfigError, match="SSL234: the teacher knows 3 classes, the data have 2"):
        distill(task, frozen_nets={"teacher": other})


def test_a_run_goes_on_with_its_own_teacher_only(task, larger, tmp_path):
    """Bit for bit where the teacher is the same, and refused where it is another, or none."""
    teacher, config = (
        load_teacher(larger, task.build(0)),
        replace(FAST, max_steps=4, save_steps=2, lr_scheduler_type="linear"),
    )
    whole = distill(
        task, Distillation(normalise=True), config, frozen_nets={"teacher": teacher}, folder=RunFolder(tmp_path / "a")
    )
    back_to_step_2(tmp_path / "a")
    again = distill(
        task,
        Distillation(normalise=True),
        config,
        frozen_nets={"teacher": teacher},
        folder=RunFolder(tmp_path / "a", resume=True),
    )
    assert difference(weights(whole.module), weights(again.module)) == 0.0
    with torch.no_grad():
        teacher.classifier.bias.add_(1e-3)
    for given in ({"teacher": teacher}, None):
        with pytest.raises(ConfigError, match="SSL214.*frozen_nets.teacher"):
            distill(
                task,
                Distillation(normalise=True),
                config,
                frozen_nets=given,
                folder=RunFolder(tmp_path / "a", resume=True),
            )


def test_meta_pseudo_labels_resumes_bit_equal(task, tmp_path):
    method, config = (
        MetaPseudoLabels(threshold=0.5),
        replace(FAST, max_steps=4, save_steps=2, lr_scheduler_type="linear"),
    )
    whole = distill(task, method, config, folder=RunFolder(tmp_path / "a"))
    back_to_step_2(tmp_path / "a")
    again = distill(task, method, config, folder=RunFolder(tmp_path / "a", resume=True))
    assert difference(weights(whole.module), weights(again.module)) == 0.0


def test_a_whole_run_of_the_last_stage_is_supervised_training(task):
    assert difference(trained(MetaPseudoLabels(finetune=1.0), task), trained(Supervised(), task)) < 1e-5
    assert difference(trained(MetaPseudoLabels(), task), trained(Supervised(), task)) > 1e-4


# --- teachers from folders


def renamed(folder, words):
    """The same model with other words in its tokenizer."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {words.get(word, word): number for word, number in vocab.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return str(folder)


def test_a_saved_teacher_is_opened(larger, task):
    assert load_teacher(larger, task.build(0)).classifier.out_features == 2


def test_a_teacher_that_reads_other_tokens_is_refused(task, larger, tmp_path):
    shutil.copytree(larger, tmp_path / "words")
    with pytest.raises(ConfigError, match="SSL235.*another tokenizer than the student") as error:
        load_teacher(renamed(tmp_path / "words", {"good": "gut"}), task.build(0))
    assert "\n" not in str(error.value)
    shutil.copytree(larger, tmp_path / "split")
    tokenizer = json.loads((tmp_path / "split/tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {"type": "WhitespaceSplit"}  # the same words, found in another way
    (tmp_path / "split/tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match="SSL235"):
        load_teacher(str(tmp_path / "split"), task.build(0))


def test_a_teacher_with_the_classes_in_another_order_is_refused(task, larger, tmp_path):
    shutil.copytree(larger, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config |= {"id2label": {"0": "pos", "1": "neg"}, "label2id": {"pos": 0, "neg": 1}}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="SSL238.*pos, neg, the student neg, pos, in this order"):
        load_teacher(str(tmp_path / "model"), task.build(0))


def test_a_teacher_for_shorter_texts_is_refused(task, larger):
    """The tiny model has 64 positions; its student was made for texts of 24 tokens."""
    student = task.build(0)
    student.tokenizer.model_max_length = 64
    load_teacher(larger, student)
    student.longest, student.tokenizer.model_max_length = lambda: 512, 65
    with pytest.raises(ConfigError, match="SSL239.*positions for 64 tokens, not 65: lower max_length"):
        load_teacher(larger, student)
