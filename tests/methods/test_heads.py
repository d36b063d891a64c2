"""Losses of the methods with heads, banks or two nets, against numbers worked out by hand.

    ZX  [ 2.0,  0.5, -1.0]   -ln p 0.241311 1.741311 3.241311   class 0
        [ 0.2,  0.1,  0.4]   -ln p 1.139831 1.239831 0.939831   class 2
    ZW  [ 4.0,  0.0, -1.0]   p 0.975559 0.017868 0.006573
        [ 1.0,  0.9,  0.8]   p 0.367165 0.332225 0.300610
        [-2.0,  3.0,  0.5]   p 0.006188 0.918423 0.075389
        [ 0.0,  0.0,  5.0]   p 0.006648 0.006648 0.986703
    ZS  [ 2.0,  1.0,  0.0]   -ln p 0.407606 1.407606 2.407606
        [ 0.5,  0.5,  0.0]   -ln p 0.958020 0.958020 1.458020
        [ 0.0,  1.0,  1.5]   -ln p 2.104131 1.104131 0.604131
        [ 1.0, -1.0,  2.0]   -ln p 1.349012 3.349012 0.349012

Projections are two numbers, of a length other than 1, and zeros up to the head's width. The expected side is plain
Python, every number twice: the six digits of the docstring and the formula.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import FAST, difference, tiny_task, trained

from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.methods import CoMatch, CRMatch, FixMatch, FreeMatch, JointMatch, MultiMatch, SimMatch, Supervised
from nlp_ssl.run import StepContext
from nlp_ssl.testing import StubNet, step_losses
from nlp_ssl.types import Batch, DataSpec

ZX = [[2.0, 0.5, -1.0], [0.2, 0.1, 0.4]]
ZW = [[4.0, 0.0, -1.0], [1.0, 0.9, 0.8], [-2.0, 3.0, 0.5], [0.0, 0.0, 5.0]]
ZS = [[2.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 1.5], [1.0, -1.0, 2.0]]
ZS2 = [[1.0, 1.5, 0.0], [0.0, 0.5, 0.5], [0.5, 2.0, 1.0], [0.5, 0.0, 1.0]]
LOGITS = {"x": ZX, "u_w": ZW, "u_s": ZS, "u_s2": ZS2}
CLASSES = [0, 2]
SUP = 0.590571  # (0.241311 + 0.939831) / 2
PROJECTIONS = {
    "x": [[0.0, 2.0], [3.0, 4.0]],  # unit (0, 1), (0.6, 0.8)
    "u_w": [[1.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.0, -1.0]],  # unit (1, 0), (0, 1), (1, 0), (0, -1)
    "u_s": [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0], [-1.0, 0.0]],  # unit (1, 0), (0, 1), (0.6, 0.8), (-1, 0)
    "u_s2": [[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [4.0, 3.0]],  # unit (1, 0), (1, 0), (0, 1), (0.8, 0.6)
}


# --- the expected side


def softmax(row, temperature=1.0):
    powers = [math.exp((v - max(row)) / temperature) for v in row]
    return [v / sum(powers) for v in powers]


def ce(target, z, temperature=1.0):
    return -sum(t * math.log(p) for t, p in zip(target, softmax(z, temperature), strict=True) if t > 0)


def dot(a, b):
    return sum(v * w for v, w in zip(a, b, strict=True))


def unit(row):
    return [v / math.sqrt(dot(row, row)) for v in row]


def scaled(row):
    return [v / sum(row) for v in row]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def one_hot(c, classes=3):
    return [float(k == c) for k in range(classes)]


def blend(weights, rows):
    """Weighted sum of rows."""
    return [dot(weights, column) for column in zip(*rows, strict=True)]


def near(value):
    return pytest.approx(value, abs=1e-6)


PW = [softmax(row) for row in ZW]
V = {view: [unit(row) for row in rows] for view, rows in PROJECTIONS.items()}


# --- the method's side


def padded(rows, width):
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float64)


def projections(method, **changed):
    width = method.heads["projection"].width or 2
    return {"projection": {view: padded(rows, width) for view, rows in {**PROJECTIONS, **changed}.items()}}


def tensors(method, **changed):
    logits = {**LOGITS, **changed}
    return {view: torch.tensor(logits[view], dtype=torch.float64) for view in method.views}


def losses(method, *, heads=None, labels=CLASSES, changed=None, **more):
    if heads is None and "projection" in method.heads:
        heads = projections(method)
    found = step_losses(method, tensors(method, **(changed or {})), torch.tensor(labels), heads=heads, **more)
    return {k: v.item() for k, v in found.items()}


def fresh(method, rows=4, labeled=2, classes=3):
    return method.init_state(DataSpec(num_classes=classes, pool_size=rows, labeled_size=labeled))


def gradients(method, heads, logits=None, labels=CLASSES, only=None, **more):
    """Gradients of the losses (or of those named in `only`) in the logits and head outputs of every view."""
    z = {view: v.requires_grad_() for view, v in (logits or tensors(method)).items()}
    heads = {name: {view: v.clone().requires_grad_() for view, v in out.items()} for name, out in heads.items()}
    found = step_losses(method, z, torch.tensor(labels), heads=heads, **more)
    sum(v for k, v in found.items() if only is None or k in only).backward()
    return {view: v.grad for view, v in z.items()}, {n: {k: v.grad for k, v in out.items()} for n, out in heads.items()}


def moved(grad):
    return grad is not None and bool(grad.any())


SATURATED = [[60.0, 0.0, 0.0], [0.5, 0.4, 0.4], [0.0, 60.0, 0.0], [0.0, 0.0, 60.0]]  # soft labels that are hard


# --- comatch


def graph(q, threshold):
    """Rows of q_i . q_j, 1 on the diagonal, 0 below the threshold, scaled to the sum 1."""
    n = range(len(q))
    found = [[1.0 if i == j else dot(q[i], q[j]) for j in n] for i in n]
    return [scaled([v if v >= threshold else 0.0 for v in row]) for row in found]


def contrast(q, threshold, temperature=0.2):
    likeness = [[dot(a, b) for b in V["u_s2"]] for a in V["u_s"]]
    return mean(ce(g, row, temperature) for g, row in zip(graph(q, threshold), likeness, strict=True))


def comatch(**options):
    """With the contrast at full weight."""
    return CoMatch(**{"contrast_weight": 1.0} | options)


def test_comatch_first_step():
    """Nothing is remembered, q = p. Rows 0, 2 and 3 reach 0.8, and the labels stay soft.

    Row 0: 0.975559 x 0.407606 + 0.017868 x 1.407606 + 0.006573 x 2.407606 = 0.438620, row 2 1.072626, row 3 0.375604;
    1.886850 / 4 = 0.471713.
    All q_i . q_j are below 0.8 (the largest is 0.366103): row i should be like its own second view. v_s . v_s2 / 0.2:
    [5, 5, 0, 4]      -ln softmax of the first   0.864836
    [0, 0, 5, 3]                  of the second  5.138728
    [3, 3, 4, 4.8]                of the third   1.376572
    [-5, -5, 0, -4]               of the last    4.031297      mean 2.852858
    """
    found = losses(comatch())
    assert found == {"sup": near(SUP), "unsup": near(0.471713), "contrast": near(2.852858)}
    assert found["unsup"] == near(sum(ce(PW[i], ZS[i]) for i in (0, 2, 3)) / 4)
    assert found["contrast"] == near(contrast(PW, 0.8))


def test_comatch_graph():
    """Threshold 0.32 keeps q_0 . q_1 = 0.366103 and q_1 . q_2 = 0.330058. Row 0 becomes 1 / 1.366103 = 0.732009 and
    0.267991, row 1 0.215842, 0.589566, 0.194591, row 2 0.248153 and 0.751847, row 3 stays.

    The cross-entropies are 0.864836 (both logits are 5), 4.165773, 1.624725 and 4.031297; mean 2.671658.
    """
    wanted = graph(PW, 0.32)
    assert wanted[0] == [near(0.732009), near(0.267991), 0.0, 0.0]
    assert wanted[1] == [near(0.215842), near(0.589566), near(0.194591), 0.0]
    found = losses(comatch(graph_threshold=0.32))["contrast"]
    assert found == near(contrast(PW, 0.32)) == near(2.671658)
    assert losses(comatch(graph_threshold=0.32, contrast_weight=3.0))["contrast"] == near(3 * 2.671658)


def test_comatch_equal_labels_and_features_have_nothing_left_but_the_entropy():
    """All q equal and sure, all features equal: G and S are 1/4 everywhere, ln 4 = 1.386294."""
    same = {"u_w": [[9.0, 0.0, 0.0]] * 4}
    heads = projections(comatch(), u_s=[[1.0, 2.0]] * 4, u_s2=[[1.0, 2.0]] * 4)
    assert losses(comatch(), heads=heads, changed=same)["contrast"] == near(math.log(4)) == near(1.386294)


def smoothed(alpha=0.9):
    """Probabilities with a part from the memory that the first step leaves: pool rows, then labeled ones."""
    memory = [*zip(V["u_w"], PW, strict=True), *zip(V["x"], [one_hot(0), one_hot(2)], strict=True)]
    out = []
    for v, p in zip(V["u_w"], PW, strict=True):
        weights = softmax([dot(v, w) for w, _ in memory], 0.2)
        part = blend(weights, [shares for _, shares in memory])
        out.append([alpha * a + (1 - alpha) * b for a, b in zip(p, part, strict=True)])
    return out


def test_comatch_smooths_with_what_is_remembered():
    """The second step finds six rows. For row 0 the likenesses are 1, 0, 1, 0, 0, 0.6; exp of five times these is
    148.413159 twice, 1 three times and 20.085537, in all 319.911855.

    Class 0: 148.413159 x (0.975559 + 0.006188) + 0.367165 + 0.006648 + 1 = 147.077993, / 319.911855 = 0.459745;
    q_0 = 0.9 x 0.975559 + 0.1 x 0.459745 = 0.923977, the other classes have 0.059623 and 0.016399.
    The unlabeled loss becomes 0.498659; with threshold 0.25 the graph joins 0 with 1, 1 with 0, 2
    and 3, 2 with 1 and 3 with 1: 2.660365.
    """
    state = fresh(comatch())
    losses(comatch(), state=state)
    q = smoothed()
    assert q[0] == [near(0.923977), near(0.059623), near(0.016399)]
    found = losses(comatch(graph_threshold=0.25), state=state)
    assert [max(row) >= 0.8 for row in q] == [True, False, True, True]
    assert found["unsup"] == near(sum(ce(q[i], ZS[i]) for i in (0, 2, 3)) / 4) == near(0.498659)
    assert found["contrast"] == near(contrast(q, 0.25)) == near(2.660365)


def test_comatch_mask_looks_at_the_smoothed_probability():
    """Row 2 has 0.918423 before and 0.870123 after: threshold 0.9 leaves it out; rows 0 and 3 (0.985439) stay."""
    state = fresh(comatch())
    losses(comatch(), state=state)
    q = smoothed()
    assert max(q[2]) == near(0.870123) and max(q[3]) == near(0.985439)
    found = losses(comatch(threshold=0.9), state=state)
    assert found["unsup"] == near((ce(q[0], ZS[0]) + ce(q[3], ZS[3])) / 4)


def test_comatch_without_smoothing_forgets_the_memory():
    state = fresh(comatch())
    first = losses(comatch(alpha=1.0), state=state)
    assert losses(comatch(alpha=1.0), state=state) == {k: near(v) for k, v in first.items()}


def remembered(state):
    memory, count = state["memory"].tolist(), int(state["count"])
    return [[*row[:2], *row[64:]] for row in memory[:count]]


def test_comatch_remembers_the_aligned_prediction_and_the_labels():
    """Features of length 1 and p, not q, in the order of the rows' numbers; then those of labeled rows and labels."""
    state = fresh(comatch())
    losses(comatch(), state=state)
    rows = [*zip(V["u_w"], PW, strict=True), *zip(V["x"], [one_hot(0), one_hot(2)], strict=True)]
    wanted = [[near(v) for v in (*feature, *shares)] for feature, shares in rows]
    assert int(state["count"]) == 6 and remembered(state) == wanted
    losses(comatch(), state=state)  # q differs now, what is remembered does not
    assert int(state["count"]) == 12 and remembered(state) == wanted * 2
    state = fresh(comatch())
    losses(comatch(), state=state, ids=torch.tensor([3, 1, 0, 2]))
    assert remembered(state) == [wanted[i] for i in (2, 1, 3, 0, 4, 5)]


