"""Noise that hurts: its search, VAT and adversarial training, against numbers worked out by hand.

The toy text has tokens (1, 0), (0.5, -1) and a padding (9, 9); its feature h = (0.75, -0.5) is their masked mean, its
logits W h = (0.75, -0.5, -1.25) with W = [[1, 0], [0, 1], [-1, 1]], its prediction p = 0.703314 0.201503 0.095183.

Around their mean 0.125 the four values are 0.875, -0.125, 0.375, -1.125: squares 0.765625 + 0.015625 + 0.140625 +
1.265625 = 2.1875, so |e| = 1.479020 and the standard deviation is sqrt(2.1875 / 4) = 0.739510. Noise of the Euclidean
length 5 has the relative size 5 / 1.479020 = 3.380617.

Both tokens have the same gradient, half of W^T g for a gradient g in the logits: noise of length 5 along the unit
vector v of W^T g gives each token 5 / sqrt(2) v = 3.535534 v, and moves h by as much.
"""

import math

import numpy as np
import pytest
import torch
from stores import views
from tiny import FAST, tiny_images, tiny_task, trained

from nlp_ssl.methods import VAT, Adversarial, Supervised
from nlp_ssl.nets.base import Net
from nlp_ssl.ops import random
from nlp_ssl.ops.adversary import AddNoise, Measure, exact_logits, power_direction, sized, unit_rows
from nlp_ssl.ops.functional import kl, softmax
from nlp_ssl.run import StepContext
from nlp_ssl.types import DataSpec
from nlp_ssl.utils.precision import autocast

E = torch.tensor([[[1.0, 0.0], [0.5, -1.0], [9.0, 9.0]]], dtype=torch.float64)
MASK = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
D0 = torch.tensor([[[0.3, -0.2], [0.1, 0.4], [5.0, 5.0]]], dtype=torch.float64)
W = [[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]]
H = [0.75, -0.5]
LENGTH = math.sqrt(2.1875)
DEVIATION = LENGTH / 2
LABEL = 1


class Toy:
    """The toy text in every view: masked mean of the tokens, then W."""

    depth = 0

    def __init__(self, rows=1, e=E, mask=MASK):
        self.e, self.mask = e.expand(rows, -1, -1), mask.expand(rows, -1)
        self.weight = torch.tensor(W, dtype=torch.float64, requires_grad=True)
        self.calls, self.noise = [], []

    def logits(self, e, mask):
        return (e * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True) @ self.weight.T

    def __call__(self, batch, *views, edit=None, dropout=True):
        self.calls.append((views, torch.is_grad_enabled(), dropout))
        e, mask = torch.cat([self.e] * len(views)), torch.cat([self.mask] * len(views))
        if edit is not None:
            e, _ = edit(e, mask, mask)
        if isinstance(edit, AddNoise):
            self.noise.append(edit.noise)
        return torch.split(self.logits(e, mask), len(self.e))

    def gradient(self, batch, *views, loss, noise=None):
        self.calls.append((views, "gradient", noise is not None))
        mask = torch.cat([self.mask] * len(views))
        with torch.enable_grad():
            free = torch.zeros_like(torch.cat([self.e] * len(views))) if noise is None else noise.detach().clone()
            free.requires_grad_()
            z = self.logits(torch.cat([self.e] * len(views)) + free * mask[:, :, None], mask)
            return torch.autograd.grad(loss(torch.split(z, len(self.e))), [free])[0]


def step(method, net, labels=(LABEL,), w=None):
    y = torch.tensor(labels)
    batch = {
        "y": y,
        "w": torch.ones(len(y), dtype=torch.float64) if w is None else w,
        "true_labels": torch.full((1,), -1),
    }
    return method.step(StepContext(method, {"student": net}, DataSpec(3)), batch)


def near(value):
    return pytest.approx(value, abs=1e-6)


# --- the expected side: plain Python ---


def predicted(h):
    powers = [math.exp(row[0] * h[0] + row[1] * h[1]) for row in W]
    return [v / sum(powers) for v in powers]


P = predicted(H)


