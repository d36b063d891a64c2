"""Every method over three steps: losses, gradients, pseudo-labels and masks against its formula worked out once more.

Class shares of the pool, row weights, soft labels and draws that differ from row to row are all there at once; rows of
the pool come again in another order and with other logits, so that what is remembered counts. The expected side is
`formulas.py`, which takes nothing from the library. Losses agree to a millionth: running means are float32.
"""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import fields, replace

import formulas
import numpy as np
import pytest
import torch
from formulas import FORMULAS, World
from tiny import FAST, tiny_task

from nlp_ssl import fit, list_methods, testing
from nlp_ssl.methods import ICT, DivideMix, MeanTeacher, SimMatch
from nlp_ssl.ops import random
from nlp_ssl.ops.mixing import span_swap
from nlp_ssl.ops.targets import clean_probability
from nlp_ssl.registry import get_method
from nlp_ssl.run import StepContext
from nlp_ssl.testing import StubNet, step_losses
from nlp_ssl.types import DataSpec

STEPS = (  # share of training done, rows of the pool, labeled rows, and whether a round begins
    (0.05, [3, 0, 6, 1, 4], [4, 1, 5, 2], True),
    (0.2, [4, 2, 0, 3, 6], [0, 2, 3, 4], False),
    (0.7, [6, 5, 3, 2, 0], [5, 4, 0, 1], True),
)
POOL, CLASSES = 7, 3
LABELS = torch.tensor([1, 0, 2, 0, 2, 1])
SOFT = torch.tensor(
    [[0.7, 0.2, 0.1], [0.0, 0.3, 0.7], [0.25, 0.5, 0.25], [1.0, 0.0, 0.0], [0.1, 0.8, 0.1], [0.4, 0.2, 0.4]],
    dtype=torch.float64,
)
WEIGHTS = torch.tensor([0.4, 1.7, 1.0, 0.2, 2.5, 0.7], dtype=torch.float64)
OTHERS = 2.0 * torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(68), dtype=torch.float64)
PRIOR = (0.5, 0.15, 0.35)
POOL_MEAN = (0.25, 0.45, 0.3)  # of the predictions before the first step

