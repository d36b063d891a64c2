"""Images in memory, served to the loop in the same way as tokenised texts."""

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from nlp_ssl.augment.image import ImageAugment, as_unit
from nlp_ssl.data.splits import draw_per_class
from nlp_ssl.errors import ConfigError, DataError, nearest

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist
FASHION_MNIST_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_MAX_IDX_BYTES = 2**31


class ImageStore:
    """Images uint8 [N, H, W, C] (an array or a memory map) and the normalisation of their pixels."""

    def __init__(self, images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.images = images
        self.mean = mean
        self.std = std
        self.lengths = np.ones(len(images), dtype=np.int32)

    @classmethod
    def build(cls, images: NDArray[np.uint8], fit_rows: NDArray[np.int64]) -> "ImageStore":
        """A store normalised by the mean and standard deviation of each channel over `fit_rows` alone.

        Raises:
            DataError: images are not uint8 [N, H, W, 1 or 3], or there are no rows to fit.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise DataError(
                174, f"images must be uint8 [N, H, W, 1 or 3], got {images.dtype} {list(images.shape)}: convert them"
            )
        if len(fit_rows) == 0:
            raise DataError(175, "no training images to compute mean and standard deviation from: give at least one")
        mean, std = _moments(images, fit_rows)
        return cls(images, mean, std)

    def __len__(self) -> int:
        return len(self.images)

    def views(
        self,
        requests: Sequence[tuple[NDArray[np.int64], ImageAugment | None, NDArray[np.uint64]]],
        max_length: int = 1,
    ) -> tuple[dict[str, Tensor], NDArray[np.int32]]:
        """One block {"pixel_values": float32 [R, C, H, W]} of all requests (rows, augmentation, keys), in their order.

        None as augmentation leaves the image as it is. The second value is 1 for every row: an image has no length,
        so `max_length` does not apply.
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


@dataclass(frozen=True)
class ImageSet:
    """A labeled collection as it is published: rows from `test_start` on are the test part."""

    name: str
    classes: tuple[str, ...]
    images: NDArray[np.uint8]  # [N, H, W, C]
    labels: NDArray[np.int64]  # [N]
    test_start: int
    flip: bool  # whether a mirrored image keeps its class


@dataclass(frozen=True)
class ImageData:
    """Images split for one run. Labels of `unlabeled` rows are hidden truth: used only to log pseudo-label accuracy."""

    classes: tuple[str, ...]
    store: ImageStore
    labels: NDArray[np.int64]  # [N]
    labeled: NDArray[np.int64]
    unlabeled: NDArray[np.int64]
    dev: NDArray[np.int64]
    test: NDArray[np.int64]
    flip: bool  # whether a mirrored image keeps its class: what FlipShift is to be given
    notes: tuple[str, ...]
    content_hash: str


def load_images(
    name: Literal["fashion_mnist", "digits", "auto"],
    labels_per_class: int,
    seed: int,
    *,
    dev_per_class: int = 0,
    pool_size: int | None = None,
    folder: Path | None = None,
) -> ImageData:
    """A collection with `labels_per_class` labels drawn by the seed; the rest of its training part is the pool.

    `dev_per_class` more labels are set aside for model selection, and `pool_size` cuts the pool to a seeded draw.
    "auto" is Fashion-MNIST where it is installed, otherwise the digits; the notes say which.

    Raises:
        ConfigError: unknown name, or a size that is out of range.
        DataError: files are missing or damaged, or a class has too few rows.
    """
    if labels_per_class < 1 or dev_per_class < 0 or (pool_size is not None and pool_size < 0):
        raise ConfigError(250, "labels_per_class must be at least 1, dev_per_class and pool_size at least 0")
    source = _named(name, folder)
    train = source.labels[: source.test_start].tolist()
    labeled = draw_per_class(train, labels_per_class, seed)
    dev = _draw_among(train, np.setdiff1d(np.arange(len(train)), labeled), dev_per_class, seed)
    pool = np.setdiff1d(np.arange(len(train)), np.concatenate([labeled, dev]))
    if pool_size is not None and pool_size < len(pool):
        pool = np.sort(np.random.default_rng(seed).choice(pool, pool_size, replace=False))
    test = np.arange(source.test_start, len(source.labels))
    digest = xxhash.xxh3_128()
    for part in (source.images, source.labels, labeled, pool, dev, test):
        digest.update(np.ascontiguousarray(part).data)
    return ImageData(
        classes=source.classes,
        store=ImageStore.build(source.images, np.union1d(labeled, pool)),
        labels=source.labels,
        labeled=labeled,
        unlabeled=pool,
        dev=dev,
        test=test,
        flip=source.flip,
        notes=(f"images: {source.name}, {len(labeled)} labeled, {len(pool)} unlabeled, {len(test)} test",),
        content_hash=digest.hexdigest(),
    )


def _draw_among(labels: list[int], rows: NDArray[np.int64], per_class: int, seed: int) -> NDArray[np.int64]:
    allowed = np.zeros(len(labels), dtype=bool)
    allowed[rows] = True
    return draw_per_class([y if ok else None for y, ok in zip(labels, allowed, strict=True)], per_class, seed)


def _named(name: str, folder: Path | None) -> ImageSet:
    if name == "auto":
        name = "fashion_mnist" if (folder or FASHION_MNIST_FOLDER).is_dir() else "digits"
    if name == "fashion_mnist":
        return load_fashion_mnist(folder)
    if name == "digits":
        return load_digits()
    raise ConfigError(251, f"unknown images {name!r}.{nearest(name, ('auto', 'digits', 'fashion_mnist'))}")


def load_digits() -> ImageSet:
    """The 1,797 grey 8 x 8 digits of scikit-learn; the last fifth is the test part."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    return ImageSet("digits", tuple("0123456789"), images, labels, test_start=len(labels) * 4 // 5, flip=False)


def load_fashion_mnist(folder: Path | None = None) -> ImageSet:
    """Fashion-MNIST, 60,000 training and 10,000 test images, grey 28 x 28, from IDX files (plain or gzip).

    Raises:
        DataError: a file is missing, damaged or does not fit the others.
    """
    folder = folder or FASHION_MNIST_FOLDER
    images, labels = [], []
    for part in ("train", "t10k"):
        images.append(read_idx(_find(folder, f"{part}-images-idx3-ubyte"), ndim=3))
        labels.append(read_idx(path := _find(folder, f"{part}-labels-idx1-ubyte"), ndim=1))
        _check_labels(path, labels[-1], len(images[-1]), len(FASHION_MNIST_CLASSES))
    if images[0].shape[1:] != images[1].shape[1:]:
        raise DataError(176, f"{folder}: training and test images differ in size: install the files again")
    return ImageSet(
        "fashion_mnist",
        FASHION_MNIST_CLASSES,
        np.concatenate(images)[..., None],
        np.concatenate(labels).astype(np.int64),
        test_start=len(images[0]),
        flip=True,
    )


def _find(folder: Path, stem: str) -> Path:
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise DataError(177, f"{folder}: no {stem}(.gz): apt-get install dataset-fashion-mnist, or use the digits")


def _check_labels(path: Path, labels: NDArray[np.uint8], images: int, classes: int) -> None:
    if len(labels) != images:
        raise DataError(178, f"{path}: {len(labels)} labels for {images} images: install the files again")
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise DataError(
            179,
            f"{path}: row {wrong[0] + 1} has label {labels[wrong[0]]}, above {classes - 1}: install the files again",
        )


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes with `ndim` axes in an IDX file, plain or (named .gz) compressed.

    Raises:
        DataError: not such a file, cut short, too long, or over 2 GiB.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            return _parse_idx(path, cast(IO[bytes], stream), ndim)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(180, f"{path}: cannot be read ({error}): get the file again") from error


def _parse_idx(path: Path, stream: IO[bytes], ndim: int) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * ndim)
    if header[:4] != bytes([0, 0, 8, ndim]) or len(header) < 4 + 4 * ndim:
        raise DataError(181, f"{path}: not an IDX file of bytes with {ndim} axes: get the file again")
    shape = [int(size) for size in np.frombuffer(header, dtype=">u4", offset=4)]
    size = math.prod(shape)
    if size > _MAX_IDX_BYTES:
        raise DataError(182, f"{path}: announces {size} bytes, more than 2 GiB: get the file again")
    body = stream.read(size + 1)  # one more than announced, so that a longer file shows
    if len(body) != size:
        found = f"{len(body)}" if len(body) < size else "more"
        raise DataError(183, f"{path}: announces {size} bytes and holds {found}: get the file again")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)
