"""Losses of the methods that mix rows, against numbers worked out by hand.

The stub net is the identity: its inputs are its logits, so that mixing inputs mixes logits. Draws are fixed:

    lam = 0.7 everywhere (0.3 counts as 0.7 where a method takes the larger share)
    partner of row r of R rows: r + 1, the last one's is row 0

    ZX  [ 2.0,  0.5, -1.0]   class 0        ZW  [ 4.0,  0.0, -1.0]        ZS  [ 2.0,  1.0,  0.0]
        [ 0.2,  0.1,  0.4]   class 2            [ 1.0,  0.9,  0.8]            [ 0.5,  0.5,  0.0]
                                                [-2.0,  3.0,  0.5]            [ 0.0,  1.0,  1.5]
                                                [ 0.0,  0.0,  5.0]            [ 1.0, -1.0,  2.0]

The expected side is plain Python, every number twice: the six digits of the docstring and the formula.
"""

import math

import pytest
import torch

from nlp_ssl.methods import ICT, DivideMix, MixMatch, MixText, MixUpPseudoLabel, ReMixMatch
from nlp_ssl.ops import random
from nlp_ssl.ops.targets import clean_probability
from nlp_ssl.testing import step_losses

ZX = [[2.0, 0.5, -1.0], [0.2, 0.1, 0.4]]
ZW = [[4.0, 0.0, -1.0], [1.0, 0.9, 0.8], [-2.0, 3.0, 0.5], [0.0, 0.0, 5.0]]
ZS = [[2.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 1.5], [1.0, -1.0, 2.0]]
ZS2 = [[1.0, 1.5, 0.0], [0.0, 0.5, 0.5], [0.5, 2.0, 1.0], [0.5, 0.0, 1.0]]
Y = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
LAM = 0.7


@pytest.fixture(autouse=True)
def fixed(monkeypatch):
    monkeypatch.setattr(random, "beta", lambda alpha, n, like: like.new_full((n,), LAM if alpha else 1.0))
    monkeypatch.setattr(random, "permutation", lambda n, like: torch.arange(n).roll(-1))
    monkeypatch.setattr(random, "integer", lambda n: 0)


# --- the expected side


def softmax(row):
    powers = [math.exp(v - max(row)) for v in row]
    return [v / sum(powers) for v in powers]


def sharpen(p, temperature):
    powers = [v ** (1 / temperature) for v in p]
    return [v / sum(powers) for v in powers]