# Options that show what the defaults hide; thresholds lie where some rows pass and some do not.
CASES: list[tuple[str, dict[str, object]]] = [
    ("supervised", {}),
    ("supervised", {"label_smoothing": 0.2}),
    ("adversarial", {"size": 0.3, "weight": 0.7}),
    ("adversarial", {"size": 0.3, "norm": "linf"}),
    ("r_drop", {"weight": 0.5, "labeled_weight": 0.3, "ramp_up": 0.4}),
    ("fixmatch", {"weight": 0.5}),
    ("fixmatch", {"threshold": 0.7, "target_dropout": True}),
    ("defixmatch", {"threshold": 0.7}),
    ("defixmatch", {"threshold": 0.6, "target_dropout": True}),
    ("debiaspl", {"threshold": 0.7, "strength": 0.8}),
    ("debiaspl", {"threshold": 0.6, "target_dropout": True, "decay": 0.7}),
    ("uda", {"entropy_weight": 0.3}),
    ("uda", {"tsa": "linear", "threshold": 0.5, "temperature": 0.7, "weight": 0.5}),
    ("uda", {"tsa": "exp", "target_dropout": True}),
    ("uda", {"tsa": "log"}),
    ("pseudo_label", {"threshold": 0.7, "entropy_weight": 0.2}),
    ("pseudo_label", {"threshold": 0.0, "ramp_up": 0.0, "weight": 0.5}),
    ("entropy_min", {"prior_weight": 0.5}),
    ("pi_model", {"weight": 2.0}),
    ("mean_teacher", {"weight": 2.0}),
    ("mean_teacher", {"target_dropout": True}),
    ("temporal_ensembling", {"first": "wait"}),
    ("temporal_ensembling", {"first": "predict", "decay": 0.4}),
    ("temporal_ensembling", {"first": "wait", "current": True, "target_dropout": True, "decay": 0.8}),
    ("distillation", {}),
    ("distillation", {"temperature": 0.8, "alpha": 0.3, "scale_t2": False}),
    ("distillation", {"normalise": True, "mlm_weight": 0.2}),
    ("vat", {"size": 0.4, "entropy_weight": 0.3, "weight": 0.5}),
    ("vat", {"size": 0.4, "reach": 0.5, "steps": 3}),
    ("adamatch", {"ramp_up": 0.3}),
    ("adamatch", {"threshold": 1.0, "decay": 0.5, "ramp_up": 0.1, "target_dropout": True}),
    ("adamatch", {"threshold": 0.6, "decay": 0.7}),
    ("flexmatch", {"threshold": 0.75}),
    ("flexmatch", {"threshold": 0.75, "unused": "pool", "lowest": 0.5}),
    ("flexmatch", {"threshold": 0.7, "unused": "none", "target_dropout": True}),
    ("marginmatch", {"threshold": 0.75, "quantile": 0.3}),
    ("marginmatch", {"threshold": 0.7, "unused": "pool", "lowest": 0.4, "quantile": 0.5, "target_dropout": True}),
    ("freematch", {"fairness_weight": 0.3}),
    ("freematch", {"fairness_weight": 0.1, "decay": 0.5, "target_dropout": True}),
    ("softmatch", {}),
    ("softmatch", {"n_sigma": 1.0, "decay": 0.5, "target_dropout": True}),
    ("dash", {"gamma": 1.5, "updates": 4}),
    ("dash", {"gamma": 1.1, "updates": 2, "min_loss": 0.1, "target_dropout": True}),
    ("dash", {"gamma": 2.0, "updates": 10, "min_loss": 0.3}),
    ("dash", {"gamma": 4.0, "updates": 2, "min_loss": 0.5, "temperature": 0.8}),
    ("crmatch", {"threshold": 0.6, "distance_weight": 0.4, "pretext": "rotation", "pretext_weight": 0.3}),
    ("crmatch", {"threshold": 0.6, "pretext": "order", "target_dropout": True}),
    ("comatch", {"threshold": 0.6, "alpha": 0.6, "queue": 16, "graph_threshold": 0.4, "contrast_weight": 0.5}),
    ("comatch", {"threshold": 0.7, "queue": 11, "target_dropout": True}),
    ("simmatch", {"threshold": 0.6, "alpha": 0.6, "temperature": 0.3}),
    ("simmatch", {"threshold": 0.7, "target_dropout": True, "instance_weight": 0.4}),
    ("multimatch", {"quantile": 0.5}),
    ("multimatch", {"quantile": 0.2, "useful_weight": 2.0, "heads_weight": 0.4, "decay": 0.5, "target_dropout": True}),
    ("jointmatch", {}),
    ("jointmatch", {"threshold": 0.6, "disagreement": 0.7, "decay": 0.5, "target_dropout": True}),
    ("meta_pseudo_labels", {"threshold": 0.6}),
    ("meta_pseudo_labels", {"labels": "soft", "meta_weight": 3.0, "ramp_up": 0.5, "label_weight": 0.6}),
    ("meta_pseudo_labels", {"labels": "argmax", "temperature": 0.7, "clip_h": 5.0, "meta_weight": 2.0}),
    ("meta_pseudo_labels", {"clip_h": 5.0, "sign": "official", "baseline_decay": 0.5}),
    ("meta_pseudo_labels", {"finetune": 0.4}),
    ("meta_pseudo_labels", {"labels": "soft", "sign": "official", "clip_h": 0.5}),
    ("ict", {"weight": 3.0}),
    ("ict", {"alpha": 1.0, "target_dropout": True}),
    ("ict", {"mix_logits": True}),
    ("mixmatch", {}),
    ("mixmatch", {"temperature": 0.8, "alpha": 2.0, "target_dropout": False}),
    ("mixtext", {"hinge_weight": 0.5, "margin": 0.4}),
    ("mixtext", {"strong_share": 0.3, "alpha": 2.0, "temperature": 0.8, "target_dropout": True}),
    ("mixup_pseudo_label", {}),
    ("mixup_pseudo_label", {"supervised_until": 0.1, "alpha": 3.0, "weight": 0.5}),
    ("remixmatch", {}),
    ("remixmatch", {"strong_views": 3, "queue": 2, "pretext": "order", "target_dropout": True, "ctaugment": False}),
    ("remixmatch", {"strong_views": 1, "queue": 4, "pretext": "rotation", "alpha": 2.0}),
    ("dividemix", {}),
    ("dividemix", {"least_gap": 0.0, "supervised_until": 0.0, "threshold": 0.6, "ramp_up": 0.5, "penalty_weight": 0.4}),
    ("dividemix", {"confidence_penalty": 0.3, "supervised_until": 0.1, "alpha": 1.0, "least_gap": 5.0}),
    ("label_propagation", {}),
    ("label_propagation", {"gamma": 1.0, "alpha": 0.8, "weight": 0.5}),
]
# Weights of rows as they are, and class shares, with classes or with soft labels.
WORLDS = {"no shares": (None, False), "shares": (PRIOR, False), "shares, soft labels": (PRIOR, True)}


