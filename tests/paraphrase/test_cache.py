"""The cache of rewritings: what is written is found, whatever killed the writer, and by other processes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from filelock import FileLock

from nlp_ssl.errors import RunError
from nlp_ssl.paraphrase.cache import ENTRY, Cache, key_of

KEYS = [key_of("engine", f"text {i}", 0) for i in range(50)]


def fill(folder, keys=KEYS, prefix="view"):
    with Cache(folder) as cache:
        for number, key in enumerate(keys):
            cache.put(key, f"{prefix} {number} é")


def test_found_again_and_counted(tmp_path):
    fill(tmp_path)
    with Cache(tmp_path) as cache:
        assert cache.get(KEYS[::-1]) == [f"view {i} é" for i in range(49, -1, -1)]
        assert cache.get([key_of("engine", "text 1", 1), key_of("other", "text 1", 0)]) == [None, None]
        assert (cache.written, len(cache)) == (0, 50)


def test_a_folder_in_place_of_a_segment_is_named(tmp_path):
    (tmp_path / "000.index").mkdir()
    with pytest.raises(RunError, match="cannot read .*000.index"):
        Cache(tmp_path)


def test_own_texts_are_found_at_once(tmp_path):
    with Cache(tmp_path) as cache:
        assert cache.get(KEYS[:1]) == [None]
        cache.put(KEYS[0], "")
        cache.put(KEYS[1], "b\nc")
        assert cache.get(KEYS[:3]) == ["", "b\nc", None]
        assert (cache.written, len(cache)) == (2, 2)


def test_keys_differ_in_every_part():
    assert len({key_of(e, t, s) for e in ("a", "b") for t in ("x", "y", "\ud800") for s in (0, 1)}) == 12


@pytest.mark.parametrize("cut", [1, ENTRY.itemsize - 1, ENTRY.itemsize + 5])
def test_half_an_entry_is_passed_over_and_written_over(tmp_path, cut):
    fill(tmp_path)
    index = tmp_path / "000.index"
    os.truncate(index, index.stat().st_size - cut)
    lost = 1 + cut // ENTRY.itemsize
    with Cache(tmp_path) as cache:
        assert cache.get(KEYS).count(None) == lost
        for key in KEYS[-lost:]:
            cache.put(key, "again")
    with Cache(tmp_path) as cache:
        assert cache.get(KEYS)[-lost - 1 :] == [f"view {49 - lost} é", *["again"] * lost]


def test_a_damaged_or_missing_text_is_missing(tmp_path):
    fill(tmp_path)
    text = tmp_path / "000.text"
    data = bytearray(text.read_bytes())
    data[3] ^= 1
    text.write_bytes(data)
    os.truncate(text, len(data) - 2)
    with Cache(tmp_path) as cache:
        assert [i for i, found in enumerate(cache.get(KEYS)) if found is None] == [0, 49]
        cache.put(KEYS[0], "mended")
    with Cache(tmp_path) as cache:
        assert cache.get(KEYS[:2]) == ["mended", "view 1 é"]
    text.unlink()
    with Cache(tmp_path) as cache:
        assert cache.get(KEYS[:1]) == [None]


def test_each_writer_has_a_segment_of_its_own(tmp_path):
    with Cache(tmp_path) as one, Cache(tmp_path) as two:
        one.put(KEYS[0], "one")
        two.put(KEYS[1], "two")
        one.put(KEYS[2], "one")
    assert sorted(p.name for p in tmp_path.glob("*.index")) == ["000.index", "001.index"]
    with Cache(tmp_path) as cache:
        assert cache.get(KEYS[:3]) == ["one", "two", "one"]
        cache.put(KEYS[3], "three")  # the first segment is free again
    assert len(list(tmp_path.glob("*.index"))) == 2


WRITER = """
import sys, time
from pathlib import Path
from nlp_ssl.paraphrase.cache import Cache, key_of
with Cache(Path(sys.argv[1])) as cache:
    for i in range(10**6):
        cache.put(key_of("e", str(i), 0), "v" * 50 + str(i))
        print(i, flush=True)
"""


def test_kill_loses_nothing_that_was_finished(tmp_path):
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        last = [writer.stdout.readline() for _ in range(200)][-1]
        os.kill(writer.pid, signal.SIGKILL)
        last = (writer.stdout.read().split("\n")[-2:] or [last])[0] or last
        writer.wait()
        with Cache(tmp_path) as cache:
            done = int(last)
            found = cache.get([key_of("e", str(i), 0) for i in range(done + 1)])
            assert found == ["v" * 50 + str(i) for i in range(done + 1)]
    assert FileLock(tmp_path / "000.lock").acquire(timeout=0)
    time.sleep(0)


def test_many_lookups_are_fast(tmp_path):
    """50,000 texts a second and more is what a second run is promised; a scan per text would take minutes."""
    fill(tmp_path, [key_of("e", str(i), 0) for i in range(20_000)])
    with Cache(tmp_path) as cache:
        start = time.process_time()
        found = cache.get([key_of("e", str(i), 0) for i in np.random.default_rng(0).permutation(20_000)])
        assert all(found) and time.process_time() - start < 5


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="SSL317"):
        Cache(tmp_path / "file" / "cache")