@pytest.mark.parametrize("queue", [1, 4, 6, 7, 10])
def test_comatch_memory_wraps_exactly(queue):
    """Number of writes k lies in slot k modulo the queue, whatever the batch: the last `queue` rows are there."""
    method, slots, written = comatch(queue=queue, alpha=1.0), [None] * queue, 0
    state = fresh(method)
    for step in range(3):
        shifted = {"u_w": [[v + step * (k == 1) for k, v in enumerate(row)] for row in ZW]}
        losses(method, state=state, changed=shifted)
        for shares in [*map(softmax, shifted["u_w"]), one_hot(0), one_hot(2)]:
            slots[written % queue] = [near(v) for v in shares]
            written += 1
        filled = min(written, queue)
        assert [row[64:] for row in state["memory"].tolist()][:filled] == slots[:filled]
        assert int(state["count"]) == written


def test_comatch_slots_that_were_never_written_do_not_count():
    """With room for 512 rows or for 6 the second step is the same."""
    found = []
    for queue in (6, 512):
        method = comatch(queue=queue)
        state = fresh(method)
        losses(method, state=state)
        found.append(losses(method, state=state))
    assert found[0] == {k: near(v) for k, v in found[1].items()}


def test_comatch_gradients():
    """Both strong features learn, and the strong logits; targets, what is remembered and labeled features do not."""
    z, heads = gradients(comatch(graph_threshold=0.32), projections(comatch()))
    assert {view for view, grad in z.items() if moved(grad)} == {"x", "u_s"}
    assert {view for view, grad in heads["projection"].items() if moved(grad)} == {"u_s", "u_s2"}
    # d/dz of CE(soft q, z) / 4: row 0 (0.665241 - 0.975559) / 4
    assert z["u_s"][0].tolist() == [near((a - b) / 4) for a, b in zip(softmax(ZS[0]), PW[0], strict=True)]
    assert z["u_s"][1].tolist() == [0.0, 0.0, 0.0]


