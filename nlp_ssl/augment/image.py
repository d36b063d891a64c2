"""Weak and strong views of images. A row's augmentation is a pure function of its key, whatever batch it is in.

Images are batches [n, C, H, W], C 1 or 3, uint8 or float in [0, 1]; every augmentation returns float32 in [0, 1].
Normalisation comes afterwards. All rows are handled together: no loop over images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.utils.counter_rng import uniform
from nlp_ssl.utils.ranges import check

# Where each augmentation reads a row's random stream: if ranges overlapped, its flip would decide its Cutout.
_FLIP_SHIFT, _CUTOUT, _RANDAUGMENT = 0, 8, 16


class ImageAugment(Protocol):
    """A view of images [n, C, H, W]; keys uint64 [n] decide the randomness of each row."""

    def __call__(self, images: Tensor, keys: NDArray[np.uint64]) -> Tensor: ...


def as_unit(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]; uint8 is divided by 255."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _draws(keys: NDArray[np.uint64], first: int, count: int) -> Tensor:
    """Uniform numbers [n, count] at the counters first .. first + count - 1 of every key.

    They stay float64: rounded to float32 the largest would become 1.0, one past the last choice.
    """
    columns = [uniform(keys, np.full(len(keys), first + k, dtype=np.uint64)) for k in range(count)]
    return torch.from_numpy(np.stack(columns, axis=1))


@dataclass(frozen=True)
class FlipShift:
    """The usual weak view: mirrored half of the time, moved by up to `shift` of each side with reflection at the edges.

    Turn `flip` off where a mirrored image has another class (digits, letters).

    Raises:
        ConfigError: shift outside [0, 0.5].
    """

    flip: bool = True
    shift: float = 0.125

    def __post_init__(self) -> None:
        check(self.shift, "shift", 0.0, 0.5)

    def __call__(self, images: Tensor, keys: NDArray[np.uint64]) -> Tensor:
        images = as_unit(images)
        n, channels, height, width = images.shape
        draws = _draws(keys, _FLIP_SHIFT, 3)
        rows = _reflected(draws[:, 0], height, self.shift)  # [n, H]
        columns = _reflected(draws[:, 1], width, self.shift)  # [n, W]
        if self.flip:
            columns = torch.where(draws[:, 2:] < 0.5, width - 1 - columns, columns)
        sample = torch.arange(n).view(-1, 1, 1, 1)
        channel = torch.arange(channels).view(1, -1, 1, 1)
        return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _reflected(draw: Tensor, size: int, shift: float) -> Tensor:
    """Source index [n, size] of every output index after a whole-pixel shift chosen by draw [n]."""
    reach = min(round(shift * size), size - 1)
    offset = (draw * (2 * reach + 1)).long() - reach  # [n]
    period = max(2 * (size - 1), 1)
    index = (torch.arange(size) - offset[:, None]).remainder(period)
    return torch.minimum(index, period - index)


@dataclass(frozen=True)
class Cutout:
    """A square hole of edge `size` x the shorter side, centred anywhere in the image and clipped at its edges.

    `fill` is the value in the hole: the mid-grey of FixMatch by default.

    Raises:
        ConfigError: size or fill outside [0, 1].
    """

    size: float = 0.5
    fill: float = 0.5

    def __post_init__(self) -> None:
        check(self.size, "size", 0.0, 1.0)
        check(self.fill, "fill", 0.0, 1.0)

    def __call__(self, images: Tensor, keys: NDArray[np.uint64]) -> Tensor:
        images = as_unit(images)
        height, width = images.shape[-2:]
        edge = round(self.size * min(height, width))
        draws = _draws(keys, _CUTOUT, 2)
        rows, columns = _span(draws[:, 0], height, edge), _span(draws[:, 1], width, edge)
        hole = rows[:, None, :, None] & columns[:, None, None, :]  # [n, 1, H, W]
        return images.masked_fill(hole, self.fill)


def _span(draw: Tensor, size: int, edge: int) -> Tensor:
    """Mask [n, size] of `edge` neighbouring indices around a centre chosen by draw [n]."""
    start = (draw * size).long()[:, None] - edge // 2
    index = torch.arange(size)
    return (index >= start) & (index < start + edge)


# The operations of RandAugment: images [n, C, H, W] in [0, 1], signed strength m [n, 1, 1, 1] in [-1, 1] -> images.
# Strength 0 is the identity, except for autocontrast and equalize, which have no strength.


def _identity(images: Tensor, m: Tensor) -> Tensor:
    return images


def _autocontrast(images: Tensor, m: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _equalize(images: Tensor, m: Tensor) -> Tensor:
    """Flattens the histogram of every channel, in whole numbers so that rounding cannot depend on the batch."""
    levels = (images * 255).round().long().flatten(2)  # [n, C, HW]
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.long).scatter_add_(2, levels, torch.ones_like(levels))
    last = counts.gather(2, levels.amax(2, keepdim=True))  # pixels in the brightest level do not count towards a step
    step = (levels.shape[2] - last) // 255
    table = (counts.cumsum(2) - counts + step // 2) // step.clamp(min=1)
    flat = table.clamp(max=255).gather(2, levels).view_as(images).float() / 255
    return torch.where(step[..., None] > 0, flat, images)


def _posterize(images: Tensor, m: Tensor) -> Tensor:
    keep = 8 - (m.abs() * 4.999).floor()  # 8 down to 4 bits
    quantum = 2 ** (8 - keep)
    return ((images * 255).round() / quantum).floor() * quantum / 255


def _solarize(images: Tensor, m: Tensor) -> Tensor:
    return torch.where(images > 1 - m.abs(), 1 - images, images)


def _blend(images: Tensor, other: Tensor, m: Tensor) -> Tensor:
    """Strength 1 leaves 5 % of the image, as the enhancement factors of FixMatch do."""
    return images + (other - images) * (0.95 * m.abs())


def _brightness(images: Tensor, m: Tensor) -> Tensor:
    return _blend(images, torch.zeros_like(images), m)


def _grey(images: Tensor) -> Tensor:
    """Luma [n, 1, H, W]."""
    if images.shape[1] == 1:
        return images
    return 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]


def _color(images: Tensor, m: Tensor) -> Tensor:
    return _blend(images, _grey(images), m)


def _contrast(images: Tensor, m: Tensor) -> Tensor:
    mean = _grey(images).mean((2, 3), keepdim=True)
    return _blend(images, (mean * 255).round() / 255, m)


def _sharpness(images: Tensor, m: Tensor) -> Tensor:
    """Blends with a 3 x 3 smoothing whose centre weighs 5 of 13; the outermost pixels stay."""
    if min(images.shape[-2:]) < 3:
        return images
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = (9 * F.avg_pool2d(images, 3, stride=1) + 4 * images[..., 1:-1, 1:-1]) / 13
    return _blend(images, smooth, m)


def _warp(images: Tensor, matrix: tuple[Tensor, Tensor, Tensor, Tensor], move: tuple[Tensor, Tensor]) -> Tensor:
    """Bilinear sampling at (a x + b y + tx, c x + d y + ty), in units of half a side from the centre; black outside.

    The grid is computed element by element: a batched matrix product may round differently in another batch.
    """
    height, width = images.shape[-2:]
    y = ((torch.arange(height) * 2 + 1) / height - 1).view(1, -1, 1)
    x = ((torch.arange(width) * 2 + 1) / width - 1).view(1, 1, -1)
    (a, b, c, d), (tx, ty) = ([p[:, 0] for p in group] for group in (matrix, move))
    grid = torch.stack((a * x + b * y + tx, c * x + d * y + ty), dim=-1)  # [n, H, W, 2]
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _rotate(images: Tensor, m: Tensor) -> Tensor:
    angle, aspect = m * math.radians(30), images.shape[2] / images.shape[3]
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(m)
    return _warp(images, (cos, -sin * aspect, sin / aspect, cos), (zero, zero))


def _shear_x(images: Tensor, m: Tensor) -> Tensor:
    one, zero = torch.ones_like(m), torch.zeros_like(m)
    return _warp(images, (one, 0.3 * m * images.shape[2] / images.shape[3], zero, one), (zero, zero))


def _shear_y(images: Tensor, m: Tensor) -> Tensor:
    one, zero = torch.ones_like(m), torch.zeros_like(m)
    return _warp(images, (one, zero, 0.3 * m * images.shape[3] / images.shape[2], one), (zero, zero))


def _translate_x(images: Tensor, m: Tensor) -> Tensor:
    one, zero = torch.ones_like(m), torch.zeros_like(m)
    return _warp(images, (one, zero, zero, one), (0.6 * m, zero))  # 0.3 of the width is 0.6 half-widths


def _translate_y(images: Tensor, m: Tensor) -> Tensor:
    one, zero = torch.ones_like(m), torch.zeros_like(m)
    return _warp(images, (one, zero, zero, one), (zero, 0.6 * m))


ImageOp = Callable[[Tensor, Tensor], Tensor]
IMAGE_OPS: dict[str, ImageOp] = {
    "autocontrast": _autocontrast,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "equalize": _equalize,
    "identity": _identity,
    "posterize": _posterize,
    "rotate": _rotate,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "solarize": _solarize,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
OPS = tuple(IMAGE_OPS)


def _blended_by_strength(op: ImageOp) -> ImageOp:
    """An operation without a strength, blended with the image by the strength."""
    return lambda images, m: images + (op(images, m) - images) * m.abs()


# The operations for policies that learn strengths: each of them has one.
GRADED = {**IMAGE_OPS, "autocontrast": _blended_by_strength(_autocontrast), "equalize": _blended_by_strength(_equalize)}


@dataclass(frozen=True)
class RandAugment:
    """RandAugment as FixMatch uses it (Cubuk et al. 2020, arXiv:1909.13719; Sohn et al. 2020, arXiv:2001.07685).

    Each row goes through `n` operations drawn from `ops` with replacement, each at its own random strength, up to
    `magnitude` of the full range. Grey images never draw "color". Each operation runs once per round, on its rows.

    Raises:
        ConfigError: n below 0, magnitude outside [0, 1], no or unknown operations.
    """

    n: int = 2
    magnitude: float = 1.0
    ops: tuple[str, ...] = OPS

    def __post_init__(self) -> None:
        check(self.n, "n", 0, 100)
        check(self.magnitude, "magnitude", 0.0, 1.0)
        if not self.ops:
            raise ConfigError(240, f"ops is empty: name at least one of {', '.join(OPS)}")
        for op in self.ops:
            if op not in IMAGE_OPS:
                raise ConfigError(241, f"unknown image operation {op!r}.{nearest(op, OPS)}")

    def __call__(self, images: Tensor, keys: NDArray[np.uint64]) -> Tensor:
        images = as_unit(images)
        pool = [op for op in self.ops if op != "color" or images.shape[1] == 3] or ["identity"]
        for turn in range(self.n):
            draws = _draws(keys, _RANDAUGMENT + 3 * turn, 3)
            choice = (draws[:, 0] * len(pool)).long()
            sign = torch.where(draws[:, 2] < 0.5, -1.0, 1.0)
            strength = (sign * draws[:, 1] * self.magnitude).float().view(-1, 1, 1, 1)
            images = apply_ops(images, [IMAGE_OPS[op] for op in pool], choice, strength)
        return images


def apply_ops(images: Tensor, pool: Sequence[ImageOp], choice: Tensor, strength: Tensor) -> Tensor:
    """Every row through the operation pool[choice[row]], at its own signed strength [n, 1, 1, 1]."""
    changed = images.clone()
    for position, op in enumerate(pool):
        rows = (choice == position).nonzero()[:, 0]
        if len(rows):
            changed[rows] = op(images[rows], strength[rows])
    return changed.clamp_(0, 1)


@dataclass(frozen=True)
class Strong:
    """The strong view of FixMatch: the weak view, then RandAugment, then Cutout."""

    flip_shift: FlipShift = FlipShift()
    randaugment: RandAugment = RandAugment()
    cutout: Cutout = Cutout()

    def __call__(self, images: Tensor, keys: NDArray[np.uint64]) -> Tensor:
        return self.cutout(self.randaugment(self.flip_shift(images, keys), keys), keys)
