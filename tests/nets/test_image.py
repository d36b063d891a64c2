"""Image nets: the surface the loop uses, the Wide-ResNet, torchvision backbones, saving and loading."""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import load_images
from safetensors.torch import load_file, save_file
from stores import views
from torch import nn

from nlp_ssl.augment.image import FlipShift
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.nets.base import Net
from nlp_ssl.nets.image import ImageNet, WarmBatchNorm2d, build_image_net
from nlp_ssl.utils.counter_rng import row_keys


def pixels(n=6, channels=1, size=12):
    return {"pixel_values": torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))}


def net(name="wrn-10-1", channels=1):
    torch.manual_seed(0)
    return build_image_net(name, 4, channels)


class Scale:
    def __init__(self, layer):
        self.layer = layer

    def __call__(self, h, mask, content):
        assert mask is None
        return h * 2, None


def test_forward_is_head_of_embed():
    model = net().eval()
    features = model.embed(pixels())
    assert features.shape == (6, 64)
    assert torch.equal(model(pixels()), model.head(features))
    assert model(pixels()).shape == (6, 4)


def test_gradient_reaches_every_parameter():
    model = net(channels=3)
    F.cross_entropy(model(pixels(channels=3)), torch.tensor([0, 1, 2, 3, 0, 1])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_size_of_wide_resnet_28_2():
    """Wide-ResNet-28-2 has 1.47 million weights (Oliver et al. 2018)."""
    weights = sum(p.numel() for p in build_image_net("wrn-28-2", 10, 3).parameters())
    assert weights == pytest.approx(1.47e6, rel=0.01)


def test_groups_of_the_wide_resnet_halve_the_image():
    h, shapes = pixels()["pixel_values"], []
    for stage in net().stages:
        h = stage(h)
        shapes.append(tuple(h.shape[1:]))
    assert shapes == [(16, 12, 12), (32, 6, 6), (64, 3, 3), (64,)]


@pytest.mark.parametrize("layer", [0, 1, 2, 3, 4])
def test_edit_acts_at_its_layer_only(layer):
    model = net().eval()
    plain, edited = model.embed(pixels()), model.embed(pixels(), Scale(layer))
    assert not torch.allclose(plain, edited)
    if layer == 0:
        assert torch.allclose(edited, model.embed({"pixel_values": 2 * pixels()["pixel_values"]}))
    if layer == 4:
        assert torch.equal(edited, 2 * plain)


def test_edit_beyond_the_last_layer():
    with pytest.raises(ConfigError, match="layers 0 to 4, not 5"):
        net()(pixels(), Scale(5))


def test_layers_and_head_name_every_parameter(tmp_path):
    """A fresh net is new all over; of a loaded one only the classifier takes the rate of new layers."""
    fresh = net()
    assert all(name.startswith(fresh.head_prefixes()) for name, _ in fresh.named_parameters())
    fresh.save(tmp_path)
    loaded = ImageNet.load(tmp_path)
    prefixes = (*loaded.layers(), *loaded.head_prefixes())
    for name, _ in loaded.named_parameters():
        assert sum(name.startswith(p) for p in prefixes) == 1


def test_batch_norm_in_training_equals_torch():
    ours, theirs = WarmBatchNorm2d(3), nn.BatchNorm2d(3, eps=1e-3)
    x = torch.randn(5, 3, 4, 4) * 2 + 1
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_batch_norm_follows_the_last_tenth_of_the_updates():
    """Weights 10/10, 10/11, 10/12: batch means 1, 2, 4 give 1, then 1 + 10/11, then a + (4 - a) * 10/12."""
    norm = WarmBatchNorm2d(1)
    for mean in (1.0, 2.0, 4.0):
        norm(torch.tensor([mean - 1, mean + 1]).view(2, 1, 1, 1))
    a = 1 + 10 / 11
    assert norm.running_mean.item() == pytest.approx(a + (4 - a) * 10 / 12)
    assert norm.running_var.item() == pytest.approx(2.0)  # unbiased variance of (-1, 1)


def test_batch_norm_ends_at_the_momentum_of_fixmatch():
    norm = WarmBatchNorm2d(1)
    norm.num_batches_tracked.fill_(10**6)
    norm(torch.tensor([999.0, 1001.0]).view(2, 1, 1, 1))
    assert norm.running_mean.item() == pytest.approx(1.0)


def test_a_pass_without_gradient_leaves_running_statistics():
    model = net()
    model(pixels())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batch = {"inputs": pixels(), "lengths": np.ones(6, dtype=np.int32), "rows": {"x": slice(0, 2), "u": slice(2, 6)}}
    with torch.no_grad():
        (u,) = Net(model)(batch, "u")
    assert u.shape == (4, 4)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    x, u = Net(model)(batch, "x", "u")
    assert x.shape == (2, 4) and u.shape == (4, 4)
    assert any(not torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("name", "size"), [("wrn-10-1", 12), ("mobilenet_v3_small", 32)])
def test_save_and_load_give_equal_logits(tmp_path, name, size):
    if name != "wrn-10-1":
        pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = build_image_net(name, 2, 1, classes=("Hose", "Schuh ü"), mean=(0.3,), std=(0.2,))
    model(pixels(size=size))  # moves the running statistics
    model.eval()
    model.save(tmp_path)
    loaded = ImageNet.load(tmp_path).eval()
    assert torch.equal(loaded(pixels(size=size)), model(pixels(size=size)))
    assert loaded.spec == model.spec and loaded.spec.classes == ("Hose", "Schuh ü")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image_net.json", "model.safetensors"]


def damage_json(folder):
    (folder / "image_net.json").write_text("{")


def odd_json(folder):
    raw = json.loads((folder / "image_net.json").read_text())
    (folder / "image_net.json").write_text(json.dumps({**raw, "mean": "os.system"}))


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def other_weights(folder):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] = torch.zeros(7)
    save_file(weights, folder / "model.safetensors")


