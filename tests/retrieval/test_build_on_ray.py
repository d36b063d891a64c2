"""An index whose texts are encoded by a real Ray of two CPUs on this machine, against one built in one process."""

import os
import sys

import pytest
from banks import embed, files_of, static_encoder

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


def on_ray(folder, corpus, encode=embed):
    return build(folder, [str(corpus)], BankOptions(part_size=64), encoder="none", ray_workers=2, embed=encode)


@pytest.mark.slow
def test_the_command_builds_the_same_index_on_ray(cluster, tmp_path, corpus, capsys):
    static = static_encoder(tmp_path / "static")
    argv = ["index", "build", str(corpus), "--part-size", "64", "--kind", "sq8", "--encoder", str(static), "--out"]
    assert run([*argv, str(tmp_path / "here")]) == 0
    assert run([*argv, str(tmp_path / "there"), "--scheduler", "ray", "--workers", "2"]) == 0
    here, there = capsys.readouterr().out.splitlines()[:2], files_of(tmp_path / "there")
    assert here[0].startswith("500 texts, 16 dimensions") and len(there) == 8 * 5 + 2 + 1
    assert there == files_of(tmp_path / "here")
    assert run(["index", "search", str(tmp_path / "there"), "text number 77", "-k", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("  this is the text number 77")


@pytest.mark.slow
def test_a_build_whose_worker_failed_goes_on(cluster, tmp_path, corpus):
    """The other parts are there, and are not encoded again."""
    log, broken = tmp_path / "log", tmp_path / "broken"
    broken.write_text("")

    def logged(texts):
        if "this is the text number 200" in texts and broken.exists():
            raise RunError(332, "broken")
        with log.open("a") as file:
            file.write(f"{len(texts)}\n")
        return embed(texts)

    with pytest.raises(RunError, match="SSL340: 1 of 8 parts were not encoded; the first: SSL332: broken"):
        on_ray(tmp_path / "i", corpus, logged)
    assert len(list((tmp_path / "i" / "parts").glob("[0-9]*"))) == 7
    broken.unlink()
    log.write_text("")
    on_ray(tmp_path / "i", corpus, logged)
    assert log.read_text() == "64\n"
    build(tmp_path / "whole", [str(corpus)], BankOptions(part_size=64), encoder="none", embed=embed)
    assert files_of(tmp_path / "i") == files_of(tmp_path / "whole")
