"""Files and directories that are complete or absent: written beside their place, flushed, checksummed, renamed.

A directory carries a `manifest.json` with the size and SHA-256 of every file and the caller's own `meta`. The manifest
is written last and contains its own checksum, so that `verify` notices any change, in the manifest too.

Only one process may write below a given parent directory at a time; any number may read.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nlp_ssl.errors import RunError, SSLError

MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"  # what a writer has not finished
REPLACED = ".replaced-"  # the former target, for the instant between the two renames of a replacement

# Libraries in Rust (safetensors, tokenizers) tell the operating system's error in their text alone.
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None}  # None: NumPy says "16 requested and 8 written", no number


class CheckpointError(RunError):
    """A saved directory is damaged, incomplete or does not fit what it is loaded into (codes 310-319)."""


@contextmanager
def write_dir(target: Path, meta: Mapping[str, Any]) -> Iterator[Path]:
    """Yields an empty directory beside `target`; when the block ends, its contents become `target` in one step.

    The block writes plain files and sub-directories there; `meta` (JSON values) may still change until it ends. When it
    raises, or the process dies, `target` stays as it was. A former `target` is replaced. Raises RunError when the disk
    is full or the place cannot be written.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(target.parent)
        temporary.mkdir()
        try:
            yield temporary
            _seal(temporary, meta)
            _move(temporary, target)
        finally:
            remove(temporary)
            _settle(target)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file in one step: a reader sees the old text or the new one, never a part.

    Raises RunError when the disk is full or the place cannot be written.
    """
    with write_file(path) as temporary, writing(path):
        _write_flushed(temporary, text)


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path`; when the block ends, the file written there becomes `path` in one step.

    Raises RunError when the place cannot be written; what the block raises passes as it is.
    """
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path.parent)
    try:
        yield temporary
        with writing(path):
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
    finally:
        remove(temporary)


def verify(folder: Path, *, contents: bool | Collection[str] = True) -> dict[str, Any]:
    """Checks every file of a directory made by `write_dir` against its manifest and returns its `meta`.

    Without `contents` only the sizes are looked at, which takes no time however large the files are; with names of
    files, these alone are read. Raises CheckpointError when the manifest is missing or damaged, a file is missing,
    changed or unexpected, or reading fails.
    """
    with reading(folder):
        files, meta = _read_manifest(folder)
        present = set(_files(folder)) - {MANIFEST}
        for name in sorted(files.keys() - present):
            raise CheckpointError(312, f"{folder / name} is missing: delete {folder} or restore the file")
        for name in sorted(present - files.keys()):
            raise CheckpointError(314, f"{folder / name} is not in the manifest: move it out of {folder}")
        for name, expected in files.items():
            _check_file(folder, name, expected, contents if isinstance(contents, bool) else name in contents)
    return meta


def clean(parent: Path) -> None:
    """Removes what killed writers left in `parent`, and finishes or undoes a replacement that was cut in two.

    Raises RunError when the place cannot be written.
    """
    with writing(parent):
        for path in parent.glob(f"{REPLACED}*"):
            _settle(parent / path.name.removeprefix(REPLACED))
        for path in parent.glob(f"{TEMPORARY}*"):
            remove(path)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a file that grows by a JSON object a line; none where it is absent. A damaged line is left out: the
    last one of a killed writer may be cut.
    """
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict):
            yield values


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it is absent or cannot be read, or is no regular file.
        ValueError: it is no JSON.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file")  # a pipe would be waited for
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_count(value: Any) -> bool:
    """Whether it is a whole number from 0 on, of a size that floats tell apart."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53


def is_number(value: Any) -> bool:
    """Whether it is a finite number of a size that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def discard(path: Path) -> None:
    """Removes a file or directory so that a kill meanwhile leaves it whole or absent (and a leftover for `clean`).

    Raises RunError when the place cannot be written.
    """
    with writing(path):
        temporary = _temporary(path.parent)
        os.rename(path, temporary)
        remove(temporary)


def remove(path: Path) -> None:
    """Removes a file or tree, if it is there; what cannot be removed now is left for the next `clean`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an operating-system error of the block, also one that a library passes on, into a one-line RunError that
    says how to get `path` written.
    """
    try:
        yield
    except OSError as error:
        raise _not_written(path, error) from error
    except Exception as error:
        number = None if isinstance(error, SSLError) else _SYSTEM_ERROR.search(str(error))
        if number is None:
            raise
        raise _not_written(path, OSError(int(number[1]), os.strerror(int(number[1])))) from error


def _not_written(path: Path, error: OSError) -> RunError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return RunError(316, f"no space left to write {path} ({reason}): free space or choose another place")
    return RunError(317, f"cannot write {path} ({reason}): make its directory writable or choose another place")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an operating-system error of the block into a one-line CheckpointError about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(315, f"cannot read {path} ({reason}): fix its permissions or delete it") from error


def _temporary(parent: Path) -> Path:
    return parent / f"{TEMPORARY}{uuid.uuid4().hex}"


def _flush(path: Path) -> None:
    """Waits until a file's bytes, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_flushed(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _seal(folder: Path, meta: Mapping[str, Any]) -> None:
    """Flushes all files, writes the manifest, and flushes the directories that name them."""
    # The directory was made by mkdir, so its mode shows the umask without changing it for other threads.
    mode = folder.stat().st_mode & 0o666
    files = {}
    for name in _files(folder):
        path = folder / name
        path.chmod(mode)  # some writers, safetensors among them, leave files that only their owner can read
        files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
        _flush(path)
    _write_flushed(folder / MANIFEST, manifest_text(files, meta))
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _flush(path)


def _move(temporary: Path, target: Path) -> None:
    """Renames a sealed directory to `target`, whose former contents step aside until `_settle`."""
    if os.path.lexists(target):
        aside = target.with_name(REPLACED + target.name)
        remove(aside)
        os.rename(target, aside)
    os.rename(temporary, target)
    _flush(target.parent)


def _settle(target: Path) -> None:
    """Ends a replacement: the former contents go once the new ones are in place, and come back when they are not."""
    aside = target.with_name(REPLACED + target.name)
    if os.path.lexists(aside):
        if os.path.lexists(target):
            remove(aside)
        else:
            os.rename(aside, target)


def _files(folder: Path) -> Iterator[str]:
    """Relative names, with forward slashes, of everything below `folder` that is not a real directory."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_text(files: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    body = {"files": files, "meta": meta}
    checksum = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": checksum}, indent=1, sort_keys=True) + "\n"


def _read_manifest(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
        files, meta = content["files"], content["meta"]
        intact = text == manifest_text(files, meta) and isinstance(files, dict) and isinstance(meta, dict)
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"{path} is missing, so {folder} was not written completely: delete that directory"
        raise CheckpointError(310, message) from error
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(311, f"{path} is damaged: delete {folder} or restore the file")
    return files, meta


def _check_file(folder: Path, name: str, expected: Mapping[str, Any], contents: bool) -> None:
    path = folder / name
    size = path.stat().st_size
    if size != expected["size"]:
        what = f"has {size} bytes instead of {expected['size']}"
    elif contents and _sha256(path) != expected["sha256"]:
        what = "has changed since it was saved"
    else:
        return
    raise CheckpointError(313, f"{path} {what}: delete {folder} or restore the file")
