"""Label propagation, temporal ensembling, entropy terms and R-Drop, against numbers worked out by hand.

    ZX  [ 2.0,  0.5, -1.0]   -ln p 0.241311 1.741311 3.241311   class 0
        [ 0.2,  0.1,  0.4]   -ln p 1.139831 1.239831 0.939831   class 2
    ZW  [ 4.0,  0.0, -1.0]   -ln p 0.024745 4.024745 5.024745   H 0.129083
        [ 1.0,  0.9,  0.8]   -ln p 1.001943 1.101943 1.201943   H 1.095287
        [-2.0,  3.0,  0.5]   -ln p 5.085097 0.085097 2.585097   H 0.304511
        [ 0.0,  0.0,  5.0]   -ln p 5.013386 5.013386 0.013386   H 0.079869
    ZS  [ 2.0,  1.0,  0.0]   -ln p 0.407606 1.407606 2.407606
        [ 0.5,  0.5,  0.0]   -ln p 0.958020 0.958020 1.458020
        [ 0.0,  1.0,  1.5]   -ln p 2.104131 1.104131 0.604131
        [ 1.0, -1.0,  2.0]   -ln p 1.349012 3.349012 0.349012

The expected side is plain Python, every number twice: the six digits of the docstring and the formula.
"""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from tiny import FAST, tiny_images, tiny_task, trained

from nlp_ssl.methods import UDA, EntropyMin, LabelPropagation, PseudoLabel, RDrop, TemporalEnsembling
from nlp_ssl.ops.functional import symmetric_kl
from nlp_ssl.run import StepContext
from nlp_ssl.testing import step_losses
from nlp_ssl.types import DataSpec

ZX = [[2.0, 0.5, -1.0], [0.2, 0.1, 0.4]]
ZW = [[4.0, 0.0, -1.0], [1.0, 0.9, 0.8], [-2.0, 3.0, 0.5], [0.0, 0.0, 5.0]]
ZS = [[2.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 1.5], [1.0, -1.0, 2.0]]
CLASSES = [0, 2]
SUP = 0.590571  # (0.241311 + 0.939831) / 2


# --- the expected side


def softmax(row):
    powers = [math.exp(v) for v in row]
    return [v / sum(powers) for v in powers]


def entropy(p):
    return -sum(v * math.log(v) for v in p)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def squared(p, q):
    return sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / len(p)


def symmetric(a, b):
    p, q = softmax(a), softmax(b)
    return sum(u * math.log(u / v) + v * math.log(v / u) for u, v in zip(p, q, strict=True)) / 2


def near(value, by=1e-6):
    return pytest.approx(value, abs=by)


# --- the side under test


def tensors(**rows):
    return {view: torch.tensor(z, dtype=torch.float64) for view, z in rows.items()}


def losses(method, labels=CLASSES, *, progress=1.0, state=None, ids=None, **rows):
    ids = None if ids is None else torch.tensor(ids)
    found = step_losses(method, tensors(**rows), torch.tensor(labels), progress=progress, state=state, ids=ids)
    return {name: v.item() for name, v in found.items()}


def gradients(method, labels=CLASSES, *, state=None, only=None, **rows):
    z = {view: v.requires_grad_() for view, v in tensors(**rows).items()}
    found = step_losses(method, z, torch.tensor(labels), state=state)
    (found[only] if only else sum(found.values())).backward()
    return {view: None if v.grad is None else v.grad.tolist() for view, v in z.items()}


def with_prior(method, prior):
    """The same method in a run whose class shares were estimated."""
    cls = type(method)

    def step(self, run, batch):
        run.spec = replace(run.spec, prior=prior)
        return cls.step(self, run, batch)

    return type(cls.__name__, (cls,), {"step": step})(**asdict(method))


# --- label_propagation

# Corners of a hexagon: neighbors on the ring 0-1-2-3-4-5 have cosine 1/2, all others a negative one.
RING = [[1.0, -1.0, 0.0], [1.0, 0.0, -1.0], [0.0, 1.0, -1.0], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0], [0.0, -1.0, 1.0]]


