"""Multi-label data: losses against numbers worked out by hand; what is not known teaches nothing.

Logits (2 labeled rows, 2 unlabeled ones, 3 labels) and their sigmoids p:

    ZX  [ 2.0,  0.5, -1.0]   p 0.880797 0.622459 0.268941   labels 1, 0, not known
        [ 0.2, -3.0,  0.4]   p 0.549834 0.047426 0.598688   labels 0, 0, 1
    ZW  [ 4.0,  0.0, -1.0]   p 0.982014 0.500000 0.268941
        [ 1.5, -2.0,  0.8]   p 0.817574 0.119203 0.689974
    ZS  [ 2.0,  1.0,  0.0]   p 0.880797 0.731059 0.500000
        [ 0.5, -0.5,  3.0]   p 0.622459 0.377541 0.952574

Nothing of the library takes part in the expected side.
"""

import math

import numpy as np
import pytest
import torch
from tiny import neutral_draws
from torch.nn import functional as F

from nlp_ssl.inference.metrics import confusion
from nlp_ssl.methods import (
    UDA,
    VAT,
    Adversarial,
    EntropyMin,
    FixMatch,
    MeanTeacher,
    PiModel,
    PseudoLabel,
    RDrop,
    Supervised,
    TemporalEnsembling,
)
from nlp_ssl.ops.multilabel import binary_batch, binary_logits, known_binary
from nlp_ssl.registry import get_method, list_methods
from nlp_ssl.testing import step_losses
from nlp_ssl.types import Batch

ZX = [[2.0, 0.5, -1.0], [0.2, -3.0, 0.4]]
ZW = [[4.0, 0.0, -1.0], [1.5, -2.0, 0.8]]
ZS = [[2.0, 1.0, 0.0], [0.5, -0.5, 3.0]]
Y = [[1, 0, -1], [0, 0, 1]]
LOGITS = {"x": ZX, "x2": ZS, "u_w": ZW, "u_w2": ZS, "u_s": ZS}
ABLE = [name for name in list_methods(in_rounds=False) if "multi-label" in get_method(name).kinds]
SUP = 0.410124


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def bce(z, y):
    """-y ln p - (1 - y) ln(1 - p); 0 where the label is not known."""
    return 0.0 if y < 0 else -math.log(sigmoid(z) if y else 1 - sigmoid(z))


def coin_kl(p, q):
    return sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)


def coin_entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def each(f, *tables):
    """Mean of f over the 6 places of tables of 2 rows and 3 labels."""
    return sum(f(*values) for rows in zip(*tables, strict=True) for values in zip(*rows, strict=True)) / 6


def tensors(method, grad=False):
    views = method.wanted_views()
    return {v: torch.tensor(LOGITS[v], dtype=torch.float64, requires_grad=grad) for v in views}


def losses(method, labels=Y, **more):
    found = step_losses(method, tensors(method), torch.tensor(labels), kind="multi-label", **more)
    return {name: value.item() for name, value in found.items()}


def near(value):
    return pytest.approx(value, abs=1e-6)


def test_supervised_is_the_mean_binary_cross_entropy():
    """-ln .880797 = .126928, -ln .377541 = .974077, 0 (not known); -ln .450166 = .798139, .048587, .513015: / 6."""
    assert each(bce, ZX, Y) == near(SUP)
    assert losses(Supervised()) == {"sup": near((0.126928 + 0.974077 + 0.798139 + 0.048587 + 0.513015) / 6)}
    z, y = torch.tensor(ZX, dtype=torch.float64), torch.tensor(Y)
    whole = F.binary_cross_entropy_with_logits(z, y.double(), weight=(y >= 0).double())
    assert losses(Supervised())["sup"] == near(whole.item())


def test_supervised_smoothing_and_weights():
    smooth = each(lambda z, y: 0.9 * bce(z, y) + (0.05 * (bce(z, 0) + bce(z, 1)) if y >= 0 else 0.0), ZX, Y)
    assert losses(Supervised(label_smoothing=0.1))["sup"] == near(smooth)
    heavy = (2.0 * sum(map(bce, ZX[0], Y[0])) + 0.5 * sum(map(bce, ZX[1], Y[1]))) / 6
    assert losses(Supervised(), w=torch.tensor([2.0, 0.5], dtype=torch.float64))["sup"] == near(heavy)