class Noisy(StubNet):
    """A stub net with dropout, which acts behind what a method changes at the inputs."""

    def __call__(self, batch, *views, edit=None, dropout=True):
        found = super().__call__(batch, *views, edit=edit)
        return [z + formulas.dropout(v, z) if dropout else z for v, z in zip(views, found, strict=True)]


def of_step(method, step):
    """Logits by role and view of one step, float64."""
    made = {}
    for role in method.nets:
        for view in method.wanted_views():
            seed = 1000 * step + 97 * sum(map(ord, role)) + sum(map(ord, view)) * 13
            rows = len(STEPS[step][2 if view[0] == "x" else 1])
            generator = torch.Generator().manual_seed(seed)
            z = 2.0 * torch.randn(rows, CLASSES, generator=generator, dtype=torch.float64)
            made.setdefault(role, {})[view] = z.requires_grad_()
    return made


class Training:
    """A method through several calls of `step_losses`: what it remembers stays, and rounds begin when they should."""

    def __init__(self, method, prior, soft, monkeypatch):
        plain, keeper = type(method), self
        self.state, self.prior, self.new_round = {}, prior, True
        self.labels = SOFT if soft else LABELS

        def init_state(method, spec):
            new = {} if keeper.state else plain.init_state(method, replace(spec, labeled_size=len(LABELS)))
            keeper.state.update(new)
            return keeper.state

        def begin_epoch(method, run):
            run.labels = keeper.labels
            run.predict = keeper.whole(run.predict, lambda z: z.softmax(-1))
            run.features = keeper.whole(run.features, lambda z: z)
            if keeper.prior is not None:
                run.state["pool_mean"] = keeper.pool_mean
            if keeper.new_round:
                plain.begin_epoch(method, run)

        def step(method, run, batch):
            found = plain.step(method, run, {**batch, "id": {**batch["id"], "x": keeper.x_ids}})
            return with_an_update(run, found) if isinstance(found, Iterator) else found

        def with_an_update(run, parts):
            """Other logits of the student from its update on."""
            student = run.nets["student"].logits
            for number, part in enumerate(parts):
                yield part
                if number == 0:
                    student.update({view: z + formulas.moved(view, z) for view, z in student.items()})

        kept = type(plain.__name__, (plain,), {"init_state": init_state, "begin_epoch": begin_epoch, "step": step})
        self.method = kept(**{f.name: getattr(method, f.name) for f in fields(method)})
        self.pool_mean = torch.tensor(POOL_MEAN)
        self.watched, self.probes, self.calls = [], [], itertools.count()
        monkeypatch.setattr(testing, "StubNet", Noisy)
        monkeypatch.setattr(
            StepContext, "watch", lambda run, p, keep, true_labels: self.watched.append((p.detach(), keep.double()))
        )
        monkeypatch.setattr(StepContext, "steer", lambda run, keys, match: self.probes.append((keys.tolist(), match)))
        monkeypatch.setattr(random, "beta", lambda alpha, n, like: formulas.lam(alpha, n).to(like))
        monkeypatch.setattr(random, "permutation", lambda n, like: formulas.partner(n, next(self.calls)))
        monkeypatch.setattr(random, "normal", formulas.normal)
        monkeypatch.setattr(random, "classes", formulas.drawn)
        monkeypatch.setattr(random, "integer", lambda n: 0)

    def whole(self, of_batch, answer):
        """What the net says of a whole block: of labeled rows also those that are not in the batch."""

        def of_block(role, block):
            rows = OTHERS.clone()
            rows[self.x_ids] = self.z[role]["x"].detach()
            return answer(rows) if block == "x" else of_batch(role, block)

        return of_block

    def step(self, z, number, progress):
        """Losses of one step; what was watched and probed lies in the lists."""
        _, ids, x_ids, self.new_round = STEPS[number]
        self.z, self.x_ids = z, torch.tensor(x_ids)
        self.watched, self.probes, self.calls = [], [], itertools.count()
        found = step_losses(
            self.method,
            z[self.method.default_net()],
            self.labels[self.x_ids],
            ids=torch.tensor(ids),
            progress=progress,
            logits_by_net=z,
            w=WEIGHTS[self.x_ids],
            prior=self.prior,
        )
        self.pool_mean = self.state.get("pool_mean", self.pool_mean)
        return found