def back(g):
    """W^T g: the gradient in h, twice that of each token."""
    return [sum(row[d] * v for row, v in zip(W, g, strict=True)) for d in range(2)]


def moved(direction, length):
    """The feature when noise of that length lies along the same direction in both tokens."""
    norm = math.hypot(*direction)
    return [a + length / math.sqrt(2) * d / norm for a, d in zip(H, direction, strict=True)]


def divergence(h):
    return sum(a * math.log(a / b) for a, b in zip(P, predicted(h), strict=True))


def searched(reach, steps):
    """Direction in h after power iterations from D0, whose mean over the tokens is (0.2, 0.1) and length sqrt(0.3)."""
    shift = [reach * v / math.sqrt(0.3) for v in (0.2, 0.1)]
    for _ in range(steps):
        q = predicted([a + b for a, b in zip(H, shift, strict=True)])
        g = back([a - b for a, b in zip(q, P, strict=True)])
        shift = [reach / math.sqrt(2) * v / math.hypot(*g) for v in g]
    return shift


# --- unit vectors and sizes ---


def test_unit_by_hand():
    """(3, 0, 4, 0) has length 5: 0.6, 0, 0.8, 0. The other rows are its multiples, or zero."""
    row = torch.tensor([3.0, 0.0, 4.0, 0.0], dtype=torch.float64)
    d = torch.stack([row, -1e-3 * row, 0 * row]).view(3, 2, 2)
    wanted = torch.tensor([0.6, 0.0, 0.8, 0.0], dtype=torch.float64)
    assert torch.allclose(unit_rows(d).flatten(1), torch.stack([wanted, -wanted, 0 * wanted]), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e30, 1e38])
def test_unit_of_float32_values_whose_squares_do_not_exist(scale):
    d = scale * torch.tensor([[1.0, -1.0, 1.0, 1.0]])
    assert unit_rows(d).tolist() == [[0.5, -0.5, 0.5, 0.5]]
    assert unit_rows(d.to(torch.bfloat16)).dtype == torch.float32


def test_measure_by_hand():
    """|e| = sqrt(2.1875), deviation sqrt(2.1875 / 4); the padding does not count. A shift and a pad change nothing."""
    found = Measure()
    h, mask = found(E, MASK, MASK)
    assert h is E and mask is None
    assert found.values[0, :2].tolist() == [[0.875, -0.125], [0.375, -1.125]] and not found.values[0, 2].any()
    assert found.length.item() == near(1.479020) and found.deviation.item() == near(0.739510)
    assert found.length.item() == near(LENGTH) and found.deviation.item() == near(DEVIATION)
    shifted = Measure()
    shifted(3 * E[:, :2] + 7, MASK[:, :2], MASK[:, :2])
    assert shifted.length.item() == near(3 * LENGTH) and shifted.deviation.item() == near(3 * DEVIATION)


def test_measure_of_rows_without_room_and_of_pixels():
    """Pixels 1, -1, 3, 1 lie 0, -2, 2, 0 from their mean 1: length sqrt(8), deviation sqrt(2)."""
    found = Measure()
    found(E, MASK, torch.zeros_like(MASK))
    assert found.length.item() == found.deviation.item() == 0 and not found.values.any()
    found(torch.tensor([1.0, -1.0, 3.0, 1.0]).view(1, 1, 2, 2), None, None)
    assert found.length.item() == near(math.sqrt(8)) and found.deviation.item() == near(math.sqrt(2))


def test_sized_by_hand():
    """Gradient (3, -4) of a row with |e| = 2 and deviation 0.5; size 0.1: 0.2 (0.6, -0.8), or 0.05 (1, -1)."""
    inputs = Measure()
    inputs.length, inputs.deviation = torch.tensor([2.0, 1.0]), torch.tensor([0.5, 1.0])
    g = torch.tensor([[3.0, -4.0], [0.0, 0.0]])
    assert sized(g, inputs, 0.1, "l2").tolist() == [[near(0.12), near(-0.16)], [0.0, 0.0]]
    assert sized(g, inputs, 0.1, "linf").tolist() == [[near(0.05), near(-0.05)], [0.0, 0.0]]