def test_pseudo_label_takes_the_likelier_answer_of_each_label():
    """max(p, 1 - p): .982014 .5 .731059 .817574 .880797 .689974. From 0.8 on three stay: yes, yes and no.

    (-ln .982014 - ln .817574 - ln .880797) / 6 = (.018150 + .201413 + .126928) / 6 = .057749.
    """
    assert losses(PseudoLabel(threshold=0.8)) == {"sup": near(SUP), "unsup": near(0.057749)}
    doubt = 0.5 * each(lambda z: coin_entropy(sigmoid(z)), ZW)
    assert losses(PseudoLabel(threshold=0.8, entropy_weight=0.5))["entropy"] == near(doubt)


def test_fixmatch():
    """Labels of the weak view as above, on the strong one: -ln .880797 - ln .622459 - ln .622459 = 1.075081, / 6."""
    assert losses(FixMatch(threshold=0.8)) == {"sup": near(SUP), "unsup": near(0.179180)}
    assert losses(FixMatch(threshold=0.0))["unsup"] == near(
        each(lambda w, s: bce(s, int(w > 0)), [[4.0, -0.1, -1.0], ZW[1]], ZS)  # of two equal answers no is taken
    )


def test_uda():
    """Targets sigmoid(z / 0.4) of the three sure labels, .999955 .977023 .006693: KL .126519 .376155 .437244, / 6."""
    kept = [[True, False, False], [True, True, False]]
    wanted = each(lambda w, s, k: k * coin_kl(sigmoid(w / 0.4), sigmoid(s)), ZW, ZS, kept)
    assert wanted == near((0.126519 + 0.376155 + 0.437244) / 6)
    assert losses(UDA()) == {"sup": near(SUP), "unsup": near(wanted)}
    # Annealing at the start: only what is less likely than 0.5 stays, which is one label of five; nothing of unknown.
    assert losses(UDA(tsa="linear"), progress=0.0)["sup"] == near((0.974077 + 0.798139) / 3)


def test_consistency():
    """Squared differences of sigmoids: (.982014 - .880797)^2 = .010245, .053388, .053388, .038070, .066739, .068959."""
    square = each(lambda w, s: (sigmoid(w) - sigmoid(s)) ** 2, ZW, ZS)
    assert square == near((0.010245 + 0.053388 + 0.053388 + 0.038070 + 0.066739 + 0.068959) / 6)
    assert losses(PiModel()) == {"sup": near(SUP), "unsup": near(10 * square)}
    assert losses(MeanTeacher()) == {"sup": near(SUP), "unsup": near(50 * square)}
    assert losses(TemporalEnsembling()) == {"sup": near(SUP), "unsup": near(10 * square)}


def test_temporal_ensembling_remembers_label_by_label():
    """Row 4 is labels 12 to 14. A first visit has no target, and leaves 0.4 p of each answer behind."""
    method = TemporalEnsembling()
    state = {"z": torch.zeros(15, 2, dtype=torch.float64), "visits": torch.zeros(15)}
    found = losses(method, ids=torch.tensor([4, 1]), state=state)
    assert found["unsup"] == 0.0, "no label was seen before"
    assert state["visits"].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert state["z"][12:, 1].tolist() == near([0.4 * sigmoid(z) for z in ZW[0]])
    assert state["z"][3:6, 0].tolist() == near([0.4 * (1 - sigmoid(z)) for z in ZW[1]])


def test_entropy():
    assert losses(EntropyMin()) == {"sup": near(SUP), "unsup": near(0.1 * each(lambda z: coin_entropy(sigmoid(z)), ZW))}


def test_r_drop():
    """(KL + KL) / 2 = (p - q)(a - b) / 2; of a labeled row only where the label is known."""
    both = (each(bce, ZX, Y) + each(bce, ZS, Y)) / 2
    apart = each(lambda a, b, y: (y >= 0) * (sigmoid(a) - sigmoid(b)) * (a - b) / 2, ZX, ZS, Y)
    free = each(lambda a, b: (sigmoid(a) - sigmoid(b)) * (a - b) / 2, ZW, ZS)
    assert losses(RDrop()) == {"sup": near(both), "labeled": near(apart), "unsup": near(free)}


def moved(row, g, size):
    """A row of inputs, here the logits, with noise along g of `size` times its length around its mean."""
    centre = sum(row) / 3
    length, norm = math.hypot(*(v - centre for v in row)), math.hypot(*g)
    return [v + size * length * a / norm for v, a in zip(row, g, strict=True)]