def test_comatch_without_memory_and_contrast_is_fixmatch():
    """On soft labels that are as good as hard."""
    method = CoMatch(alpha=1.0, contrast_weight=0.0, threshold=0.95)
    state = fresh(method)
    for _ in range(2):
        found = losses(method, state=state, changed={"u_w": SATURATED})
        assert found.pop("contrast") == 0
        assert found == {k: near(v) for k, v in losses(FixMatch(), changed={"u_w": SATURATED}).items()}


# --- simmatch


def simmatch_sides(p=PW, alpha=0.9, temperature=0.1, labels=CLASSES):
    """(targets q of the classes, targets r over the bank, likenesses of the student)."""
    q, r, student = [], [], []
    for v, v_s, row in zip(V["u_w"], V["u_s"], p, strict=True):
        n = softmax([dot(v, b) for b in V["x"]], temperature)
        by_class = [sum(w for w, y in zip(n, labels, strict=True) if y == c) for c in range(3)]
        q.append([alpha * a + (1 - alpha) * b for a, b in zip(row, by_class, strict=True)])
        r.append(scaled([w * row[y] for w, y in zip(n, labels, strict=True)]))
        student.append([dot(v_s, b) for b in V["x"]])
    return q, r, student


def test_simmatch():
    """Temperature 0.5. The bank is (0, 1) of class 0 and (0.6, 0.8) of class 2.

    Likenesses of u_w: [0, 0.6], [1, 0.8], [0, 0.6], [-1, -0.8]. n is the softmax of twice these: [0.231475, 0.768525],
    [0.598688, 0.401312], the first again, [0.401312, 0.598688].
    q of row 0 = 0.9 x (0.975559, 0.017868, 0.006573) + 0.1 x (0.231475, 0, 0.768525) = 0.901150, 0.016081, 0.082768.
    q reaches 0.8 in rows 0, 2 and 3 (0.826581 in row 2): (0.589224 + 1.060496 + 0.413078) / 4 = 0.515699.
    r of row 0 is 0.231475 x 0.975559 against 0.768525 x 0.006573, in shares 0.978119 and 0.021881; against the softmax
    of u_s it has the cross-entropy 1.437025, the others 0.654753, 0.522666, 1.457887: mean 1.018083.
    """
    method = SimMatch(temperature=0.5)
    q, r, student = simmatch_sides(temperature=0.5)
    assert q[0] == [near(0.901150), near(0.016081), near(0.082768)]
    assert r[0] == [near(0.978119), near(0.021881)]
    assert [max(row) >= 0.8 for row in q] == [True, False, True, True]
    found = losses(method)
    assert found == {"sup": near(SUP), "unsup": near(0.515699), "instance": near(1.018083)}
    assert found["unsup"] == near(sum(ce(q[i], ZS[i]) for i in (0, 2, 3)) / 4)
    assert found["instance"] == near(mean(ce(a, b, 0.5) for a, b in zip(r, student, strict=True)))
    assert losses(replace(method, weight=2.0, instance_weight=3.0)) == {
        "sup": near(SUP),
        "unsup": near(2 * found["unsup"]),
        "instance": near(3 * found["instance"]),
    }


def test_simmatch_mask_looks_at_the_smoothed_probability():
    """Row 2 has 0.918423 before and 0.826581 after, below 0.9: (0.589224 + 0.413078) / 4 = 0.250575."""
    assert losses(SimMatch(temperature=0.5, threshold=0.9))["unsup"] == near(0.250575)


def test_simmatch_of_the_default_temperature():
    """n of row 0 is the softmax of [0, 6]; q 0.878250, 0.016081, 0.105669. Unlabeled 0.511509, instances 2.016724."""
    q, r, student = simmatch_sides()
    found = losses(SimMatch())
    assert found["unsup"] == near(sum(ce(q[i], ZS[i]) for i in (0, 2, 3)) / 4) == near(0.511509)
    assert found["instance"] == near(mean(ce(a, b, 0.1) for a, b in zip(r, student, strict=True))) == near(2.016724)