def near(value):
    return pytest.approx(value, rel=1e-5, abs=3e-6)


def gradients(losses, z):
    """Of the sum of the losses, by role and view; zeros where none arrives."""
    leaves = [v for views in z.values() for v in views.values()]
    loss = torch.stack(list(losses.values())).sum()
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    names = [f"{role} {view}" for role, views in z.items() for view in views]
    return {n: (torch.zeros_like(v) if g is None else g).tolist() for n, v, g in zip(names, leaves, found, strict=True)}


def close(found, wanted, what):
    assert found.shape == wanted.shape, what
    assert torch.allclose(found.double(), wanted.double(), rtol=1e-5, atol=3e-6), (what, found, wanted)


def check(training, memory, z, number, progress=None):
    """One step of the training against the formula with this memory."""
    method, prior, known = training.method, training.prior, training.labels
    progress = STEPS[number][0] if progress is None else progress
    found = training.step(z, number, progress)
    known = known if known.dim() == 2 else formulas.hot(known, CLASSES)
    world = World(
        method,
        {role: {view: v.detach().clone().requires_grad_() for view, v in views.items()} for role, views in z.items()},
        y=known[training.x_ids],
        w=WEIGHTS[training.x_ids],
        prior=None if prior is None else torch.tensor(prior, dtype=torch.float64),
        progress=progress,
        ids=torch.tensor(STEPS[number][1]),
        x_ids=training.x_ids,
        known=known,
        others=OTHERS,
        pool=POOL,
        new_round=STEPS[number][3],
        memory=memory,
    )
    wanted = FORMULAS[method.name](world)
    assert {k: v.item() for k, v in found.items()} == {k: near(v.item()) for k, v in wanted.items()}, number
    slopes = gradients(found, z)
    for where, slope in gradients(wanted, world.z).items():
        assert np.allclose(slopes[where], slope, rtol=1e-4, atol=3e-6), (number, where, slopes[where], slope)
    assert len(training.watched) == len(world.watched) and len(training.probes) == len(world.probes)
    for (p, keep), (q, kept) in zip(training.watched, world.watched, strict=True):
        close(p, q, (number, "pseudo-labels"))
        close(keep, kept, (number, "kept"))
    for (_, match), degree in zip(training.probes, world.probes, strict=True):
        close(match, degree, (number, "probe"))


