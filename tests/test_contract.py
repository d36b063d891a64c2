"""What every registered method must keep to. A new method gets these tests by being registered."""

import json
from dataclasses import asdict, dataclass, fields, replace

import pytest
import torch
from tiny import FAST, difference, neutral_draws, tiny_images, tiny_task, trained

from nlp_ssl import TrainConfig
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.errors import ConfigError
from nlp_ssl.methods import FixMatch, Supervised
from nlp_ssl.registry import describe, get_method, list_methods
from nlp_ssl.testing import step_losses
from nlp_ssl.utils.ranges import from_options

METHODS = list_methods(in_rounds=False)
WITH_POOL = [name for name in METHODS if any(view.startswith("u") for view in get_method(name)().wanted_views())]
# Every other method makes its targets from u_w and lets no gradient into them.
GRADIENT_THROUGH_U_W = (
    "pi_model",
    "pseudo_label",
    "ict",
    "mixmatch",
    "mixtext",
    "mixup_pseudo_label",
    "dividemix",
    "remixmatch",
    "vat",
    "distillation",  # the student sees u_w itself; where it equals the teacher, as here, what is left is rounding
    "entropy_min",
    "label_propagation",  # its labels come from the graph, not from u_w
    "r_drop",
)
# No fixed confidence that all rows could miss: thresholds that move, or start low.
MOVING_THRESHOLD: tuple[str, ...] = (
    "dividemix",
    "adamatch",
)
# Options that count only together with others.
TOGETHER: dict[tuple[str, str], dict[str, object]] = {
    ("flexmatch", "lowest"): {"unused": "pool"},  # of the first step all rows are unused then
    ("marginmatch", "lowest"): {"unused": "pool"},
    ("crmatch", "pretext_weight"): {"pretext": "rotation"},
    ("multimatch", "quantile"): {"refresh": 1},
    ("multimatch", "useful_weight"): {"refresh": 1, "quantile": 1.0},
    ("remixmatch", "pretext_weight"): {"pretext": "order"},
    ("mixtext", "margin"): {"hinge_weight": 1.0},
    # They move the teacher by little: in three steps no label that is drawn becomes another, soft ones do.
    ("meta_pseudo_labels", "meta_weight"): {"labels": "soft"},
    ("meta_pseudo_labels", "sign"): {"labels": "soft"},
    ("meta_pseudo_labels", "clip_h"): {"labels": "soft", "meta_weight": 100.0},
    # What is remembered in a visit counts in the next one: no row is visited twice in a test of a few steps.
    ("temporal_ensembling", "decay"): {"current": True},
    ("temporal_ensembling", "target_dropout"): {"current": True},
}
# Reaches the student through drawn labels alone, which few steps do not turn: see test_usual_gain_over_two_steps.
SHOWN_ELSEWHERE = (("meta_pseudo_labels", "baseline_decay"),)
# Compare two passes over the same text: without dropout they are equal.
ONLY_DROPOUT = ("pi_model",)
# Their labeled rows are used in another way than supervised training's, whatever the weights.
OWN_USE_OF_LABELS: tuple[str, ...] = (
    "ict",
    "mixmatch",
    "mixtext",
    "mixup_pseudo_label",
    "dividemix",
    "remixmatch",
    "adamatch",
    "defixmatch",
    "distillation",  # alpha divides between labels and teacher
    "meta_pseudo_labels",  # the evaluated student learns from the teacher's labels first
    "r_drop",  # two passes over them
    "jointmatch",  # the labeled loss of the second net stays
)


def logits(method, *, classes=3, labeled=2, unlabeled=5, scale=2.5, seed=0, grad=False):
    """Random logits for the views of a method; row 0 of every unlabeled view is confident in the same class."""
    made = {}
    for number, view in enumerate(method.wanted_views()):
        rows = labeled if view.startswith("x") else unlabeled
        generator = torch.Generator().manual_seed(100 * seed + number)
        z = scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
        if view.startswith("u"):
            z[0] = z[0] / 4
            z[0, 0] = 8 if view == "u_w" else 1
        made[view] = z.requires_grad_(grad)
    return made


def of(name, **options):
    return get_method(name)(**options)