# --- the search ---


def search(start, reach, steps):
    net = Toy()
    p = softmax(net({}, "x")[0].detach())

    def gradient(noise):
        return net.gradient({}, "x", loss=lambda z: kl(p, z[0]).sum(), noise=noise)

    return power_direction(gradient, start, torch.tensor([reach], dtype=torch.float64), steps)


def test_search_finds_the_top_of_the_hessian():
    """The Hessian of KL in h is A = W^T (diag p - p p^T) W = [[0.428674, -0.275607], [-0.275607, 0.208663]].

    Trace 0.637337, determinant 0.013489: eigenvalues (0.637337 +- 0.593500) / 2 = 0.615419 and 0.021919, and the first
    has the vector (0.275607, 0.428674 - 0.615419) = (0.275607, -0.186744), of length 0.332914: (0.827862, -0.560939)
    with these rounded numbers. One step from (0.2, 0.1) gives A (0.2, 0.1) = (0.058174, -0.034255), unit (0.861707,
    -0.507405): cosine 0.713371 + 0.284623 = 0.997994. A second one A (0.861707, -0.507405) = (0.509236, -0.343370),
    unit (0.829124, -0.559065): cosine 0.686397 + 0.313600 = 0.999997.
    """
    a = [
        [sum(W[c][i] * P[c] * W[c][j] for c in range(3)) - back(P)[i] * back(P)[j] for j in range(2)] for i in range(2)
    ]
    half, det = (a[0][0] + a[1][1]) / 2, a[0][0] * a[1][1] - a[0][1] * a[1][0]
    top = half + math.sqrt(half**2 - det)
    vector = (a[0][1], top - a[0][0])
    norm = math.hypot(*vector)
    assert top == near(0.615419)
    for steps, wanted in ((1, 0.997994), (2, 0.999997)):
        d = search(D0 * MASK[:, :, None], 1e-6, steps)[0]
        cosine = abs(sum(d[token, i].item() * vector[i] / norm for token in (0, 1) for i in (0, 1))) / math.sqrt(2)
        assert cosine == near(wanted)
        assert d.square().sum().item() == near(1.0) and not d[2].any()


@pytest.mark.parametrize(("reach", "steps"), [(0.1, 1), (0.1, 2), (1e-6, 1)])
def test_search_by_hand(reach, steps):
    wanted = searched(reach, steps)
    norm = math.hypot(*wanted)
    d = search(D0 * MASK[:, :, None], reach, steps)[0]
    for token in (0, 1):
        assert [math.sqrt(2) * v for v in d[token].tolist()] == [near(v / norm) for v in wanted]


def test_search_starts_from_a_direction_not_a_length():
    one = search(D0 * MASK[:, :, None], 0.1, 1)
    for scale in (1e-6, 1e6):
        assert torch.allclose(search(scale * D0 * MASK[:, :, None], 0.1, 1), one, atol=1e-12)


def test_no_gradient_gives_no_noise():
    """Of two rows the first has none: it stays zero, the second goes on."""
    start = torch.ones(2, 3)
    slope = torch.tensor([[0.0], [2.0]])
    d = power_direction(lambda noise: slope * noise, start, torch.ones(2), 3)
    assert d[0].tolist() == [0.0] * 3 and d[1].tolist() == [near(1 / math.sqrt(3))] * 3


# --- adversarial training ---


