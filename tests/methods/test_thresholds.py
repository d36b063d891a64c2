"""Losses and state of the methods whose thresholds move, against numbers worked out by hand.

The logits (B = 2 labeled rows, N = 4 unlabeled rows, C = 3 classes), their softmax p and -ln p:

    ZX   [ 2.0,  0.5, -1.0]   p 0.785597 0.175290 0.039113   -ln p 0.241311 1.741311 3.241311   class 0
         [ 0.2,  0.1,  0.4]   p 0.319873 0.289433 0.390694   -ln p 1.139831 1.239831 0.939831   class 2
    ZXS  [ 1.0,  0.5,  0.0]   p 0.506480 0.307196 0.186324   -ln p 0.680270 1.180270 1.680270
         [ 0.0,  1.0,  0.5]   p 0.186324 0.506480 0.307196   -ln p 1.680270 0.680270 1.180270
    ZW   [ 4.0,  0.0, -1.0]   p 0.975559 0.017868 0.006573   -ln p 0.024745 4.024745 5.024745
         [ 1.0,  0.9,  0.8]   p 0.367165 0.332225 0.300610   -ln p 1.001943 1.101943 1.201943
         [-2.0,  3.0,  0.5]   p 0.006188 0.918423 0.075389   -ln p 5.085097 0.085097 2.585097
         [ 0.0,  0.0,  5.0]   p 0.006648 0.006648 0.986703   -ln p 5.013386 5.013386 0.013386
    ZS   [ 2.0,  1.0,  0.0]   p 0.665241 0.244728 0.090031   -ln p 0.407606 1.407606 2.407606
         [ 0.5,  0.5,  0.0]   p 0.383652 0.383652 0.232697   -ln p 0.958020 0.958020 1.458020
         [ 0.0,  1.0,  1.5]   p 0.121952 0.331499 0.546549   -ln p 2.104131 1.104131 0.604131
         [ 1.0, -1.0,  2.0]   p 0.259496 0.035119 0.705385   -ln p 1.349012 3.349012 0.349012

The pseudo-labels are 0, 0, 1, 2, and -ln p of them in ZS 0.407606, 0.958020, 1.104131, 0.349012. Hence, over 4 rows:

    all rows kept    0.704692        rows 0, 2 and 3    0.465187        rows 0 and 3 (FixMatch)    0.189155

The mean of p over the rows of ZW is 0.338890 0.318791 0.342319, the mean of its largest values 0.811963.
Nothing of the library takes part in the expected side.
"""

import json
import math
from dataclasses import asdict, replace

import pytest
import ranks
import torch

from nlp_ssl.methods import AdaMatch, Dash, DeFixMatch, FixMatch, FlexMatch, FreeMatch, MarginMatch, SoftMatch
from nlp_ssl.ops.functional import cosine_ramp, newest
from nlp_ssl.ops.targets import class_status, flexible, truncated_gaussian
from nlp_ssl.testing import step_losses
from nlp_ssl.types import DataSpec

LOGITS = {
    "x": [[2.0, 0.5, -1.0], [0.2, 0.1, 0.4]],
    "x_s": [[1.0, 0.5, 0.0], [0.0, 1.0, 0.5]],
    "u_w": [[4.0, 0.0, -1.0], [1.0, 0.9, 0.8], [-2.0, 3.0, 0.5], [0.0, 0.0, 5.0]],
    "u_s": [[2.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 1.5], [1.0, -1.0, 2.0]],
}
CLASSES = [0, 2]
SUP = 0.590571  # (0.241311 + 0.939831) / 2
SUP_TWICE = 0.760420  # ((0.241311 + 0.680270) / 2 + (0.939831 + 1.180270) / 2) / 2
ALL, THREE, TWO = 0.704692, 0.465187, 0.189155
SPEC = DataSpec(3, pool_size=4)
IDS = [5, 2, 0, 7]  # the rows' numbers in a pool of 12
EVERY = [AdaMatch(), Dash(), DeFixMatch(), FlexMatch(), FreeMatch(), MarginMatch(), SoftMatch()]
TWICE = (AdaMatch, DeFixMatch)  # labeled rows count half in either view


def softmax(row, temperature=1.0):
    powers = [math.exp(v / temperature) for v in row]
    return [v / sum(powers) for v in powers]


def probabilities(rows):
    return [softmax(row) for row in rows]


def averages(rows):
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def aligned(rows, wanted, current):
    found = []
    for row in rows:
        q = [v * (a + 1e-6) / (b + 1e-6) for v, a, b in zip(row, wanted, current, strict=True)]
        found.append([v / sum(q) for v in q])
    return found


def labels_of(rows):
    return [row.index(max(row)) for row in rows]


P = {view: probabilities(rows) for view, rows in LOGITS.items()}
NLL = {view: [[-math.log(v) for v in row] for row in rows] for view, rows in P.items()}
LABELS = labels_of(P["u_w"])


def losses(method, labels=CLASSES, *, progress=1.0, changed=None, **more):
    logits = {**LOGITS, **(changed or {})}
    tensors = {v: torch.tensor(logits[v], dtype=torch.float64) for v in method.views}
    return {
        k: v.item() for k, v in step_losses(method, tensors, torch.tensor(labels), progress=progress, **more).items()
    }


def near(value, digits=6):
    return pytest.approx(value, abs=10.0**-digits)


def masked(keep, labels=LABELS, view="u_s", nll=NLL):
    return sum(k * row[label] for k, row, label in zip(keep, nll[view], labels, strict=True)) / len(keep)


def doctored(method, *, w=None, prior=None):
    """The same method on batches whose labeled rows weigh w, or for a pool whose class shares are estimated."""
    plain = type(method)

    def step(self, run, batch):
        if prior is not None:
            run.spec = replace(run.spec, prior=prior)
        return plain.step(self, run, batch if w is None else {**batch, "w": torch.tensor(w, dtype=torch.float64)})

    return type(plain.__name__, (plain,), {"step": step})(**asdict(method))


def gradients(method, *, progress=1.0, **more):
    tensors = {v: torch.tensor(LOGITS[v], dtype=torch.float64, requires_grad=True) for v in method.views}
    sum(step_losses(method, tensors, torch.tensor(CLASSES), progress=progress, **more).values()).backward()
    return {v: None if z.grad is None else z.grad.tolist() for v, z in tensors.items()}


