"""Losses of every method on fixed logits, against numbers worked out by hand.

The logits of every test (B = 2 labeled rows, N = 4 unlabeled rows, C = 3 classes), their softmax p and -ln p:

    ZX  [ 2.0,  0.5, -1.0]   p 0.785597 0.175290 0.039113   -ln p 0.241311 1.741311 3.241311   class 0
        [ 0.2,  0.1,  0.4]   p 0.319873 0.289433 0.390694   -ln p 1.139831 1.239831 0.939831   class 2
    ZW  [ 4.0,  0.0, -1.0]   p 0.975559 0.017868 0.006573   -ln p 0.024745 4.024745 5.024745
        [ 1.0,  0.9,  0.8]   p 0.367165 0.332225 0.300610   -ln p 1.001943 1.101943 1.201943
        [-2.0,  3.0,  0.5]   p 0.006188 0.918423 0.075389   -ln p 5.085097 0.085097 2.585097
        [ 0.0,  0.0,  5.0]   p 0.006648 0.006648 0.986703   -ln p 5.013386 5.013386 0.013386
    ZS  [ 2.0,  1.0,  0.0]   p 0.665241 0.244728 0.090031   -ln p 0.407606 1.407606 2.407606
        [ 0.5,  0.5,  0.0]   p 0.383652 0.383652 0.232697   -ln p 0.958020 0.958020 1.458020
        [ 0.0,  1.0,  1.5]   p 0.121952 0.331499 0.546549   -ln p 2.104131 1.104131 0.604131
        [ 1.0, -1.0,  2.0]   p 0.259496 0.035119 0.705385   -ln p 1.349012 3.349012 0.349012

`P` and `NLL` below hold these tables at full precision, made by plain Python: nothing of the library takes part in the
expected side. Every number is checked twice, against the six digits of the docstring and against the formula.
"""

import math
from dataclasses import asdict

import pytest
import torch

from nlp_ssl.methods import UDA, FixMatch, MeanTeacher, PiModel, PseudoLabel, Supervised
from nlp_ssl.testing import step_losses

LOGITS = {
    "x": [[2.0, 0.5, -1.0], [0.2, 0.1, 0.4]],
    "u_w": [[4.0, 0.0, -1.0], [1.0, 0.9, 0.8], [-2.0, 3.0, 0.5], [0.0, 0.0, 5.0]],
    "u_s": [[2.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 1.5], [1.0, -1.0, 2.0]],
    "u_w2": [[2.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 1.5], [1.0, -1.0, 2.0]],
}
CLASSES = [0, 2]
SUP = 0.590571  # (0.241311 + 0.939831) / 2


def softmax(row, temperature=1.0):
    powers = [math.exp(v / temperature) for v in row]
    return [v / sum(powers) for v in powers]


P = {view: [softmax(row) for row in rows] for view, rows in LOGITS.items()}
NLL = {view: [[-math.log(v) for v in row] for row in rows] for view, rows in P.items()}


def kl(target, p):
    return sum(t * math.log(t / q) for t, q in zip(target, p, strict=True) if t > 0)


def squared(p, q):
    return sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / len(p)


def losses(method, labels=CLASSES, *, progress=1.0, changed=None, **more):
    logits = {**LOGITS, **(changed or {})}
    tensors = {v: torch.tensor(logits[v], dtype=torch.float64) for v in method.views}
    return {
        k: v.item() for k, v in step_losses(method, tensors, torch.tensor(labels), progress=progress, **more).items()
    }


def near(value):
    return pytest.approx(value, abs=1e-6)


def weighing(method, w):
    """The same method on batches whose labeled rows weigh w."""
    weights = torch.tensor(w, dtype=torch.float64)
    plain = type(method)
    heavy = type(
        plain.__name__, (plain,), {"step": lambda self, run, batch: plain.step(self, run, {**batch, "w": weights})}
    )
    return heavy(**asdict(method))


# --- supervised ---


