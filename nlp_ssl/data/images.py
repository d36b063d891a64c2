"""Images and their labels: collections by name, and arrays in memory."""

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from nlp_ssl.data.arrays import Column, InputError, column, read_labels
from nlp_ssl.data.cleaning import label_name
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.image_store import ImageStore
from nlp_ssl.data.splits import check_draw, draw_per_class
from nlp_ssl.errors import ConfigError, DataError, nearest

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist
FASHION_MNIST_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_MAX_IDX_BYTES = 2**31


@dataclass(frozen=True)
class ImageRows:
    """Labeled and unlabeled images with the parts they play, before any label is drawn.

    Attributes:
        name: of the collection, for notes.
        classes: class names in the order of a model's outputs.
        images: uint8 [N, H, W, C].
        labels: int64 [N], -1 where no label is known.
        train, dev, test: int64 positions; labels of train rows that are not drawn are hidden truth.
        flip: whether a mirrored image keeps its class.
    """

    name: str
    classes: tuple[str, ...]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    dev: NDArray[np.int64]
    test: NDArray[np.int64]
    flip: bool

    def draw(
        self, labels_per_class: int | None, seed: int, *, dev_per_class: int = 0, pool_size: int | None = None
    ) -> Data:
        """The rows with `labels_per_class` labels drawn by the seed, all if not given; other train rows are the pool.

        `dev_per_class` more labels are set aside for model selection, and `pool_size` cuts the pool to a seeded draw.

        Raises:
            ConfigError: a size is out of range.
            DataError: a class has too few rows.
        """
        check_draw(seed, labels_per_class)
        if dev_per_class < 0 or (pool_size is not None and not (isinstance(pool_size, int) and pool_size >= 0)):
            raise ConfigError(250, "labels_per_class must be at least 1, dev_per_class and pool_size at least 0")
        known = self.train[self.labels[self.train] >= 0]
        labeled = known if labels_per_class is None else self._draw(known, labels_per_class, seed)
        dev = np.concatenate([self.dev, self._draw(np.setdiff1d(known, labeled), dev_per_class, seed)])
        pool = np.setdiff1d(self.train, np.concatenate([labeled, dev]))
        if pool_size is not None and pool_size < len(pool):
            pool = np.sort(np.random.default_rng(seed).choice(pool, pool_size, replace=False))
        digest = xxhash.xxh3_128()
        for part in (self.images, self.labels, labeled, pool, dev, self.test):
            digest.update(np.ascontiguousarray(part).data)
        return Data(
            classes=self.classes,
            labels=self.labels,
            labeled=labeled,
            unlabeled=pool,
            dev=dev,
            test=self.test,
            notes=(f"images: {self.name}, {len(labeled)} labeled, {len(pool)} unlabeled, {len(self.test)} test",),
            content_hash=digest.hexdigest(),
            images=ImageStore.build(self.images, np.union1d(labeled, pool), self.flip),
        )

    def _draw(self, rows: NDArray[np.int64], per_class: int, seed: int) -> NDArray[np.int64]:
        if not per_class:
            return rows[:0]
        allowed = np.isin(self.train, rows)
        labels = self.labels[self.train].tolist()
        left = [y if ok else None for y, ok in zip(labels, allowed, strict=True)]
        drawn: NDArray[np.int64] = self.train[draw_per_class(left, per_class, seed)]
        return drawn


