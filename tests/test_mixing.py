"""Edits that mix rows, on plain tensors and inside real nets."""

import numpy as np
import pytest
import torch
from tiny import tiny_images, tiny_task

from nlp_ssl.data.loader import Loader, Sizes
from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.base import Net
from nlp_ssl.ops import random
from nlp_ssl.ops.mixing import Blend, Swap, mix, span_swap
from nlp_ssl.ops.pretext import Pretext, pretext_loss
from nlp_ssl.testing import StubNet
from nlp_ssl.types import Head
from nlp_ssl.utils.counter_rng import row_keys

VIEWS = {"x": "weak", "u_w": "weak"}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A net without dropout and a batch of 2 + 6 texts of different lengths."""
    task = tiny_task(tmp_path_factory.mktemp("mixing"), dropout=0.0)
    torch.manual_seed(0)
    module = task.build(0)
    with torch.no_grad():
        module.classifier.weight.normal_(std=3.0)
    loader = Loader(task.data, VIEWS, task.augment, Sizes(2, 6), seed=0, max_steps=1)
    batch = loader[0]
    assert len(set(batch["lengths"].tolist())) >= 3
    return Net(module), batch


def logits(net, batch, edit=None):
    with torch.no_grad():
        return torch.cat(net(batch, "x", "u_w", edit=edit))


def longer_partner(batch):
    """Each row's partner is the longest row."""
    return torch.full((len(batch["lengths"]),), int(batch["lengths"].argmax()))


# --- Blend


def test_blend_by_hand():
    """0.75 x (1, 2) + 0.25 x (3, 6) = (1.5, 3); masks 110 and 111 unite to 111; the gradient reaches both rows."""
    h = torch.tensor([[[1.0], [2.0], [9.0]], [[3.0], [6.0], [5.0]]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    mixed, union = Blend(torch.tensor([0.75, 1.0]), torch.tensor([1, 0]))(h, mask, None)
    assert mixed[0, :2, 0].tolist() == [1.5, 3.0] and mixed[1].tolist() == h[1].tolist()
    assert union.tolist() == [[1, 1, 1], [1, 1, 1]]
    _, none = Blend(torch.tensor([1.0, 0.0]), torch.tensor([1, 0]))(h, mask, None)  # one text alone in each row
    assert none.tolist() == [[1, 1, 0], [1, 1, 0]]
    mixed[0].sum().backward()
    assert h.grad[:, 0, 0].tolist() == [0.75, 0.25]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_all_of_oneself_is_no_mixing(text, layer):
    net, batch = text
    rows = torch.arange(8)
    plain = logits(net, batch)
    assert torch.allclose(logits(net, batch, Blend(torch.ones(8), longer_partner(batch), layer)), plain, atol=1e-5)
    assert torch.allclose(logits(net, batch, Blend(torch.full((8,), 0.6), rows, layer)), plain, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_all_of_the_partner_is_the_partner(text, layer):
    """Of a longer one: only so if attention above the layer, and pooling, go by the union of both masks."""
    net, batch = text
    partner = longer_partner(batch)
    plain = logits(net, batch)
    swapped = logits(net, batch, Blend(torch.zeros(8), partner, layer))
    assert torch.allclose(swapped, plain[partner], atol=1e-4)
    assert not torch.allclose(swapped, plain, atol=1e-2)


def test_edits_leave_no_trace(text):
    net, batch = text
    plain = logits(net, batch)
    logits(net, batch, Blend(torch.zeros(8), longer_partner(batch), 1))
    assert torch.equal(logits(net, batch), plain)


# --- mix


def draw(mixer="embedding", rows=4, depth=12, **more):
    targets = torch.eye(3, dtype=torch.float64)[torch.arange(rows) % 3]
    net = StubNet({"x": torch.zeros(rows, 3)}, depth=depth)
    return mix(mixer, net, {}, ("x",), targets, **{"alpha": 0.75, "partner": torch.arange(rows).roll(1)} | more)


def test_one_share_for_all_rows_or_one_each():
    torch.manual_seed(0)
    assert len(set(draw().lam.tolist())) == 1 and len(set(draw(per_row=True).lam.tolist())) == 4
    assert draw(alpha=0.0).lam.tolist() == [1.0] * 4
    assert draw(per_row=True, rows=500).lam.min() >= 0.5 > draw(per_row=True, rows=500, larger=False).lam.min()


@pytest.mark.parametrize(("alpha", "wanted"), [(0.75, 0.778), (16.0, 0.570)])
def test_mean_of_the_larger_share(alpha, wanted):
    """E max(l, 1 - l) of Beta(0.75, 0.75) is 0.778 and of Beta(16, 16) 0.570; spread below 0.15, 20,000 draws."""
    torch.manual_seed(0)
    lam = random.beta(alpha, 20_000, torch.zeros(1))
    assert torch.maximum(lam, 1 - lam).mean().item() == pytest.approx(wanted, abs=3 * 0.15 / 20_000**0.5 + 5e-4)


def test_targets_mix_as_rows_do():
    """Row 0, class 0, with row 3, class 0 again; row 1, class 1, with row 0: lam and 1 - lam."""
    torch.manual_seed(0)
    mixed = draw(per_row=True)
    targets = mixed.of(torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 0])])
    lam = mixed.lam.tolist()
    assert targets[0].tolist() == [1.0, 0.0, 0.0] and targets[1].tolist() == [1 - lam[1], lam[1], 0.0]
    assert targets.sum(1).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize(("depth", "layers"), [(12, {7, 9, 12}), (6, {4, 5, 6}), (2, {2}), (1, {1})])
