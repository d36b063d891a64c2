"""Seeded draws, and when two texts are the same."""

import numpy as np
import pyarrow as pa
import pytest
from tiny import tiny_images

from nlp_ssl.data.label_noise import with_label_noise
from nlp_ssl.data.splits import draw_groups, draw_per_class, text_keys
from nlp_ssl.errors import ConfigError, DataError


def test_draw_per_class_is_balanced_seeded_and_skips_missing_labels():
    labels = ["b", "a", None, "a", "b", "a", "b", None]
    drawn = draw_per_class(labels, 2, seed=3)
    assert sorted(labels[i] for i in drawn) == ["a", "a", "b", "b"]
    assert drawn.tolist() == sorted(drawn.tolist()) == draw_per_class(labels, 2, seed=3).tolist()
    assert len({tuple(draw_per_class(labels, 1, seed=s)) for s in range(20)}) > 3
    with pytest.raises(DataError, match="class 'a' has 3 labeled rows, 4 were asked for"):
        draw_per_class(labels, 4, seed=0)


def test_draw_groups_keeps_groups_whole():
    groups = [f"film {i % 50}" for i in range(500)]
    drawn = draw_groups(groups, 0.2, seed=0)
    inside = {group for group, taken in zip(groups, drawn, strict=True) if taken}
    outside = {group for group, taken in zip(groups, drawn, strict=True) if not taken}
    assert (len(inside), len(outside), inside & outside) == (10, 40, set())
    assert (draw_groups(groups, 0.2, seed=0) == drawn).all()
    assert (draw_groups(groups, 0.2, seed=1) != drawn).any()
    assert draw_groups(groups, 0.001, seed=0).sum() == 10


def test_text_keys_ignore_case_and_space_only():
    texts = ["Good  film", "good film", "\tGOOD\nFILM ", "Straße", "STRASSE", "goodfilm", "good film."]
    keys = text_keys(pa.chunked_array([texts[:3], texts[3:]], pa.large_string()))
    assert keys.dtype == np.uint64
    assert len(set(keys[:3].tolist())) == len(set(keys[3:5].tolist())) == 1
    assert len(set(keys.tolist())) == 4


def test_label_noise_changes_a_share_of_the_labeled_rows_and_nothing_else():
    data = tiny_images().data
    noisy = with_label_noise(data, 0.4, seed=3)
    changed = np.flatnonzero(noisy.labels != data.labels)
    assert len(changed) == round(0.4 * len(data.labeled)) and set(changed) <= set(data.labeled)
    assert noisy.labels.min() >= 0 and noisy.labels.max() < len(data.classes)
    assert (
        noisy.content_hash != data.content_hash
        and with_label_noise(data, 0.4, seed=3).content_hash == noisy.content_hash
    )
    assert (with_label_noise(data, 0.4, seed=4).labels != noisy.labels).any()
    with pytest.raises(ConfigError, match="label_noise must lie in"):
        with_label_noise(data, 1.5, seed=0)