def test_label_propagation_from_features_to_loss():
    """Rows 0 and 3 are labeled, 0 and 1 of three classes; the features are the logits.

    r = (1 - sqrt(1 - 0.99^2)) / 0.99 = 0.867609; z_d = r^d + r^(6-d) at distance d from a label.
    P: labeled z0 / (z0 + z3) = 0.522020, pool z1 / (z1 + z2) = 0.507438 for the nearer label, none for class 2.
    w: (1 - H(0.507438) / ln 3) / (1 - H(0.522020) / ln 3) = 0.369171 / 0.369953 = 0.997885 for all four rows.
    zeta: 3 + 3 + 0 rows of three classes, (6 / 3) / 3 = 0.666667.
    CE of the pool against the nearer label's class 0, 1, 1, 0: 0.407606 twice, 1.407606 twice, mean 0.907606.
    0.997885 x 0.666667 x 0.907606 = 0.603791.
    """
    pool = [RING[i] for i in (1, 2, 4, 5)]
    found = losses(LabelPropagation(), [0, 1], x=[RING[0], RING[3]], u_w=pool)
    r = (1 - math.sqrt(1 - 0.99**2)) / 0.99
    z = [r**d + r ** (6 - d) for d in range(4)]
    labeled, close = z[0] / (z[0] + z[3]), z[1] / (z[1] + z[2])
    w = (1 - entropy([close, 1 - close]) / math.log(3)) / (1 - entropy([labeled, 1 - labeled]) / math.log(3))
    price = mean(-math.log(softmax(row)[label]) for row, label in zip(pool, [0, 1, 1, 0], strict=True))
    assert (w, price, w * 2 / 3 * price) == (near(0.997885), near(0.907606), near(0.603791))
    assert found["unsup"] == near(w * 2 / 3 * price)
    assert found["sup"] == near(mean(-math.log(softmax(RING[i])[c]) for i, c in ((0, 0), (3, 1))))
    tripled = losses(LabelPropagation(weight=3.0), [0, 1], x=[RING[0], RING[3]], u_w=pool)
    assert tripled["unsup"] == near(3 * 0.6037912)


def propagated():
    """State as a round left it: rows of class 0, 1, 1, 2 with weights 1, 0.5, 0, 0.25; classes weigh 0.6, 3, 1."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
    return {"p": p, "weights": torch.tensor([1.0, 0.5, 0.0, 0.25]), "class_weights": torch.tensor([0.6, 3.0, 1.0])}


def test_label_propagation_step():
    """(0.6 x 0.024745 + 0.5 x 3 x 1.101943 + 0 + 0.25 x 0.013386) / 4 = 1.671108 / 4 = 0.417777: by all four rows."""
    assert losses(LabelPropagation(), state=propagated(), x=ZX, u_w=ZW) == {"sup": near(SUP), "unsup": near(0.417777)}
    found = losses(LabelPropagation(), state=propagated(), ids=[3, 0, 1, 2], x=ZX, u_w=[ZW[i] for i in (3, 0, 1, 2)])
    assert found["unsup"] == near(0.417777)  # rows are found by their number in the pool


def test_label_propagation_gradient():
    """w zeta (p - one-hot) / 4. Row 0: 0.6 x (0.975559 - 1) / 4 = -0.003666; row 2 has weight 0."""
    found = gradients(LabelPropagation(), state=propagated(), x=ZX, u_w=ZW)["u_w"]
    assert found[0][0] == near(-0.003666)
    for row, (label, factor) in enumerate([(0, 0.6), (1, 1.5), (1, 0.0), (2, 0.25)]):
        wanted = [factor * (v - (c == label)) / 4 for c, v in enumerate(softmax(ZW[row]))]
        assert found[row] == [near(v, 1e-7) for v in wanted]
    assert found[2] == [0.0, 0.0, 0.0]


def run_with_features(method, x, u, labels):
    """A run of three classes whose features are the given rows."""
    blocks = {"x": torch.tensor(x), "u": torch.tensor(u)}
    spec = DataSpec(num_classes=3, pool_size=len(u), labeled_size=len(x))
    run = StepContext(method, {}, spec, features=lambda role, block: blocks[block], labels=torch.tensor(labels))
    run.state = method.init_state(spec)
    return run, blocks


def test_label_propagation_round_writes_what_the_steps_read():
    """Labels of the pool in the pool's order, then other ones when the features have changed sides."""
    method = LabelPropagation()
    run, blocks = run_with_features(method, [RING[0], RING[3]], [RING[i] for i in (1, 2, 4, 5)], [0, 1])
    assert not run.state["weights"].any()
    method.begin_epoch(run)
    assert run.state["p"].argmax(1).tolist() == [0, 1, 1, 0]
    assert run.state["p"][0].tolist() == [near(0.507438), near(1 - 0.507438), 0.0]
    assert run.state["weights"].tolist() == [near(0.997885)] * 4
    assert run.state["class_weights"].tolist() == [near(2 / 3), near(2 / 3), near(2.0)]
    assert {k: v.dtype for k, v in run.state.items()} == dict.fromkeys(run.state, torch.float32)
    blocks["u"] = torch.tensor([RING[i] for i in (2, 1, 5, 4)])
    method.begin_epoch(run)
    assert run.state["p"].argmax(1).tolist() == [1, 0, 0, 1]


