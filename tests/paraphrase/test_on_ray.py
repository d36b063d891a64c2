"""Files shared out by a real Ray of two CPUs on this machine."""

import os
import sys
import time
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
from tiny import tiny_texts

from nlp_ssl.cli import run
from nlp_ssl.errors import RunError
from nlp_ssl.utils.ray_pool import on_ray

ray = pytest.importorskip("ray", reason="not installed: pip install '.[ray]'")


@pytest.fixture(scope="module")
def cluster():
    path = os.pathsep.join(p for p in sys.path if p)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    yield
    ray.shutdown()


@pytest.fixture
def pairs(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text(f"text {i}")
    return [(tmp_path / f"{i}.txt", tmp_path / f"{i}.out") for i in range(5)]


def worker(dies=False, fails=False, meets=False):
    """Work that notes its process; it may die once, fail at one file, or wait until another process works too."""

    @contextmanager
    def opened():
        def work(source, out):
            log = source.parent / "opened"
            if dies and source.name == "3.txt" and not (source.parent / "died").exists():
                (source.parent / "died").write_text("")
                os.kill(os.getpid(), 9)
            if fails and source.name == "3.txt":
                raise RunError(330, "broken")
            (source.parent / f"here-{os.getpid()}").write_text("")
            ends = time.monotonic() + 120
            while meets and len(list(source.parent.glob("here-*"))) < 2 and time.monotonic() < ends:
                time.sleep(0.05)
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            out.write_text(source.read_text().upper())
            return source.name

        yield work

    return opened


def outs(pairs):
    return [out.read_text() if out.exists() else None for _, out in pairs]


@pytest.mark.slow
def test_two_workers_do_all_files(cluster, pairs):
    assert sorted(on_ray(worker(meets=True), pairs, 2)) == [(f"{i}.txt", "") for i in range(5)]
    assert outs(pairs) == [f"TEXT {i}" for i in range(5)]
    pids = (pairs[0][0].parent / "opened").read_text().split()
    assert len(set(pids)) == 2 and str(os.getpid()) not in pids
    assert list(on_ray(worker(), [], 2)) == []


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(cluster, pairs):
    assert sorted(on_ray(worker(dies=True), pairs, 2)) == [(f"{i}.txt", "") for i in range(5)]
    assert (pairs[0][0].parent / "died").exists() and outs(pairs) == [f"TEXT {i}" for i in range(5)]


@pytest.mark.slow
def test_a_file_that_fails_is_named_and_the_others_are_done(cluster, pairs):
    found = sorted(on_ray(worker(fails=True), pairs, 2))
    assert found == [("", "SSL330: broken"), *((f"{i}.txt", "") for i in (0, 1, 2, 4))]
    assert outs(pairs) == ["TEXT 0", "TEXT 1", "TEXT 2", None, "TEXT 4"]


@pytest.mark.slow
def test_the_command_writes_the_same_files_on_ray(cluster, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    texts, _ = tiny_texts(30, seed=1)
    for i in range(3):
        (tmp_path / f"in/{i}.txt").write_text("\n".join(texts[10 * i : 10 * i + 10]) + "\n")
    argv = ["augment", str(tmp_path / "in"), "--how", "swap(p=0.5)", "--out"]
    assert run([*argv, str(tmp_path / "here")]) == 0
    here = capsys.readouterr().out
    assert run([*argv, str(tmp_path / "there"), "--scheduler", "ray", "--workers", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == here.splitlines()[0]
    for i in range(3):
        one, other = (pq.read_table(tmp_path / where / f"{i}.parquet") for where in ("here", "there"))
        assert one.equals(other) and one.num_rows == 10


def test_without_ray(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("a text of words\n")
    assert run(["augment", str(tmp_path / "in"), "--out", str(tmp_path / "o"), "--scheduler", "ray"]) == 2
    assert "SSL293: Ray is not installed: pip install" in capsys.readouterr().err