def test_hidden_layers(depth, layers):
    torch.manual_seed(0)
    assert {draw("hidden", depth=depth).edit.layer for _ in range(40)} == layers
    assert draw("embedding").edit.layer == 0


# --- SSMix


def test_span_swap_by_hand():
    """Rows [CLS] a b c d [SEP] and [CLS] e f g [SEP] [PAD]: a window is one token. Least salient of row 0: b
    (0.1), most salient of row 1: g (7). Row 1 gives up e (1) for row 0's d (5). lam = 1 - 1/4 and 1 - 1/3."""
    saliency = torch.tensor([[0.0, 3.0, 0.1, 4.0, 5.0, 0.0], [0.0, 1.0, 2.0, 7.0, 0.0, 0.0]])
    content = torch.tensor([[0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0]]) > 0
    swap, lam, _ = span_swap(saliency, content, torch.tensor([1, 0]))
    assert lam.tolist() == [pytest.approx(0.75), pytest.approx(2 / 3)]
    tokens = torch.arange(12.0).view(2, 6, 1)
    mixed, mask = swap(tokens, torch.ones(2, 6), content)
    assert mixed[..., 0].tolist() == [[0, 1, 9, 3, 4, 5], [6, 4, 8, 9, 10, 11]]
    assert mask is None


def test_window_of_a_tenth():
    """30 tokens: windows of 3, the least salient at the end, the partner's most salient at the start; 2 tokens: one."""
    saliency = torch.stack([torch.arange(30.0, 0.0, -1), torch.arange(30.0, 0.0, -1)])
    content = torch.ones(2, 30) > 0
    content[1, 2:] = False
    swap, lam, _ = span_swap(saliency, content, torch.tensor([0, 1]))
    assert lam.tolist() == [pytest.approx(0.9), pytest.approx(0.5)]
    assert swap.replaced[0].nonzero().flatten().tolist() == [27, 28, 29]
    assert swap.source[0, 27:].tolist() == [0, 1, 2]


def test_too_short_a_partner_is_left_alone():
    saliency, content = torch.rand(2, 30), torch.ones(2, 30) > 0
    content[1, 2:] = False
    swap, lam, _ = span_swap(saliency, content, torch.tensor([1, 1]))
    assert lam[0] == 1.0 and not swap.replaced[0].any()
    nothing, lam, _ = span_swap(saliency, content & False, torch.tensor([1, 0]))
    assert lam.tolist() == [1.0, 1.0] and not nothing.replaced.any()


