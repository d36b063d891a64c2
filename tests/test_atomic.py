"""Directories and files are complete or absent, and any change to them is noticed."""

import json
import os
import stat

import pytest

from nlp_ssl.errors import RunError
from nlp_ssl.utils import atomic
from nlp_ssl.utils.atomic import CheckpointError, clean, discard, verify, write_dir, write_text


def make(target, meta=None, text="hello"):
    with write_dir(target, meta or {}) as folder:
        (folder / "a.txt").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.bin").write_bytes(b"\x00\x01")
    return target


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_directory_appears_whole_with_its_meta(tmp_path):
    meta = {"rate": 0.1, "none": None, "list": [1, "é\ud800"], "nested": {"nan": float("inf")}}
    target = make(tmp_path / "new" / "out", meta)
    assert verify(target) == meta
    assert (target / "sub" / "b.bin").read_bytes() == b"\x00\x01"
    assert names(tmp_path / "new") == ["out"]


def test_meta_may_be_filled_in_while_writing(tmp_path):
    meta = {}
    with write_dir(tmp_path / "out", meta):
        meta["rows"] = 3
    assert verify(tmp_path / "out") == {"rows": 3}


def test_nothing_is_visible_before_the_end(tmp_path):
    with write_dir(tmp_path / "out", {}) as folder:
        assert folder.parent == tmp_path and folder.name.startswith(".tmp-")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("meta", [{}, {"not JSON": object()}])
def test_a_failing_block_leaves_the_old_contents_alone(tmp_path, meta):
    target = make(tmp_path / "out", {"old": 1})
    with pytest.raises((KeyError, TypeError)), write_dir(target, meta) as folder:
        (folder / "a.txt").write_text("half")
        if not meta:
            raise KeyError("stop")
    assert verify(target) == {"old": 1}
    assert names(tmp_path) == ["out"]


def test_replacing_leaves_only_the_new_contents(tmp_path):
    target = make(tmp_path / "out", {"version": 1})
    with write_dir(target, {"version": 2}) as folder:
        (folder / "c.txt").write_text("new")
    assert verify(target) == {"version": 2}
    assert names(target) == ["c.txt", "manifest.json"] and names(tmp_path) == ["out"]


def test_a_link_to_a_directory_is_replaced_and_not_followed(tmp_path):
    elsewhere = make(tmp_path / "elsewhere", {"version": 1})
    (tmp_path / "out").symlink_to(elsewhere)
    make(tmp_path / "out", {"version": 2})
    assert verify(tmp_path / "out") == {"version": 2} and verify(elsewhere) == {"version": 1}


def test_a_dangling_link_is_replaced(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "absent")
    make(tmp_path / "out", {"version": 2})
    assert verify(tmp_path / "out") == {"version": 2} and names(tmp_path) == ["out"]


def test_a_failed_second_rename_brings_the_old_contents_back(tmp_path, monkeypatch):
    target = make(tmp_path / "out", {"version": 1})
    rename = os.rename

    def fail_on_the_new(source, destination):
        if str(source).rpartition("/")[2].startswith(".tmp-"):
            raise PermissionError(13, "Permission denied")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", fail_on_the_new)
    with pytest.raises(RunError, match="SSL317.*Permission denied"):
        make(target, {"version": 2})
    assert verify(target) == {"version": 1} and names(tmp_path) == ["out"]


def test_every_file_and_directory_is_flushed_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor):
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def record_rename(source, destination):
        events.append("rename")
        rename(source, destination)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    make(tmp_path / "out")
    temporary = events[-3]
    assert temporary.startswith(".tmp-")
    assert events == ["a.txt", "b.bin", "manifest.json", "sub", temporary, "rename", tmp_path.name]


DAMAGE = {
    "flip": (lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 4]) + path.read_bytes()[1:]), 313),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), 313),
    "grow": (lambda path: path.write_bytes(path.read_bytes() + b" "), 313),
    "delete": (lambda path: path.unlink(), 312),
}


@pytest.mark.parametrize("name", ["a.txt", "sub/b.bin"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_a_file_is_named(tmp_path, name, damage):
    target = make(tmp_path / "out")
    change, code = DAMAGE[damage]
    change(target / name)
    with pytest.raises(CheckpointError) as caught:
        verify(target)
    message = str(caught.value)
    assert caught.value.code == code and f"{target / name} " in message and "\n" not in message
    assert f"delete {target} or restore the file" in message
    assert ("bytes instead of" in message) == (damage in ("cut", "grow"))


def test_every_byte_of_the_manifest_counts(tmp_path):
    manifest = make(tmp_path / "out", {"rate": 0.1}) / "manifest.json"
    good = manifest.read_bytes()
    for index in range(len(good)):
        bad = bytearray(good)
        bad[index] ^= 1 << index % 8
        manifest.write_bytes(bad)
        with pytest.raises(CheckpointError, match="SSL311"):
            verify(tmp_path / "out")
    manifest.write_bytes(good)
    assert verify(tmp_path / "out") == {"rate": 0.1}


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"files": [], "meta": {}}', "[" * 100_000, "\xff"])
def test_a_manifest_of_another_kind_is_refused(tmp_path, text):
    manifest = make(tmp_path / "out") / "manifest.json"
    manifest.write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="SSL311"):
        verify(tmp_path / "out")