def average(*rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def blended(rows, lam=LAM):
    """Each row with the next one, the last with the first."""
    after = [*rows[1:], rows[0]]
    return [[lam * a + (1 - lam) * b for a, b in zip(r, s, strict=True)] for r, s in zip(rows, after, strict=True)]


def ce(target, z):
    return -sum(t * math.log(p) for t, p in zip(target, softmax(z), strict=True) if t > 0)


def squared(target, z):
    return sum((t - p) ** 2 for t, p in zip(target, softmax(z), strict=True)) / len(z)


def entropy(p):
    return -sum(v * math.log(v) for v in p if v > 0)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def near(value):
    return pytest.approx(value, abs=1e-6)


def losses(method, *, labels=(0, 2), progress=1.0, grad=False, changed=None, **more):
    known = {"x": ZX, "x2": ZX, "u_w": ZW, "u_w2": ZW, "u_s": ZS, "u_s2": ZS2, "x_p": ZX} | (changed or {})
    z = {v: torch.tensor(known[v], dtype=torch.float64, requires_grad=grad) for v in method.wanted_views()}
    found = step_losses(method, z, torch.tensor(labels), progress=progress, **more)
    if grad:
        torch.stack(list(found.values())).sum().backward()
        return z
    return {name: value.item() for name, value in found.items()}


# --- ICT


def test_ict():
    """Target of row 0: 0.7 x (0.975559, 0.017868, 0.006573) + 0.3 x (0.367165, 0.332225, 0.300610) =
    (0.793041, 0.112175, 0.094784)."""
    found = losses(ICT(weight=2.0))
    target = blended([softmax(z) for z in ZW])
    assert target[0] == [near(0.793041), near(0.112175), near(0.094784)]
    assert found["sup"] == near(mean(map(ce, blended(Y), blended(ZX))))
    assert found["unsup"] == near(2 * mean(map(squared, target, blended(ZW))))


def test_ict_keeps_labeled_and_unlabeled_rows_apart():
    """Two rows of each block swapped with one another, as methods.md has it: sum of the squares 0.029830."""
    found = losses(ICT(weight=1.0), changed={"u_w": ZW[:2]})
    p = [softmax(z) for z in ZW[:2]]
    assert found["unsup"] == near(mean(map(squared, blended(p), blended(ZW[:2]))))
    other = losses(ICT(weight=1.0), changed={"x": ZX[::-1]}, labels=(2, 0))
    assert other["sup"] == near(mean(map(ce, blended(Y[::-1]), blended(ZX[::-1]))))


def test_ict_may_mix_logits():
    """Then teacher and student, the same here, agree: the loss is 0. Mixed probabilities differ from them."""
    assert losses(ICT(mix_logits=True))["unsup"] == near(0.0)
    assert losses(ICT())["unsup"] > 1e-3


def test_ict_teacher_sees_unmixed_rows():
    teacher = {"u_w": torch.tensor(ZS, dtype=torch.float64)}
    found = losses(ICT(weight=1.0), logits_by_net={"teacher": teacher})
    assert found["unsup"] == near(mean(map(squared, blended([softmax(z) for z in ZS]), blended(ZW))))


# --- MixMatch


def test_mixmatch():
    """Guess of row 0 from ZW and ZS: mean 0.820400 0.131298 0.048302, squared and normalised 0.971742."""
    found = losses(MixMatch(weight=2.0), changed={"u_w2": ZS})
    guess = [sharpen(average(softmax(a), softmax(b)), 0.5) for a, b in zip(ZW, ZS, strict=True)]
    assert guess[0][0] == near(0.971742)
    targets, z = blended([*Y, *guess, *guess]), blended([*ZX, *ZW, *ZS])
    assert found["sup"] == near(mean(map(ce, targets[:2], z[:2])))
    assert found["unsup"] == near(2 * mean(map(squared, targets[2:], z[2:])))


def test_mixmatch_ramp_is_linear():
    full, part = (losses(MixMatch(ramp_up=0.4), progress=t, changed={"u_w2": ZS})["unsup"] for t in (0.4, 0.1))
    assert part == near(full / 4)


def test_mixmatch_without_mixing_or_sharpening():
    """Temperature 1 and lam 1: the guess is the mean itself, and rows stay as they are."""
    found = losses(MixMatch(weight=1.0, alpha=0.0, temperature=1.0), changed={"u_w2": ZS})
    guess = [average(softmax(a), softmax(b)) for a, b in zip(ZW, ZS, strict=True)]
    assert found["sup"] == near((0.241311 + 0.939831) / 2)
    assert found["unsup"] == near(mean(map(squared, [*guess, *guess], [*ZW, *ZS])))


def test_the_larger_share_is_the_rows_own(monkeypatch):
    """lam = 0.3 gives what 0.7 gives where the method takes max(lam, 1 - lam), and something else where it does not."""
    for method, larger in ((MixMatch(), True), (MixText(), True), (MixUpPseudoLabel(), False), (ICT(), False)):
        with monkeypatch.context() as patch:
            patch.setattr(random, "beta", lambda alpha, n, like: like.new_full((n,), 0.3))
            mirrored = losses(method)
        assert (mirrored == losses(method)) is larger, method.name


def test_the_guess_carries_no_gradient():
    """The gradient of u_w is that of the squared error alone, with the guess as a number: checked by differences."""
    z = losses(MixMatch(weight=3.0, alpha=0.0), grad=True, changed={"u_w2": ZS})
    row, step, slopes = ZW[2], 1e-6, []
    guess = sharpen(average(softmax(row), softmax(ZS[2])), 0.5)
    for column in range(3):
        up, down = ([v + s * (k == column) for k, v in enumerate(row)] for s in (step, -step))
        slopes.append(3 * (squared(guess, up) - squared(guess, down)) / (2 * step) / 8)
    assert z["u_w"].grad[2].tolist() == [near(v) for v in slopes]
    assert max(map(abs, slopes)) > 1e-3


# --- MixText


def test_mixtext():
    """The guess for both views comes from the text as it is: row 0 sharpened (0.999619, 0.000335, 0.000045)."""
    found = losses(MixText(weight=2.0))
    guess = [sharpen(softmax(z), 0.5) for z in ZW]
    targets, z = blended([*Y, *guess, *guess]), blended([*ZX, *ZW, *ZS])
    assert found["sup"] == near(mean(map(ce, targets[:2], z[:2])))
    assert found["unsup"] == near(2 * mean(ce(t, row) - entropy(t) for t, row in zip(targets[2:], z[2:], strict=True)))


def test_mixtext_strong_share():
    """Half of each view: the guess of MixMatch's test, 0.971742."""
    found = losses(MixText(weight=1.0, strong_share=0.5, alpha=0.0))
    guess = [sharpen(average(softmax(a), softmax(b)), 0.5) for a, b in zip(ZW, ZS, strict=True)]
    pairs = zip([*guess, *guess], [*ZW, *ZS], strict=True)
    assert found["unsup"] == near(mean(ce(t, row) - entropy(t) for t, row in pairs))


def test_mixtext_hinge():
    """Entropies of ZW 0.129, 1.095, 0.305, 0.080 and a margin of 0.7: only row 1 is above, by 0.395; mean 0.0988."""
    found = losses(MixText(hinge_weight=2.0))
    over = [max(entropy(softmax(z)) - 0.7, 0) for z in ZW]
    assert [v > 0 for v in over] == [False, True, False, False]
    assert found["hinge"] == near(2 * mean(over)) and found["hinge"] == pytest.approx(2 * 0.0988, abs=1e-3)


# --- pseudo-labels with MixUp


def test_mixup_pseudo_label():
    """Soft labels are the predictions of the round; sup and unsup are shares of one mean over the six rows.

    Unmixed: prior term sum 1/3 ln((1/3) / pbar), entropy term 0.4 x the mean of six entropies.
    """
    found = losses(MixUpPseudoLabel())
    targets, z = blended([*Y, *(softmax(v) for v in ZW)]), blended([*ZX, *ZW])
    each = list(map(ce, targets, z))
    p = [softmax(v) for v in z]
    pbar = average(*p)
    assert found["sup"] == near(sum(each[:2]) / 6) and found["unsup"] == near(sum(each[2:]) / 6)
    assert found["prior"] == near(0.8 * sum(math.log(1 / 3 / v) / 3 for v in pbar))
    assert found["entropy"] == near(0.4 * mean(map(entropy, p)))


def test_soft_labels_last_until_the_next_round():
    """Given state is used, whatever the net says by now, by number in the pool."""
    soft = torch.tensor(
        [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]], dtype=torch.float64
    )
    ids = torch.tensor([4, 0, 2, 3])
    found = losses(MixUpPseudoLabel(alpha=0.0), state={"soft": soft}, ids=ids)
    assert found["unsup"] == near(sum(ce(soft[i].tolist(), z) for i, z in zip(ids.tolist(), ZW, strict=True)) / 6)