def test_supervised_is_the_mean_of_the_cross_entropy():
    """(0.241311 + 0.939831) / 2 = 0.590571."""
    assert losses(Supervised()) == {"sup": near(0.590571)}
    assert losses(Supervised())["sup"] == near((NLL["x"][0][0] + NLL["x"][1][2]) / 2)


def test_supervised_soft_labels():
    """Row 0: 0.7 x 0.241311 + 0.2 x 1.741311 + 0.1 x 3.241311 = 0.841311; row 1 is class 2: 0.939831; mean 0.890571."""
    soft = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]], dtype=torch.float64)
    tensors = {"x": torch.tensor(LOGITS["x"], dtype=torch.float64)}
    assert step_losses(Supervised(), tensors, soft)["sup"].item() == near(0.890571)


def test_one_hot_probabilities_equal_classes():
    assert losses(Supervised(), [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])["sup"] == near(SUP)


def test_weights_scale_rows_and_the_mean_divides_by_the_rows():
    """(2 x 0.241311 + 0.5 x 0.939831) / 2 = 0.476269: by 2 rows, not by the weights' sum of 2.5."""
    assert losses(weighing(Supervised(), [2.0, 0.5]))["sup"] == near(0.476269)


@pytest.mark.parametrize(
    "method", [FixMatch(), MeanTeacher(), PiModel(), PseudoLabel(), UDA(tsa="none")], ids=lambda m: m.name
)
def test_every_method_honours_weights_and_soft_labels(method):
    """The same 0.476269, and the same 0.890571, as in supervised training."""
    assert losses(weighing(method, [2.0, 0.5]))["sup"] == near(0.476269)
    assert losses(method, [[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]])["sup"] == near(0.890571)


def test_label_smoothing():
    """Mean of -ln p over all classes: row 0 (0.241311 + 1.741311 + 3.241311) / 3 = 1.741311, row 1 1.106498.

    0.9 x 0.590571 + 0.1 x (1.741311 + 1.106498) / 2 = 0.531514 + 0.142390 = 0.673904.
    """
    assert losses(Supervised(label_smoothing=0.1))["sup"] == near(0.673904)


# --- pseudo_label ---


def test_pseudo_label():
    """-ln of the largest p of each row: 0.024745, 1.001943, 0.085097, 0.013386.

    threshold 0:    (0.024745 + 1.001943 + 0.085097 + 0.013386) / 4 = 0.281293
    threshold 0.95: rows 0 and 3 stay, and the mean still divides by 4: (0.024745 + 0.013386) / 4 = 0.009533
    """
    assert losses(PseudoLabel(threshold=0.0)) == {"sup": near(SUP), "unsup": near(0.281293)}
    assert losses(PseudoLabel()) == {"sup": near(SUP), "unsup": near(0.009533)}
    assert losses(PseudoLabel(threshold=0.0))["unsup"] == near(sum(min(row) for row in NLL["u_w"]) / 4)


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.0), (0.1, 0.25), (0.2, 0.5), (0.4, 1.0), (0.9, 1.0)])
def test_pseudo_label_weight_rises_linearly(progress, factor):
    """ramp_up 0.4: progress 0.1 is a quarter of it. Weight 3 x factor x 0.281293."""
    found = losses(PseudoLabel(threshold=0.0, weight=3.0), progress=progress)
    assert found["unsup"] == near(3 * factor * 0.2812927)
    assert found["sup"] == near(SUP)


# --- pi_model and mean_teacher ---


def test_pi_model():
    """Mean over the classes of (p - q)^2, row by row: 0.051576, 0.002510, 0.193291, 0.047961; mean 0.0738345; x 10."""
    assert losses(PiModel(weight=1.0)) == {"sup": near(SUP), "unsup": near(0.0738345)}
    rows = [squared(a, b) for a, b in zip(P["u_w"], P["u_s"], strict=True)]
    assert losses(PiModel())["unsup"] == near(10 * sum(rows) / 4)