def test_simmatch_of_an_unsure_teacher_compares_likenesses_alone():
    """p = 1/3 everywhere: r = n."""
    flat = [[1 / 3] * 3] * 4
    _, r, student = simmatch_sides(p=flat)
    n = [softmax([dot(v, b) for b in V["x"]], 0.1) for v in V["u_w"]]
    assert r == [[near(v) for v in row] for row in n]
    found = losses(SimMatch(), changed={"u_w": [[0.7] * 3] * 4})
    assert found["instance"] == near(mean(ce(a, b, 0.1) for a, b in zip(n, student, strict=True)))
    assert found["unsup"] == 0


def test_simmatch_takes_targets_from_the_teacher():
    """The student's own u_w, and the teacher's u_s and x, play no part: they are other values here."""
    junk = torch.tensor([[9.0, -9.0, 0.0]] * 4, dtype=torch.float64)
    by_net = {"student": {"u_w": junk}, "teacher": {"u_s": junk, "x": junk[:2]}}
    assert losses(SimMatch(), logits_by_net=by_net) == {k: near(v) for k, v in losses(SimMatch()).items()}


def test_simmatch_soft_labels_lend_likeness_by_share():
    """Labels (0.5, 0.5, 0) and class 2: n adds up to (n_0 / 2, n_0 / 2, n_1), and r_0 takes (p_0 + p_1) / 2."""
    soft = [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    n = [softmax([dot(v, b) for b in V["x"]], 0.1) for v in V["u_w"]]
    r = [scaled([w[0] * (p[0] + p[1]) / 2, w[1] * p[2]]) for w, p in zip(n, PW, strict=True)]
    student = [[dot(v, b) for b in V["x"]] for v in V["u_s"]]
    q = [[0.9 * a + 0.1 * b for a, b in zip(p, (w[0] / 2, w[0] / 2, w[1]), strict=True)]
         for p, w in zip(PW, n, strict=True)]  # fmt: skip
    found = losses(SimMatch(), labels=soft)
    assert found["instance"] == near(mean(ce(a, b, 0.1) for a, b in zip(r, student, strict=True)))
    assert found["unsup"] == near(sum(ce(row, z) for row, z in zip(q, ZS, strict=True) if max(row) >= 0.8) / 4)


def of_three(method, state, rows, labels=(0, 1, 2)):
    """Losses of a step whose batch holds `rows` of three labeled rows, with ZX for logits and features of rows 0, 1."""
    z, heads = tensors(method), projections(method)
    nets = {role: StubNet(z, method.heads, heads) for role in method.nets}
    spec = DataSpec(num_classes=3, pool_size=4, labeled_size=3)
    run = StepContext(method, nets, spec, labels=torch.tensor(labels), state=state)
    batch = Batch(
        inputs={},
        lengths=np.ones(10, dtype=np.int32),
        rows={},
        y=torch.tensor(labels)[list(rows)],
        w=torch.ones(2, dtype=torch.float64),
        id={"x": torch.tensor(rows), "u": torch.arange(4)},
        keys={},
        true_labels=torch.full((4,), -1),
    )
    return {k: v.item() for k, v in method.step(run, batch).items()}


def test_simmatch_labeled_rows_that_were_never_seen_do_not_count():
    """Rows 0 and 2 of three: the same as if these two were all."""
    method = SimMatch()
    state = fresh(method, labeled=3)
    assert of_three(method, state, (0, 2)) == {k: near(v) for k, v in losses(method).items()}
    assert [bool(row.any()) for row in state["bank"]] == [True, False, True]


def test_simmatch_bank_holds_the_last_features_by_number():
    method = SimMatch()
    state = fresh(method, labeled=3)
    for rows, wanted in (((0, 2), (0, None, 1)), ((1, 2), (0, 0, 1)), ((2, 0), (1, 0, 0))):
        of_three(method, state, rows)
        held = [[near(v) for v in V["x"][i]] if i is not None else [0.0, 0.0] for i in wanted]
        assert [row[:2] for row in state["bank"].tolist()] == held
        assert not state["bank"][:, 2:].any() and not state["bank"].requires_grad


def test_simmatch_gradients():
    """The student's u_s and its feature learn; the teacher's views and features do not."""
    z, heads = gradients(SimMatch(temperature=0.5), projections(SimMatch()))
    assert {view for view, grad in z.items() if moved(grad)} == {"x", "u_s"}
    assert {view for view, grad in heads["projection"].items() if moved(grad)} == {"u_s"}
    q, *_ = simmatch_sides(temperature=0.5)
    assert z["u_s"][0].tolist() == [near((a - b) / 4) for a, b in zip(softmax(ZS[0]), q[0], strict=True)]
    teacher = {view: v.requires_grad_() for view, v in tensors(SimMatch()).items()}
    heads, by_net = projections(SimMatch()), {"teacher": teacher}
    found = step_losses(SimMatch(), tensors(SimMatch()), torch.tensor(CLASSES), heads=heads, logits_by_net=by_net)
    assert not any(v.requires_grad for v in found.values())


def test_simmatch_teacher_starts_as_a_plain_average():
    assert [SimMatch().ema(t) for t in (1, 2, 99, 1000)] == [near(v) for v in (1 / 2, 2 / 3, 0.99, 0.99)]


def test_simmatch_without_bank_is_fixmatch():
    """On soft labels that are as good as hard."""
    method = SimMatch(alpha=1.0, instance_weight=0.0, threshold=0.95)
    found = losses(method, changed={"u_w": SATURATED})
    assert found.pop("instance") == 0
    assert found == {k: near(v) for k, v in losses(FixMatch(), changed={"u_w": SATURATED}).items()}


# --- crmatch

ANGLES = {  # cosines 0.707107, -0.707107, 0, 1
    "u_s": [[1.0, 1.0], [-2.0, 2.0], [0.0, 3.0], [5.0, 0.0]],
    "u_w": [[1.0, 0.0], [3.0, 0.0], [1.0, 0.0], [2.0, 0.0]],
}


def test_crmatch_pushes_features_of_confident_rows_apart():
    """threshold 0: (0.707107 + 0 + 0 + 1) / 4 = 0.426777; of the first two alone it would be 0.353553.

    0.95: the cosines of rows 0 and 3, the same here; with rows 0 and 1 swapped nothing but the 1 of row 3 stays: 0.25.
    """
    heads = projections(CRMatch(), **ANGLES)
    assert losses(CRMatch(threshold=0.0), heads=heads)["distance"] == near(0.426777) == near((math.sqrt(0.5) + 1) / 4)
    assert losses(CRMatch(threshold=0.0, distance_weight=2.0), heads=heads)["distance"] == near(2 * 0.426777)
    assert losses(CRMatch(threshold=0.95), heads=heads) == {
        "sup": near(SUP),
        "unsup": near(0.189155),
        "distance": near(0.426777),
    }
    swapped = projections(CRMatch(), u_s=[ANGLES["u_s"][i] for i in (1, 0, 2, 3)], u_w=ANGLES["u_w"])
    assert losses(CRMatch(threshold=0.95), heads=swapped)["distance"] == near(0.25)


def test_crmatch_gradient_moves_the_strong_feature_away():
    """d cos / d s of s = (1, 1), w = (1, 0): (w - cos s / |s|) / |s| = (0.353553, -0.353553), over 4 rows 0.088388.

    Downhill the first number falls and the second rises: away from w. Rows at 90 degrees or more, and row 3, whose
    features already have the same direction, have none; neither has the weak feature.
    """
    z, heads = gradients(CRMatch(threshold=0.0), projections(CRMatch(), **ANGLES))
    found = heads["projection"]
    assert found["u_s"][0].tolist() == [near(0.088388), near(-0.088388)]
    assert found["u_s"][1].tolist() == [0.0, 0.0] and found["u_s"][3].tolist() == [near(0.0), near(0.0)]
    assert not moved(found["u_w"]) and not moved(found["x"])
    assert {view for view, grad in z.items() if moved(grad)} == {"x", "u_s"}
    _, heads = gradients(CRMatch(threshold=0.95), projections(CRMatch(), u_s=[[1.0, 1.0]] * 4, u_w=[[1.0, 0.0]] * 4))
    assert [bool(row.any()) for row in heads["projection"]["u_s"]] == [True, False, False, True]  # confident rows


def test_crmatch_without_distance_is_fixmatch():
    found = losses(CRMatch(threshold=0.95, distance_weight=0.0))
    assert found.pop("distance") == 0
    assert found == losses(FixMatch(threshold=0.95))


def test_crmatch_rotation():
    """Row i of the pool is turned i times: mean of -ln p of the answers 0, 1, 2, 3 in these logits; with "order" the
    answers are 0, 1, 0, 1.
    """
    z = [[2.0, 0.0, 1.0, 0.5], [0.0, 1.0, 0.0, 3.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 1.0]]
    method = CRMatch(pretext="rotation", pretext_weight=2.0)
    heads = projections(method) | {"pretext": {"u_w": padded(z, 4), "u_s": padded(z[::-1], 4), "x": padded(z[:2], 4)}}
    assert losses(method, heads=heads)["pretext"] == near(2 * mean(ce(one_hot(i, 4), z[i]) for i in range(4)))
    turned = losses(method, heads=heads, ids=torch.tensor([6, 3, 1, 0]))["pretext"]
    assert turned == near(2 * mean(ce(one_hot(c, 4), row) for c, row in zip((2, 3, 1, 0), z, strict=True)))
    halves = losses(replace(method, pretext="order"), heads=heads)["pretext"]
    assert halves == near(2 * mean(ce(one_hot(i % 2, 4), z[i]) for i in range(4)))
    assert "pretext" not in losses(CRMatch(), heads=heads)
    _, found = gradients(method, heads)
    assert {view for view, grad in found["pretext"].items() if moved(grad)} == {"u_w"}
    assert CRMatch.for_images().pretext == "rotation"


# --- multimatch


def three(own, second, third, views):
    """Logits of the net's own head, and the two other heads' outputs."""
    logits = {view: torch.tensor(own[view], dtype=torch.float64) for view in views}
    heads = {
        name: {view: torch.tensor(z[view], dtype=torch.float64) for view in views}
        for name, z in (("second", second), ("third", third))
    }
    return logits, heads


def alike(logits=None):
    return three(*[logits or LOGITS] * 3, MultiMatch.views)


def test_multimatch_of_three_equal_heads_is_freematch():
    """All rows pass and all agree: weight 1, where FreeMatch's threshold is reached. Also in the steps after."""
    method, other = MultiMatch(weight=1.0), FreeMatch()
    state, state_of_other = fresh(method), fresh(other)
    for shift in (0.0, 1.5, -2.0):
        z = {**LOGITS, "u_w": [[row[0] + shift, *row[1:]] for row in ZW]}
        logits, heads = alike(z)
        found = step_losses(method, logits, torch.tensor(CLASSES), heads=heads, state=state)
        wanted = losses(other, changed=z, state=state_of_other)
        assert found["unsup"].item() == near(wanted["unsup"]) and wanted["unsup"] > 0
        assert found["sup"].item() == near(SUP) and found["heads"].item() == near(2 * SUP)


def test_multimatch_weights_scale_the_parts():
    logits, heads = alike()
    plain, other = (
        step_losses(m, logits, torch.tensor(CLASSES), heads=heads)
        for m in (MultiMatch(), MultiMatch(weight=1.5, heads_weight=0.25))
    )
    assert other["sup"] == plain["sup"] and plain["unsup"] > 0
    assert other["unsup"].item() == near(plain["unsup"].item() / 2)
    assert other["heads"].item() == near(plain["heads"].item() / 4)


# (label of a, label of b) -> (weight, label). a passes for classes 0 and 1, b for classes 0 and 2.
CASES = {
    (0, 0): (1, 0),  # both pass and agree
    (1, 1): (3, 1),  # a passes, they agree
    (2, 2): (3, 2),  # b passes, they agree
    (0, 1): (3, 0),  # a passes, they differ: a's label
    (2, 0): (3, 0),  # b passes, they differ: b's label
    (0, 2): (0, None),  # both pass and differ
    (2, 1): (0, None),  # neither passes, they differ
    (3, 3): (0, None),  # neither passes, they agree
}


@pytest.mark.parametrize("head", [0, 1, 2])
def test_multimatch_cases(head):
    """The gradient of row i in the strong logits of this head is weight x (1/4 - one-hot label) / (3 x 8): all are 0.

    The trained head's cutoff is 3 for every class. The labeling heads' margins are 5 where they pass and 2 where they
    do not; their own cutoffs would say the opposite, but count where they are trained themselves. The running
    confidence starts at 0.1, so that all rows are sure enough.
    """
    method = MultiMatch(weight=1.0)
    a, b = (head + 1) % 3, (head + 2) % 3
    views = {"x": [[0.0] * 4] * 2, "u_s": [[0.0] * 4] * 8}
    weak = [None] * 3
    weak[head] = [one_hot(3, 4)] * 8
    weak[a] = [[(5 if p in (0, 1) else 2) * v for v in one_hot(p, 4)] for p, _ in CASES]
    weak[b] = [[(5 if q in (0, 2) else 2) * v for v in one_hot(q, 4)] for _, q in CASES]
    logits, heads = three(*({**views, "u_w": rows} for rows in weak), method.views)
    state = fresh(method, rows=8, classes=4)
    state |= {"mass": torch.tensor(1.0), "tau": torch.full((3,), 0.1), "p": torch.full((3, 4), 0.25)}
    state["cutoffs"][head] = 3.0
    state["cutoffs"][a] = torch.tensor([9.0, 9.0, 0.0, 0.0])
    state["cutoffs"][b] = torch.tensor([9.0, 0.0, 9.0, 0.0])
    z, found = gradients(method, heads, logits, state=state, only=("unsup",))
    strong = [z["u_s"], found["second"]["u_s"], found["third"]["u_s"]][head]
    for row, (weight, label) in zip(strong.tolist(), CASES.values(), strict=True):
        wanted = one_hot(label, 4) if weight else [0.0] * 4
        assert row == [near(weight * (0.25 - v) / 24) for v in wanted]
    assert not any(moved(out["u_w"]) for out in (z, found["second"], found["third"]))


def test_multimatch_needs_one_of_the_two_to_be_sure():
    """Two rows, one label. Own head: sure of both; second: sure of row 0; third: of none (the thresholds are 0.9 of the
    running means' start). Row 0 trains the heads 0 (second is sure), 1 (own is) and 2; row 1 the heads 1 and 2 alone.
    """
    method = MultiMatch(weight=1.0, decay=0.9999)
    sure, unsure = [5.0, 0.0], [1.0, 0.0]  # p 0.993307 and 0.731059
    weak = ([sure, sure], [sure, unsure], [unsure, unsure])
    rest = {"x": [[0.0, 0.0]], "u_s": [[0.0, 0.0]] * 2}
    logits, heads = three(*({**rest, "u_w": rows} for rows in weak), method.views)
    state = fresh(method, rows=2, classes=2)
    state |= {"mass": torch.tensor(1.0), "tau": torch.full((3,), 0.9), "p": torch.full((3, 2), 0.5)}
    z, found = gradients(method, heads, logits, [0], state=state, only=("unsup",))
    trained_rows = [[bool(row.any()) for row in out["u_s"]] for out in (z, found["second"], found["third"])]
    assert trained_rows == [[True, False], [True, True], [True, True]]


def margin(row, c):
    p = softmax(row)
    return math.log(p[c]) - max(math.log(v) for k, v in enumerate(p) if k != c)


def test_multimatch_margins_are_means_over_visits():
    """Row 0 of ZW has margins 4, -4, -5. Seen again as [0, 1, 3] it has -3, -2, 2: means 0.5, -3, -1.5.

    Row 2 is not in the second batch and keeps what it has. Heads are ZW, ZS and ZS2.
    """
    method = MultiMatch()
    first = three({"x": ZX, "u_w": ZW, "u_s": ZS}, *({"x": ZX, "u_w": z, "u_s": ZS} for z in (ZS, ZS2)), method.views)
    state = fresh(method)
    step_losses(method, first[0], torch.tensor(CLASSES), heads=first[1], state=state)
    seen = [[[margin(z[i], c) for c in range(3)] for z in (ZW, ZS, ZS2)] for i in range(4)]
    assert seen[0][0] == [near(4.0), near(-4.0), near(-5.0)]
    assert state["margins"].tolist() == [[[near(v) for v in row] for row in rows] for rows in seen]
    assert state["labels"].tolist() == [[0, 0, 1], [0, 0, 1], [1, 2, 1], [2, 2, 2]]
    assert state["times"].tolist() == [1, 1, 1, 1]
    again = [[0.0, 1.0, 3.0]] * 3
    logits, heads = three(*[{"x": ZX, "u_w": again, "u_s": ZS[:3]}] * 3, method.views)
    step_losses(method, logits, torch.tensor(CLASSES), heads=heads, state=state, ids=torch.tensor([3, 0, 1]))
    assert state["times"].tolist() == [2, 2, 1, 2]
    assert state["margins"][0, 0].tolist() == [near(0.5), near(-3.0), near(-1.5)]
    assert state["margins"][2].tolist() == [[near(v) for v in row] for row in seen[2]]
    assert state["labels"].tolist() == [[2, 2, 2], [2, 2, 2], [1, 2, 1], [2, 2, 2]]
    assert not any(v.requires_grad for v in state.values())


def test_multimatch_cutoffs():
    """The first quarter of the margins for class c that the two other heads have, over rows where both said c last.

    Head 0, class 1: heads 1 and 2 agree in rows 0, 1, 2; their margins 1, 4, 2 and 8, 3, 0.5 are in order 0.5, 1, 2, 3,
    4, 8, and a quarter of 5 steps is 1.25: 1 + 0.25 x 1. Class 0: row 3 has 6 and 0.25, a quarter of one step is 0.25 +
    0.25 x 5.75. Class 2: none, 0. Head 1, class 1: heads 2 and 0 agree in rows 0 and 2, with 8, 0.5 and 5, 4; 0.75 of a
    step from 0.5 to 4. Class 0: row 3 has 0.25 and -2, below 0. Head 2, class 1: heads 0 and 1 in rows 0 and 2, with 5,
    4 and 1, 2; 0.75 of a step from 1 to 2. Class 0: row 3 has -2 and 6; 0.25 of 8 steps up from -2 is 0. Row 4 was
    never seen. Margins of a head in rows where the two others do not agree, 90, count nowhere.
    """
    method = MultiMatch(quantile=0.25)
    state = fresh(method, rows=5)
    state["labels"] = torch.tensor([[1, 1, 1], [2, 1, 1], [1, 1, 1], [0, 0, 0], [-1, -1, -1]])
    state["cutoffs"] = torch.full((3, 3), 0.7)
    state["margins"][:, 0, 1] = torch.tensor([5.0, 90.0, 4.0, 90.0, 90.0])
    state["margins"][3, 0, 0] = -2.0
    state["margins"][:, 1, 1] = torch.tensor([1.0, 4.0, 2.0, 90.0, 90.0])
    state["margins"][3, 1, 0] = 6.0
    state["margins"][:, 2, 1] = torch.tensor([8.0, 3.0, 0.5, 90.0, 90.0])
    state["margins"][3, 2, 0] = 0.25
    run = StepContext(method, {}, DataSpec(num_classes=3, pool_size=5), state=state)
    method.begin_epoch(run)
    assert run.state["cutoffs"].tolist() == [[1.6875, 1.25, 0.0], [0.0, 3.125, 0.0], [0.0, 1.75, 0.0]]


@pytest.mark.parametrize(("quantile", "cutoff"), [(0.0, 1.0), (0.05, 3.05), (0.5, 21.5), (1.0, 42.0)])
def test_multimatch_cutoff_lies_between_two_margins(quantile, cutoff):
    """Heads 1 and 2 label 21 rows alike, with margins 1 to 21 and 22 to 42 in another order: for head 0 the cutoff is a
    share of the 41 steps from 1 to 42. Class 1 has no rows.
    """
    method = MultiMatch(quantile=quantile)
    state = fresh(method, rows=30, classes=2)
    state["labels"][:21, 1:] = 0
    order = (torch.arange(21) * 8) % 21 + 1.0
    state["margins"][:21, 1, 0], state["margins"][:21, 2, 0] = order, 43 - order
    run = StepContext(method, {}, DataSpec(num_classes=2, pool_size=30), state=state)
    method.begin_epoch(run)
    assert run.state["cutoffs"].tolist() == [[near(cutoff), 0.0], [0.0, 0.0], [0.0, 0.0]]


def authors_rule(weak, cutoffs):
    """(weight, label) of each row for each trained head: heads' margins of the logits weak [3][n] for their labels
    against the trained head's cutoffs [3][C].
    """
    found = []
    for h in range(3):
        rows = []
        for z_a, z_b in zip(weak[(h + 1) % 3], weak[(h + 2) % 3], strict=True):
            label_a, label_b = z_a.index(max(z_a)), z_b.index(max(z_b))
            a, b = (margin(z, c) >= cutoffs[h][c] for z, c in ((z_a, label_a), (z_b, label_b)))
            if a and b:
                rows.append((1, label_a) if label_a == label_b else (0, None))
            else:
                rows.append((3, label_a if a else label_b) if a or b else (0, None))
        found.append(rows)
    return found


def authors_cutoffs(weak, classes, quantile=0.05):
    """The quantile of the merged margins of the two labeling heads over the rows they agree on, per class."""
    found = []
    for h in range(3):
        values = {c: [] for c in range(classes)}
        for z_a, z_b in zip(weak[(h + 1) % 3], weak[(h + 2) % 3], strict=True):
            c = z_a.index(max(z_a))
            if c == z_b.index(max(z_b)):
                values[c] += [margin(z_a, c), margin(z_b, c)]
        found.append([max(0.0, float(np.quantile(v, quantile))) if v else 0.0 for v in values.values()])
    return found


def test_multimatch_weights_act_on_a_pool():
    """240 rows of 4 classes, of which the heads see the same truth, more or less of it, and noise of their own. Each is
    seen once, then the cutoffs are made, then each is seen again: its margin is what it was.

    Weights come from the gradient in the strong logits, which are 0: weight x (1/4 - one-hot label) / (3 x 240).
    """
    rng = np.random.default_rng(0)
    truth = np.eye(4)[np.arange(240) % 4] * rng.uniform(0, 3, (240, 1)) + 0.5 * rng.normal(size=(240, 4))
    weak = (truth + 1.2 * rng.normal(size=(3, 240, 4))).tolist()
    method = MultiMatch(weight=1.0)
    state = fresh(method, rows=240, classes=4)
    state |= {"mass": torch.tensor(1.0), "tau": torch.full((3,), 0.1), "p": torch.full((3, 4), 0.25)}
    rest = {"x": [[0.0] * 4] * 2, "u_s": [[0.0] * 4] * 240}
    logits, heads = three(*({**rest, "u_w": z} for z in weak), method.views)
    step_losses(method, logits, torch.tensor(CLASSES), heads=heads, state=state)
    run = StepContext(method, {}, DataSpec(num_classes=4, pool_size=240), state=state)
    method.begin_epoch(run)
    cutoffs = authors_cutoffs(weak, 4)
    assert state["cutoffs"].tolist() == [[near(v) for v in row] for row in cutoffs]
    state |= {"mass": torch.tensor(1.0), "tau": torch.full((3,), 0.1), "p": torch.full((3, 4), 0.25)}  # all are sure
    z, found = gradients(method, heads, logits, state=state, only=("unsup",))
    wanted = authors_rule(weak, cutoffs)
    for strong, rows in zip((z["u_s"], found["second"]["u_s"], found["third"]["u_s"]), wanted, strict=True):
        expected = [[weight * (0.25 - v) / 720 for v in one_hot(label, 4)] for weight, label in rows]
        assert strong.tolist() == [pytest.approx(row, abs=1e-9) for row in expected]
    share = mean(weight == 3 for rows in wanted for weight, _ in rows)
    assert 0.05 < share < 0.3, share


def test_multimatch_rounds():
    assert [MultiMatch(refresh=r).refresh_steps(7) for r in (0, 3)] == [7, 3]


# --- jointmatch

TWIN = [[4.0, 0.0, -1.0], [0.0, 6.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.5, 5.0]]  # another opinion on the rows of ZW
TWIN_S = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.3, 0.1, 0.0], [0.0, 1.0, 2.0]]
TWIN_X = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]]