# --- what they share ---


def test_the_tables():
    assert (
        masked([1, 1, 1, 1]) == near(ALL) and masked([1, 0, 1, 1]) == near(THREE) and masked([1, 0, 0, 1]) == near(TWO)
    )
    assert averages(P["u_w"]) == [near(v) for v in (0.338890, 0.318791, 0.342319)]
    assert sum(map(max, P["u_w"])) / 4 == near(0.811963)


@pytest.mark.parametrize("method", EVERY, ids=lambda m: m.name)
def test_weights_and_soft_labels_of_labeled_rows(method):
    """Weights 2 and 0.5: (2 x 0.241311 + 0.5 x 0.939831) / 2 = 0.476269; in both views
    (2 x 0.460790 + 0.5 x 1.060050) / 2 = 0.725803.

    Labels 0.7 0.2 0.1 and class 2: 0.890571; the first row of ZXS gives 0.7 x 0.680270 + 0.2 x 1.180270 + 0.1 x
    1.680270 = 0.880270, so that both views have ((0.841311 + 0.880270) / 2 + 1.060050) / 2 = 0.960420.
    """
    twice = isinstance(method, TWICE)
    assert losses(method)["sup"] == near(SUP_TWICE if twice else SUP)
    assert losses(doctored(method, w=[2.0, 0.5]))["sup"] == near(0.725803 if twice else 0.476269)
    soft = [[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]]
    assert losses(method, soft)["sup"] == near(0.960420 if twice else 0.890571)


# What makes each of them keep exactly the rows that reach 0.95 ------------------


def frozen(**tensors):
    """Running means that a step does not move: they weigh as much as any number of batches."""
    return {
        "mass": torch.tensor(math.inf),
        **{k: torch.tensor(v, dtype=torch.float64).float() for k, v in tensors.items()},
    }


def even(classes):
    return [1.0 / classes] * classes


def like_fixmatch(classes):
    sure = torch.zeros(4, classes, dtype=torch.float64)
    sure[:, 0] = 1e4
    return {
        "flexmatch": (FlexMatch(), None, {}),
        "marginmatch": (MarginMatch(quantile=0.0), None, {}),
        "freematch": (
            FreeMatch(fairness_weight=0.0),
            frozen(tau=0.95, p=even(classes), hist=even(classes)),
            {},
        ),
        "softmatch": (SoftMatch(), frozen(mu=0.95, var=0.0, p=even(classes)), {}),
        "adamatch": (
            AdaMatch(threshold=0.95, decay=1.0, ramp_up=0.0),
            {"labeled": torch.tensor(even(classes)), "unlabeled": torch.tensor(even(classes))},
            {"x": sure},
        ),
        "dash": (Dash(min_loss=-math.log(0.95)), {"start": torch.tensor(0.0)}, {}),
        "defixmatch": (DeFixMatch(threshold=0.95, weight=1.0), None, {"x": 0 * sure}),
    }


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("name", [m.name for m in EVERY])
def test_reduces_to_fixmatch(name, classes):
    """With equal classes, an infinitely narrow Gaussian, labeled rows that are sure, a limit of -ln 0.95, no margin."""
    method, state, changed = like_fixmatch(classes)[name]
    some = 0
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        z = {v: 4 * torch.randn(n, classes, generator=generator, dtype=torch.float64) for v, n in
             (("x", 4), ("x_s", 4), ("u_w", 12), ("u_s", 12))}  # fmt: skip
        z |= changed
        labels = torch.arange(4) % classes
        kept = (torch.softmax(z["u_w"], -1).amax(-1) >= 0.95).sum()
        some += 0 < kept < 12
        found = step_losses(method, {v: z[v] for v in method.views}, labels, state=state and dict(state))
        wanted = step_losses(FixMatch(threshold=0.95), {v: z[v] for v in FixMatch.views}, labels)
        assert found["unsup"].item() == pytest.approx(wanted["unsup"].item(), abs=1e-12)
        assert found.get("debias", torch.tensor(0.0)) == 0 and found.get("fairness", torch.tensor(0.0)) == 0
        if not isinstance(method, TWICE):
            assert torch.equal(found["sup"], wanted["sup"])
    assert some >= 5


@pytest.mark.parametrize("name", [m.name for m in EVERY])
def test_gradients_of_the_fixmatch_case(name):
    """u_s: (p - one-hot) / 4 on kept rows, exactly 0 elsewhere; x: (p - y) / 2, half of it where x_s has the other
    half; u_w: none.

    u_s row 0: (0.665241 - 1) / 4 = -0.083690; x row 0: (0.785597 - 1) / 2 = -0.107202.
    """
    method, state, _ = like_fixmatch(3)[name]
    kept = [1, 0, 1, 1] if name == "adamatch" else [1, 0, 0, 1]  # x is not sure here: 0.95 x 0.588145 is low
    found = gradients(method, state=state)
    assert found["u_w"] is None or not any(any(row) for row in found["u_w"])
    for row, label, keep in zip(range(4), LABELS, kept, strict=True):
        wanted = [keep * (p - (c == label)) / 4 for c, p in enumerate(P["u_s"][row])]
        assert found["u_s"][row] == ([near(v) for v in wanted] if keep else [0.0] * 3)
    assert found["u_s"][0][0] == near(-0.083690)
    share = 0.5 if isinstance(method, TWICE) else 1.0
    for view in ("x", "x_s") if share == 0.5 else ("x",):
        for row, y in enumerate(CLASSES):
            assert found[view][row] == [near(share * (p - (c == y)) / 2) for c, p in enumerate(P[view][row])]
    assert found["x"][0][0] == near(-0.107202 * share)


@pytest.mark.parametrize("method", EVERY, ids=lambda m: m.name)
def test_state_is_kept_without_a_graph_and_in_its_type(method):
    """Twice, with gradient wanted everywhere: nothing in the state remembers where it came from."""
    state = method.init_state(SPEC)
    before = {k: v.clone() for k, v in state.items()}
    for _ in range(2):
        gradients(method, state=state)
    assert all(not v.requires_grad for v in state.values())
    assert {k: (v.dtype, v.shape) for k, v in state.items()} == {k: (v.dtype, v.shape) for k, v in before.items()}
    if not isinstance(method, (Dash, DeFixMatch)):  # Dash measures in `begin_epoch`, DeFixMatch remembers nothing
        assert all(not torch.equal(v, before[k]) for k, v in state.items())


