"""What methods get from a net beside logits: heads, input gradients, the room for noise. Text and images."""

import math

import pytest
import torch
from tiny import FAST, tiny_images, tiny_task, trained
from torch import nn

import nlp_ssl.method
from nlp_ssl import fit
from nlp_ssl.data.loader import Loader, Sizes
from nlp_ssl.errors import ConfigError
from nlp_ssl.method import register
from nlp_ssl.methods import Supervised
from nlp_ssl.nets.base import Net
from nlp_ssl.nets.image import ImageNet
from nlp_ssl.nets.text import load_text_net
from nlp_ssl.training.optim import make_optimizer
from nlp_ssl.types import Head

HEADS = {"projection": Head("mlp", 5), "second": Head("classifier"), "map": Head("linear")}


@pytest.fixture(scope="module", params=["text", "images"])
def task(request, tmp_path_factory):
    return tiny_task(tmp_path_factory.mktemp("heads"), dropout=0.3) if request.param == "text" else tiny_images()


@pytest.fixture
def made(task):
    """A net with heads and a batch of 2 labeled and 4 unlabeled rows."""
    torch.manual_seed(0)
    module = task.build(0)
    module.attach(HEADS)
    loader = Loader(task.data, {"x": "weak", "u_w": "weak"}, {"weak": None}, Sizes(2, 4), seed=0, max_steps=1)
    return module.train(), loader[0]


def test_outputs_of_every_head_in_one_pass(made):
    module, batch = made
    net, calls = Net(module), []
    module.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        x, u = net.outputs(batch, "x", "u_w", dropout=False)
        _, plain = net(batch, "x", "u_w", dropout=False)
    classes, width = module.classifier.out_features, module.classifier.in_features
    assert len(calls) == 2
    assert {k: tuple(v.shape) for k, v in u.items()} == {
        "logits": (4, classes), "projection": (4, 5), "second": (4, classes), "map": (4, width)
    }  # fmt: skip
    assert torch.allclose(u["logits"], plain, atol=1e-5) and len(x["logits"]) == 2
    inputs, lengths, _ = net.inputs_of(batch, ["x", "u_w"])
    features = module.train(plain.shape[1] == 10).embed(module.trim(inputs, lengths))[
        2:
    ]  # images: statistics of the batch
    assert torch.allclose(u["projection"], module.extra["projection"](features), atol=1e-5)


def test_a_classifier_head_starts_near_the_classifier_and_is_another(made):
    module, _ = made
    twin = next(m for m in module.extra["second"].modules() if isinstance(m, nn.Linear))
    a, b = twin.weight.flatten(), module.classifier.weight.flatten()
    assert 0.5 < torch.cosine_similarity(a, b, dim=0) < 0.95
    assert any(isinstance(m, nn.Dropout) for m in module.extra["second"].modules())


def test_heads_are_trained_at_the_rate_of_new_layers_and_not_saved(task, tmp_path):
    @register("with_heads")
    class WithHeads(Supervised):
        heads = HEADS

        def step(self, run, batch):
            (x,) = run.nets["student"].outputs(batch, "x")
            return {"sup": sum(v.square().mean() for v in x.values())}

    nlp_ssl.method.METHODS.pop("with_heads")
    module = fit(WithHeads(), task, FAST, folder=tmp_path / "out").module
    start = trained(Supervised(), task)
    assert set(module.state_dict()) - set(start) == {k for k in module.state_dict() if k.startswith("extra.")} != set()
    optimizer, names = make_optimizer({"student": module}, FAST.__class__(learning_rate=1e-5, head_learning_rate=1e-2))
    rates = [g["lr"] for g in optimizer.param_groups for _ in g["params"]]
    assert {r for n, r in zip(names, rates, strict=True) if n.startswith("student.extra.")} == {1e-2}
    out = tmp_path / "out"
    loaded = ImageNet.load(out) if (out / "image_net.json").exists() else load_text_net(str(out))
    assert not any(k.startswith("extra.") for k in loaded.state_dict())


def test_room_for_noise(made):
    """Pixels: everywhere. Texts: at own tokens, not at [CLS], [SEP] and padding."""
    module, batch = made
    room = Net(module).room(batch, "x", "u_w")
    if room.dim() == 4:
        assert room.shape == (6, 1, 8, 8) and bool((room == 1).all())
        return
    ids = batch["inputs"]["input_ids"]
    own = ~torch.isin(ids, torch.tensor([0, 2, 3]))  # [PAD], [CLS], [SEP]
    assert own.any() and not own.all()
    assert torch.equal(room, own.float()[:, :, None].expand(-1, -1, 32))