def test_label_propagation_balances_to_the_estimated_shares():
    """Shares of 0.7 and 0.3 for the two classes that have labels: P of class 0 is 0.513738 near its label, 0.498864
    further away (d = 0.029755, b = 1.694662 solves (s(2 + b) + s(b - 2)) / 2 = 0.7, P = s(b d / 2 +- d)).

    Labels stay 3 to 3 and weigh 0.7 x 6 / 3 = 1.4 and 0.3 x 6 / 3 = 0.6.
    """
    method = LabelPropagation()
    run, _ = run_with_features(method, [RING[0], RING[3]], [RING[i] for i in (1, 2, 4, 5)], [0, 1])
    run.spec = replace(run.spec, prior=(0.7, 0.3, 0.0))
    method.begin_epoch(run)
    assert run.state["p"][:, 0].tolist() == [near(v) for v in (0.513738, 0.498864, 0.498864, 0.513738)]
    assert run.state["class_weights"].tolist() == [near(1.4), near(0.6), 0.0]


def test_label_propagation_without_flow_has_no_unlabeled_loss():
    z = {"x": [RING[0], RING[3]], "u_w": [RING[1], RING[2]]}
    assert losses(LabelPropagation(alpha=0.0), [0, 1], **z)["unsup"] == 0.0


def test_label_propagation_rounds():
    assert LabelPropagation().refresh_steps(1000) == 50
    assert LabelPropagation(refresh=7).refresh_steps(1000) == 7
    assert LabelPropagation(refresh=0).refresh_steps(1000) == 1000


# --- temporal_ensembling

SEQUENCE = [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]  # predictions of one row in three visits
RAW = [0.28, 0.368, 0.3008]  # 0.4 x 0.7; 0.6 x 0.28 + 0.4 x 0.5; 0.6 x 0.368 + 0.4 x 0.2
TARGETS = [0.7, 0.575, 0.383673]  # RAW over 1 - 0.6^t = 0.4, 0.64, 0.784
ONE = {"x": ZX, "u_s": [ZS[0]]}  # one pool row; its strong view has p 0.665241, 0.244728, 0.090031


def visit(method, state, p, **more):
    return losses(method, state=state, u_w=[[math.log(v) for v in p]], **ONE, **more)


def empty(rows=1, classes=3):
    return TemporalEnsembling().init_state(DataSpec(num_classes=classes, pool_size=rows, labeled_size=2))