def test_warm_up_leaves_the_pool_out():
    assert set(losses(MixUpPseudoLabel(supervised_until=0.5), progress=0.4)) == {"sup"}
    assert losses(MixUpPseudoLabel(supervised_until=0.5), progress=0.4)["sup"] == near((0.241311 + 0.939831) / 2)


# --- ReMixMatch

PLAIN = ReMixMatch(ctaugment=False, alpha=0.0, weight=1.0, strong_weight=1.0)


def test_remixmatch():
    """Labeled classes 0 and 2: their shares 1/2, 0, 1/2 over the queue's 1/3 each turn (0.975559, 0.017868, 0.006573)
    into (0.993307, 0.000000, 0.006693); squared and normalised 0.999955."""
    found = losses(PLAIN)
    shares = [(s + 1e-6) / (1 / 3 + 1e-6) for s in (0.5, 0.0, 0.5)]
    guess = []
    for z in ZW:
        scaled = [v * s for v, s in zip(softmax(z), shares, strict=True)]
        guess.append(sharpen([v / sum(scaled) for v in scaled], 0.5))
    assert guess[0][0] == near(0.999955)
    assert found["sup"] == near((0.241311 + 0.939831) / 2)
    each = [ce(t, z) for views in (ZW, ZS, ZS2) for t, z in zip(guess, views, strict=True)]
    assert found["unsup"] == near(mean(each))
    assert found["strong"] == near(mean(map(ce, guess, ZS)))