@pytest.mark.parametrize(
    ("norm", "size", "wanted"), [("l2", 5 / LENGTH, 6.238928), ("linf", 0.1 / DEVIATION, 1.738803)]
)
def test_adversarial_by_hand(norm, size, wanted):
    """Class 1: -ln 0.201503 = 1.601952. p - y = (0.703314, -0.798497, 0.095183), W^T of it (0.608131, -0.703314).

    l2, length 5: unit (0.654066, -0.756438), h = (0.75 + 2.312476, -0.5 - 2.674410) = (3.062476, -3.174410), logits
    3.062476, -3.174410, -6.236886: loss ln(e^3.062476 + e^-3.174410 + e^-6.236886) + 3.174410 = 6.238928.
    linf, 0.1: h = (0.85, -0.6), logits 0.85, -0.6, -1.45: ln(2.339647 + 0.548812 + 0.234570) + 0.6 = 1.738803.
    """
    g = back([P[0], P[1] - 1, P[2]])
    h = moved(g, 5.0) if norm == "l2" else [a + math.copysign(0.1, b) for a, b in zip(H, g, strict=True)]
    net = Toy()
    found = step(Adversarial(weight=1.0, size=size, norm=norm), net)
    assert found["sup"].item() == near(1.601952) and found["sup"].item() == near(-math.log(P[1]))
    assert found["adversarial"].item() == near(wanted)
    assert found["adversarial"].item() == near(-math.log(predicted(h)[1]))
    assert not net.noise[0][0, 2].any()
    if norm == "l2":
        assert net.noise[0].square().sum().sqrt().item() == near(5.0)
    else:
        assert net.noise[0][0, :2].abs().flatten().tolist() == [near(0.1)] * 4


def test_adversarial_without_noise_is_the_loss_twice():
    found = step(Adversarial(size=0.0), Toy())
    assert found["adversarial"].item() == found["sup"].item() == near(1.601952)


def test_adversarial_weights_rows_and_takes_soft_labels():
    """Of two rows that weigh 0.5 and 0: 1.601952 / 4 = 0.400488 and 3 x 6.238928 / 4 = 4.679196."""
    w = torch.tensor([0.5, 0.0], dtype=torch.float64)
    found = step(Adversarial(weight=3.0, size=5 / LENGTH), Toy(rows=2), labels=(1, 2), w=w)
    assert found["sup"].item() == near(0.400488) and found["adversarial"].item() == near(4.679196)
    soft = step(Adversarial(size=5 / LENGTH), Toy(), labels=([0.0, 1.0, 0.0],))
    assert soft["adversarial"].item() == near(6.238928)


def test_adversarial_gradient_takes_the_noise_as_given():
    """In W it is (softmax(W h') - y) h' with the moved h' = (3.062476, -3.174410)."""
    h = moved(back([P[0], P[1] - 1, P[2]]), 5.0)
    q = predicted(h)
    net = Toy()
    step(Adversarial(size=5 / LENGTH), net)["adversarial"].backward()
    wanted = [[(q[c] - (c == LABEL)) * v for v in h] for c in range(3)]
    assert net.weight.grad.tolist() == [[near(v) for v in row] for row in wanted]


def test_adversarial_passes():
    """The gradient and the noisy pass leave dropout off; only the clean one and the noisy one carry gradient."""
    net = Toy()
    step(Adversarial(), net)
    assert net.calls == [(("x",), True, True), (("x",), "gradient", False), (("x",), True, False)]


# --- VAT ---


def start_at_d0(monkeypatch):
    """Makes the search start from D0: draws are multiplied by the values, whose pad entries are zero."""

    def normal(values):
        return torch.where(values == 0, 5.0, D0 / values)

    monkeypatch.setattr(random, "normal", normal)


@pytest.mark.parametrize(
    ("reach", "steps", "wanted"),
    [(0.1, 1, 1.376786), (0.1, 2, 1.385667), (1e-5, 1, 1.376467), (1e-5, 2, 1.385367)],
)
def test_vat_by_hand(reach, steps, wanted, monkeypatch):
    """Reach 0.1: 0.1 (0.2, 0.1) / sqrt(0.3) = (0.036515, 0.018257) moves p by (0.006186, -0.001905, -0.004281).

    W^T of that is (0.010467, -0.006186), unit (0.860885, -0.508799); noise of length 5 puts h at (0.75 + 3.043689, -0.5
    - 1.798876) = (3.793689, -2.298876), where the prediction is 0.997695 0.002254 0.000051: KL = 0.703314 x ln(0.703314
    / 0.997695) + 0.201503 x ln(0.201503 / 0.002254) + 0.095183 x ln(0.095183 / 0.000051) = -0.245917 + 0.905260 +
    0.717443 = 1.376786. A second step turns the unit vector to (0.827263, -0.561815). In the limit of a short reach it
    is (0.861707, -0.507405), then (0.829124, -0.559065).
    """
    start_at_d0(monkeypatch)
    net = Toy()
    found = step(VAT(size=5 / LENGTH, reach=reach / LENGTH, steps=steps), net)
    assert found["sup"].item() == near(1.601952)
    assert found["unsup"].item() == near(wanted)
    assert found["unsup"].item() == near(divergence(moved(searched(reach, steps), 5.0)))
    noise = net.noise[0]
    assert len(noise) == 2 and torch.allclose(noise[0], noise[1]) and not noise[:, 2].any()
    assert noise[0].square().sum().sqrt().item() == near(5.0)