@pytest.mark.ddp
def test_two_ranks_remember_what_one_process_does(tmp_path):
    """Three steps on halves of the rows, one half far less sure: losses average to those of all rows, states are equal.

    Shares, thresholds and means taken over a rank's own rows would show.
    """
    ranks.spawn(ranks.remember_all, tmp_path)
    apart = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks.WORLD)]
    for name, together in ranks.remembered(0, 1).items():
        for i, wanted in enumerate(together):
            values = [part[name][i] for part in apart]
            found = averages(values) if i % 2 == 0 else values[0]
            assert found == pytest.approx(wanted, rel=1e-4, abs=1e-6), (name, i)
            assert i % 2 == 0 or values[0] == values[1], (name, i)


PRIOR, POOL = [0.2, 0.2, 0.6], [0.35, 0.35, 0.3]


def with_prior():
    """p of ZW after alignment to the shares PRIOR, where the mean so far is POOL, moved 5 % towards that of ZW."""
    current = [0.95 * a + 0.05 * b for a, b in zip(POOL, averages(P["u_w"]), strict=True)]
    return aligned(P["u_w"], PRIOR, current)


ALIGNED = [
    (FlexMatch(threshold=0.3), {"selected": torch.full((4,), -2)}),
    (MarginMatch(threshold=0.3, quantile=0.0), None),
    (FreeMatch(fairness_weight=0.0), frozen(tau=0.3, p=even(3), hist=even(3))),
    (Dash(min_loss=10.0), {"start": torch.tensor(0.0)}),
    (DeFixMatch(threshold=0.3, weight=1.0), {}),
    (SoftMatch(n_sigma=0.0), None),
    (
        AdaMatch(threshold=0.0, ramp_up=0.0, decay=1.0),
        {"labeled": torch.tensor(even(3)), "unlabeled": torch.tensor(POOL)},
    ),
]


@pytest.mark.parametrize(("method", "state"), ALIGNED, ids=[m.name for m, _ in ALIGNED])
def test_labels_are_aligned_to_estimated_class_shares(method, state):
    """Weights 0.2 / 0.35 : 0.2 / 0.35 : 0.6 / 0.3, roughly: row 1 (0.367 0.332 0.301) becomes class 2, row 2 stays.

    (0.407606 + 1.458020 + 1.104131 + 0.349012) / 4 = 0.829692; every row is kept.
    """
    assert labels_of(with_prior()) == [0, 2, 1, 2]
    state = {**(method.init_state(SPEC) if state is None else state), "pool_mean": torch.tensor(POOL)}
    assert losses(doctored(method, prior=tuple(PRIOR)), state=state)["unsup"] == near(0.829692)


# --- pure parts ---


def test_a_running_mean_without_a_starting_value():
    """Decay 0.9 on 5, 1, 4: (0.81 x 5 + 0.9 x 1 + 4) / (0.81 + 0.9 + 1) = 8.95 / 2.71 = 3.302583."""
    mass, average = torch.tensor(0.0), torch.tensor(77.0)
    for value in (5.0, 1.0, 4.0):
        mass, share = newest(mass, 0.9)
        average = average.lerp(torch.tensor(value), share)
    assert average.item() == near(3.302583) and mass.item() == near(1 - 0.9**3)
    assert [v.item() for v in newest(torch.tensor(0.5), 0.0)] == [1.0, 1.0]


def test_cosine_ramp():
    """(1 - cos(pi t)) / 2: 0, (1 - 0.707107) / 2 = 0.146447 at a quarter, 1/2, 1."""
    assert [cosine_ramp(t, 0.8) for t in (0.0, 0.2, 0.4, 0.8, 1.0)] == [near(v) for v in (0, 0.146447, 0.5, 1, 1)]
    assert cosine_ramp(0.0, 0.0) == 1


def test_truncated_gaussian():
    """Mean 0.8, var 0.04: exp(-(0.5 - 0.8)^2 / (2 x 0.04 / 4)) = e^-4.5 = 0.011109; width 1: e^-1.125 = 0.324652."""
    conf, mean, variance = torch.tensor([0.5, 0.8, 0.9], dtype=torch.float64), torch.tensor(0.8), torch.tensor(0.04)
    assert truncated_gaussian(conf, mean, variance, 2.0).tolist() == [near(0.011109), near(1.0), 1.0]
    assert truncated_gaussian(conf, mean, variance, 1.0).tolist() == [near(0.324652), near(1.0), 1.0]
    assert truncated_gaussian(conf.float(), mean, torch.tensor(0.0), 2.0).tolist() == [0.0, 1.0, 1.0]
    assert truncated_gaussian(conf, mean, variance, 0.0).tolist() == [1.0, 1.0, 1.0]


STATUS = [
    # selected, what is unused, learning status
    ([0, 0, 0, 0, 1, 2, 2, -1, -2, -2], "seen", [1.0, 0.25, 0.5]),  # 4, 1, 2 rows; 1 seen without being confident
    ([0, 0, 0, 0, 1, 2, 2, -1, -2, -2], "pool", [1.0, 0.25, 0.5]),  # 3 are unused, fewer than the 4
    ([0, 1, *[-1] * 8], "seen", [0.125, 0.125, 0.0]),  # 8 unused
    ([0, 1, *[-2] * 8], "seen", [1.0, 1.0, 0.0]),  # none of the 8 was seen
    ([0, 1, *[-2] * 8], "pool", [0.125, 0.125, 0.0]),
    ([0, 1, *[-1] * 4, *[-2] * 4], "pool", [0.125, 0.125, 0.0]),
    ([0, 1, *[-1] * 8], "none", [1.0, 1.0, 0.0]),
    ([-2] * 10, "seen", [1.0, 1.0, 1.0]),  # nothing counted
    ([-1] * 10, "none", [1.0, 1.0, 1.0]),
    ([-2] * 10, "pool", [0.0, 0.0, 0.0]),
    ([-1] * 10, "seen", [0.0, 0.0, 0.0]),
]


@pytest.mark.parametrize(("selected", "unused", "status"), STATUS)
def test_learning_status(selected, unused, status):
    assert class_status(torch.tensor(selected), 3, unused).tolist() == status