def test_remixmatch_queue_takes_the_batch_in_afterwards():
    """Unaligned mean of the predictions goes into the first place, and counts from the second step on."""
    state = {"queue": torch.full((2, 3), 1 / 3, dtype=torch.float64), "place": torch.tensor(0)}
    method = ReMixMatch(ctaugment=False, alpha=0.0, queue=2)
    first = losses(method, state=state)
    pbar = average(*(softmax(z) for z in ZW))
    assert state["queue"].tolist() == [[pytest.approx(v, abs=1e-6) for v in pbar], [near(1 / 3)] * 3]
    second = losses(method, state=state)
    assert state["queue"][1].tolist() == [pytest.approx(v, abs=1e-6) for v in pbar] and int(state["place"]) == 2
    assert abs(first["unsup"] - second["unsup"]) > 1e-6


def test_remixmatch_mixes_all_but_the_strong_term():
    mixed, plain = losses(ReMixMatch(ctaugment=False)), losses(ReMixMatch(ctaugment=False, alpha=0.0))
    assert mixed["strong"] == plain["strong"] and abs(mixed["unsup"] - plain["unsup"]) > 1e-3


def test_remixmatch_strong_views():
    assert list(ReMixMatch(strong_views=3).wanted_views()) == ["x", "u_w", "u_s", "u_s2", "u_s3", "x_p"]
    assert ReMixMatch().wanted_views()["u_s"] == "controlled" and PLAIN.wanted_views()["u_s2"] == "strong"


def test_remixmatch_pretext():
    """Rows 0 and 2 stay, rows 1 and 3 are turned by half their width: answers 0 1 0 1, the head's first logits."""
    head = {
        "pretext": {
            "u_s": torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 3, 0, 0]], dtype=torch.float64)
        }
    }
    found = losses(ReMixMatch(ctaugment=False, pretext="order"), heads=head)
    wanted = mean(
        [ce([1, 0, 0, 0], [2, 0, 0, 0]), math.log(4), ce([1, 0, 0, 0], [0, 1, 0, 0]), ce([0, 1, 0, 0], [0, 3, 0, 0])]
    )
    assert found["pretext"] == near(0.5 * wanted)


# --- DivideMix

WARM = DivideMix(supervised_until=0.0, ramp_up=0.0, weight=2.0)


def split(student, second):
    return {
        "clean.student": torch.tensor(student, dtype=torch.float64),
        "clean.second": torch.tensor(second, dtype=torch.float64),
    }


def dividemix(clean, twin):
    """(sup, unsup, penalty) of the student that answers ZX and ZW beside a net that answers `twin`."""
    mine = [softmax(z) for z in [*ZX, *ZW]]
    guess = [average(a, b) for a, b in zip(mine, [softmax(z) for z in twin], strict=True)]
    refined = [
        [c * y + (1 - c) * p for y, p in zip(t, q, strict=True)] for c, t, q in zip(clean, Y, mine[:2], strict=True)
    ]
    x = [sharpen(r if c > 0.5 else g, 0.5) for c, r, g in zip(clean, refined, guess[:2], strict=True)]
    u = [sharpen(g, 0.5) for g in guess[2:]]
    targets, z = blended([*x, *x, *u, *u]), blended([*ZX, *ZX, *ZW, *ZW])
    kept = [c > 0.5 for c in [*clean, *clean]] + [False] * 8
    pbar = average(*map(softmax, z))
    return (
        mean(ce(t, v) for t, v, k in zip(targets, z, kept, strict=True) if k),
        2 * mean(squared(t, v) for t, v, k in zip(targets, z, kept, strict=True) if not k),
        sum(math.log(1 / 3 / v) / 3 for v in pbar),
    )