def run(name, z, labels=(0, 1), *, progress=0.7, **more):
    torch.manual_seed(0)
    return step_losses(of(name), z, torch.tensor(labels), progress=progress, **more)


def total(losses):
    return torch.stack(list(losses.values())).sum()


# --- a method is a value ---


@pytest.mark.parametrize("name", METHODS)
def test_frozen_hashable_and_equal_by_value(name):
    method = of(name)
    assert method == of(name) and hash(method) == hash(of(name))
    with pytest.raises(AttributeError):
        setattr(method, fields(method)[0].name, 0)


@pytest.mark.parametrize("name", METHODS)
def test_json_round_trip(name):
    for method in (of(name), *(m for _, m in variants(name))):
        assert from_options(type(method), json.loads(json.dumps(asdict(method)))) == method


@pytest.mark.parametrize("name", METHODS)
def test_unknown_option_names_the_nearest(name):
    option = fields(get_method(name))[0].name
    with pytest.raises(ConfigError, match=f"SSL203: unknown option '{option}s' of .*Did you mean '{option}'") as error:
        from_options(get_method(name), {option + "s": 1})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", METHODS)
def test_numbers_that_make_no_sense_are_refused(name):
    """Every number has a range: NaN lies in none, and neither does minus a million."""
    for f in fields(get_method(name)):
        if type(f.default) in (int, float):
            for bad in (float("nan"), -1e6):
                with pytest.raises(ConfigError, match=f.name):
                    from_options(get_method(name), {f.name: bad})


@pytest.mark.parametrize("name", METHODS)
def test_declarations(name):
    """Views are "x..." or "u..." and hold "x"; one net at least is trained; the docstring is there."""
    method = get_method(name)
    assert method.name == name and method.__doc__ and "Loss:" in method.__doc__
    views = of(name).wanted_views()
    assert "x" in views and all(view[0] in "xu" for view in views)
    assert set(views.values()) <= {"weak", "strong", "controlled", "probe"}
    assert method.nets[method.default_net()] == "trained"
    assert set(method.nets.values()) <= {"trained", "ema", "frozen"}


@pytest.mark.parametrize("name", METHODS)
def test_options_are_no_flags_of_the_loop(name):
    """Both are flags of one command."""
    assert not {f.name for f in fields(get_method(name))} & {f.name for f in fields(TrainConfig)}


# --- what a step returns ---


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_finite_scalars_from_the_declared_views_alone(name):
    """The stub net holds the declared views only and raises KeyError for any other; nets are held by declared role."""
    losses = run(name, logits(of(name)))
    assert losses and all(v.dim() == 0 and bool(torch.isfinite(v)) for v in losses.values())
    assert all(v.dtype == torch.float64 for v in losses.values())


@pytest.mark.parametrize("name", METHODS)
def test_every_declared_view_is_used(name):
    for view, kind in of(name).wanted_views().items():
        if kind == "probe":  # steers the augmentation and is in no loss
            continue
        z = logits(of(name))
        other = {**z, view: 0.9 * z[view].roll(1, dims=1)}
        assert total(run(name, other)) != total(run(name, z)), view


@pytest.mark.parametrize("name", METHODS)
def test_gradient_reaches_every_trained_net_and_no_other(name):
    method = of(name)
    by_net = {role: logits(method, seed=k, grad=True) for k, role in enumerate(method.nets)}
    total(run(name, by_net[method.default_net()], logits_by_net=by_net)).backward()
    for role, kind in method.nets.items():
        size = sum(float(z.grad.abs().sum()) for z in by_net[role].values() if z.grad is not None)
        assert (size > 0) == (kind == "trained"), role
        if kind == "trained":
            assert by_net[role]["x"].grad.abs().sum() > 0


@pytest.mark.parametrize("name", WITH_POOL)
def test_targets_carry_no_gradient_and_the_strong_view_does(name):
    z = logits(of(name), grad=True)
    total(run(name, z)).backward()
    if name in GRADIENT_THROUGH_U_W:
        assert z["u_w"].grad.abs().sum() > 0
    else:
        assert z["u_w"].grad is None or not z["u_w"].grad.any()
    if "u_s" in z:
        assert z["u_s"].grad.abs().sum() > 0


