"""Image data: the store's blocks, the split of the collections, and IDX files that are not what they say."""

import gzip

import numpy as np
import pytest
import torch
from images import load_images
from stores import views

from nlp_ssl.augment.image import FlipShift, Strong
from nlp_ssl.data.images import (
    FASHION_MNIST_FOLDER,
    ImageStore,
    load_digits,
    load_fashion_mnist,
    read_idx,
)
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.utils.counter_rng import row_keys


def pictures(n=10, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, 6, 8, channels), dtype=np.uint8)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def write_collection(folder, train=40, test=20, suffix=".gz"):
    rng = np.random.default_rng(1)
    pack = gzip.compress if suffix else bytes
    for part, n in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (n, 5, 5), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 10
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))


# --- the store


def test_views_are_one_normalised_block_in_request_order():
    images = pictures()
    store = ImageStore.build(images, np.arange(10))
    rows, again = np.array([7, 0, 3]), np.array([2])
    inputs, lengths = views(
        store, [(rows, FlipShift(flip=False, shift=0.0), row_keys(0, 0, rows)), (again, None, again)], 9
    )
    block = inputs["pixel_values"]
    assert list(inputs) == ["pixel_values"] and block.dtype == torch.float32 and block.shape == (4, 3, 6, 8)
    assert lengths.tolist() == [1, 1, 1, 1] and store.lengths.tolist() == [1] * 10 and len(store) == 10
    expected = (images[[7, 0, 3, 2]] / 255 - images.mean((0, 1, 2)) / 255) / (images.std((0, 1, 2)) / 255)
    np.testing.assert_allclose(block.permute(0, 2, 3, 1), expected, atol=1e-4)


def test_each_request_has_its_own_augmentation():
    store = ImageStore.build(pictures(), np.arange(10))
    rows = np.arange(4)
    keys = row_keys(0, 0, rows)
    both, _ = views(store, [(rows, FlipShift(), keys), (rows, Strong(), keys)], 1)
    weak, _ = views(store, [(rows, FlipShift(), keys)], 1)
    strong, _ = views(store, [(rows, Strong(), keys)], 1)
    assert torch.equal(both["pixel_values"], torch.cat([weak["pixel_values"], strong["pixel_values"]]))


def test_normalisation_uses_the_rows_to_fit_only():
    images = pictures()
    images[5:] = 255
    assert ImageStore.build(images, np.arange(5)).mean == pytest.approx(tuple(images[:5].mean((0, 1, 2)) / 255))


def test_a_constant_channel_stays_finite():
    store = ImageStore.build(np.full((3, 4, 4, 1), 9, dtype=np.uint8), np.arange(3))
    inputs, _ = views(store, [(np.arange(3), FlipShift(flip=False, shift=0.0), np.arange(3, dtype=np.uint64))], 1)
    assert inputs["pixel_values"].abs().max() < 1e-3


def test_store_takes_a_memory_map(tmp_path):
    np.save(tmp_path / "images.npy", pictures())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r", allow_pickle=False)
    request = [(np.array([1, 8]), Strong(), row_keys(0, 0, np.array([1, 8])))]
    a, _ = views(ImageStore.build(mapped, np.arange(10)), request, 1)
    b, _ = views(ImageStore.build(pictures(), np.arange(10)), request, 1)
    assert torch.equal(a["pixel_values"], b["pixel_values"])


@pytest.mark.parametrize("images", [pictures().astype(np.float32), pictures()[..., 0], pictures(channels=2)])
def test_store_refuses_other_arrays(images):
    with pytest.raises(DataError, match="uint8"):
        ImageStore.build(images, np.arange(3))


def test_store_refuses_no_training_rows():
    with pytest.raises(DataError, match="no training images"):
        ImageStore.build(pictures(), np.arange(0))


# --- the split


def test_split_is_balanced_disjoint_and_seeded():
    data = load_images("digits", 4, seed=0, dev_per_class=3, pool_size=500)
    assert np.bincount(data.labels[data.labeled]).tolist() == [4] * 10
    assert np.bincount(data.labels[data.dev]).tolist() == [3] * 10
    assert (len(data.unlabeled), len(data.test), len(data.store)) == (500, 360, 1797)
    together = np.concatenate([data.labeled, data.unlabeled, data.dev, data.test])
    assert len(np.unique(together)) == len(together)
    assert all(rows.dtype == np.int64 for rows in (data.labels, data.labeled, data.unlabeled, data.dev, data.test))
    same, other = (load_images("digits", 4, seed=s, dev_per_class=3, pool_size=500) for s in (0, 1))
    assert same.content_hash == data.content_hash and other.content_hash != data.content_hash
    assert np.array_equal(same.unlabeled, data.unlabeled) and not np.array_equal(other.labeled, data.labeled)