def test_thresholds_follow_the_status():
    """0.95 x b / (2 - b): 0.95, 0.95 x 0.25 / 1.75 = 0.135714, 0.95 x 0.5 / 1.5 = 0.316667; 0.95 x 0.125 / 1.875."""
    status = torch.tensor([1.0, 0.25, 0.5, 0.125, 0.0], dtype=torch.float64)
    assert flexible(0.95, status).tolist() == [near(v) for v in (0.95, 0.135714, 0.316667, 0.063333, 0.0)]
    assert flexible(0.95, status, 0.8).tolist() == [near(v) for v in (0.95, 0.821429, 0.85, 0.81, 0.8)]


# --- flexmatch ---


def selected_before():
    """Four rows of class 0, one of class 1, two of class 2, one not confident, four not seen: status 1, 1/4, 1/2.

    In the batch come row 5 (was class 1), 2 (not seen), 0 (class 0) and 7 (not confident).
    """
    return torch.tensor([0, 0, -2, 0, 0, 1, 2, -1, -2, 2, -2, -2])


def test_flexmatch():
    """Thresholds 0.95, 0.135714, 0.316667: row 1 (0.367, class 0) is out, row 2 (0.918, class 1) is in: 0.465187.

    Selected are the rows that reach 0.95, whatever the thresholds: pool row 5 for class 0, 7 for class 2. Row 2 becomes
    seen, row 0 keeps its class though it is not confident now.
    """
    state = {"selected": selected_before()}
    found = losses(FlexMatch(), ids=torch.tensor(IDS), state=state)
    assert found == {"sup": near(SUP), "unsup": near(THREE)}
    assert state["selected"].tolist() == [0, 0, -1, 0, 0, 0, 2, 2, -2, 2, -2, -2]
    assert losses(FlexMatch(weight=3.0), ids=torch.tensor(IDS), state={"selected": selected_before()})["unsup"] == near(
        3 * masked([1, 0, 1, 1])
    )


def test_flexmatch_lowest_threshold():
    """0.9 + 0.05 x (1, 0.25 / 1.75, 0.5 / 1.5) = 0.95, 0.907143, 0.916667: row 2 (0.918, class 1) is in, as without it;
    with 0.92 it is out (0.924286). Where it is the threshold itself, FixMatch is left.
    """
    kept = {0.0: THREE, 0.9: THREE, 0.92: TWO, 0.95: TWO}
    for lowest, unsup in kept.items():
        state = {"selected": selected_before()}
        assert losses(FlexMatch(lowest=lowest), ids=torch.tensor(IDS), state=state)["unsup"] == near(unsup), lowest


def test_flexmatch_second_step_uses_what_the_first_one_selected():
    """First step: all thresholds are 0.95 and rows 0 and 3 are kept. It selects one row each for the classes 0 and 2;
    two rows were seen without being confident. Status 1/2, 0, 1/2, thresholds 0.316667, 0, 0.316667: all are kept now.

    Where all of a pool of 12 counts as unused the first step keeps all, and the status is 1/10, 0, 1/10 after it.
    """
    state = FlexMatch().init_state(DataSpec(3, pool_size=12))
    assert state["selected"].tolist() == [-2] * 12
    twice = [losses(FlexMatch(), ids=torch.tensor(IDS), state=state)["unsup"] for _ in range(2)]
    assert twice == [near(TWO), near(ALL)]
    assert state["selected"].tolist() == [-1, -2, -1, -2, -2, 0, -2, 2, -2, -2, -2, -2]
    assert losses(FlexMatch(unused="pool"))["unsup"] == near(ALL)
    lone = {"u_w": [LOGITS["u_w"][1]] * 4, "u_s": LOGITS["u_s"]}  # 0.367 reaches 0.95 x 1/2 / 1.5 = 0.316667
    assert losses(FlexMatch(), changed=lone, ids=torch.tensor([1, 3, 4, 6]), state=state)["unsup"] > 0
    assert losses(FlexMatch(), changed=lone, ids=torch.tensor([1, 3, 4, 6]), state={"selected": torch.tensor([0] * 7)})[
        "unsup"
    ] == near(0.0)


# --- freematch ---


def fairness(keep, p, hist, strong=P["u_s"]):
    labels = labels_of(strong)
    average = [sum(k * row[c] for k, row in zip(keep, strong, strict=True)) for c in range(3)]
    found = [sum(k for k, label in zip(keep, labels, strict=True) if label == c) for c in range(3)]
    there = [c for c in range(3) if found[c] > 0 and hist[c] > 0]
    a = [p[c] / hist[c] for c in there]
    b = [average[c] / found[c] for c in there]
    return sum(v / sum(a) * math.log(w / sum(b)) for v, w in zip(a, b, strict=True))


def test_freematch():
    """First batch: tau 0.811963; the mean of p is 0.338890 0.318791 0.342319, so the thresholds are 0.811963 x
    0.338890 / 0.342319 = 0.803830, 0.756156 and 0.811963. Row 1 (0.367) is out: 0.465187.

    Fairness over rows 0, 2, 3: sums of softmax(u_s) 1.046689 0.611346 1.341964, classes 0, 2, 2. Class 1 is missing.
    A: 0.338890 / 0.5 and 0.342319 / 0.25, that is 0.331100 and 0.668900. B: 1.046689 / 1 and 1.341964 / 2, that is
    0.609365 and 0.390635. 0.331100 x ln 0.609365 + 0.668900 x ln 0.390635 = -0.164003 - 0.628757 = -0.792760.
    """
    state = FreeMatch().init_state(SPEC)
    found = losses(FreeMatch(fairness_weight=0.5), state=state)
    assert found == {"sup": near(SUP), "unsup": near(THREE), "fairness": near(0.5 * -0.792760)}
    assert fairness([1, 0, 1, 1], averages(P["u_w"]), [0.5, 0.25, 0.25]) == near(-0.792760)
    assert state["tau"].item() == near(0.811963)
    assert state["p"].tolist() == [near(v) for v in (0.338890, 0.318791, 0.342319)]
    assert state["hist"].tolist() == [0.5, 0.25, 0.25]