def joint(method, **more):
    twin = {"x": TWIN_X, "u_w": TWIN, "u_s": TWIN_S}
    by_net = {"second": {view: torch.tensor(z, dtype=torch.float64) for view, z in twin.items()}}
    return losses(method, logits_by_net=by_net, **more)


def test_jointmatch():
    """threshold 0.9. m = 0.9 / 3 + 0.1 x the mean of both nets' p = 0.333701, 0.332763, 0.333535; thr = 0.9 m / max m =
    0.9, 0.897469, 0.899552.

    The student is sure of rows 0, 2 and 3 (0.975559, 0.918423, 0.986703), its twin of 0, 1 and 3 (0.975559, 0.995067,
    0.982490): both of rows 0 and 3, weight 0.1; one of rows 1 and 2, weight 0.9. The student takes rows 0, 1 and 3 and
    the labels 0, 1, 2 of its twin: (0.1 x 0.407606 + 0.9 x 0.958020 + 0.1 x 0.349012) / 4 = 0.234470; the twin takes
    rows 0, 2 and 3 and the labels 0, 1, 2 of the student: (0.1 x 0.551445 + 0.9 x 1.139831 + 0.1 x 0.407606) / 4.
    """
    found = joint(JointMatch(threshold=0.9))
    assert found["sup"] == near(SUP) and found["unsup"] == near(0.234470)
    assert found["sup.second"] == near(mean(ce(one_hot(c), z) for c, z in zip(CLASSES, TWIN_X, strict=True)))
    twin = {0: (0.1, 0), 2: (0.9, 1), 3: (0.1, 2)}
    assert found["unsup.second"] == near(sum(w * ce(one_hot(c), TWIN_S[i]) for i, (w, c) in twin.items()) / 4)
    assert found["unsup.second"] == near(0.280438)
    doubled = joint(JointMatch(threshold=0.9, weight=2.0))
    assert doubled["unsup"] == near(2 * 0.234470) and doubled["unsup.second"] == near(2 * found["unsup.second"])