def averages(sequence, decay=0.6):
    """(raw, corrected) averages after every visit."""
    raw, found = [0.0] * len(sequence[0]), []
    for t, p in enumerate(sequence, start=1):
        raw = [decay * a + (1 - decay) * b for a, b in zip(raw, p, strict=True)]
        found.append((raw, [v / (1 - decay**t) for v in raw]))
    return found


def test_temporal_ensembling_over_visits():
    """Class 0: stored raw 0.28, 0.368, 0.3008; targets 0.7, 0.575, 0.383673 at visits 2, 3, 4.

    Divided within the recursion they would be 0.7, 0.96875, 0.843431, and rows of targets sum to 1.55 and more.
    Loss at visit 2: ((0.665241 - 0.7)^2 + (0.244728 - 0.2)^2 + (0.090031 - 0.1)^2) / 3 = 0.001103; visits 3 and 4:
    0.004570, 0.055636.
    """
    method, state, found = TemporalEnsembling(weight=1.0, first="wait"), empty(), []
    wanted = averages(SEQUENCE)
    for t, p in enumerate([*SEQUENCE, [1 / 3] * 3]):
        found.append(visit(method, state, p)["unsup"])
        if t < 3:
            assert state["z"][0].tolist() == [near(v) for v in wanted[t][0]]
            assert state["z"][0, 0].item() == near(RAW[t])
            assert state["visits"].tolist() == [t + 1]
            target = state["z"][0] / (1 - 0.6 ** (t + 1))
            assert target[0].item() == near(TARGETS[t]) and target.sum().item() == near(1.0)
    assert found == [0.0, near(0.001103), near(0.004570), near(0.055636)]
    assert found[1:] == [near(squared(softmax(ZS[0]), target)) for _, target in wanted]


def test_temporal_ensembling_current():
    """The prediction of this visit counts as well: what is the target one visit later otherwise. No loss at first."""
    method, state = TemporalEnsembling(weight=1.0, first="wait", current=True), empty()
    found = [visit(method, state, p)["unsup"] for p in SEQUENCE]
    assert found == [0.0, near(0.004570), near(0.055636)]


def test_temporal_ensembling_counts_visits_row_by_row():
    """Row 5 of the pool is visited twice, row 2 once, the others never: their targets are 0.575 and 0.7."""
    method, state = TemporalEnsembling(weight=1.0, first="wait"), empty(rows=6)
    for ids, p in (([5], SEQUENCE[0]), ([5], SEQUENCE[1]), ([2], SEQUENCE[0])):
        visit(method, state, p, ids=ids)
    assert state["visits"].tolist() == [0, 0, 1, 0, 0, 2]
    assert state["z"][:, 0].tolist() == [0.0, 0.0, near(0.28), 0.0, 0.0, near(0.368)]
    z = {"u_w": [[0.0, 0.0, 0.0]] * 3, "u_s": [ZS[0]] * 3}
    found = losses(method, state=state, ids=[2, 0, 5], x=ZX, **z)
    q = softmax(ZS[0])
    assert found["unsup"] == near((squared(q, [0.7, 0.2, 0.1]) + squared(q, [0.575, 0.2625, 0.1625])) / 3)
    assert found["unsup"] == near((0.001103 + 0.004570) / 3)