def test_freematch_from_the_paper_s_start():
    """All at 1/3 and decay 0.999: tau 0.999 / 3 + 0.001 x 0.811963 = 0.333812, thresholds 0.333809 0.333788 0.333812.

    All rows are kept. A over the classes 0 and 2: 0.333338889 / 0.3335 and 0.333342319 / 0.33325, that is 0.499810 and
    0.500190; B: 1.430341 / 2 and 1.574661 / 2, that is 0.475987 and 0.524013; together -0.694284.
    """
    third = torch.full((3,), 1 / 3)
    state = {"mass": torch.tensor(1.0), "tau": torch.tensor(1 / 3), "p": third, "hist": third.clone()}
    found = losses(FreeMatch(decay=0.999, fairness_weight=1.0), state=state)
    assert found == {"sup": near(SUP), "unsup": near(ALL), "fairness": near(-0.694284)}
    assert state["tau"].item() == near(0.333812)
    thresholds = state["tau"] * state["p"] / state["p"].max()
    assert thresholds.tolist() == [near(v) for v in (0.333809, 0.333788, 0.333812)]


def test_freematch_late_thresholds():
    """tau 0.95, p 0.5 0.3 0.2: 0.95, 0.57, 0.38; row 1 (0.367, class 0) is out."""
    state = frozen(tau=0.95, p=[0.5, 0.3, 0.2], hist=even(3))
    assert losses(FreeMatch(weight=2.0), state=state)["unsup"] == near(2 * masked([1, 0, 1, 1]))
    assert losses(FreeMatch(), state=frozen(tau=0.95, p=[0.3, 0.5, 0.2], hist=even(3)))["unsup"] == near(
        masked([1, 0, 0, 1])  # 0.57, 0.95, 0.38
    )


def test_freematch_two_steps():
    """Decay 0.9: the second batch (ZS in the place of ZW) counts 1 / 1.9, the first 0.9 / 1.9."""
    state = FreeMatch().init_state(SPEC)
    losses(FreeMatch(), state=state)
    found = losses(FreeMatch(fairness_weight=1.0), changed={"u_w": LOGITS["u_s"]}, state=state)

    def mixed(a, b):
        return (0.9 * a + b) / 1.9

    tau = mixed(sum(map(max, P["u_w"])) / 4, sum(map(max, P["u_s"])) / 4)
    p = [mixed(a, b) for a, b in zip(averages(P["u_w"]), averages(P["u_s"]), strict=True)]
    hist = [mixed(a, b) for a, b in zip([0.5, 0.25, 0.25], [0.5, 0.0, 0.5], strict=True)]
    labels = [0, 0, 2, 2]
    keep = [int(max(row) >= tau * p[c] / max(p)) for row, c in zip(P["u_s"], labels, strict=True)]
    assert 0 < sum(keep) < 4
    assert state["tau"].item() == near(tau) and state["hist"].tolist() == [near(v) for v in hist]
    assert found["unsup"] == near(masked(keep, labels))
    assert found["fairness"] == near(fairness(keep, p, hist))


def test_freematch_fairness_gradient():
    """Against central differences of the formula in plain Python; rows 0, 2 and 3 take part, row 1 does not."""
    found = gradients(FreeMatch(weight=0.0, fairness_weight=1.0))["u_s"]
    step = 1e-6
    for i in range(4):
        for c in range(3):
            moved = []
            for sign in (1, -1):
                z = [list(row) for row in LOGITS["u_s"]]
                z[i][c] += sign * step
                moved.append(fairness([1, 0, 1, 1], averages(P["u_w"]), [0.5, 0.25, 0.25], probabilities(z)))
            assert found[i][c] == near((moved[0] - moved[1]) / (2 * step))
    assert found[1] == [0.0] * 3 and abs(found[0][0]) > 0.01


def test_freematch_fairness_of_no_rows():
    """No row is kept, or the classes kept were never predicted before: zero, with a gradient of zero."""
    nothing = frozen(tau=1.0, p=even(3), hist=even(3))
    assert losses(FreeMatch(), state=nothing)["fairness"] == 0
    found = gradients(FreeMatch(), state=frozen(tau=1.0, p=even(3), hist=even(3)))
    assert not any(any(row) for row in found["u_s"])
    foreign = frozen(tau=0.0, p=even(3), hist=[0.0, 1.0, 0.0])
    assert losses(FreeMatch(), state=foreign)["fairness"] == 0
    assert all(math.isfinite(v) for row in gradients(FreeMatch(), state=foreign)["u_s"] for v in row)


# --- softmatch ---


def test_softmatch():
    """First batch, aligned by 1/3 over the mean of p: confidences 0.974525 0.360696 0.923547 0.986153.

    Mean 0.811230, unbiased variance 0.090953. Row 1: exp(-(0.360696 - 0.811230)^2 / (2 x 0.090953 / 4)) = 0.011523;
    the others are above the mean. (0.407606 + 0.011523 x 0.958020 + 1.104131 + 0.349012) / 4 = 0.467947.
    """
    state = SoftMatch().init_state(SPEC)
    assert losses(SoftMatch(), state=state) == {"sup": near(SUP), "unsup": near(0.467947)}
    assert state["mu"].item() == near(0.811230) and state["var"].item() == near(0.090953)
    assert state["p"].tolist() == [near(v) for v in (0.338890, 0.318791, 0.342319)]
    # Width 1: e^(-0.202981 / (2 x 0.090953)) = 0.327637, 2 x (0.407606 + 0.327637 x 0.958020 + ...) / 4 = 1.087315
    assert losses(SoftMatch(n_sigma=1.0, weight=2.0))["unsup"] == near(1.087315)


def test_softmatch_from_the_paper_s_start():
    """mu 0.9 / 3 + 0.1 x 0.811230 = 0.381123, var 0.9 + 0.1 x 0.090953 = 0.909095: row 1 weighs 0.999082, 0.704472."""
    start = {"mass": 1.0, "mu": 1 / 3, "var": 1.0, "p": averages(P["u_w"])}
    state = {k: torch.tensor(v) for k, v in start.items()}
    assert losses(SoftMatch(), state=state)["unsup"] == near(0.704472)
    assert state["mu"].item() == near(0.381123) and state["var"].item() == near(0.909095)


def test_softmatch_weights_below_the_mean():
    """mu 0.8, var 0.04 and no alignment: confidence 0.367165 weighs exp(-0.432835^2 / 0.02) = 0.000085."""
    found = losses(SoftMatch(), state=frozen(mu=0.8, var=0.04, p=even(3)))["unsup"]
    assert found == near(masked([1, math.exp(-((0.3671654 - 0.8) ** 2) / 0.02), 1, 1]))
    assert found == near(0.465208)


