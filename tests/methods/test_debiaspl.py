"""DebiasPL against numbers worked out by hand, on the logits of test_thresholds (there are their softmax and -ln p).

The running mean before the step is 0.5 0.3 0.2, so b = ln(q / (1/3)) / 2 = 0.202733 -0.052680 -0.255413. Softmax of
u_w - b: 0.966838 .. (class 0), 0.288795 0.337353 0.373853 (class 2, was 0), 0.904362 at class 1, 0.990331 at class 2.
The mean of softmax(u_w) in the batch is 0.338890 0.318791 0.342319; with a decay of 0.9 the running mean becomes
0.483889 0.301879 0.214232, and the strong view has b' = 0.186356 -0.049558 -0.221042.
"""

import pytest
import torch

from nlp_ssl.methods import DebiasPL, FixMatch
from nlp_ssl.testing import step_losses

LOGITS = {
    "x": [[2.0, 0.5, -1.0], [0.2, 0.1, 0.4]],
    "u_w": [[4.0, 0.0, -1.0], [1.0, 0.9, 0.8], [-2.0, 3.0, 0.5], [0.0, 0.0, 5.0]],
    "u_s": [[2.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 1.5], [1.0, -1.0, 2.0]],
}
SUP = pytest.approx(0.590571, abs=1e-6)


def run(method, *, q=(0.5, 0.3, 0.2), prior=None, grad=False):
    """Losses, the state afterwards and the logits. Batches so far weigh as much as any number of them."""
    z = {view: torch.tensor(rows, dtype=torch.float64, requires_grad=grad) for view, rows in LOGITS.items()}
    state = {"mass": torch.tensor(1.0), "q": torch.tensor(q)} if isinstance(method, DebiasPL) else None
    return step_losses(method, z, torch.tensor([0, 2]), state=state, prior=prior), state, z


def test_labels_and_strong_views_are_adjusted():
    """-ln p of the labels in u_s + b': 0.322531 1.692861 1.048955 0.477468; rows 0 and 3 reach 0.95, all reach 0."""
    found, state, _ = run(DebiasPL(threshold=0.95, decay=0.9))
    assert found == {"sup": SUP, "unsup": pytest.approx((0.322531 + 0.477468) / 4, abs=1e-6)}
    assert state["q"].tolist() == pytest.approx([0.483889, 0.301879, 0.214232], abs=1e-6)
    all_rows = run(DebiasPL(decay=0.9, threshold=0.0, weight=2.0))[0]
    assert all_rows["unsup"] == pytest.approx(2 * 0.885454, abs=1e-6)


def test_bias_is_what_exceeds_the_estimated_shares():
    """Shares 0.2 0.2 0.6 and strength 1: b = ln 2.5, ln 1.5, -ln 3. Row 0 falls to 0.925017: row 3 is left. With b' =
    0.883538 0.411709 -1.029871 it has 1.309217 / 4.
    """
    found, _, _ = run(DebiasPL(threshold=0.95, decay=0.9, strength=1.0), prior=(0.2, 0.2, 0.6))
    assert found["unsup"] == pytest.approx(0.327304, abs=1e-6)
    fair, _, _ = run(DebiasPL(threshold=0.95, decay=0.9999), q=(0.2, 0.2, 0.6), prior=(0.2, 0.2, 0.6))
    assert fair["unsup"].item() == pytest.approx(run(FixMatch(threshold=0.95))[0]["unsup"].item(), abs=1e-4)


def test_labels_are_made_before_the_mean_takes_in_the_batch():
    """Strength 1, decay 0: b = ln 1.5, ln 0.9, ln 0.6 leaves row 0 at 0.954772, b' = 0.016533 -0.044607 0.026599 would
    leave it at 0.974525. At a threshold of 0.96 row 3 is left, with 0.343987 in u_s + b', 0.690333 in u_s + b.
    """
    found, _, _ = run(DebiasPL(threshold=0.96, strength=1.0, decay=0.0))
    assert found["unsup"] == pytest.approx(0.343987 / 4, abs=1e-6)


@pytest.mark.parametrize("prior", [None, (0.2, 0.2, 0.6)])
def test_first_step_and_reduction(prior):
    """Labels of the first batch are what they are, row 0 at 0.975559. The first mean is the batch's own: b' = 0.008267
    -0.022304 0.013300, with which row 0 would be at 0.975050; (0.400668 + 0.346478) / 4. For shares 0.2 0.2 0.6 b' =
    ln(q / shares) / 2 = 0.263679 0.233109 -0.280594: (0.361397 + 0.540698) / 4.
    """
    method = DebiasPL(threshold=0.9753)
    z = {view: torch.tensor(rows, dtype=torch.float64) for view, rows in LOGITS.items()}
    found = step_losses(method, z, torch.tensor([0, 2]), prior=prior)["unsup"].item()
    assert found == pytest.approx(0.186786 if prior is None else 0.225524, abs=1e-6)
    assert run(DebiasPL(strength=0.0, threshold=0.95))[0] == run(FixMatch(threshold=0.95))[0]


def test_gradient_is_that_of_the_adjusted_strong_view():
    """Row 0 of softmax(u_s + b): exp(-0.322531) = 0.724313 at its label, so (0.724313 - 1) / 4. None in u_w."""
    found, _, z = run(DebiasPL(threshold=0.95, decay=0.9), grad=True)
    found["unsup"].backward()
    assert z["u_w"].grad is None or not z["u_w"].grad.any()
    assert z["u_s"].grad[0, 0].item() == pytest.approx(-0.068922, abs=1e-6)
    assert [bool(row.any()) for row in z["u_s"].grad] == [True, False, False, True]