def test_a_manifest_with_a_right_checksum_but_no_table_of_files_is_refused(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text(atomic.manifest_text([], {}))
    with pytest.raises(CheckpointError, match="SSL311"):
        verify(tmp_path / "out")


def test_a_missing_manifest_means_not_written_completely(tmp_path):
    target = make(tmp_path / "out")
    (target / "manifest.json").unlink()
    for path in (target, tmp_path / "absent", target / "a.txt"):
        with pytest.raises(CheckpointError, match="SSL310.*not written completely"):
            verify(path)


@pytest.mark.parametrize("name", ["evil.pkl", "sub/evil.bin", "manifest.json.bak", "link"])
def test_an_unexpected_file_is_refused(tmp_path, name):
    target = make(tmp_path / "out")
    if name == "link":
        (target / name).symlink_to(tmp_path)
    else:
        (target / name).write_text("x")
    with pytest.raises(CheckpointError, match=f"SSL314.*{name}"):
        verify(target)


@pytest.mark.timeout(10)
def test_a_special_file_in_place_of_a_file_does_not_hang(tmp_path):
    target = make(tmp_path / "out")
    (target / "a.txt").unlink()
    os.mkfifo(target / "a.txt")
    with pytest.raises(CheckpointError, match="SSL313.*has 0 bytes instead of 5"):
        verify(target)


def test_clean_removes_leftovers_and_nothing_else(tmp_path):
    make(tmp_path / "out")
    (tmp_path / ".tmp-dir" / "deep").mkdir(parents=True)
    (tmp_path / ".tmp-dir" / "deep" / "x").write_text("x")
    (tmp_path / ".tmp-file").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "tmp-mine").mkdir()
    clean(tmp_path)
    assert names(tmp_path) == [".hidden", "out", "tmp-mine"]
    clean(tmp_path / "absent")


def test_clean_ends_a_replacement_that_was_cut_in_two(tmp_path):
    make(tmp_path / ".replaced-back", {"version": 1})
    make(tmp_path / ".replaced-gone", {"version": 1})
    make(tmp_path / "gone", {"version": 2})
    clean(tmp_path)
    assert names(tmp_path) == ["back", "gone"]
    assert verify(tmp_path / "back") == {"version": 1} and verify(tmp_path / "gone") == {"version": 2}


def test_discard_renames_first(tmp_path, monkeypatch):
    target = make(tmp_path / "out")
    monkeypatch.setattr(atomic, "remove", lambda path: None)  # as if killed before the first file goes
    discard(target)
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".tmp-")
    verify(leftover)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with write_dir(tmp_path / "out", {}) as folder:
            (folder / "private").write_text("x")
            (folder / "private").chmod(0o600)
        write_text(tmp_path / "text", "x")
    finally:
        os.umask(before)
    for name in ("out/private", "out/manifest.json", "text"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask, name
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask


def test_write_text_replaces_and_keeps_line_ends(tmp_path):
    path = tmp_path / "new" / "report.html"
    write_text(path, "old")
    write_text(path, "é\r\n\n")
    assert path.read_bytes() == "é\r\n\n".encode()
    assert names(path.parent) == ["report.html"]


def test_who_reads_meanwhile_sees_the_old_text(tmp_path):
    write_text(tmp_path / "text", "old")
    with (tmp_path / "text").open() as reader:
        write_text(tmp_path / "text", "new")
        assert reader.read() == "old"


def test_write_text_keeps_the_old_text_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "text"
    write_text(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="SSL316: no space left .*free space or choose another place"):
        write_text(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["text"]


def test_a_file_in_the_way_of_the_parent_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    for write in (lambda path: make(path), lambda path: write_text(path, "x")):
        with pytest.raises(RunError, match="SSL317: cannot write") as caught:
            write(tmp_path / "file" / "out")
        assert "\n" not in str(caught.value)


def test_the_manifest_is_plain_json(tmp_path):
    content = json.loads((make(tmp_path / "out", {"step": 1}) / "manifest.json").read_text())
    assert content["meta"] == {"step": 1}
    assert content["files"]["sub/b.bin"]["size"] == 2


def test_a_short_write_of_numpy_is_a_full_disk(tmp_path):
    with pytest.raises(RunError, match="SSL316: no space left to write"), write_dir(tmp_path / "a", {}):
        raise OSError("16 requested and 8 written")