@pytest.mark.parametrize("method", [PiModel(weight=1.0), MeanTeacher(weight=1.0)], ids=lambda m: m.name)
@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.006738), (0.2, 0.286505), (0.4, 1.0), (1.0, 1.0)])
def test_consistency_weight_follows_the_sigmoid_ramp(method, progress, factor):
    """ramp_up 0.4: t = progress / 0.4, factor exp(-5 (1 - t)^2): e^-5 = 0.006738, e^-1.25 = 0.286505, 1."""
    assert losses(method, progress=progress)["unsup"] == near(factor * 0.0738345)


@pytest.mark.parametrize("method", [PiModel(), MeanTeacher()], ids=lambda m: m.name)
def test_no_ramp_means_full_weight_from_the_start(method):
    whole = losses(method)
    assert losses(type(method)(ramp_up=0.0), progress=0.0) == {k: near(v) for k, v in whole.items()}


def test_mean_teacher_compares_the_student_with_the_teacher():
    """Teacher on u_w against student on u_s: weight 50, as in the Pi-model (0.0738345).

    The student's own u_w and the teacher's own u_s and x play no part: they are set to other values here.
    """
    junk = torch.tensor([[9.0, -9.0, 0.0]] * 4, dtype=torch.float64)
    teacher = {"u_s": junk, "x": junk[:2]}
    rows = [squared(a, b) for a, b in zip(P["u_w"], P["u_s"], strict=True)]
    found = losses(MeanTeacher(), logits_by_net={"teacher": teacher, "student": {"u_w": junk}})
    assert found == {"sup": near(SUP), "unsup": near(50 * sum(rows) / 4)}


def test_mean_teacher_equal_nets_agree():
    assert losses(MeanTeacher(), changed={"u_s": LOGITS["u_w"]})["unsup"] == near(0.0)


def test_mean_teacher_decay_starts_as_a_plain_average():
    """min(1 - 1/(t+1), 0.9): 1/2, 2/3, 3/4, then 0.9 from t = 9 on. Student 1, 2, 4 from 0 gives 0.5, 1.0, 1.75."""
    method = MeanTeacher(ema_decay=0.9)
    assert [method.ema(t) for t in (1, 2, 3, 9, 10, 1000)] == [near(v) for v in (1 / 2, 2 / 3, 3 / 4, 0.9, 0.9, 0.9)]
    average, seen = 0.0, []
    for t, student in enumerate((1.0, 2.0, 4.0), start=1):
        average = method.ema(t) * average + (1 - method.ema(t)) * student
        seen.append(average)
    # 1/2 x 1 = 0.5; 2/3 x 0.5 + 1/3 x 2 = 1.0; 3/4 x 1.0 + 1/4 x 4 = 1.75
    assert seen == [near(0.5), near(1.0), near(1.75)]


# --- uda ---


def test_uda():
    """Half of the training done (linear annealing, C = 3: threshold 1/2 x 2/3 + 1/3 = 0.666667).

    Row 0 of the labels has p[y] = 0.785597 > 0.666667 and is left out, row 1 has 0.390694 and stays. The mean is over
    what stays: 0.939831 / 1.
    Unlabeled: KL(softmax(u_w / 0.4) || softmax(u_s)) = 0.407109, 0.007058, 1.089150, 0.348927; confidences 0.975559,
    0.367165, 0.918423, 0.986703 pass 0.8 except the second; (0.407109 + 1.089150 + 0.348927) / 4 = 0.461296.
    """
    assert losses(UDA(tsa="linear"), progress=0.5) == {"sup": near(0.939831), "unsup": near(0.461296)}
    rows = [kl(softmax(w, 0.4), q) for w, q in zip(LOGITS["u_w"], P["u_s"], strict=True)]
    assert losses(UDA(), progress=0.5)["unsup"] == near((rows[0] + rows[2] + rows[3]) / 4)