def test_softmatch_alignment_changes_weights_and_not_labels():
    """Mean of p so far 0.8 0.1 0.1: row 1 (0.367 0.332 0.301) would be class 1, since 0.367165 / 0.8 = 0.458957 is less
    than 0.332225 / 0.1 = 3.322250. Its label stays 0; its confidence is 3.322250 / 6.787307 = 0.489480.
    """
    current = [0.8, 0.1, 0.1]
    q = aligned(P["u_w"], even(3), current)
    assert labels_of(q)[1] == 1 and max(q[1]) == near(0.489480, 5)
    state = frozen(mu=0.9, var=0.1, p=current)
    weights = [math.exp(-(min(max(row) - 0.9, 0.0) ** 2) / 0.05) for row in q]
    assert losses(SoftMatch(), state=state)["unsup"] == near(masked(weights))


def test_softmatch_aligns_to_estimated_shares():
    """Where the pool's shares are estimated the weights look at p aligned to them, whose mean so far is `p`."""
    before = with_prior()
    state = {**frozen(mu=0.9, var=0.1, p=[0.2, 0.2, 0.6]), "pool_mean": torch.tensor(POOL)}
    found = losses(doctored(SoftMatch(), prior=tuple(PRIOR)), state=state)["unsup"]
    confident = [max(row) for row in aligned(before, PRIOR, [0.2, 0.2, 0.6])]
    weights = [math.exp(-(min(c - 0.9, 0.0) ** 2) / 0.05) for c in confident]
    assert found == near(masked(weights, labels_of(before)))


def test_softmatch_two_steps():
    """Decay 0.9: the second batch (ZS in the place of ZW) counts 1 / 1.9 in the mean of p, in mu and in var."""
    state = SoftMatch().init_state(SPEC)
    losses(SoftMatch(), state=state)
    found = losses(SoftMatch(), changed={"u_w": LOGITS["u_s"]}, state=state)["unsup"]
    mean, mu, var = [0.0] * 3, 0.0, 0.0
    for share, rows in ((1.0, P["u_w"]), (1 / 1.9, P["u_s"])):
        mean = [(1 - share) * a + share * b for a, b in zip(mean, averages(rows), strict=True)]
        conf = [max(row) for row in aligned(rows, even(3), mean)]
        centre = sum(conf) / 4
        mu = (1 - share) * mu + share * centre
        var = (1 - share) * var + share * sum((c - centre) ** 2 for c in conf) / 3
    assert state["mu"].item() == near(mu) and state["var"].item() == near(var)
    weights = [math.exp(-(min(c - mu, 0.0) ** 2) / (var / 2)) for c in conf]
    assert sum(0.01 < w < 0.99 for w in weights) >= 2
    assert found == near(masked(weights, [0, 0, 2, 2]))


def test_softmatch_one_row_has_no_variance():
    """The variance stays what it was; mu 0.5 -> 0.5 + 0.1 x (1/3 - 0.5): one row aligned to its own mean is even, but
    for the 1e-6 in the quotient.
    """
    one = {"u_w": LOGITS["u_w"][:1], "u_s": LOGITS["u_s"][:1]}
    state = {k: torch.tensor(v) for k, v in {"mass": 1.0, "mu": 0.5, "var": 0.25, "p": P["u_w"][0]}.items()}
    found = losses(SoftMatch(), changed=one, state=state)["unsup"]
    assert state["var"].item() == 0.25 and state["mu"].item() == near(0.483333, 5)
    assert found == near(math.exp(-((1 / 3 - 0.483333) ** 2) / 0.125) * NLL["u_s"][0][0], 4)
    assert losses(SoftMatch(), changed=one)["unsup"] == near(NLL["u_s"][0][0], 4)


# --- adamatch ---


def test_adamatch():
    """Threshold 0.9 x (0.785597 + 0.390694) / 2 = 0.529331; means after the first step 0.95 / 3 + 0.05 x the batch's:
    0.344303 0.328285 0.327412 (labeled) and 0.333611 0.332606 0.333783. Aligned confidences 0.976638 0.378285 0.918591
    0.986321: row 1 is out.
    """
    state = AdaMatch().init_state(SPEC)
    assert losses(AdaMatch(weight=2.0), state=state) == {
        "sup": near(SUP_TWICE),
        "unsup": near(2 * masked([1, 0, 1, 1])),
    }
    assert state["labeled"].tolist() == [near(v) for v in (0.344303, 0.328285, 0.327412)]
    assert state["unlabeled"].tolist() == [near(v) for v in (0.333611, 0.332606, 0.333783)]


def test_adamatch_threshold_is_relative_to_the_labeled_rows():
    """Labeled rows both at 0.390694: 0.9 x 0.390694 = 0.351625, which the 0.367165 of row 1 reaches;
    0.95 x 0.390694 = 0.371159, which it does not. The means do not move (decay 1).
    """
    same = {"x": [LOGITS["x"][1]] * 2}
    fixed = {"labeled": torch.tensor(even(3)), "unlabeled": torch.tensor(even(3))}
    assert losses(AdaMatch(decay=1.0), changed=same, state=dict(fixed))["unsup"] == near(ALL)
    assert losses(AdaMatch(decay=1.0, threshold=0.95), changed=same, state=dict(fixed))["unsup"] == near(THREE)


def test_adamatch_labels_and_mask_are_aligned():
    """Means 0.2 0.2 0.6 of labeled rows, even of unlabeled ones: row 1 becomes class 2 with 0.300610 x 0.6 / 0.320244 =
    0.563214, above the threshold 0.529331: (0.407606 + 1.458020 + 1.104131 + 0.349012) / 4 = 0.829692.
    """
    state = {"labeled": torch.tensor([0.2, 0.2, 0.6]), "unlabeled": torch.tensor(even(3))}
    assert losses(AdaMatch(decay=1.0), state=dict(state))["unsup"] == near(0.829692)
    swapped = {"labeled": state["unlabeled"], "unlabeled": state["labeled"]}  # away from class 2: row 1 stays out
    assert losses(AdaMatch(decay=1.0), state=swapped)["unsup"] == near(masked([1, 0, 1, 1]))