def image_rows(
    images: NDArray[np.uint8],
    labels: Column,
    unlabeled: NDArray[np.uint8] | None = None,
    dev: tuple[NDArray[np.uint8], Column] | None = None,
    test: tuple[NDArray[np.uint8], Column] | None = None,
    class_names: Sequence[str] | None = None,
    flip: bool = True,
) -> ImageRows:
    """Images in memory with their labels, as `Task.from_images` takes them.

    Raises:
        DataError: images are not uint8 [N, H, W, 1 or 3], differ in size, or labels do not fit them.
    """
    known = read_labels(labels)
    names = [label_name(value) or "" for value in known.classes.tolist()]
    if class_names is not None:
        if any(not name.isdecimal() or int(name) >= len(class_names) for name in names):
            raise DataError(186, f"labels {names[:5]} for {len(class_names)} class_names: give their numbers from 0")
        number = np.array([int(name) for name in names])[known.number]
        numbers = [np.where(known.number < 0, -1, number)]
        names = list(class_names)
    else:
        numbers = [known.number]
    for role, part in (("dev", dev), ("test", test)):
        if part is not None and (not isinstance(part, tuple | list) or len(part) != 2):
            raise InputError(127, f"{role} should be images and their labels: {role}=(images, labels)")
    parts, places = [_checked(images, len(known.number))], [np.arange(len(known.number))]
    for part in (None if unlabeled is None else (unlabeled, None), dev, test):
        start = sum(map(len, parts))
        if part is None:
            places.append(np.arange(0))
            continue
        y = np.full(len(part[0]), -1) if part[1] is None else _numbers(part[1], names, class_names is not None)
        parts.append(_checked(part[0], len(y), parts[0].shape[1:]))
        numbers.append(y)
        places.append(np.arange(start, start + len(y)))
    return ImageRows(
        "in memory", tuple(names), np.concatenate(parts), np.concatenate(numbers).astype(np.int64),
        np.concatenate(places[:2]).astype(np.int64), places[2].astype(np.int64), places[3].astype(np.int64), flip,
    )  # fmt: skip


def _checked(images: NDArray[np.uint8], rows: int, size: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    images = np.asarray(images)
    if len(images) != rows:
        raise DataError(121, f"{rows} labels for {len(images)} images: give one label for each image")
    if size is not None and images.shape[1:] != size:
        raise DataError(187, f"images of {list(images.shape[1:])} beside others of {list(size)}: make them of one size")
    return images


def _numbers(y: Column, names: Sequence[str], numbered: bool) -> NDArray[np.int64]:
    """Class indices [n] of labels."""
    labels = [label_name(value) for value in column(y, "labels").tolist()]
    index = {str(i) if numbered else name: i for i, name in enumerate(names)}
    unknown = next((name for name in labels if name not in index), None)
    if unknown is not None:
        raise DataError(134, f"label {unknown!r} is not a class of the labeled set.{nearest(unknown, index)}")
    return np.array([index[name] for name in labels if name is not None], dtype=np.int64)


def named_images(name: str, folder: Path | None = None) -> ImageRows:
    """A collection by name; "auto" is Fashion-MNIST where it is installed, otherwise the digits: the notes say which.

    Raises:
        ConfigError: unknown name.
        DataError: files are missing or damaged.
    """
    if name == "auto":
        name = "fashion_mnist" if (folder or FASHION_MNIST_FOLDER).is_dir() else "digits"
    if name == "fashion_mnist":
        return load_fashion_mnist(folder)
    if name == "digits":
        return load_digits()
    raise ConfigError(251, f"unknown images {name!r}.{nearest(name, ('auto', 'digits', 'fashion_mnist'))}")


def _collection(
    name: str,
    classes: tuple[str, ...],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    test_start: int,
    flip: bool,
) -> ImageRows:
    """A labeled collection as it is published: rows from `test_start` on are the test part."""
    none = np.zeros(0, dtype=np.int64)
    train, test = np.arange(test_start), np.arange(test_start, len(labels))
    return ImageRows(name, classes, images, labels, train, none, test, flip)


def load_digits() -> ImageRows:
    """The 1,797 grey 8 x 8 digits of scikit-learn; the last fifth is the test part."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    return _collection("digits", tuple("0123456789"), images, labels, test_start=len(labels) * 4 // 5, flip=False)


def load_fashion_mnist(folder: Path | None = None) -> ImageRows:
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
    return _collection(
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
        held = f"{len(body)}" if len(body) < size else "more"
        raise DataError(183, f"{path}: announces {size} bytes and holds {held}: get the file again")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)
