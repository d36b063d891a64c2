"""Embeddings: each text gets its own, whatever it is encoded beside."""

import numpy as np
import pytest
from banks import D, static_encoder
from tiny import FILLER, tiny_bert

from nlp_ssl.experiments.out_of_scope import likeness
from nlp_ssl.inference.embedder import Embedder, batches_of
from nlp_ssl.paraphrase.checks import Cosines


@pytest.fixture
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(FILLER, size)) for size in (1, 20, 3, 400, 7, 7, 1, 30)]


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-5), ("bf16", 0.03)])
def test_a_batch_gives_what_each_text_gives_alone(tmp_path, texts, precision, rounding):
    embed = Embedder(str(tiny_bert(tmp_path)), precision)
    found, exact = embed(texts), Embedder(str(tmp_path))
    assert found.shape == (8, 32) and found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    for row, text in zip(found, texts, strict=True):
        assert row == pytest.approx(exact([text])[0], abs=rounding)
    assert precision == "float32" or not np.allclose(found, exact(texts), atol=1e-5)
    assert len(embed([])) == 0


def test_batches_hold_as_many_characters_as_the_budget_allows():
    texts = ["x" * size for size in (10, 200, 30, 30, 5, 0)]
    assert list(batches_of([1, 2, 3, 0, 4, 5], texts, 60)) == [[1], [2, 3], [0, 4, 5]]


def test_a_static_encoder_is_an_encoder_like_any_other(tmp_path):
    rows = np.random.default_rng(0).normal(size=(6, D))[[1, 4]]  # of "this" and "text"
    mean = np.stack([*rows, rows.mean(0)])
    found = Embedder(str(static_encoder(tmp_path)))(["this", "text", "this text"])
    assert found == pytest.approx(mean / np.linalg.norm(mean, axis=1, keepdims=True), abs=1e-5)


def test_cosines_of_views_and_classes_are_not_beyond_1():
    """Rounding takes a vector's product with itself beyond 1 now and then."""
    z = np.random.default_rng(0).normal(size=(400, 384)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    texts = [str(i) for i in range(400)]
    assert (z * z).sum(-1).max() > 1, "the example must show it"
    assert Cosines(lambda known: z[[int(text) for text in known]])(texts, texts).max() <= 1
    wide = np.concatenate([z, -z])
    found = likeness(wide, np.arange(800), wide)
    assert found.max() <= 1 and found.min() > 0.999
