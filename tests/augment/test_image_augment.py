"""Image augmentation: a pure function of each row's key, and equal to Pillow where Pillow has the same operation."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from nlp_ssl.augment.image import OPS, Cutout, FlipShift, RandAugment, Strong
from nlp_ssl.errors import ConfigError
from nlp_ssl.utils.counter_rng import row_keys

WITH_STRENGTH = tuple(op for op in OPS if op not in ("autocontrast", "equalize"))
EVERY = [FlipShift(), Cutout(), Strong(), *(RandAugment(n=1, ops=(op,)) for op in OPS)]


def images(n=32, channels=3, height=20, width=24):
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)


def keys(n=32, epoch=0):
    return row_keys(seed=3, epoch=epoch, ids=np.arange(n), salt=0)


@pytest.mark.parametrize("augment", EVERY, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_type_and_range(augment, channels):
    out = augment(images(channels=channels), keys())
    assert out.shape == (32, channels, 20, 24) and out.dtype == torch.float32
    assert 0 <= out.min() and out.max() <= 1
    white = augment(torch.ones(32, channels, 50, 61), keys())
    assert 0 <= white.min() and white.max() <= 1  # interpolation alone rounds above 1 at this size


@pytest.mark.parametrize("augment", EVERY, ids=str)
def test_a_row_does_not_depend_on_its_batch(augment):
    together = augment(images(), keys())
    order = np.array([30, 4, 17, 4])
    assert torch.equal(augment(images()[order], keys()[order]), together[order])
    assert torch.equal(augment(images()[9:10], keys()[9:10]), together[9:10])


@pytest.mark.parametrize("augment", [FlipShift(), Cutout(), RandAugment(), Strong()], ids=str)
def test_keys_change_the_result(augment):
    same = images(1).expand(32, -1, -1, -1)
    out = augment(same, keys())
    assert len(out.flatten(1).unique(dim=0)) > 8
    assert not torch.equal(out, augment(same, keys(epoch=1)))


def test_uint8_and_float_images_are_treated_alike():
    assert torch.equal(Strong()(images(), keys()), Strong()(images().float() / 255, keys()))


def test_the_input_is_left_alone():
    x = images().float() / 255
    before = x.clone()
    Strong()(x, keys())
    assert torch.equal(x, before)


@pytest.mark.parametrize("op", WITH_STRENGTH)
def test_magnitude_zero_is_the_identity(op):
    out = RandAugment(n=3, magnitude=0.0, ops=(op,))(images(), keys())
    assert_close(out, images() / 255, atol=1e-5, rtol=0)


@pytest.mark.parametrize("op", [op for op in OPS if op != "identity"])
def test_every_operation_does_something(op):
    x = images() // 4 + 60  # leaves room for autocontrast and equalize
    out = RandAugment(n=1, ops=(op,))(x, keys())
    assert ((out - x / 255).abs().amax((1, 2, 3)) > 0.02).float().mean() > 0.4


def test_nothing_asked_for_gives_the_image():
    for augment in (FlipShift(flip=False, shift=0.0), Cutout(size=0.0), RandAugment(n=0)):
        assert torch.equal(augment(images(), keys()), images() / 255)


def test_flip_is_torch_flip_for_half_of_the_rows():
    x = images(400) / 255
    out = FlipShift(shift=0.0)(x, keys(400))
    flipped = (out == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(out[~flipped], x[~flipped])
    assert 160 < flipped.sum() < 240


def test_shift_reflects_at_the_edges():
    """Columns 0 1 2 3 moved by +1 read 1 0 1 2 (the edge is not repeated), by -1 read 1 2 3 2."""
    x = torch.arange(4.0).view(1, 1, 1, 4).expand(200, 1, 4, 4) / 4
    out = FlipShift(flip=False, shift=0.25)(x, keys(200))[:, 0, 0] * 4
    seen = {tuple(row.int().tolist()) for row in out}
    assert seen == {(1, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 2)}


def test_shift_moves_rows_and_columns_on_their_own():
    x = torch.arange(16.0).view(1, 1, 4, 4).expand(200, 1, 4, 4) / 16
    assert len(FlipShift(flip=False, shift=0.25)(x, keys(200)).flatten(1).unique(dim=0)) == 9


def test_cutout_fills_a_square_clipped_at_the_edges():
    """Edge 10 in 20 x 24: a hole has 100 pixels, fewer at an edge.

    A centre at distance k < 5 from the near side loses 5 - k lines, one at k < 4 from the far side 4 - k: expected
    lines 10 - (15 + 10) / 20 = 8.75 of 20 and 10 - 25 / 24 = 8.958 of 24, so 78.4 pixels.
    """
    hole = Cutout(size=0.5, fill=0.0)(torch.ones(2000, 3, 20, 24), keys(2000)) == 0
    assert torch.equal(hole[:, 0], hole[:, 1]) and torch.equal(hole[:, 0], hole[:, 2])
    area = hole[:, 0].flatten(1).sum(1)
    assert area.max() == 100
    assert abs(area.float().mean() - 78.4) < 1.5
    lines, columns = hole[:, 0].any(2).sum(1), hole[:, 0].any(1).sum(1)
    assert torch.equal(area, lines * columns)  # one rectangle


def test_cutout_is_grey_unless_told_otherwise():
    out = Cutout()(torch.zeros(8, 1, 8, 8), keys(8))
    assert set(out.unique().tolist()) == {0.0, 0.5}


def test_the_hole_does_not_depend_on_the_flip():
    x = torch.arange(24.0).expand(400, 1, 20, 24) / 24
    mirrored = FlipShift(shift=0.0)(x, keys(400))[:, 0, 0, 0] > 0.5
    left = (Cutout(fill=1.0)(torch.zeros(400, 1, 20, 24), keys(400))[:, 0, :, :12]).flatten(1).mean(1)
    assert abs(left[mirrored].mean() - left[~mirrored].mean()) < 0.05


def test_grey_images_never_draw_color():
    only_color = RandAugment(ops=("color",))
    assert torch.equal(only_color(images(channels=1), keys()), images(channels=1) / 255)
    assert not torch.equal(only_color(images(channels=3), keys()), images(channels=3) / 255)
    white = torch.ones(64, 1, 4, 4)  # solarize turns white black at any strength
    assert RandAugment(n=1, ops=("color", "solarize"))(white, keys(64)).max() == 0


def test_operations_are_drawn_evenly():
    """Solarize at full strength and the identity, one draw each: half of the rows stay."""
    x = images(600)
    out = RandAugment(n=1, ops=("solarize", "identity"))(x, keys(600))
    stay = (out == x / 255).flatten(1).all(1).float().mean()
    assert 0.42 < stay < 0.58


def test_pixel_operations_equal_pillow():
    """The independent reference: Pillow, which the published code of FixMatch calls."""
    pytest.importorskip("PIL")
    from PIL import Image, ImageEnhance, ImageOps

    from nlp_ssl.augment.image import IMAGE_OPS

    x = images(6, height=60, width=70) // 3 + 40  # several pixels to each level, so that equalize has to round
    strength = torch.tensor([0.0, 0.2, -0.4, 0.6, -0.8, 1.0])
    factors = [1 - 0.95 * abs(m) for m in strength.tolist()]

    def reference(name, image, m, factor):
        if name in ("autocontrast", "equalize"):
            return {"autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}[name](image)
        if name == "posterize":
            return ImageOps.posterize(image, 8 - int(abs(m) * 4.999))
        return getattr(ImageEnhance, name.capitalize())(image).enhance(factor)

    for name in ("autocontrast", "equalize", "posterize", "brightness", "color", "contrast", "sharpness"):
        ours = IMAGE_OPS[name](x / 255, strength.view(-1, 1, 1, 1)) * 255
        for row, (m, factor) in enumerate(zip(strength.tolist(), factors, strict=True)):
            image = Image.fromarray(x[row].permute(1, 2, 0).numpy())
            theirs = torch.from_numpy(np.array(reference(name, image, m, factor))).permute(2, 0, 1).float()
            # Pillow rounds to whole levels, up to twice in a row; these two work in whole levels here as well.
            tolerance = 1e-3 if name in ("equalize", "posterize") else 1.6
            assert (ours[row] - theirs).abs().max() <= tolerance, (name, m)


def test_geometric_operations_move_what_they_should():
    """At full strength: moved by 0.3 of the side, sheared by 0.3 of the distance, turned by 30 degrees."""
    from nlp_ssl.augment.image import IMAGE_OPS

    x = torch.zeros(1, 1, 20, 20)
    x[0, 0, 10, 10] = 1
    full = torch.ones(1, 1, 1, 1)
    assert IMAGE_OPS["translate_x"](x, full)[0, 0, 10, 4] == pytest.approx(1, abs=1e-4)
    assert IMAGE_OPS["translate_y"](x, -full)[0, 0, 16, 10] == pytest.approx(1, abs=1e-4)
    column = torch.zeros(1, 1, 20, 20)
    column[..., 10] = 1
    sheared = IMAGE_OPS["shear_x"](column, full)[0, 0]
    centre = (sheared * torch.arange(20)).sum(1) / sheared.sum(1)
    assert centre[0] - centre[-1] == pytest.approx(0.3 * 19, abs=0.1)


@pytest.mark.parametrize("lines_along", ["rows", "columns"])
def test_rotate_turns_by_30_degrees_in_images_that_are_not_square(lines_along):
    """Both a vertical and a horizontal line through the middle lean by tan 30 degrees, to opposite sides."""
    from nlp_ssl.augment.image import IMAGE_OPS

    x = torch.zeros(1, 1, 41, 61)
    if lines_along == "columns":
        x[..., 30] = 1
    else:
        x[..., 20, :] = 1
    turned = IMAGE_OPS["rotate"](x, torch.ones(1, 1, 1, 1))[0, 0]
    lines = turned[12:29] if lines_along == "columns" else turned[:, 22:39].T
    centre = (lines * torch.arange(lines.shape[1])).sum(1) / lines.sum(1)
    slope = ((centre[-1] - centre[0]) / (len(lines) - 1)).item()
    expected = np.tan(np.radians(30))
    assert slope == pytest.approx(expected if lines_along == "columns" else -expected, abs=0.03)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: FlipShift(shift=0.6), "shift"),
        (lambda: Cutout(size=-0.1), "size"),
        (lambda: RandAugment(magnitude=2), "magnitude"),
        (lambda: RandAugment(ops=("rotat",)), "'rotate'"),
        (lambda: RandAugment(ops=()), "ops"),
    ],
)
def test_bad_options(make, word):
    with pytest.raises(ConfigError, match=word):
        make()


@pytest.mark.parametrize("module", ["nlp_ssl.augment.image", "nlp_ssl.nets.image", "nlp_ssl.data.images"])
def test_imports_without_torchvision(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    spec = importlib.util.spec_from_file_location("fresh_copy", importlib.util.find_spec(module).origin)
    fresh = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fresh_copy", fresh)
    spec.loader.exec_module(fresh)