def giant(folder):
    """Billions of numbers, if it were built."""
    raw = json.loads((folder / "image_net.json").read_text())
    (folder / "image_net.json").write_text(json.dumps({**raw, "name": "wrn-994-99"}))


def giant_mean(folder):
    raw = json.loads((folder / "image_net.json").read_text())
    (folder / "image_net.json").write_text(json.dumps({**raw, "mean": [10**400]}))


@pytest.mark.parametrize("damage", [damage_json, odd_json, no_weights, cut_weights, other_weights, giant, giant_mean])
def test_damaged_folders_are_one_line(tmp_path, damage):
    net().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError) as failure:
        ImageNet.load(tmp_path)
    assert str(tmp_path) in str(failure.value) and "\n" not in str(failure.value)


def test_an_architecture_named_by_a_file_must_be_known(tmp_path):
    net().save(tmp_path)
    raw = json.loads((tmp_path / "image_net.json").read_text())
    (tmp_path / "image_net.json").write_text(json.dumps({**raw, "name": "os.system"}))
    with pytest.raises(ConfigError):
        ImageNet.load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("wrn-17-2", 4, 1), "depth"),
        (("wrn-16-0", 4, 1), "width"),
        (("wrn-16-2", 4, 2), "channels"),
        (("wrn-16-2", 0, 1), "classes"),
    ],
)
def test_bad_arguments(arguments, word):
    with pytest.raises(ConfigError, match=word):
        build_image_net(*arguments)


def test_class_names_must_fit():
    with pytest.raises(ConfigError, match="do not fit"):
        build_image_net("wrn-10-1", 3, 1, classes=("a", "b"))


def test_wide_resnet_has_no_pretrained_weights():
    with pytest.raises(ConfigError, match="pretrained"):
        build_image_net("wrn-16-2", 4, 3, pretrained=True)


def test_resnet18_on_grey_images():
    pytest.importorskip("torchvision")
    model = net("resnet18")
    x = pixels(size=32)
    assert model.embed(x).shape == (6, 512) and model(x).shape == (6, 4)
    model(x).sum().backward()
    assert model.stages[0].conv1.weight.grad.shape == (64, 1, 7, 7)


def test_grey_convolution_sees_grey_as_three_equal_channels(monkeypatch):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(5)
    source = models.resnet18()
    weights = models.get_model_weights("resnet18").DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **options: source.state_dict())
    model = build_image_net("resnet18", 4, 1, pretrained=True).eval()
    source.fc = nn.Identity()
    x = pixels(size=32)
    rgb = x["pixel_values"].expand(-1, 3, -1, -1)
    assert torch.allclose(model.embed(x), source.eval()(rgb), atol=1e-4)


def test_pretrained_weights_are_read_without_code(monkeypatch):
    models = pytest.importorskip("torchvision.models")
    asked = {}

    def offline(self, **options):
        asked.update(options)
        raise OSError("no route")

    monkeypatch.setattr(type(models.get_model_weights("resnet18").DEFAULT), "get_state_dict", offline)
    with pytest.raises(ConfigError, match="no route.*set pretrained to false"):
        build_image_net("resnet18", 4, 3, pretrained=True)
    assert asked["weights_only"] is True and asked["check_hash"] is True


def test_unknown_name_suggests_the_nearest():
    pytest.importorskip("torchvision")
    with pytest.raises(ConfigError, match="Did you mean 'resnet18'"):
        build_image_net("resnet81", 4, 1)


def test_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConfigError, match=r"pip install nlp-ssl\[vision\]"):
        build_image_net("resnet18", 4, 1)
    assert build_image_net("wrn-10-1", 4, 1)(pixels()).shape == (6, 4)


def test_learns_the_digits_in_100_steps():
    data = load_images("digits", labels_per_class=100, seed=0)
    torch.manual_seed(0)
    model = build_image_net("wrn-10-1", 10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rng = np.random.default_rng(0)
    for step in range(100):
        rows = rng.choice(data.labeled, 64)
        inputs, _ = views(data.store, [(rows, FlipShift(flip=data.images.flip), row_keys(0, step, rows))], 1)
        loss = F.cross_entropy(model(inputs), torch.from_numpy(data.labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inputs, _ = views(data.store, [(data.test, FlipShift(flip=False, shift=0.0), row_keys(0, 0, data.test))], 1)
    with torch.no_grad():
        predicted = model.eval()(inputs).argmax(-1).numpy()
    assert (predicted == data.labels[data.test]).mean() > 0.8