@pytest.mark.parametrize("clean", [(0.9, 0.8), (0.9, 0.2)])
def test_dividemix(clean):
    """Row 0 believed at 0.9: 0.9 + 0.1 x 0.785597 = 0.978560, squared and normalised 0.999599."""
    twin = [[0.5, 0.0, 0.0], [0.0, 1.0, 0.0], *ZS]
    other = {"x": twin[:2], "x2": twin[:2], "u_w": twin[2:], "u_w2": twin[2:]}
    by_net = {"second": {v: torch.tensor(z, dtype=torch.float64) for v, z in other.items()}}
    found = losses(WARM, state=split(clean, (1.0, 1.0)), logits_by_net=by_net)
    sup, unsup, penalty = dividemix(clean, twin)
    assert found["sup.student"] == near(sup) and found["unsup.student"] == near(unsup)
    assert found["penalty.student"] == near(penalty)


def test_dividemix_all_or_nothing_believed():
    """An empty side is a zero, not a crash; a label believed in full is its own target."""
    nothing = losses(WARM, state=split((0.0, 0.0), (0.0, 0.0)))
    assert nothing["sup.student"] == 0.0 and nothing["unsup.student"] > 0
    everything = losses(DivideMix(supervised_until=0.0, alpha=0.0), state=split((1.0, 1.0), (1.0, 1.0)))
    assert everything["sup.student"] == near((0.241311 + 0.939831) / 2)


def test_dividemix_without_a_pool():
    """No unlabeled rows at all: the rows that are not believed are what is left to guess."""
    empty = torch.zeros(0, 3, dtype=torch.float64)
    z = {"x": ZX, "x2": ZX}
    tensors = {v: torch.tensor(rows, dtype=torch.float64) for v, rows in z.items()} | {"u_w": empty, "u_w2": empty}
    found = step_losses(WARM, tensors, torch.tensor([0, 2]), state=split((1.0, 0.0), (1.0, 1.0)))
    assert all(bool(torch.isfinite(v)) for v in found.values())
    assert found["unsup.student"] > 0 and found["unsup.second"] == 0


def test_each_net_is_told_by_the_other_what_to_believe():
    """Eight labels, the last two wrong. `second` sees through them and tells the student; the student sees nothing."""
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    told = 4.0 * torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1, 2, 2, 2]), 3).double()
    blind = torch.zeros(8, 3, dtype=torch.float64)
    z = {"x": blind, "x2": blind, "u_w": blind, "u_w2": blind}
    method = DivideMix(supervised_until=0.0, weight=0.0, penalty_weight=0.0, alpha=0.0)
    found = step_losses(method, z, labels, logits_by_net={"second": {"x": told, "x2": told}})
    # The student believes six rows; `second` has heard nothing and believes all, the wrong ones at a price of about 4.
    assert found["sup.student"] == near(math.log(3))
    right, wrong = -math.log(math.exp(4) / (math.exp(4) + 2)), -math.log(1 / (math.exp(4) + 2))
    assert found["sup.second"] == near((6 * right + 2 * wrong) / 8)


def test_dividemix_warm_up_and_confidence_penalty():
    """Negative entropies of ZX: -(0.621) and -(1.089); mean -0.855, times 0.1."""
    method = DivideMix(supervised_until=0.5, confidence_penalty=0.1)
    found = losses(method, progress=0.2)
    assert found["sup.student"] == found["sup.second"] == near((0.241311 + 0.939831) / 2)
    assert found["confidence.student"] == near(-0.1 * mean(entropy(softmax(z)) for z in ZX))


def test_clean_probability():
    """Losses that fall into two heaps; too few, equal or close ones are all believed."""
    loss = torch.tensor([0.01, 0.02, 0.03, 2.0, 2.1, 0.0], dtype=torch.float64)
    assert (clean_probability(loss) > 0.5).tolist() == [True, True, True, False, False, True]
    assert (clean_probability(loss * 100) > 0.5).tolist() == [True, True, True, False, False, True]
    for nothing in (loss[:3], torch.ones(9), torch.zeros(0)):
        assert clean_probability(nothing).tolist() == [1.0] * len(nothing)
    assert clean_probability(loss, least_gap=3.0).tolist() == [1.0] * 6