def test_a_random_direction_of_the_same_length_hurts_less():
    """D0 / sqrt(0.3) of length 5 moves h by (1.825742, 0.912871), to (2.575742, 0.412871): KL 0.209331 << 1.376786."""
    net, p = Toy(), torch.tensor([P], dtype=torch.float64)
    (z,) = net({}, "x", edit=AddNoise(5 * unit_rows(D0 * MASK[:, :, None])))
    assert kl(p, z).item() == near(0.209331)
    assert kl(p, z).item() == near(divergence([a + 5 * b / math.sqrt(0.3) for a, b in zip(H, (0.2, 0.1), strict=True)]))


def test_vat_without_noise_and_with_weight(monkeypatch):
    start_at_d0(monkeypatch)
    assert step(VAT(size=0.0), Toy())["unsup"].item() == pytest.approx(0.0, abs=1e-12)
    heavy = step(VAT(weight=3.0, size=5 / LENGTH, reach=0.1 / LENGTH), Toy())
    assert heavy["unsup"].item() == near(3 * 1.3767855226)


def test_vat_entropy_of_the_clean_prediction(monkeypatch):
    """H(p) = 0.703314 x 0.351952 + 0.201503 x 1.601952 + 0.095183 x 2.351952 = 0.794197; weight 0.5 halves it."""
    start_at_d0(monkeypatch)
    found = step(VAT(entropy_weight=0.5), Toy())
    assert found["entropy"].item() == near(0.794197 / 2)
    assert found["entropy"].item() == near(-sum(v * math.log(v) for v in P) / 2)
    assert "entropy" not in step(VAT(), Toy())


def test_vat_gradient_reaches_the_noisy_pass_alone(monkeypatch):
    """In W it is (softmax(W h') - p) h' with h' = (3.793689, -2.298876): neither p nor the noise carry gradient."""
    start_at_d0(monkeypatch)
    h = moved(searched(0.1, 1), 5.0)
    q = predicted(h)
    net = Toy()
    step(VAT(size=5 / LENGTH, reach=0.1 / LENGTH), net)["unsup"].backward()
    wanted = [[(q[c] - P[c]) * v for v in h] for c in range(3)]
    assert net.weight.grad.tolist() == [[near(v) for v in row] for row in wanted]


@pytest.mark.parametrize("steps", [1, 3])
def test_vat_passes(steps):
    """Target without gradient, search, noisy pass: all of the same rows and without dropout."""
    net, both = Toy(), ("x", "u_w")
    step(VAT(steps=steps), net)
    search = [(both, "gradient", True)] * steps
    assert net.calls == [(("x",), True, True), (both, False, False), *search, (both, True, False)]
    net.calls.clear()
    step(VAT(entropy_weight=1.0), net)
    assert net.calls[0] == (both, True, True)


# --- a BERT ---


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny_task(tmp_path_factory.mktemp("task"), dropout=0.3)


@pytest.fixture(scope="module")
def module(task):
    """The tiny BERT after a few dozen steps on the labels."""
    config = FAST.__class__(**{**FAST.__dict__, "max_steps": 60})
    net = task.build(0)
    net.load_state_dict(trained(Supervised(), task, config))
    return net.train()