def test_ssmix_on_a_net_touches_own_tokens_alone(text):
    net, batch = text
    targets = torch.eye(2)[torch.arange(8) % 2]
    mixed = mix("ssmix", net, batch, ("x", "u_w"), targets, 1.0, partner=torch.arange(8).roll(1))
    assert isinstance(mixed.edit, Swap)
    content = net.room(batch, "x", "u_w")[..., 0] > 0
    assert not (mixed.edit.replaced & ~content).any() and mixed.edit.replaced.any(1).all()
    sources = torch.where(mixed.edit.replaced, mixed.edit.source, -1)
    for row, (places, partner) in enumerate(zip(sources, mixed.partner, strict=True)):
        assert all(content[partner, place] for place in places[places >= 0]), row
    changed = (logits(net, batch, mixed.edit) - logits(net, batch)).abs().amax(1)
    assert (changed > 1e-4).any()
    assert all(p.grad is None for p in net.module.parameters())
    none = mix("ssmix", net, batch, ("x", "u_w"), targets, 0.0, partner=torch.arange(8).roll(1))
    assert torch.allclose(logits(net, batch, none.edit), logits(net, batch), atol=1e-5)


def test_ssmix_is_for_texts():
    task = tiny_images()
    batch = Loader(task.data, VIEWS, task.augment, Sizes(2, 6), seed=0, max_steps=1)[0]
    with pytest.raises(ConfigError, match="SSL270: ssmix swaps tokens"):
        mix("ssmix", Net(task.build(0)), batch, ("x",), torch.eye(10)[:2], 1.0, partner=torch.arange(2))


# --- pretext tasks


def test_rotation():
    images = torch.arange(4.0).view(1, 1, 2, 2).repeat(4, 1, 1, 1)
    turned, _ = Pretext("rotation", torch.arange(4))(images, None, None)
    assert turned.flatten(1).tolist() == [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1]]


def test_answers_change_from_pass_to_pass_and_tell_nothing_of_the_row_number():
    """Rows may lie in the order of their classes: a head that answers with the row number is right on a quarter."""
    sure = 100.0 * torch.eye(4).repeat(64, 1)
    net = StubNet({"u_w": torch.zeros(256, 2)}, {"pretext": Head("mlp", 4)}, {"pretext": {"u_w": sure}})
    right = []
    for number in (0, 1):
        keys = row_keys(0, number, np.arange(256))
        batch = {"keys": {"u_w": keys}, "id": {"u": torch.arange(256)}}
        right.append((pretext_loss(net, batch, "u_w", "rotation") < 1e-6).tolist())
    assert right[0] != right[1]
    assert all(32 <= sum(rows) <= 96 for rows in right)


def test_order_swaps_the_halves_of_the_own_tokens():
    """[CLS] a b c d e [SEP] [PAD]: cut after the second of five, the parts change places."""
    tokens = torch.arange(8.0).view(1, 8, 1).repeat(2, 1, 1)
    content = torch.tensor([[0, 1, 1, 1, 1, 1, 0, 0]] * 2)
    mixed, _ = Pretext("order", torch.tensor([1, 0]))(tokens, content, content)
    assert mixed[..., 0].tolist() == [[0, 3, 4, 5, 1, 2, 6, 7], list(range(8))]


@pytest.mark.parametrize(
    ("task", "shape"), [("rotation", (2, 5, 3)), ("rotation", (2, 1, 4, 6)), ("order", (2, 1, 4, 4))]
)
def test_tasks_that_do_not_fit_the_inputs(task, shape):
    with pytest.raises(ConfigError, match=f"SSL271: the pretext task {task} needs"):
        Pretext(task, torch.tensor([0, 1]))(torch.zeros(shape), None, None)