@pytest.mark.parametrize("name", WITH_POOL)
def test_unlabeled_loss_of_different_views_is_not_zero(name):
    losses = run(name, logits(of(name)))
    assert any(float(v.detach()) != 0 for k, v in losses.items() if k != "sup")


@pytest.mark.parametrize("name", METHODS)
def test_adding_a_constant_to_a_row_changes_nothing(name):
    z = logits(of(name))
    shifted = {view: v + torch.arange(1.0, len(v) + 1)[:, None] for view, v in z.items()}
    assert torch.allclose(total(run(name, z)), total(run(name, shifted)), atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_huge_logits_are_finite_and_so_are_their_gradients(name, dtype):
    z = {view: (v.detach() * 1e4).to(dtype).requires_grad_() for view, v in logits(of(name)).items()}
    losses = run(name, z)
    total(losses).backward()
    assert bool(torch.isfinite(total(losses)))
    assert all(bool(torch.isfinite(v.grad).all()) for v in z.values() if v.grad is not None)


@pytest.mark.parametrize(
    "name", [n for n in METHODS if "threshold" in {f.name for f in fields(get_method(n))} and n not in MOVING_THRESHOLD]
)
def test_no_confident_row_gives_zero_with_a_graph(name):
    z = {view: torch.zeros_like(v).requires_grad_() for view, v in logits(of(name)).items()}
    unsup = step_losses(of(name, threshold=0.99), z, torch.tensor([0, 1]))["unsup"]
    assert unsup.item() == 0 and unsup.requires_grad
    unsup.backward()
    assert all(v.grad is None or not v.grad.any() for v in z.values())  # NaN would count as nonzero


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("classes", [2, 7])
def test_batch_of_one_and_any_number_of_classes(name, classes):
    z = logits(of(name), classes=classes, labeled=1, unlabeled=1, grad=True)
    loss = total(run(name, z, labels=(classes - 1,)))
    loss.backward()
    assert bool(torch.isfinite(loss)) and z["x"].grad.abs().sum() > 0


@pytest.mark.parametrize("name", METHODS)
def test_order_of_rows_does_not_matter(name, monkeypatch):
    neutral_draws(monkeypatch)
    z = logits(of(name))
    order = torch.tensor([3, 0, 4, 2, 1])
    mixed = {view: v.flip(0) if view.startswith("x") else v[order] for view, v in z.items()}
    assert torch.allclose(total(run(name, z)), total(run(name, mixed, labels=(1, 0), ids=order)), atol=1e-9)


# --- every hyper-parameter counts ---


def others(field):
    """Values of a field other than its default."""
    default = field.default
    if isinstance(default, bool):
        return [not default]
    if field.choices:
        return [v for v in field.choices if v != default]
    return [
        type(default)(v) for v in (0.5 * default, 0.1 * default, 2 * default, 20 * default, 0.5, 0.1, 2) if v != default
    ]


def variants(name):
    """(field name, method with another value of it), all values that the method accepts."""
    found = []
    for field in describe(name).fields:
        for value in others(field):
            try:
                found.append((field.name, of(name, **{field.name: value})))
            except ConfigError:
                continue
    return found


def changes_a_loss(method, other):
    """Whether some loss differs, on one of several batches at several stages of training."""
    for progress in (0.05, 0.3, 0.7):
        for seed, labels in ((0, [0, 1]), (1, [0, 1]), (2, [0, 1, 2, 0, 1, 2])):
            z = {**logits(other, seed=seed, labeled=len(labels)), **logits(method, seed=seed, labeled=len(labels))}
            found = []
            for m in (method, other):
                torch.manual_seed(0)
                mine = {view: z[view] for view in m.wanted_views()}
                try:
                    found.append(step_losses(m, mine, torch.tensor(labels), progress=progress))
                except ConfigError:  # an option that logits cannot have: tried on the text task
                    return False
            a, b = found
            if a.keys() != b.keys() or any(a[k] != b[k] for k in a):
                return True
    return False


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return tiny_task(tmp_path_factory.mktemp("noisy"), dropout=0.3, strong=TfidfReplace(0.5))


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """The same task on a net without dropout."""
    return tiny_task(tmp_path_factory.mktemp("still"), dropout=0.0, strong=TfidfReplace(0.5))


@pytest.fixture(scope="module")
def images():
    return tiny_images()


@pytest.mark.parametrize(
    ("name", "option"),
    [(n, f.name) for n in METHODS for f in fields(get_method(n)) if (n, f.name) not in SHOWN_ELSEWHERE],
)
def test_every_option_changes_a_loss_or_the_training(name, option, noisy):
    """What acts through the net or the loop (dropout of targets, decay of a teacher) changes the trained weights."""
    together = TOGETHER.get((name, option), {})
    candidates = [replace(method, **together) for field, method in variants(name) if field == option]
    assert candidates, "no other value is accepted"
    if any(changes_a_loss(of(name, **together), other) for other in candidates):
        return
    if option == "refresh":  # the rounds themselves: `test_rounds_begin_when_the_method_says`
        assert all(other.refresh_steps(1000) == (other.refresh or 1000) for other in candidates)
        return
    # No threshold, so that the few steps of a random net have something to learn from the pool.
    open_ = {k: 0.0 for k in ("threshold", "ramp_up") if k in asdict(of(name)) and k != option} | together
    before = trained(of(name, **open_), noisy)
    assert any(difference(before, trained(replace(other, **open_), noisy)) > 1e-6 for other in candidates)


# --- training ---


def test_rounds_begin_when_the_method_says(noisy):
    """12 steps are a pass over the pool (96 rows, 8 a step): a refresh of 0 leaves rounds to passes."""
    begun = []

    @dataclass(frozen=True)
    class Rounds(FixMatch):
        refresh: int = 5

        def refresh_steps(self, pass_steps):
            return self.refresh or pass_steps

        def begin_epoch(self, run):
            begun.append(
                (run.step, tuple(run.predict("student", "u").shape), tuple(run.features("student", "x").shape))
            )

    trained(Rounds(), noisy, replace(FAST, max_steps=14))
    assert begun == [(step, (96, 2), (16, 32)) for step in (0, 5, 10)]
    begun.clear()
    trained(Rounds(refresh=0), noisy, replace(FAST, max_steps=14))
    assert [step for step, *_ in begun] == [0, 12]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["noisy", "images"])