ANNEALED = [
    # schedule, progress, sup. Thresholds a(t) x 2/3 + 1/3; p[y] are 0.785597 and 0.390694.
    ("none", 0.0, SUP),  # no threshold: both rows
    ("none", 0.5, SUP),
    ("linear", 0.0, 0.0),  # 0.333333: no row
    ("linear", 0.05, 0.0),  # 0.366667: no row
    ("linear", 0.1, 0.939831),  # 0.400000: the second
    ("linear", 0.6, 0.939831),  # 0.733333: the second
    ("linear", 0.7, SUP),  # 0.800000: both
    ("log", 0.0, 0.0),  # a = 1 - e^0 = 0, 0.333333: no row
    ("log", 0.1, 0.939831),  # a = 1 - e^-0.5 = 0.393469, 0.595646: the second
    ("log", 0.5, SUP),  # a = 1 - e^-2.5 = 0.917915, 0.945277: both
    ("exp", 0.5, 0.0),  # a = e^-2.5 = 0.082085, 0.388057: no row
    ("exp", 0.52, 0.939831),  # a = e^-2.4 = 0.090718, 0.393812: the second
    ("exp", 0.9, 0.939831),  # a = e^-0.5 = 0.606531, 0.737687: the second
    ("exp", 1.0, SUP),  # a = 1, 1.0: both
]


@pytest.mark.parametrize(("schedule", "progress", "sup"), ANNEALED)
def test_uda_training_signal_annealing(schedule, progress, sup):
    """Rows whose correct class has p <= threshold stay; the mean divides by how many stay, and none gives 0."""
    assert losses(UDA(tsa=schedule), progress=progress)["sup"] == near(sup)


def test_uda_annealing_looks_at_the_correct_class_not_at_the_largest():
    """Labeled with class 1 (p 0.175290, 0.289433) both rows stay at threshold 0.666667, sure as row 0 is (0.785597).

    (1.741311 + 1.239831) / 2 = 1.490571.
    """
    assert losses(UDA(tsa="linear"), [1, 1], progress=0.5)["sup"] == near(1.490571)


def test_uda_annealing_of_weighted_rows_divides_by_the_rows_kept():
    """Threshold 0.666667 keeps row 1 alone: 0.5 x 0.939831 / 1 = 0.469916."""
    assert losses(weighing(UDA(tsa="linear"), [2.0, 0.5]), progress=0.5)["sup"] == near(0.469916)


def test_uda_annealing_of_soft_labels():
    """p . y: row 0 0.7 x 0.785597 + 0.2 x 0.175290 + 0.1 x 0.039113 = 0.588887 <= 0.666667 stays now; mean 0.890571."""
    assert losses(UDA(tsa="linear"), [[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]], progress=0.5)["sup"] == near(0.890571)


def test_uda_mask_looks_at_the_untempered_probability():
    """At temperature 0.4 row 2 of u_w has 0.998070, untempered 0.918423: with threshold 0.95 it is out.

    (0.407109 + 0.348927) / 4 = 0.189009.
    """
    assert losses(UDA(threshold=0.95))["unsup"] == near(0.189009)


def test_uda_without_temperature_and_threshold_is_plain_kl():
    rows = [kl(p, q) for p, q in zip(P["u_w"], P["u_s"], strict=True)]
    assert losses(UDA(threshold=0.0, temperature=1.0, weight=2.0))["unsup"] == near(2 * sum(rows) / 4)
    assert losses(UDA(threshold=0.0, temperature=1.0), changed={"u_s": LOGITS["u_w"]})["unsup"] == near(0.0)


def test_uda_annealing_keeps_a_row_on_the_threshold():
    """C = 2 at the start: threshold 0.5, and softmax([0, 0]) is exactly 0.5. -ln 0.5 = 0.693147."""
    even = {view: [[0.0, 0.0]] for view in UDA.views}
    assert losses(UDA(tsa="linear"), [0], changed=even, progress=0.0)["sup"] == near(0.693147)


# --- fixmatch ---


def test_fixmatch():
    """Rows 0 and 3 reach 0.95: labels 0 and 2, -ln p of u_s 0.407606 and 0.349012.

    The mean divides by 4: (0.407606 + 0.349012) / 4 = 0.189155 (not by the 2 kept, which would give 0.378309).
    threshold 0: labels 0, 0, 1, 2: (0.407606 + 0.958020 + 1.104131 + 0.349012) / 4 = 0.704692.
    """
    assert losses(FixMatch(threshold=0.95)) == {"sup": near(SUP), "unsup": near(0.189155)}
    assert losses(FixMatch(threshold=0.0))["unsup"] == near(0.704692)
    assert losses(FixMatch(threshold=0.95, weight=3.0))["unsup"] == near(3 * (NLL["u_s"][0][0] + NLL["u_s"][3][2]) / 4)