def test_adamatch_estimated_shares_take_the_place_of_the_labels():
    """Shares 0.2 0.2 0.6 estimated, whatever the labeled mean says: the same 0.829692. The engine's mean stays."""
    state = {"labeled": torch.tensor([0.8, 0.1, 0.1]), "unlabeled": torch.tensor(even(3)), "pool_mean": torch.ones(3)}
    assert losses(doctored(AdaMatch(decay=1.0), prior=(0.2, 0.2, 0.6)), state=state)["unsup"] == near(0.829692)
    assert state["pool_mean"].tolist() == [1.0] * 3


def test_adamatch_two_steps():
    """Decay 0.5, so that the means matter: labeled rows ZX twice, unlabeled ones ZW and then others."""
    other = [[1.0, 1.5, 0.0], [0.0, 0.5, 0.5], [0.5, 2.0, 1.0], [0.5, 0.0, 1.0]]
    now = probabilities(other)
    method = AdaMatch(decay=0.5, threshold=0.6)
    state = method.init_state(SPEC)
    losses(method, state=state)
    found = losses(method, changed={"u_w": other}, state=state)["unsup"]
    labeled = [0.25 / 3 + 0.75 * v for v in averages(P["x"])]
    unlabeled = [0.25 / 3 + 0.25 * a + 0.5 * b for a, b in zip(averages(P["u_w"]), averages(now), strict=True)]
    assert state["labeled"].tolist() == [near(v) for v in labeled]
    assert state["unlabeled"].tolist() == [near(v) for v in unlabeled]
    q = aligned(now, labeled, unlabeled)
    keep = [int(max(row) >= 0.6 * sum(map(max, P["x"])) / 2) for row in q]
    assert found == near(masked(keep, labels_of(q)))
    assert labels_of(q) != labels_of(now)  # the alignment counts


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.0), (0.125, 0.146447), (0.25, 0.5), (0.5, 1.0), (0.9, 1.0)])
def test_adamatch_weight_rises_along_a_cosine(progress, factor):
    found = losses(AdaMatch(), progress=progress)
    assert found == {"sup": near(SUP_TWICE), "unsup": near(factor * THREE)}


# --- dash ---

DASH = [
    # progress, unsup
    (0.0, 0.464514),  # rho 0.590571
    (0.2, 0.464514),  # 1.27^-5 = 0.302682: 0.178755
    (0.28, 0.464514),  # 1.27^-7 = 0.187665: 0.110830, still above the 0.102054 of row 2
    (0.32, 0.189307),  # 1.27^-8 = 0.147768: 0.087267, row 2 is out: (0.408032 + 0.349194) / 4
    (0.4, 0.189307),  # 1.27^-10 = 0.091616: 0.054106
    (0.44, TWO),  # 1.27^-11 = 0.072139: 0.042603, below 0.05: hard labels, confidence from e^-0.05 = 0.951229 on
    (1.0, TWO),
]


@pytest.mark.parametrize(("progress", "unsup"), DASH)
def test_dash(progress, unsup):
    """rho starts at the labeled loss 0.590571. Soft targets softmax(u_w / 0.5), their cross-entropy

    against u_w   0.026313 1.088698 0.102054 0.013840
    against u_s   0.408032 1.092674 1.100829 0.349194

    At the start row 1 is out: (0.408032 + 1.100829 + 0.349194) / 4 = 0.464514.
    """
    assert losses(Dash(min_loss=0.05), progress=progress) == {"sup": near(SUP), "unsup": near(unsup)}


def test_dash_soft_targets_by_the_formula():
    rho = SUP * 1.27**-5
    wanted = 0.0
    for w, own, strong in zip(LOGITS["u_w"], NLL["u_w"], NLL["u_s"], strict=True):
        q = softmax(w, 0.5)
        if sum(a * b for a, b in zip(q, own, strict=True)) <= rho:
            wanted += sum(a * b for a, b in zip(q, strong, strict=True)) / 4
    assert losses(Dash(min_loss=0.05, weight=3.0), progress=0.2)["unsup"] == near(3 * wanted)


def test_dash_gradient_of_soft_targets():
    """(p - q) / 4 at u_s where kept, none at u_w: row 0 (0.665241 - 0.999619) / 4 = -0.083595."""
    found = gradients(Dash(min_loss=0.05), progress=0.2)
    for row, keep in enumerate([1, 0, 1, 1]):
        q = softmax(LOGITS["u_w"][row], 0.5)
        assert found["u_s"][row] == [near(keep * (a - b) / 4) for a, b in zip(P["u_s"][row], q, strict=True)]
    assert found["u_s"][0][0] == near(-0.083595)
    assert found["u_w"] is None or not any(any(row) for row in found["u_w"])


def test_dash_hard_limit():
    """rho 0.1: confidence from e^-0.1 = 0.904837 on: row 2 (0.918423) is in."""
    assert losses(Dash(min_loss=0.1), state={"start": torch.tensor(0.0)})["unsup"] == near(THREE)
    assert losses(Dash(min_loss=0.08), state={"start": torch.tensor(0.0)})["unsup"] == near(TWO)  # 0.085097


def test_dash_measures_the_labeled_loss_once():
    """Mean of 0.241311 and 0.939831 over the labeled rows; soft labels (0.7 0.2 0.1) give (0.841311 + 0.939831) / 2."""

    def start(labels, known=-1.0):
        seen = []

        class Spy(Dash):
            def step(self, run, batch):
                self.begin_epoch(run)  # a second pass changes nothing
                seen.append(run.state["start"].item())
                return Dash.step(self, run, batch)

            def init_state(self, spec):
                return {"start": torch.tensor(known)}

        losses(Spy(), labels)
        return seen

    assert start(CLASSES) == [near(SUP)]
    assert start([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]]) == [near(0.890571)]
    assert start(CLASSES, known=0.25) == [0.25]


# --- defixmatch ---


