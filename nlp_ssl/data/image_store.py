"""Images in memory, served to the loop in the same way as tokenized texts."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlp_ssl.augment.image import ImageAugment, as_unit
from nlp_ssl.errors import DataError


class ImageStore:
    """Images uint8 [N, H, W, C] (an array or a memory map) and the normalization of their pixels.

    `flip` says whether a mirrored image keeps its class.
    """

    max_length = 1  # an image has no tokens

    def __init__(
        self, images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...], flip: bool = True
    ) -> None:
        self.images = images
        self.mean = mean
        self.std = std
        self.flip = flip
        self.lengths = np.ones(len(images), dtype=np.int32)

    @classmethod
    def build(cls, images: NDArray[np.uint8], fit_rows: NDArray[np.int64], flip: bool = True) -> "ImageStore":
        """A store normalized by the mean and standard deviation of each channel over `fit_rows` alone.

        Raises:
            DataError: images are not uint8 [N, H, W, 1 or 3], or there are no rows to fit.
        """
        _check(images, (1, 3))
        if len(fit_rows) == 0:
            raise DataError(175, "no training images to compute mean and standard deviation from: give at least one")
        mean, std = _moments(images, fit_rows)
        return cls(images, mean, std, flip)

    @classmethod
    def like(cls, images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> "ImageStore":
        """A store of further images for a net that was trained on images normalized in this way.

        Raises:
            DataError: images are not uint8 [N, H, W, C] of its channels.
        """
        _check(images, (len(mean),))
        return cls(images, mean, std)

    def __len__(self) -> int:
        return len(self.images)

    def views(
        self,
        requests: Sequence[tuple[NDArray[np.int64], ImageAugment | None, NDArray[np.uint64]]],
    ) -> tuple[dict[str, Tensor], NDArray[np.int32]]:
        """One block {"pixel_values": float32 [R, C, H, W]} of all requests (rows, augmentation, keys), in their order.

        None as augmentation leaves the image as it is. The second value is 1 for every row: an image has no length.
        """
        total = sum(len(rows) for rows, _, _ in requests)
        _, height, width, channels = self.images.shape
        block = torch.empty(total, channels, height, width)
        start = 0
        for rows, augment, keys in requests:
            pixels = as_unit(torch.from_numpy(np.ascontiguousarray(self.images[rows].transpose(0, 3, 1, 2))))
            block[start : start + len(rows)] = pixels if augment is None else augment(pixels, keys)
            start += len(rows)
        mean, std = (torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return {"pixel_values": block.sub_(mean).div_(std)}, np.ones(total, dtype=np.int32)


def _moments(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in [0, 1], exact, in chunks of rows."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(rows), 4096):
        chunk = images[rows[start : start + 4096]]
        for c in range(channels):
            counts[c] += np.bincount(chunk[..., c].ravel(), minlength=256)
    levels = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)  # [C, 256]
    mean = share @ levels
    std = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0))
    # A channel of one value would divide by zero; one grey level is the smallest spread there can be.
    return tuple(mean.tolist()), tuple(np.maximum(std, 1 / 255).tolist())


def _check(images: NDArray[np.uint8], channels: Sequence[int]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in channels:
        wanted, got = " or ".join(map(str, channels)), f"{images.dtype} {list(images.shape)}"
        raise DataError(174, f"images must be uint8 [N, H, W, {wanted}], got {got}: convert them")