def batch_of(task, labeled, unlabeled, width=24):
    positions = np.concatenate([labeled, unlabeled])
    store = task.data.store
    inputs, _ = views(store, [(positions, None, np.zeros(len(positions), np.uint64))], width)
    return {
        "inputs": inputs,
        "lengths": np.minimum(store.lengths[positions], width),
        "rows": {"x": slice(0, len(labeled)), "u_w": slice(len(labeled), len(positions))},
        "y": torch.from_numpy(task.data.labels[labeled]),
        "w": torch.ones(len(labeled)),
        "true_labels": torch.full((len(unlabeled),), -1),
    }


class Spy:
    """Passes calls on to a net and keeps the noise of its noisy passes."""

    def __init__(self, net):
        self.net, self.gradient, self.noise = net, net.gradient, []

    def __call__(self, batch, *views, edit=None, dropout=True):
        if isinstance(edit, AddNoise):
            self.noise.append(edit.noise)
        return self.net(batch, *views, edit=edit, dropout=dropout)


def noise_of(method, module, batch, context=None):
    spy = Spy(Net(module) if context is None else Net(module, autocast=context))
    losses = method.step(StepContext(method, {"student": spy}, DataSpec(2)), batch)
    return spy.noise[0], losses


@pytest.mark.parametrize("method", [VAT(), Adversarial(), Adversarial(norm="linf")], ids=["vat", "l2", "linf"])
def test_noise_is_zero_at_special_tokens_and_padding_and_nowhere_else(method, module, task):
    data = task.data
    batch = batch_of(task, data.labeled[:4], data.unlabeled[:8])
    noise, _ = noise_of(method, module, batch)
    ids = batch["inputs"]["input_ids"][: len(noise), : noise.shape[1]]
    special = torch.isin(ids, torch.tensor([0, 2, 3]))
    assert special.sum() > 2 * len(noise), "some rows are padded"
    assert not noise[special].any()
    assert bool((noise[~special].abs().amax(-1) > 0).all())


@pytest.mark.parametrize("method", [VAT(size=0.1), Adversarial(size=0.1)], ids=["vat", "adversarial"])
def test_noise_has_the_size_asked_for(method, module, task):
    """A tenth of the length of a row's word embeddings around their mean, special tokens left out."""
    data = task.data
    batch = batch_of(task, data.labeled[:4], data.unlabeled[:8])
    noise, _ = noise_of(method, module, batch)
    words = module.model.get_input_embeddings().weight.detach()
    for row, ids in zip(noise, batch["inputs"]["input_ids"], strict=False):
        own = words[ids[~torch.isin(ids, torch.tensor([0, 2, 3]))]]
        assert row.norm().item() == pytest.approx(0.1 * (own - own.mean()).norm().item(), rel=1e-4)


@pytest.mark.parametrize("method", [VAT(steps=2), Adversarial()], ids=["vat", "adversarial"])
def test_padding_changes_nothing(method, module, task, monkeypatch):
    """The shortest text beside the longest one, and beside itself: the same noise."""
    monkeypatch.setattr(random, "normal", torch.ones_like)
    data = task.data
    order = data.labeled[np.argsort(data.store.lengths[data.labeled], kind="stable")]
    short, long = order[:1], order[-1:]
    narrow, _ = noise_of(method, module, batch_of(task, np.concatenate([short, short]), short))
    wide, _ = noise_of(method, module, batch_of(task, np.concatenate([short, long]), long))
    assert wide.shape[1] > narrow.shape[1]
    # The search looks at differences of predictions a hundred times as small as these: rounding counts as much more.
    difference = (wide[0, : narrow.shape[1]] - narrow[0]).norm() / narrow[0].norm()
    assert difference < 1e-3
    assert not wide[0, narrow.shape[1] :].any()


@pytest.mark.parametrize("method", [VAT(steps=2), Adversarial()], ids=["vat", "adversarial"])
def test_the_search_touches_no_parameter(method, module, task):
    """Neither weights nor gradients that are being accumulated, nor the mode of any layer."""
    data = task.data
    batch = batch_of(task, data.labeled[:2], data.unlabeled[:4])
    before = {k: v.clone() for k, v in module.state_dict().items()}
    for given in (None, 1.0):
        for p in module.parameters():
            p.grad = None if given is None else torch.full_like(p, given)
        noise_of(method, module, batch)
        for p in module.parameters():
            assert p.grad is None if given is None else bool((p.grad == given).all())
    module.zero_grad(set_to_none=True)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(m.training for m in module.modules())