def test_defixmatch():
    """Threshold 0.7: the labeled rows have 0.785597 (kept, label 0, 0.680270 in x_s) and 0.390694 (not kept).

    Unlabeled rows 0, 2, 3: 0.5 x 0.465187 = 0.232594. Taken back: 0.5 x 0.680270 / 2 = 0.170068, by the two rows.
    """
    found = losses(DeFixMatch(threshold=0.7))
    assert found == {"sup": near(SUP_TWICE), "unsup": near(0.232594), "debias": near(-0.170068)}
    # Its own label, not the row's: with classes 1 and 2 the same; and by weights 2 and 0.5 twice as much.
    assert losses(DeFixMatch(threshold=0.7), [1, 2])["debias"] == near(-0.170068)
    assert losses(doctored(DeFixMatch(threshold=0.7), w=[2.0, 0.5]))["debias"] == near(-0.340135)
    assert losses(DeFixMatch())["debias"] == 0  # none of the labeled rows reaches 0.8
    assert losses(DeFixMatch(threshold=0.7, weight=2.0))["debias"] == near(-2 * NLL["x_s"][0][0] / 2)


def test_defixmatch_unsup_and_debias_cancel_on_the_same_rows():
    """The unlabeled rows are the labeled ones: the loss is that of the labels alone, whatever the pseudo-labels."""
    same = {"u_w": LOGITS["x"], "u_s": LOGITS["x_s"]}
    found = losses(DeFixMatch(threshold=0.0, weight=3.0), changed=same)
    assert found["unsup"] == near(3 * (NLL["x_s"][0][0] + NLL["x_s"][1][2]) / 2)
    assert found["unsup"] + found["debias"] == near(0.0, 12)


def test_defixmatch_gradient_at_the_labeled_rows():
    """Row 0 (label right and sure): half is given, half is taken back: nothing. Row 1: half of (p - y) / 2.

    x gets the supervised gradient alone.
    """
    found = gradients(DeFixMatch(threshold=0.7))
    assert found["x_s"][0] == [near(0.0, 12)] * 3
    assert found["x_s"][1] == [near(0.5 * (p - (c == 2)) / 2) for c, p in enumerate(P["x_s"][1])]
    assert found["x"][0] == [near(0.5 * (p - (c == 0)) / 2) for c, p in enumerate(P["x"][0])]
    assert found["u_s"][2][1] == near(0.5 * (P["u_s"][2][1] - 1) / 4)


# --- marginmatch ---


def test_marginmatch():
    """Margins of the labels: 4 - 0 = 4, 1 - 0.9 = 0.1, 3 - 0.5 = 2.5, 5 - 0 = 5. Rows not seen do not count.

    No threshold. The median from below is 2.5: row 1 is out; the quantile 0.7 is 4: row 2 as well.
    """
    ids = torch.tensor(IDS)

    def found(quantile, threshold=0.0):
        state = MarginMatch().init_state(DataSpec(3, pool_size=12))
        return losses(MarginMatch(threshold=threshold, quantile=quantile, weight=2.0), ids=ids, state=state), state

    assert found(0.0)[0] == {"sup": near(SUP), "unsup": near(2 * ALL)}
    assert found(0.5)[0]["unsup"] == near(2 * THREE)
    assert found(0.7)[0]["unsup"] == near(2 * TWO)
    assert found(1.0)[0]["unsup"] == near(2 * masked([0, 0, 0, 1]))
    assert found(0.5, threshold=0.98)[0]["unsup"] == near(2 * masked([0, 0, 0, 1]))  # both have to hold
    state = found(0.5, threshold=0.95)[1]
    assert state["times"].tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0]
    assert state["own"].tolist() == [near(v, 5) for v in (2.5, 0, 0.1, 0, 0, 4, 0, 5, 0, 0, 0, 0)]
    assert state["margins"][5].tolist() == [near(v, 5) for v in (4.0, -4.0, -5.0)]
    assert state["margins"][0].tolist() == [near(v, 5) for v in (-5.0, 2.5, -2.5)]
    assert state["selected"].tolist() == [-1, -2, -1, -2, -2, 0, -2, 2, -2, -2, -2, -2]


def test_marginmatch_remembers():
    """Second time with ZS: margins 1, 0 (a tie), 0.5, 1 of its labels 0, 0, 2, 2, averaged with those of ZW.

    Row 0: (4 + 1) / 2 = 2.5. Row 1: (0.1 + 0) / 2 = 0.05. Row 2 is class 2 now: (-2.5 + 0.5) / 2 = -1.
    Row 3: (5 + 1) / 2 = 3. The median from below of -1, 0.05, 2.5, 3 is 0.05: row 2, which changed its mind, is out.
    A third time with ZW: row 0 (4 + 1 + 4) / 3 = 3, row 2 for class 1 (2.5 - 0.5 + 2.5) / 3 = 1.5.
    """
    method = MarginMatch(threshold=0.0, quantile=0.5)
    state = method.init_state(SPEC)
    losses(method, state=state)
    second = losses(method, changed={"u_w": LOGITS["u_s"]}, state=state)["unsup"]
    assert state["own"].tolist() == [near(v, 5) for v in (2.5, 0.05, -1.0, 3.0)]
    assert second == near(masked([1, 1, 0, 1], [0, 0, 2, 2]))
    losses(method, state=state)
    assert state["own"].tolist() == [near(v, 5) for v in (3.0, 0.2 / 3, 1.5, 11 / 3)]
    assert state["times"].tolist() == [3.0] * 4


def test_marginmatch_limit_counts_rows_seen_before():
    """A pool of 6: two rows seen before have 10 and 20. Sorted 0.1 2.5 4 5 10 20, the median from below is 4."""
    state = MarginMatch().init_state(DataSpec(3, pool_size=6))
    state["own"][4:], state["times"][4:] = torch.tensor([10.0, 20.0]), 1.0
    assert losses(MarginMatch(threshold=0.0, quantile=0.5), state=state)["unsup"] == near(TWO)
    state = MarginMatch().init_state(DataSpec(3, pool_size=6))
    state["own"][4:] = torch.tensor([10.0, 20.0])  # never seen
    assert losses(MarginMatch(threshold=0.0, quantile=0.5), state=state)["unsup"] == near(THREE)


def test_marginmatch_thresholds_are_flexmatch_s():
    """As in `test_flexmatch`: 0.95, 0.135714, 0.316667, and the fixed threshold decides what is selected."""
    state = MarginMatch().init_state(DataSpec(3, pool_size=12))
    state["selected"] = selected_before()
    assert losses(MarginMatch(quantile=0.0), ids=torch.tensor(IDS), state=state)["unsup"] == near(THREE)
    assert state["selected"].tolist() == [0, 0, -1, 0, 0, 0, 2, 2, -2, 2, -2, -2]
