"""Pseudo-labels aligned to the class shares of the pool: what is aligned, by which mean, and that it is told.

p times shares / mean, rows scaled to the sum 1; the mean is 0.95 of the one before and 0.05 of that of the batch. A
millionth is added to shares and means, which the tolerance covers. Everything runs in float64.
"""

import inspect
import math
import re

import pytest
import torch

from nlp_ssl.methods import ICT, VAT, FixMatch, MixUpPseudoLabel, TemporalEnsembling
from nlp_ssl.ops import random
from nlp_ssl.registry import get_method, list_methods
from nlp_ssl.run import StepContext
from nlp_ssl.testing import step_losses
from nlp_ssl.types import DataSpec

EVEN = (0.5, 0.5)
POOL = [[0.8, 0.2], [0.4, 0.6]]  # predictions whose mean is 0.6, 0.4
# 0.8 x 5/6 : 0.2 x 5/4 = 2/3 : 1/4 and 0.4 x 5/6 : 0.6 x 5/4 = 1/3 : 3/4
ALIGNED = [[8 / 11, 3 / 11], [4 / 13, 9 / 13]]


def near(value):
    return pytest.approx(value, abs=3e-6)


def logs(rows):
    """Logits [N, C] whose softmax are these probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def mean_so_far(*shares):
    return {"pool_mean": torch.tensor(shares, dtype=torch.float64)}


def of_every_view(method, dtype):
    views = method.wanted_views()
    rng = torch.Generator().manual_seed(0)
    return {v: torch.randn(2 if v[0] == "x" else 5, 3, generator=rng, dtype=torch.float64).to(dtype) for v in views}


@pytest.mark.parametrize("name", list_methods(in_rounds=False))
def test_the_docstring_tells_what_is_aligned(name, monkeypatch):
    """It says so where, and only where, a step or the start of a round aligns."""
    calls, aligned = [], StepContext.aligned
    monkeypatch.setattr(StepContext, "aligned", lambda run, p, **more: calls.append(p) or aligned(run, p, **more))
    method = get_method(name)()
    step_losses(method, of_every_view(method, torch.float64), torch.tensor([0, 1]), prior=(0.2, 0.3, 0.5))
    told = re.search(
        r"after a warm start[^.:;]* aligned to the estimated class shares",
        " ".join((inspect.getdoc(type(method)) or "").split()),
        re.IGNORECASE,
    )
    assert bool(told) is bool(calls), 'write "After a warm start p is aligned to the estimated class shares."'


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list_methods(in_rounds=False))
def test_a_step_on_given_logits_takes_class_shares(name, dtype):
    method = get_method(name)()
    torch.manual_seed(0)
    found = step_losses(method, of_every_view(method, dtype), torch.tensor([0, 1]), prior=(0.2, 0.3, 0.5))
    assert found and all(v.dtype == dtype and v.isfinite() for v in found.values())


def test_fixmatch_with_class_shares():
    """The mean starts even: 0.95 x 0.5 + 0.05 x 0.6 = 0.505 and 0.495. p 0.8, 0.2 times 0.2 / 0.505 : 0.8 / 0.495 is
    0.316832 : 0.323232, class 1 at 0.504999; 0.4, 0.6 becomes 0.158416 : 0.969697, class 1 at 0.859574. Row 1 alone
    reaches 0.8: -ln 0.25 / 2.
    """
    logits = {"x": logs([[0.5, 0.5]]), "u_w": logs(POOL), "u_s": logs([[0.9, 0.1], [0.75, 0.25]])}
    found = step_losses(FixMatch(threshold=0.8), logits, torch.tensor([0]), prior=(0.2, 0.8))
    assert found["unsup"].item() == near(-math.log(0.25) / 2)
    every = step_losses(FixMatch(threshold=0.504), logits, torch.tensor([0]), prior=(0.2, 0.8))
    assert every["unsup"].item() == near(-(math.log(0.1) + math.log(0.25)) / 2)
    less = step_losses(FixMatch(threshold=0.506), logits, torch.tensor([0]), prior=(0.2, 0.8))
    assert less["unsup"].item() == near(-math.log(0.25) / 2)


def test_vat_aligns_rows_of_the_pool_by_rows_of_the_pool():
    """Two rows of the pool have 0.6, 0.4, as the mean has: they are aligned to 0.5, 0.5, and without noise each loses
    KL = ln(0.5 / 0.6) / 2 + ln(0.5 / 0.4) / 2 = 0.020411. The labeled row, 0.9 and 0.1, has the target it predicts and
    moves no mean.
    """
    logits = {"x": logs([[0.9, 0.1]]), "u_w": logs([[0.6, 0.4], [0.6, 0.4]])}
    state = mean_so_far(0.6, 0.4)
    found = step_losses(VAT(size=0.0), logits, torch.tensor([0]), prior=EVEN, state=state)
    assert found["unsup"].item() == near(2 * 0.020411 / 3)
    assert state["pool_mean"].tolist() == [near(0.6), near(0.4)]


@pytest.mark.parametrize(
    ("method", "stored", "part"), [(TemporalEnsembling(), "z", 0.4), (MixUpPseudoLabel(), "soft", 1.0)]
)
def test_predictions_for_the_whole_pool_are_aligned_by_their_own_mean(method, stored, part):
    """POOL becomes ALIGNED, whatever the mean was before; temporal ensembling stores 0.4 of it as the first visit."""
    spec = DataSpec(num_classes=2, pool_size=2, labeled_size=1, prior=EVEN)
    run = StepContext(method, {}, spec, predict=lambda role, block: torch.tensor(POOL))
    run.state = {**method.init_state(spec), "pool_mean": torch.tensor([0.9, 0.1])}
    method.begin_epoch(run)
    assert run.state[stored].tolist() == [[near(part * v) for v in row] for row in ALIGNED]
    assert run.state["pool_mean"].tolist() == [near(0.6), near(0.4)]


def test_temporal_ensembling_starts_with_an_aligned_target():
    """u_s has the prediction of POOL's row: squares of 0.8 - 8/11 and of 0.4 - 4/13, each twice, over 2 classes."""
    method = TemporalEnsembling(weight=1.0)
    logits = {"x": logs([[0.5, 0.5]]), "u_w": logs(POOL), "u_s": logs(POOL)}
    found = step_losses(method, logits, torch.tensor([0]), prior=EVEN)
    assert found["unsup"].item() == near(((0.8 - 8 / 11) ** 2 + (0.4 - 4 / 13) ** 2) / 2)


@pytest.mark.parametrize("mix_logits", [False, True])
def test_ict_mixes_what_is_aligned(mix_logits, monkeypatch):
    """Half of each row: the student predicts softmax((ln 0.8 + ln 0.4) / 2, ..), in proportion sqrt(0.32) : sqrt(0.12),
    0.620204. The target's class 0 is (8/11 + 4/13) / 2 = 0.517483; of the logits it is sqrt(8/11 x 4/13) : sqrt(3/11 x
    9/13) = 0.473043 : 0.434511, 0.521229.
    """
    monkeypatch.setattr(random, "beta", lambda alpha, n, like: like.new_full((n,), 0.5))
    monkeypatch.setattr(random, "permutation", lambda n, like: torch.arange(n).roll(-1))
    logits = {"x": logs([[0.5, 0.5]]), "u_w": logs(POOL)}
    state = mean_so_far(0.6, 0.4)
    found = step_losses(ICT(weight=1.0, mix_logits=mix_logits), logits, torch.tensor([0]), prior=EVEN, state=state)
    assert found["unsup"].item() == near((0.620204 - (0.521229 if mix_logits else 0.517483)) ** 2)