def test_jointmatch_disagreement_divides_the_weight():
    """1: row 1 alone, 0.958020 / 4 = 0.239505; 0: rows 0 and 3, (0.407606 + 0.349012) / 4 = 0.189155."""
    assert joint(JointMatch(threshold=0.9, disagreement=1.0))["unsup"] == near(0.239505)
    assert joint(JointMatch(threshold=0.9, disagreement=0.0))["unsup"] == near(0.189155)


def test_jointmatch_of_equal_nets_is_half_of_fixmatch():
    """m = 0.333889, 0.331879, 0.334232: row 2 (0.918423) misses 0.95 m_1 / m_2 = 0.943313 as it misses 0.95."""
    found = losses(JointMatch(threshold=0.95, disagreement=0.5))
    assert found["unsup"] == near(0.189155 / 2) == near(found["unsup.second"])
    assert losses(JointMatch(threshold=0.95, disagreement=0.0))["unsup"] == near(
        losses(FixMatch(threshold=0.95))["unsup"]
    )


def test_jointmatch_thresholds_follow_both_nets():
    """The shares of a class that both nets rarely see fall, and its threshold with them.

    Both nets say class 0 with 0.997002 in three rows and class 1 with 0.768856 in the last. The threshold of class 1 is
    0.803885 in the first step, 0.698769 in the second: the last row joins.
    """
    z = {**LOGITS, "u_w": [[7.0, 0.5, 0.5]] * 3 + [[0.0, 2.0, 0.2]]}
    p = [softmax(row) for row in z["u_w"]]
    shares, state, seen = [1 / 3] * 3, fresh(JointMatch()), []
    for _ in range(4):
        found = losses(JointMatch(threshold=0.95), changed=z, state=state)
        shares = [0.9 * m + 0.1 * mean(row[c] for row in p) for c, m in enumerate(shares)]
        assert state["p"].tolist() == [near(v) for v in shares]
        kept = [i for i, row in enumerate(p) if max(row) >= 0.95 * shares[row.index(max(row))] / max(shares)]
        assert found["unsup"] == near(0.1 * sum(ce(one_hot(p[i].index(max(p[i]))), ZS[i]) for i in kept) / 4)
        seen.append(3 in kept)
    assert seen == [False, True, True, True]


