"""Tensor maths against numbers worked out by hand and against torch's own, independent functions."""

import math

import pytest
import torch
from torch.nn import functional as F

from nlp_ssl.ops.functional import (
    align,
    ce,
    entropy,
    kl,
    linear_ramp,
    sharpen,
    sigmoid_ramp,
    softmax,
    squared_error,
    tsa_threshold,
)

Z = torch.tensor([[1.0, 0.2, -0.5], [-2.0, 3.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([2, 1, 0])


def near(value, tolerance=1e-6):
    return pytest.approx(value, abs=tolerance)


def p(seed=0, rows=4, classes=3):
    return torch.rand(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_ce_of_classes_and_of_probabilities():
    """Row 2: -ln(1/3) = 1.098612."""
    assert torch.allclose(ce(Z, Y), F.cross_entropy(Z, Y, reduction="none"))
    assert ce(Z, Y)[2].item() == near(1.098612)
    assert torch.allclose(ce(Z, F.one_hot(Y, 3)), ce(Z, Y))
    soft = p(rows=3)
    assert torch.allclose(ce(Z, soft), F.cross_entropy(Z, soft, reduction="none"))


def test_kl_against_torch_and_with_zeros_in_the_target():
    q = p(rows=3)
    wanted = F.kl_div(Z.log_softmax(-1), q, reduction="none").sum(-1)
    assert torch.allclose(kl(q, Z), wanted)
    hard = F.one_hot(Y, 3).double()  # 0 ln 0 = 0: the cross-entropy is left
    assert torch.allclose(kl(hard, Z), ce(Z, Y))
    assert torch.allclose(kl(Z.softmax(-1), Z), torch.zeros(3, dtype=torch.float64), atol=1e-12)


def test_entropy():
    """Uniform over 3: ln 3 = 1.098612; one-hot: 0; (1/2, 1/2, 0): ln 2 = 0.693147."""
    rows = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    assert entropy(rows).tolist() == [near(1.098612), near(0.0), near(0.693147)]


def test_kl_is_cross_entropy_less_entropy():
    q = p(rows=3)
    assert torch.allclose(kl(q, Z), ce(Z, q) - entropy(q))


def test_softmax_temperature():
    """[1, 0.2, -0.5]: the first has p 0.597922, and 0.862922 at 0.4. Sharper, same argmax, rows sum to 1."""
    assert softmax(Z)[0, 0].item() == near(0.597922)
    sharp = softmax(Z, 0.4)
    assert sharp[0, 0].item() == near(0.862922)
    assert torch.equal(sharp[:2].argmax(-1), Z[:2].argmax(-1))
    assert torch.allclose(sharp.sum(-1), torch.ones(3, dtype=torch.float64))
    assert bool((entropy(sharp)[:2] < entropy(softmax(Z))[:2]).all())


def test_sharpen_is_softmax_at_a_temperature():
    """(0.6, 0.3, 0.1)^2 = 0.36, 0.09, 0.01, divided by 0.46: 0.782609, 0.195652, 0.021739."""
    row = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64)
    assert sharpen(row, 0.5)[0].tolist() == [near(0.782609), near(0.195652), near(0.021739)]
    assert torch.allclose(sharpen(Z.softmax(-1), 0.4), softmax(Z, 0.4))
    assert torch.allclose(sharpen(row, 1.0), row)
    assert sharpen(torch.tensor([[1.0, 0.0]]), 0.4).tolist() == [[1.0, 0.0]]  # zeros stay zeros, not NaN


def test_squared_error_is_a_mean_over_the_classes():
    """(0.2^2 + 0.1^2 + 0.1^2) / 3 = 0.02."""
    a = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    b = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    assert squared_error(a, b).tolist() == [near(0.02)]


def test_align():
    """p (0.6, 0.4), wanted (0.5, 0.5), current (0.75, 0.25): 0.4 and 0.8 before normalising, so 1/3 and 2/3."""
    row = torch.tensor([[0.6, 0.4]], dtype=torch.float64)
    wanted, current = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.75, 0.25]).double()
    assert align(row, wanted, current)[0].tolist() == [near(1 / 3, 1e-5), near(2 / 3, 1e-5)]
    assert torch.allclose(align(p(), wanted.new_full((3,), 1 / 3), wanted.new_full((3,), 1 / 3)), p())


def test_align_never_divides_by_zero():
    out = align(p(), torch.full((3,), 1 / 3).double(), torch.tensor([1.0, 0.0, 0.0]).double())
    assert bool(torch.isfinite(out).all()) and torch.allclose(out.sum(-1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_computed_in_float32(dtype):
    z = Z.to(dtype)
    for value in (ce(z, Y), ce(z, p(rows=3)), kl(p(rows=3).to(dtype), z), entropy(z.softmax(-1)), softmax(z)):
        assert value.dtype in (torch.float32, torch.float64)
    assert torch.allclose(ce(z, Y).double(), ce(z.double(), Y), atol=1e-6)
    # exp(-12) has no bfloat16 neighbour next to 1: a bfloat16 log-softmax would give 0.
    assert ce(torch.tensor([[12.0, 0.0]], dtype=dtype), torch.tensor([0])).item() == near(
        math.log1p(math.exp(-12)), 1e-7
    )


def test_sigmoid_ramp():
    """exp(-5 (1 - t)^2): t = 0 gives 0.006738, 1/2 gives 0.286505, 1 and beyond give 1; an end of 0 means no ramp."""
    wanted = {0.0: 0.006738, 0.2: 0.286505, 0.4: 1.0, 0.9: 1.0}
    assert {x: sigmoid_ramp(x, 0.4) for x in wanted} == {x: near(v) for x, v in wanted.items()}
    assert sigmoid_ramp(0.0, 0.0) == 1.0


def test_linear_ramp():
    assert [linear_ramp(x, 0.4) for x in (0.0, 0.1, 0.4, 1.0)] == [near(v) for v in (0.0, 0.25, 1.0, 1.0)]
    assert linear_ramp(0.0, 0.0) == 1.0


# C = 4: a(t) x 3/4 + 1/4, with a(1/2) = 1/2, 1 - e^-2.5 = 0.917915, e^-2.5 = 0.082085 and a(0) = 0, 0, e^-5 = 0.006738.
TSA = {
    "linear": (0.25, 0.625, 1.0),
    "log": (0.25, 0.938436, 0.994947),
    "exp": (0.255053, 0.311564, 1.0),
    "none": (math.inf, math.inf, math.inf),
}


@pytest.mark.parametrize("schedule", TSA)
def test_tsa_threshold(schedule):
    assert [tsa_threshold(schedule, t, 4) for t in (0.0, 0.5, 1.0)] == [near(v) for v in TSA[schedule]]
    rising = [tsa_threshold(schedule, t / 10, 4) for t in range(11)]
    assert rising == sorted(rising)


def test_gradient_of_zero_entries_is_finite():
    """Targets with zeros, as softmax at a low temperature gives them, and logits far apart."""
    z = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0, 0.0]])
    (kl(target, z) + ce(z, target)).sum().backward()
    assert bool(torch.isfinite(z.grad).all())