def test_the_direction_of_a_trained_net_beats_a_random_one(module, task):
    """By five times in KL at least, for noise of one length: the reason why VAT is more than noise."""
    data = task.data
    batch = batch_of(task, data.labeled[:4], data.unlabeled[:32])
    net, views = Net(module), ("x", "u_w")
    torch.manual_seed(0)
    noise, losses = noise_of(VAT(), module, batch)
    inputs = Measure()
    with torch.no_grad():
        p = softmax(torch.cat(net(batch, *views, edit=inputs, dropout=False)))
        values = []
        for _ in range(5):
            random = sized(torch.randn(noise.shape) * (noise != 0), inputs, VAT().size, "l2")
            assert torch.allclose(random.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1), rtol=1e-4)
            values.append(kl(p, torch.cat(net(batch, *views, edit=AddNoise(random), dropout=False))).mean().item())
    assert losses["unsup"].item() > 5 * max(values)


def test_half_precision_does_not_hide_the_direction(module, task):
    """bf16 rounds off more than the search looks at: found all the same, from a float32 prediction."""
    data = task.data
    batch = batch_of(task, data.labeled[:4], data.unlabeled[:32])
    found = []
    for context in (None, autocast("bf16", torch.device("cpu"))):
        torch.manual_seed(0)
        torch.nn.functional.dropout(torch.ones(1))
        found.append(noise_of(_Fixed(), module, batch, context)[0].flatten(1))
    cosine = torch.nn.functional.cosine_similarity(*found)
    assert cosine.min() > 0.99


class _Fixed(VAT):
    """VAT whose search starts at the same place however often dropout has drawn before."""

    def step(self, run, batch):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(random, "normal", torch.ones_like)
            return super().step(run, batch)


def test_exact_logits_are_float32_without_dropout(module, task):
    data = task.data
    batch = batch_of(task, data.labeled[:4], data.unlabeled[:8])
    rounded = Net(module, autocast=autocast("bf16", torch.device("cpu")))
    with torch.no_grad():
        wanted = torch.cat(Net(module)(batch, "x", "u_w", dropout=False))
        coarse = torch.cat(rounded(batch, "x", "u_w", dropout=False))
    found = exact_logits(rounded, batch, "x", "u_w")
    assert torch.allclose(found, wanted, atol=1e-5) and not found.requires_grad
    assert not torch.allclose(coarse, wanted, atol=1e-4), "this comparison could not fail"


@pytest.mark.parametrize("method", [VAT(), Adversarial()], ids=["vat", "adversarial"])
def test_running_statistics_move_with_the_clean_labeled_pass_alone(method):
    """After a step of rate zero they are those of supervised training."""
    task = tiny_images()
    config = FAST.__class__(**{**FAST.__dict__, "learning_rate": 0.0, "head_learning_rate": 0.0, "weight_decay": 0.0})
    plain, found = trained(Supervised(), task, config), trained(method, task, config)
    start = task.build(0).state_dict()
    names = [k for k in plain if "running_" in k]
    assert any(not torch.equal(plain[k], start[k]) for k in names)
    assert all(torch.allclose(plain[k], found[k], atol=1e-7) for k in names)


def test_noise_on_pixels_is_relative_to_their_spread():
    """Pixels twice as bright get noise twice as large; all pixels take part."""
    task = tiny_images()
    module, data = task.build(0).eval(), task.data
    batch = batch_of(task, data.labeled[:4], data.unlabeled[:8], 1)
    noise, _ = noise_of(VAT(size=0.2), module, batch)
    pixels = batch["inputs"]["pixel_values"]
    for row, image in zip(noise, pixels, strict=True):
        assert row.norm().item() == pytest.approx(0.2 * (image - image.mean()).norm().item(), rel=1e-4)