def test_jointmatch_state_is_the_mean_of_both_nets():
    state = fresh(JointMatch())
    joint(JointMatch(threshold=0.95), state=state)
    both = [*PW, *map(softmax, TWIN)]
    assert state["p"].tolist() == [near(0.3 + 0.1 * mean(row[c] for row in both)) for c in range(3)]
    assert not state["p"].requires_grad


def test_jointmatch_gradients():
    """Each net learns from its own strong view, by the weights of the other's labels; no weak view learns."""
    method = JointMatch(threshold=0.9)
    twin = {"x": TWIN_X, "u_w": TWIN, "u_s": TWIN_S}
    second = {view: torch.tensor(z, dtype=torch.float64, requires_grad=True) for view, z in twin.items()}
    z, _ = gradients(method, {}, logits_by_net={"second": second})
    second = {view: v.grad for view, v in second.items()}
    for found in (z, second):
        assert {view for view, grad in found.items() if moved(grad)} == {"x", "u_s"}
    assert [bool(row.any()) for row in z["u_s"]] == [True, True, False, True]
    assert [bool(row.any()) for row in second["u_s"]] == [True, False, True, True]
    assert z["u_s"][1].tolist() == [near(0.9 * (p - t) / 4) for p, t in zip(softmax(ZS[1]), one_hot(1), strict=True)]


def test_jointmatch_without_weight_trains_each_net_alone(tmp_path):
    task = tiny_task(tmp_path, dropout=0.0, strong=TfidfReplace(0.5))
    plain = trained(Supervised(), task, FAST)
    assert difference(plain, trained(JointMatch(weight=0.0), task, FAST)) < 1e-5
    assert difference(plain, trained(JointMatch(threshold=0.0, weight=10.0), task, FAST)) > 1e-4