def test_one_step_changes_every_trained_tensor(name, kind, request):
    """Text and images. Keys' biases shift every attention score alike: they alone have no gradient."""
    task = request.getfixturevalue(kind)
    method = get_method(name).for_images() if kind == "images" else of(name)
    if "threshold" in asdict(method):  # else heads behind it may have nothing to learn from
        method = replace(method, threshold=0.0)
    after, start = (
        trained(method, task, replace(FAST, max_steps=1, learning_rate=rate, head_learning_rate=rate))
        for rate in (1e-3, 0.0)
    )
    still_there = [k for k in after if after[k].is_floating_point() and torch.equal(after[k], start[k])]
    assert [k for k in still_there if "running_" not in k and not k.endswith("key.bias")] == []


@pytest.mark.parametrize("name", [n for n in WITH_POOL if n not in OWN_USE_OF_LABELS])
def test_weight_zero_is_supervised_training(name, still):
    """In the loss and in the update: the rows in `x` are the same ones, whatever comes with them."""
    method = of(name, **{f.name: 0.0 for f in fields(get_method(name)) if f.name.endswith("weight")})
    z = logits(method)
    losses = step_losses(method, z, torch.tensor([0, 1]))
    assert losses["sup"] == step_losses(Supervised(), {"x": z["x"]}, torch.tensor([0, 1]))["sup"]
    assert all(float(v) == 0 for k, v in losses.items() if k != "sup")
    plain = trained(Supervised(), still)
    assert difference(plain, trained(method, still)) < 1e-5
    other = of(name, weight=100.0, **{k: 0.0 for k in ("threshold", "ramp_up") if k in asdict(method)})
    assert (difference(plain, trained(other, still)) > 1e-3) is (name not in ONLY_DROPOUT)


@pytest.mark.parametrize("name", ONLY_DROPOUT)
def test_dropout_alone_makes_the_passes_differ(name, tmp_path):
    task = tiny_task(tmp_path, dropout=0.3)
    without, with_ = (trained(of(name, weight=weight, ramp_up=0.0), task) for weight in (0.0, 100.0))
    assert difference(without, with_) > 1e-3