def test_fixmatch_on_equal_views_is_pseudo_label():
    equal = {"u_s": LOGITS["u_w"]}
    assert losses(FixMatch(threshold=0.0), changed=equal)["unsup"] == near(0.281293)


def test_uda_of_low_temperature_is_fixmatch():
    """softmax(u_w / 0.001) is one-hot, so that KL is the cross-entropy of the hard label."""
    assert losses(UDA(threshold=0.95, temperature=1e-3))["unsup"] == near(0.189155)


@pytest.mark.parametrize(("method", "kept"), [(FixMatch, True), (PseudoLabel, True), (UDA, False)])
def test_a_confidence_on_the_threshold(method, kept):
    """softmax([0, 0]) is exactly 0.5: FixMatch and Pseudo-Label keep what reaches the threshold, UDA what is above."""
    even = {"x": [[0.0, 0.0]], "u_w": [[0.0, 0.0]], "u_s": [[1.0, 0.0]]}
    assert (losses(method(threshold=0.5), [0], changed=even)["unsup"] > 0) is kept


# --- gradients ---


def gradients(method, view):
    tensors = {v: torch.tensor(LOGITS[v], dtype=torch.float64, requires_grad=True) for v in method.views}
    sum(step_losses(method, tensors, torch.tensor(CLASSES)).values()).backward()
    return tensors[view].grad.tolist()


def test_fixmatch_gradient():
    """(p - one-hot) / 4 on kept rows, exactly 0 elsewhere. Row 0: -0.334759 / 4 = -0.083690, 0.061182, 0.022508."""
    found = gradients(FixMatch(threshold=0.95), "u_s")
    assert found[0] == [near(-0.083690), near(0.061182), near(0.022508)]
    assert found[1] == found[2] == [0.0, 0.0, 0.0]
    assert found[3] == [near(P["u_s"][3][0] / 4), near(P["u_s"][3][1] / 4), near((P["u_s"][3][2] - 1) / 4)]


def test_pseudo_label_gradient():
    """(p - one-hot) / 4 through the same logits that make the label. Row 0: -0.006110, 0.004467, 0.001643."""
    assert gradients(PseudoLabel(), "u_w")[0] == [near(-0.006110), near(0.004467), near(0.001643)]


def test_uda_gradient():
    """(softmax(u_s) - softmax(u_w / 0.4)) / 4. Row 0: (0.665241 - 0.999951) / 4 = -0.083677."""
    sharp = softmax(LOGITS["u_w"][0], 0.4)
    assert gradients(UDA(), "u_s")[0] == [near((q - t) / 4) for q, t in zip(P["u_s"][0], sharp, strict=True)]
    assert gradients(UDA(), "u_s")[0][0] == near(-0.083677)


def test_pi_model_gradient_reaches_both_passes():
    """d/dz of mean_c (p - q)^2 is 2/3 x p_i (d_i - sum_c p_c d_c), d = p - q, times weight 10 over 4 rows; q likewise.

    Rounded, for row 0 of u_w: d = 0.310318, -0.226860, -0.083458; sum p d = 0.298132; 10/4 x 2/3 x 0.975559 x
    (0.310318 - 0.298132) = 0.019814.
    """
    p, q = P["u_w"][0], P["u_s"][0]
    d = [a - b for a, b in zip(p, q, strict=True)]
    for view, own, sign in (("u_w", p, 1), ("u_w2", q, -1)):
        inner = sum(a * b for a, b in zip(own, d, strict=True))
        wanted = [sign * 10 / 4 * 2 / 3 * a * (b - inner) for a, b in zip(own, d, strict=True)]
        assert gradients(PiModel(), view)[0] == [near(v) for v in wanted]
    assert gradients(PiModel(), "u_w")[0][0] == near(0.019814)