def test_temporal_ensembling_starts_with_the_predictions_for_the_pool():
    """One visit each: 0.4 p stored, p the target. A second call, between passes, changes nothing."""
    method = TemporalEnsembling()
    start = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]
    spec = DataSpec(num_classes=3, pool_size=2, labeled_size=2)
    run = StepContext(method, {}, spec, predict=lambda role, block: torch.tensor(start))
    run.state = method.init_state(spec)
    method.begin_epoch(run)
    assert run.state["z"].tolist() == [[near(0.4 * v) for v in row] for row in start]
    assert run.state["visits"].tolist() == [1.0, 1.0]
    assert visit(replace(method, weight=1.0), run.state, SEQUENCE[1], ids=[0])["unsup"] == near(0.001103)
    assert run.state["visits"].tolist() == [2.0, 1.0] and run.state["z"][0, 0].item() == near(0.368)
    before = {k: v.clone() for k, v in run.state.items()}
    method.begin_epoch(run)
    assert all(torch.equal(run.state[k], before[k]) for k in before)
    waiting = TemporalEnsembling(first="wait")
    run.state = waiting.init_state(spec)
    waiting.begin_epoch(run)
    assert not run.state["visits"].any()


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.006738), (0.2, 0.286505), (0.4, 1.0), (1.0, 1.0)])
def test_temporal_ensembling_weight_follows_the_sigmoid_ramp(progress, factor):
    """Targets are the predictions for u_w at the start, as in the Pi-model's first step: 10 x 0.0738345."""
    found = losses(TemporalEnsembling(), progress=progress, x=ZX, u_w=ZW, u_s=ZS)
    assert found["unsup"] == near(factor * 0.738345, 2e-6)
    assert found["unsup"] == near(factor * 10 * mean(map(squared, map(softmax, ZW), map(softmax, ZS))), 1e-5)
    assert found["sup"] == near(SUP)


@pytest.mark.parametrize("current", [False, True])
def test_temporal_ensembling_gradient_goes_into_the_strong_view_alone(current):
    """d/dz_i of mean_c (q - t)^2 is 2/3 q_i (d_i - sum_c q_c d_c), d = q - t. Nothing remembered carries a graph."""
    method, state = TemporalEnsembling(weight=1.0, current=current), empty()
    visit(method, state, SEQUENCE[0])
    target = averages(SEQUENCE)[1 if current else 0][1]
    log_p = [[math.log(v) for v in SEQUENCE[1]]]
    found = gradients(method, state=state, only="unsup", u_w=log_p, **ONE)
    q = softmax(ZS[0])
    d = [a - b for a, b in zip(q, target, strict=True)]
    inner = sum(a * b for a, b in zip(q, d, strict=True))
    assert found["u_s"][0] == [near(2 / 3 * a * (b - inner)) for a, b in zip(q, d, strict=True)]
    assert found["u_w"] is None and not any(v for row in found["x"] for v in row)
    assert not any(v.requires_grad for v in state.values())


# --- entropy_min, and the entropy terms of others


def test_entropy_min():
    """(0.129083 + 1.095287 + 0.304511 + 0.079869) / 4 = 0.402188, for weight 1; even logits have ln 3 = 1.098612."""
    assert losses(EntropyMin(weight=1.0), x=ZX, u_w=ZW) == {"sup": near(SUP), "unsup": near(0.402188)}
    assert losses(EntropyMin(), x=ZX, u_w=ZW)["unsup"] == near(0.1 * mean(entropy(softmax(z)) for z in ZW))
    assert losses(EntropyMin(weight=1.0), x=ZX, u_w=[[5.0, 5.0, 5.0]] * 4)["unsup"] == near(1.098612)


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (0.9, 1.0)])
def test_entropy_min_weights_rise_linearly(progress, factor):
    found = losses(EntropyMin(weight=1.0, prior_weight=1.0), progress=progress, x=ZX, u_w=ZW)
    assert found == {"sup": near(SUP), "unsup": near(factor * 0.402188), "prior": near(factor * 0.000492)}


def test_entropy_min_gradient():
    """-p (ln p + H) / 4, through both factors: with one of them held, it would be zero.

    Row 0: -0.975559 x (-0.024745 + 0.129083) / 4 = -0.025447, then 0.017402, 0.008045. Even rows stay where they are.
    """
    found = gradients(EntropyMin(weight=1.0), x=ZX, u_w=[*ZW[:3], [1.0, 1.0, 1.0]])["u_w"]
    assert found[0] == [near(-0.025447), near(0.017402), near(0.008045)]
    for row in range(3):
        p = softmax(ZW[row])
        assert found[row] == [near(-v * (math.log(v) + entropy(p)) / 4) for v in p]
    assert found[3] == [near(0.0)] * 3