def test_adversarial():
    """Noise along sigmoid(z) - y, and none along a label that is not known."""
    noisy = []
    for row, y in zip(ZX, Y, strict=True):
        g = [0.0 if a < 0 else sigmoid(z) - a for z, a in zip(row, y, strict=True)]
        noisy.append(moved(row, g, 0.02))
    assert noisy[0][2] == ZX[0][2]
    assert losses(Adversarial()) == {"sup": near(SUP), "adversarial": near(each(bce, noisy, Y))}


def test_vat(monkeypatch):
    """One power step from noise in proportion to the inputs, along sigmoid(z + r) - sigmoid(z)."""
    neutral_draws(monkeypatch)

    def divergence(row):
        start = moved(row, [v - sum(row) / 3 for v in row], 0.01)
        noisy = moved(row, [sigmoid(b) - sigmoid(a) for a, b in zip(row, start, strict=True)], 0.02)
        return sum(coin_kl(sigmoid(a), sigmoid(b)) for a, b in zip(row, noisy, strict=True))

    wanted = sum(map(divergence, [*ZX, *ZW])) / 12
    found = losses(VAT())
    assert found["sup"] == near(SUP)
    assert found["unsup"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", ABLE)
def test_what_is_not_known_teaches_nothing_and_targets_carry_no_gradient(name):
    method = get_method(name)()
    z = tensors(method, grad=True)
    found = step_losses(method, z, torch.tensor(Y), kind="multi-label")
    labeled = sum(value for loss, value in found.items() if loss in ("sup", "labeled", "adversarial"))
    inputs = [v for view, v in z.items() if view.startswith("x")]
    for grad in torch.autograd.grad(labeled, inputs, retain_graph=True):
        assert ((grad == 0) == (torch.tensor(Y) < 0)).all()
    if "unsup" in found and name in ("fixmatch", "uda", "mean_teacher", "temporal_ensembling"):
        weak, strong = torch.autograd.grad(found["unsup"], [z["u_w"], z["u_s"]], allow_unused=True)
        assert weak is None and strong.abs().sum() > 0


def test_pseudo_labels_gradient_is_that_of_fixed_labels():
    """sigmoid(z) - y where the label is sure, over all six; the confidence itself is not learned from."""
    z = tensors(PseudoLabel(), grad=True)
    found = step_losses(PseudoLabel(threshold=0.8), z, torch.tensor(Y), kind="multi-label")["unsup"]
    (grad,) = torch.autograd.grad(found, [z["u_w"]])
    wanted = [[sigmoid(4.0) - 1, 0, 0], [sigmoid(1.5) - 1, sigmoid(-2.0), 0]]
    assert grad.flatten().tolist() == near([v / 6 for row in wanted for v in row])


def test_a_batch_as_questions():
    batch = Batch(
        inputs={}, lengths=np.ones(4), rows={"x": slice(0, 1), "u_w": slice(1, 3)}, y=torch.tensor([[1, -1, 0]]),
        w=torch.tensor([0.5]), id={"x": torch.tensor([2]), "u": torch.tensor([3, 0])}, keys={},
        true_labels=torch.tensor([[1, 0, -1], [-1, -1, -1]]),
    )  # fmt: skip
    seen = binary_batch(batch)
    assert seen["y"].tolist() == [[0, 1], [0, 0], [1, 0]] and seen["w"].tolist() == [0.5, 0.0, 0.5]
    assert seen["id"]["x"].tolist() == [6, 7, 8] and seen["id"]["u"].tolist() == [9, 10, 11, 0, 1, 2]
    assert seen["true_labels"].tolist() == [1, 0, -1, -1, -1, -1]
    assert seen["rows"] == batch["rows"], "inputs are those of rows"


def test_known_answers():
    logits, truth = known_binary(torch.tensor([[1.0, -2.0], [3.0, 0.5]]), np.array([[1, -1], [0, 1]], dtype=np.int8))
    assert logits.tolist() == [[0.0, 1.0], [0.0, 3.0], [0.0, 0.5]] and truth.tolist() == [1, 0, 1]
    assert binary_logits(torch.zeros(0, 4)).shape == (0, 2)


def test_labels_that_no_row_knows_have_no_confusions():
    logits, labels = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), np.array([[1, -1], [1, -1]])
    assert confusion(logits, labels).tolist() == [[[0, 0], [1, 1]], [[0, 0], [0, 0]]]