def test_the_pool_is_the_rest_of_the_training_part():
    data = load_images("digits", 5, seed=2)
    assert len(data.labeled) + len(data.unlabeled) == 1797 * 4 // 5 and len(data.dev) == 0


def test_the_size_of_the_pool_does_not_change_the_labels():
    a, b = load_images("digits", 5, seed=2), load_images("digits", 5, seed=2, dev_per_class=2, pool_size=10)
    assert np.array_equal(a.labeled, b.labeled)


def test_digits_are_bytes_with_the_full_range():
    digits = load_digits()
    assert digits.images.dtype == np.uint8 and digits.images.shape == (1797, 8, 8, 1)
    assert (digits.images.min(), digits.images.max()) == (0, 255)
    assert not digits.flip


@pytest.mark.parametrize("options", [{"labels_per_class": 0}, {"dev_per_class": -1}, {"pool_size": -1}])
def test_sizes_out_of_range(options):
    with pytest.raises(ConfigError):
        load_images("digits", **{"labels_per_class": 2, "seed": 0, **options})


def test_unknown_name():
    with pytest.raises(ConfigError, match="Did you mean 'digits'"):
        load_images("digit", 4, seed=0)


def test_too_many_labels():
    with pytest.raises(DataError, match="lower labels-per-class"):
        load_images("digits", 1000, seed=0)


# --- Fashion-MNIST and its files


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_collection_from_generated_files(tmp_path, suffix):
    write_collection(tmp_path, suffix=suffix)
    source = load_fashion_mnist(tmp_path)
    assert source.images.shape == (60, 5, 5, 1) and source.test[0] == 40 and source.flip
    expected = np.random.default_rng(1).integers(0, 256, (40, 5, 5), dtype=np.uint8)
    np.testing.assert_array_equal(source.images[:40, ..., 0], expected)
    assert source.labels[40:].tolist() == [n % 10 for n in range(20)]
    data = load_images("auto", 2, seed=0, folder=tmp_path)
    assert data.classes[9] == "ankle boot" and len(data.labeled) == 20 and len(data.test) == 20


def test_auto_falls_back_to_the_digits(tmp_path):
    assert "digits" in load_images("auto", 2, seed=0, folder=tmp_path / "none").notes[0]


@pytest.mark.skipif(not FASHION_MNIST_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_installed_fashion_mnist():
    data = load_images("fashion_mnist", 4, seed=0)
    assert len(data.labeled) + len(data.unlabeled) == 60000 and len(data.test) == 10000
    assert np.bincount(data.labels[data.test]).tolist() == [1000] * 10
    assert data.store.mean[0] == pytest.approx(0.2860, abs=1e-3) and data.store.std[0] == pytest.approx(
        0.3530, abs=1e-3
    )


def test_idx_round_trip(tmp_path):
    array = pictures()[..., 0]
    (tmp_path / "a").write_bytes(idx(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "a", 3), array)
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz", 3), array)


GOOD = idx(np.zeros((4, 3, 2), dtype=np.uint8))
HUGE = bytes([0, 0, 8, 3]) + b"\xff" * 12


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not an IDX"),
        (GOOD[:10], "not an IDX"),
        (b"PK" + GOOD[2:], "not an IDX"),
        (bytes([0, 0, 13, 3]) + GOOD[4:], "not an IDX"),  # floats
        (bytes([0, 0, 8, 1]) + GOOD[4:], "not an IDX"),  # one axis
        (GOOD[:-1], "24 bytes and holds 23"),
        (GOOD + b"\0", "holds more"),
        (HUGE, "2 GiB"),
    ],
    ids=["empty", "cut header", "magic", "kind", "axes", "short", "long", "huge"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx(tmp_path, content, word, suffix):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match=word) as failure:
        read_idx(path, 3)
    assert str(path) in str(failure.value) and "\n" not in str(failure.value)


@pytest.mark.parametrize(
    "content",
    [b"plain", gzip.compress(GOOD)[:-12], gzip.compress(GOOD)[:10] + b"\xff" * 30],
    ids=["plain", "cut", "no deflate stream"],
)
def test_damaged_gzip(tmp_path, content):
    (tmp_path / "file.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"file\.gz"):
        read_idx(tmp_path / "file.gz", 3)


def test_missing_files_say_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        load_fashion_mnist(tmp_path)


def test_labels_must_fit_images_and_classes(tmp_path):
    write_collection(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(39, dtype=np.uint8))))
    with pytest.raises(DataError, match="39 labels for 40 images"):
        load_fashion_mnist(tmp_path)
    path.write_bytes(gzip.compress(idx(np.array([0] * 6 + [10] * 34, dtype=np.uint8))))
    with pytest.raises(DataError, match="row 7 has label 10"):
        load_fashion_mnist(tmp_path)