def test_gradient_of_the_inputs_is_the_slope_of_the_loss(made):
    """Against finite differences along a random direction; no parameter hears of it, batch statistics stand still."""
    module, batch = made
    net, norms = Net(module), {k: v.clone() for k, v in module.state_dict().items() if "running" in k}

    def loss(z):
        return torch.cat(list(z)).log_softmax(-1)[:, 0].sum()

    room = net.room(batch, "u_w")
    noise = 0.05 * torch.randn(room.shape) * room
    slope = net.gradient(batch, "u_w", loss=loss, noise=noise)
    assert slope.shape == room.shape and not slope[room == 0].any() and slope.any()
    way, step = slope / slope.norm(), 1e-2

    class Add:
        layer = 0

        def __init__(self, value):
            self.value = value

        def __call__(self, h, mask, content):
            return h + self.value, None

    with torch.no_grad():
        up, down = (loss(net(batch, "u_w", edit=Add(noise + s * way), dropout=False)) for s in (step, -step))
    assert (slope * way).sum().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=0.03)
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in norms.items())
    assert module.training


def test_slope_is_what_a_small_step_of_the_parameters_adds(made):
    """Against the step itself; afterwards every parameter and buffer is bit by bit what it was."""
    module, batch = made
    net, before = Net(module), {k: v.clone() for k, v in module.state_dict().items()}

    def loss(z):
        return z[0].log_softmax(-1)[:, 0].mean()

    (slope,) = net.slope(batch, "u_w", of=("x",), loss=loss)
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in before.items())
    assert all(p.grad is None for p in module.parameters())
    with torch.enable_grad():
        loss(net(batch, "x", dropout=False)).backward()
    with torch.no_grad():
        (start,) = net(batch, "u_w", dropout=False)
        for p in module.parameters():
            if p.grad is not None:
                p.add_(1e-3 * p.grad)
        (end,) = net(batch, "u_w", dropout=False)
    wanted = (end.log_softmax(-1) - start.log_softmax(-1)) / 1e-3
    assert slope.shape == wanted.shape and (slope - wanted).norm() < 0.1 * wanted.norm()
    assert slope.abs().max() > 1e-3


# --- masked tokens


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    task = tiny_task(tmp_path_factory.mktemp("masked"), dropout=0.0)
    torch.manual_seed(0)
    module = task.build(0)
    loader = Loader(task.data, {"x": "weak", "u_w": "weak"}, {"weak": None}, Sizes(16, 96), seed=0, max_steps=1)
    return module, loader[0]


def test_hidden_tokens(text):
    """Own tokens alone, about 15 % of them and one at least; 80 % become [MASK], 10 % anything, 10 % stay."""
    module, batch = text
    ids = batch["inputs"]["input_ids"].repeat(40, 1)
    inputs = {"input_ids": ids, "attention_mask": batch["inputs"]["attention_mask"].repeat(40, 1)}
    torch.manual_seed(0)
    masked = module.masked(inputs)
    hidden, own = masked["hidden"] >= 0, module.room(inputs)[..., 0] > 0
    assert not (hidden & ~own).any() and (hidden.sum(1) >= 1).all()
    assert torch.equal(masked["hidden"][hidden], ids[hidden]) and torch.equal(
        masked["input_ids"][~hidden], ids[~hidden]
    )
    long = own.sum(1) > 10
    assert (hidden & own)[long].sum() / own[long].sum() == pytest.approx(0.2, abs=0.05)  # 15 %, or the one at least
    mask_share = (masked["input_ids"][hidden] == 4).float().mean()
    same_share = (masked["input_ids"][hidden] == ids[hidden]).float().mean()
    spread = 3 * (0.25 / int(hidden.sum())) ** 0.5
    assert mask_share == pytest.approx(0.8 + 0.1 / 34, abs=spread) and same_share == pytest.approx(
        0.1 + 0.1 / 34, abs=spread
    )


def test_loss_of_hidden_tokens(text):
    """Word embeddings of zero make every word as likely: ln V, whatever was hidden. Real ones are learned."""
    module, batch = text
    net = Net(module)
    torch.manual_seed(0)
    loss, count = net.masked_tokens(batch, "u_w")
    assert loss.shape == count.shape == (96,) and loss.requires_grad and not count.requires_grad
    words = module.model.get_input_embeddings().weight
    kept = words.detach().clone()
    with torch.no_grad():
        words.zero_()
        even, _ = net.masked_tokens(batch, "u_w")
        words.copy_(kept)
    assert torch.allclose(even, torch.full((96,), math.log(words.shape[0])), atol=1e-4)
    optimizer, seen = torch.optim.AdamW(module.parameters(), lr=3e-3), []
    for _ in range(30):
        loss, _ = net.masked_tokens(batch, "u_w")
        loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.mean().item())
    assert seen[-1] < seen[0] - 0.3


def test_images_have_no_tokens():
    task = tiny_images()
    batch = Loader(task.data, {"x": "weak"}, {"weak": None}, Sizes(2, 4), seed=0, max_steps=1)[0]
    with pytest.raises(ConfigError, match="SSL272: masked tokens need texts"):
        Net(task.build(0)).masked_tokens(batch, "x")