def test_entropy_min_prior():
    """pbar = 0.338890, 0.318791, 0.342319. KL(even || pbar) = 0.000492; KL(0.5, 0.3, 0.2 || pbar) = 0.068755."""
    pbar = [mean(column) for column in zip(*map(softmax, ZW), strict=True)]
    assert pbar == [near(0.338890), near(0.318791), near(0.342319)]
    for prior, digits in ((None, 0.000492), ((0.5, 0.3, 0.2), 0.068755), ((1.0, 0.0, 0.0), 1.082079)):
        found = losses(with_prior(EntropyMin(prior_weight=2.0), prior), x=ZX, u_w=ZW)["prior"]
        assert found == near(2 * sum(a * math.log(a / b) for a, b in zip(prior or [1 / 3] * 3, pbar, strict=True) if a))
        assert found == near(2 * digits, 2e-6)


def test_entropy_min_prior_pulls_towards_rare_classes():
    """d/dz_i of -sum_c prior_c ln pbar_c: more of class 0 lowers the term where class 0 is short of its share."""
    method = with_prior(EntropyMin(weight=0.0, prior_weight=1.0), (0.8, 0.1, 0.1))
    found = gradients(method, only="prior", x=ZX, u_w=ZW)["u_w"]
    ratio = [a / mean(softmax(z)[c] for z in ZW) for c, a in enumerate((0.8, 0.1, 0.1))]
    p = softmax(ZW[1])
    inner = sum(a * b for a, b in zip(p, ratio, strict=True))
    assert found[1] == [near(-a * (b - inner) / 4) for a, b in zip(p, ratio, strict=True)]
    assert found[1][0] < 0


def test_uda_entropy():
    """0.5 x 0.402188 = 0.201094 on the plain texts, beside the same losses as without."""
    z = {"x": ZX, "u_w": ZW, "u_s": ZS}
    plain, found = losses(UDA(), **z), losses(UDA(entropy_weight=0.5), **z)
    assert found == {**plain, "entropy": near(0.201094)} and "entropy" not in plain
    assert found["entropy"] == near(0.5 * mean(entropy(softmax(row)) for row in ZW))


def test_uda_entropy_gradient_goes_into_the_plain_texts():
    """The targets have none as before: 0.5 x -0.025447 = -0.012724 is the entropy's alone, row 0, class 0."""
    z = {"x": ZX, "u_w": ZW, "u_s": ZS}
    assert gradients(UDA(), **z)["u_w"] is None
    found = gradients(UDA(entropy_weight=0.5), **z)
    p = softmax(ZW[0])
    assert found["u_w"][0] == [near(-0.5 * v * (math.log(v) + entropy(p)) / 4) for v in p]
    assert found["u_w"][0][0] == near(-0.012724)
    assert found["u_s"] == gradients(UDA(), **z)["u_s"]


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.0), (0.1, 0.25), (1.0, 1.0)])
def test_pseudo_label_entropy(progress, factor):
    """Of all rows, below the threshold too: 0.5 x 0.402188 = 0.201094, and it rises with the weight."""
    plain = losses(PseudoLabel(), progress=progress, x=ZX, u_w=ZW)
    found = losses(PseudoLabel(entropy_weight=0.5), progress=progress, x=ZX, u_w=ZW)
    assert found == {**plain, "entropy": near(factor * 0.201094)} and "entropy" not in plain


# --- r_drop

FOUR = [0, 1, 1, 2]


def test_r_drop():
    """Passes ZW and ZS over four labeled rows of class 0, 1, 1, 2.

    CE: (0.024745 + 0.407606) / 2 = 0.216175, 1.029981, 0.594614, 0.181199; mean 0.505492.
    (KL + KL) / 2 = 0.465477, 0.012758, 0.938268, 0.534167; mean 0.487667. In all 0.993160.
    """
    found = losses(RDrop(weight=0.0), FOUR, x=ZW, x2=ZS, u_w=ZX, u_w2=ZX)
    assert found == {"sup": near(0.505492), "labeled": near(0.487667), "unsup": 0.0}
    assert sum(found.values()) == near(0.993160)
    pairs = zip(ZW, ZS, FOUR, strict=True)
    assert found["sup"] == near(mean(-(math.log(softmax(a)[c]) + math.log(softmax(b)[c])) / 2 for a, b, c in pairs))
    assert found["labeled"] == near(mean(symmetric(a, b) for a, b in zip(ZW, ZS, strict=True)))