def start():
    return {"pool": torch.tensor(POOL_MEAN, dtype=torch.float64)}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{k}" for k, (n, _) in enumerate(CASES)])
def test_three_steps(name, options, world, monkeypatch):
    method, (prior, soft) = get_method(name)(**options), WORLDS[world]
    training, memory = Training(method, prior, soft, monkeypatch), start()
    for number in range(len(STEPS)):
        check(training, memory, of_step(method, number), number)


def test_remixmatch_starts_with_the_pool_as_the_started_model_sees_it(monkeypatch):
    """The queue is full of that at step 0 of a run that knows it; weights do not rise here."""
    method = get_method("remixmatch")(ramp_up=0.0)
    check(Training(method, PRIOR, False, monkeypatch), start(), of_step(method, 0), 0, progress=0.0)


def test_every_method_has_its_formula():
    assert set(FORMULAS) == set(list_methods(in_rounds=False)) == {name for name, _ in CASES}


# --- what lies exactly on a limit

REACHED = {  # method -> options with which an even prediction for two classes, 1/2 each, lies on the limit
    "fixmatch": {"threshold": 0.5},
    "defixmatch": {"threshold": 0.5},
    "debiaspl": {"threshold": 0.5},
    "pseudo_label": {"threshold": 0.5},
    "crmatch": {"threshold": 0.5},
    "comatch": {"threshold": 0.5, "alpha": 1.0},
    "simmatch": {"threshold": 0.5, "alpha": 1.0},
    "flexmatch": {"threshold": 0.5},
    "marginmatch": {"threshold": 0.5},
    "freematch": {},
    "adamatch": {"threshold": 1.0},
    "jointmatch": {"threshold": 0.5},
    "multimatch": {},
}
PASSED = {"uda": {"threshold": 0.5}, "meta_pseudo_labels": {"threshold": 0.5}}  # it must be exceeded


@pytest.mark.parametrize("name", [*REACHED, *PASSED])
def test_a_row_on_the_limit(name, monkeypatch):
    method, kept = get_method(name)(**{**REACHED, **PASSED}[name]), []
    monkeypatch.setattr(StepContext, "watch", lambda run, p, keep, true_labels: kept.extend((keep > 0).tolist()))
    z = {view: torch.zeros(2, 2, dtype=torch.float64) for view in method.wanted_views()}
    found = step_losses(method, z, torch.tensor([0, 1]))
    assert kept and set(kept) == {name in REACHED}
    if name == "defixmatch":
        assert found["debias"].item() == near(-0.5 * math.log(2))


def test_a_loss_on_the_limit_of_dash(monkeypatch):
    """A limit of ln 2 to the last bit, which the label of an even prediction costs."""
    method, kept = get_method("dash")(min_loss=math.log(2)), []
    monkeypatch.setattr(StepContext, "watch", lambda run, p, keep, true_labels: kept.extend(keep.tolist()))
    z = {view: torch.zeros(2, 2, dtype=torch.float64) for view in method.views}
    step_losses(method, z, torch.tensor([0, 1]), state={"start": torch.tensor(0.0, dtype=torch.float64)})
    assert kept == [1.0, 1.0]


@pytest.mark.parametrize("name", ["flexmatch", "marginmatch"])
def test_a_row_on_the_threshold_is_selected(name):
    method = get_method(name)(threshold=0.5)
    state = method.init_state(DataSpec(2, pool_size=2))
    z = {view: torch.zeros(2, 2, dtype=torch.float64) for view in method.views}
    step_losses(method, z, torch.tensor([0, 1]), state=state)
    assert state["selected"].tolist() == [0, 0]


def test_dividemix_does_not_believe_a_label_on_the_threshold():
    method = DivideMix(threshold=0.5, supervised_until=0.0)
    state = {f"clean.{role}": torch.full((2,), 0.5) for role in method.nets}
    z = {view: torch.ones(2, 2, dtype=torch.float64) for view in method.views}
    found = step_losses(method, z, torch.tensor([0, 1]), state=state)
    assert found["sup.student"] == found["sup.second"] == 0


