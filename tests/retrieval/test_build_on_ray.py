"""An index whose texts are encoded by a real Ray of two CPUs on this machine, against one built in one process."""

import os
import sys

import pytest
from banks import embed, files_of
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from nlp_ssl.cli import run
from nlp_ssl.errors import RunError
from nlp_ssl.retrieval import BankOptions, build

ray = pytest.importorskip("ray", reason="not installed: pip install '.[ray]'")


@pytest.fixture(scope="module")
def cluster():
    path = os.pathsep.join(p for p in sys.path if p)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    yield
    ray.shutdown()


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"this is the text number {i}\n" for i in [*range(500), *range(50)]))
    return path


@pytest.fixture
def static(tmp_path):
    """The folder of an encoder that averages a vector for each word."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    words = {word: i for i, word in enumerate(["[UNK]", *"this is the text number".split(), *map(str, range(500))])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)]).save(str(tmp_path / "static"))
    return tmp_path / "static"


def on_ray(folder, corpus, encode=embed):
    return build(folder, [str(corpus)], BankOptions(part_size=64), encoder="none", ray_workers=2, embed=encode)


@pytest.mark.slow
def test_the_command_builds_the_same_index_on_ray(cluster, tmp_path, corpus, static, capsys):
    argv = ["index", "build", str(corpus), "--part-size", "64", "--kind", "sq8", "--encoder", str(static), "--out"]
    assert run([*argv, str(tmp_path / "here")]) == 0
    assert run([*argv, str(tmp_path / "there"), "--engine", "ray", "--workers", "2"]) == 0
    here, there = capsys.readouterr().out.splitlines()[:2], files_of(tmp_path / "there")
    assert here[0].startswith("500 texts, 16 dimensions") and len(there) == 8 * 5 + 2 + 1
    assert there == files_of(tmp_path / "here")
    assert run(["index", "search", str(tmp_path / "there"), "text number 77", "--k", "1"]) == 0
    assert "1.000  this is the text number 77" in capsys.readouterr().out.replace("0.9", "1.0")


@pytest.mark.slow
def test_a_build_that_was_stopped_goes_on_either_way(cluster, tmp_path, corpus):
    def failing(texts):
        if "this is the text number 200" in texts:
            raise RunError(332, "broken")
        return embed(texts)

    build(tmp_path / "whole", [str(corpus)], BankOptions(part_size=64), encoder="none", embed=embed)
    for name, workers in (("a", 0), ("b", 2)):
        with pytest.raises(RunError, match="SSL340: 1 of 8 parts were not encoded; the first: SSL332: broken"):
            on_ray(tmp_path / name, corpus, failing)
        assert len(list((tmp_path / name / "parts").glob("[0-9]*"))) == 7
        encoded = []

        def counted(texts, encoded=encoded):
            encoded.extend(texts)
            return embed(texts)

        build(tmp_path / name, [str(corpus)], BankOptions(part_size=64), encoder="none", ray_workers=workers,
              embed=counted if workers == 0 else embed)  # fmt: skip
        assert workers or len(encoded) == 64
        assert files_of(tmp_path / name) == files_of(tmp_path / "whole")