def test_r_drop_on_unlabeled_rows():
    """The same 0.487667, times the weight; the two passes may change places."""
    equal = {"x": ZX, "x2": ZX}
    found = losses(RDrop(weight=3.0), u_w=ZW, u_w2=ZS, **equal)
    assert found == {"sup": near(SUP), "labeled": near(0.0), "unsup": near(1.463002)}
    assert losses(RDrop(weight=3.0), u_w=ZS, u_w2=ZW, **equal) == {k: near(v) for k, v in found.items()}


def test_r_drop_ramp():
    z = {"x": ZX, "x2": ZX, "u_w": ZW, "u_w2": ZS}
    assert losses(RDrop(ramp_up=0.4), progress=0.1, **z)["unsup"] == near(0.25 * 0.487667)
    assert losses(RDrop(), progress=0.0, **z)["unsup"] == near(0.487667)


def test_r_drop_gradient_reaches_both_passes():
    """d/da_i of sum_c (p - q)(ln p - ln q) / 2 is (p_i (l_i - sum_c p_c l_c) + p_i - q_i) / 2, l = ln p - ln q."""
    found = gradients(RDrop(labeled_weight=0.0), only="unsup", x=ZX, x2=ZX, u_w=ZW, u_w2=ZS)
    for view, own, other in (("u_w", ZW, ZS), ("u_w2", ZS, ZW)):
        for row in range(4):
            p, q = softmax(own[row]), softmax(other[row])
            gap = [math.log(a / b) for a, b in zip(p, q, strict=True)]
            inner = sum(a * b for a, b in zip(p, gap, strict=True))
            wanted = [(a * (b - inner) + a - c) / 2 / 4 for a, b, c in zip(p, gap, q, strict=True)]
            assert found[view][row] == [near(v) for v in wanted]
    labeled = gradients(RDrop(), FOUR, only="labeled", x=ZW, x2=ZS, u_w=ZX, u_w2=ZX)
    assert labeled["x"] == found["u_w"] and labeled["x2"] == found["u_w2"]


def test_symmetric_kl_of_certain_rows_is_finite():
    """p = (1, 0) against (0, 1), as far as numbers go: 2e4, with a gradient that is no NaN."""
    a = torch.tensor([[2e4, 0.0], [2e4, 0.0]], requires_grad=True)
    found = symmetric_kl(a, torch.tensor([[0.0, 2e4], [2e4, 0.0]]))
    found.sum().backward()
    assert found.tolist() == [2e4, 0.0] and bool(torch.isfinite(a.grad).all())


def r_drop_metrics(task, folder):
    trained(RDrop(), task, replace(FAST, max_steps=2), folder)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_r_drop_passes_have_their_own_dropout(tmp_path):
    """The same texts twice in one forward: different with dropout, equal without."""
    for rate in (0.3, 0.0):
        for line in r_drop_metrics(tiny_task(tmp_path / str(rate), dropout=rate), tmp_path / f"run {rate}"):
            for name in ("labeled", "unsup"):
                assert line[name] > 1e-5 if rate else line[name] == near(0.0, 1e-9)


def test_r_drop_without_a_pool(tmp_path):
    """Text and images; the paper's method."""
    text, images = tiny_task(tmp_path, dropout=0.3), tiny_images()
    for name, task in (("text", text), ("images", images)):
        (line, *_) = r_drop_metrics(replace(task, data=task.data.without_pool()), tmp_path / name)
        assert line["labeled"] > 0 and "unsup" not in line