def test_rows_that_agree_exactly_as_much_as_comatch_asks_for_are_linked(monkeypatch):
    """Certain predictions: q_i . q_j is 1 within a class and 0 between classes."""
    method = get_method("comatch")(graph_threshold=1.0, contrast_weight=1.0)
    z = of_step(method, 0)
    z["student"]["u_w"] = (800.0 * formulas.hot(torch.tensor([0, 0, 2, 1, 2]), CLASSES)).requires_grad_()
    check(Training(method, None, False, monkeypatch), start(), z, 0)


# --- averaged teachers


@pytest.mark.parametrize("cls", [MeanTeacher, ICT, SimMatch], ids=lambda c: c.name)
def test_a_teacher_over_three_updates(cls, tmp_path_factory, monkeypatch):
    """Decay 1/2 after the first update; 2/3 would follow, then 3/4: the limit of 0.6 is less. The start counts too."""
    task, seen, step = tiny_task(tmp_path_factory.mktemp("teacher")), [], cls.step

    def watched(self, run, batch):
        seen.append({role: copy.deepcopy(net.module.state_dict()) for role, net in run.nets.items()})
        return step(self, run, batch)

    monkeypatch.setattr(cls, "step", watched)
    fit(cls(ema_decay=0.6), task, replace(FAST, max_steps=4))
    for name in ("classifier.weight", next(k for k in seen[0]["student"] if k.endswith("query.weight"))):
        of = {role: [weights[role][name].double() for weights in seen] for role in ("student", "teacher")}
        wanted = of["student"][0]
        assert torch.equal(of["teacher"][0], wanted)
        for number, decay in ((1, 0.5), (2, 0.6), (3, 0.6)):
            assert (of["student"][number] - of["student"][number - 1]).abs().max() > 1e-4
            wanted = decay * wanted + (1 - decay) * of["student"][number]
            assert torch.allclose(of["teacher"][number], wanted, rtol=0, atol=1e-6), (name, number)


# --- which labels are believed, and how much of a text is swapped

# Two heaps that overlap; one far row; rows that lie almost on one another; and what takes 15 rounds to settle.
HEAPS = [
    [0.05, 0.1, 0.2, 0.25, 0.4, 0.7, 0.9, 1.1, 1.6, 1.8, 2.2, 2.5],
    [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 3.0],
    [0.01, 0.01, 0.011, 0.012, 0.02, 2.0, 2.001, 2.05],
    [0.5, 0.94, 0.97, 0.98, 0.98, 1.0, 1.0, 1.0, 1.01, 1.03, 1.16, 1.26, 1.6, 1.87, 2.37, 3.68],
]


@pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")
@pytest.mark.parametrize("loss", HEAPS)
def test_the_mixture_of_losses(loss):
    """Ten rounds at most, until they gain less than 0.01, and no variance below 5e-4."""
    found = clean_probability(torch.tensor(loss, dtype=torch.float64))
    wanted = formulas.believed_share(torch.tensor(loss, dtype=torch.float64))
    assert found.tolist() == [near(v) for v in wanted.tolist()]
    assert 0.0 <= float(wanted.min()) < 0.5 < float(wanted.max()) <= 1.0


@pytest.mark.parametrize("tokens", [1, 2, 9, 10, 11, 19, 20, 29, 30, 50, 59, 60, 99, 100, 128])
def test_a_tenth_of_a_text_is_swapped(tokens):
    """Rounded down, but one token at least: 5 of 50 and of 59, 9 of 99."""
    size = max(tokens // 10, 1)
    saliency = torch.linspace(1.0, 2.0, tokens, dtype=torch.float64).repeat(2, 1)
    edit, share, _ = span_swap(saliency, torch.ones(2, tokens) > 0, torch.tensor([1, 0]))
    assert edit.replaced.sum(1).tolist() == [size, size]
    assert share.tolist() == [near(1 - size / tokens)] * 2
