"""A disk that is full at any write: one line with a code, nothing half written left, and the next attempt works."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers
from safetensors import SafetensorError
from tiny import saved_classifier, tiny_bert, tiny_texts

from nlp_ssl import TrainConfig, cli
from nlp_ssl.errors import RunError
from nlp_ssl.experiments import pretrain
from nlp_ssl.inference.export import export
from nlp_ssl.nets.text import TextNet, load_trained
from nlp_ssl.task import Task
from nlp_ssl.training.model_files import copy_model, save_model
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.utils import atomic
from nlp_ssl.utils.lock import exclusive
from nlp_ssl.utils.parquet import write_parquet

FULL = OSError(errno.ENOSPC, "No space left on device")
IN_WORDS = "No space left on device (os error 28)"  # all that libraries in Rust tell
WRITES: dict[str, tuple[object, str, Exception]] = {
    "weights": (transformers.modeling_utils, "safe_save_file", SafetensorError(f"Error: I/O error: {IN_WORDS}")),
    "tokenizer": (transformers.PreTrainedTokenizerFast, "save_pretrained", Exception(IN_WORDS)),
    "config": (transformers.PreTrainedConfig, "save_pretrained", FULL),
    "copy": (shutil, "copyfile", FULL),
    "rename": (os, "replace", FULL),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_classifier(tmp_path_factory.mktemp("model"), ["neg", "pos"], tiny_texts(8, seed=0)[0])


@pytest.fixture(scope="module")
def net(model: Path) -> TextNet:
    return load_trained(model)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Makes the n-th write of a kind, counted from 0, and all after it fail."""

    def patched(kind: str, number: int) -> None:
        owner, name, error = WRITES[kind]
        write, calls = getattr(owner, name), iter(range(10_000))

        def written(*args: Any, **named: Any) -> Any:
            if next(calls) >= number:
                raise error
            return write(*args, **named)

        monkeypatch.setattr(owner, name, written)

    return patched


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith((".model-", atomic.TEMPORARY))]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("kind", "number"), [("weights", 0), ("tokenizer", 0), ("config", 0), *(("rename", n) for n in range(4))]
)
def test_a_model_is_saved_or_nothing_half_is_left(
    net: TextNet, model: Path, tmp_path: Path, full: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch,
    kind: str, number: int,
) -> None:  # fmt: skip
    full(kind, number)
    with pytest.raises(RunError, match=r"^SSL316: no space left to write .*No space left on device"):
        save_model(net, tmp_path / "out")
    assert not leftovers(tmp_path) and not (tmp_path / "out/config.json").exists()
    monkeypatch.undo()
    save_model(net, tmp_path / "out")
    weights = "model.safetensors"
    assert contents(tmp_path / "out").keys() == contents(model).keys()
    assert contents(tmp_path / "out")[weights] == contents(model)[weights]


@pytest.mark.parametrize(("kind", "number"), [("copy", 0), ("copy", 2), ("rename", 0), ("rename", 3)])
def test_a_model_is_copied_or_nothing_half_is_left(
    model: Path, tmp_path: Path, full: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, kind: str,
    number: int,
) -> None:  # fmt: skip
    full(kind, number)
    with pytest.raises(RunError, match="SSL316"):
        copy_model(model, tmp_path / "out")
    assert not leftovers(tmp_path) and not (tmp_path / "out/config.json").exists()
    monkeypatch.undo()
    copy_model(model, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(model)


@pytest.mark.parametrize("write", [save_model, copy_model])
def test_what_a_killed_writer_left_goes_with_the_next_one(
    net: TextNet, model: Path, tmp_path: Path, write: Callable[[Any, Path], None]
) -> None:
    (tmp_path / ".model-1").write_text("half a file")
    (tmp_path / ".model-2").mkdir()
    (tmp_path / ".model-2/config.json").write_text("{}")
    write(net if write is save_model else model, tmp_path)
    assert not leftovers(tmp_path)


def test_a_folder_that_a_run_takes_over_is_cleaned(tmp_path: Path) -> None:
    (tmp_path / f"{atomic.TEMPORARY}0123").write_text('{"scores": ')
    (tmp_path / "kept.txt").write_text("of the user")
    with exclusive(tmp_path):
        assert not leftovers(tmp_path)
    assert (tmp_path / "kept.txt").exists()


@pytest.mark.parametrize("error", [WRITES["weights"][2], WRITES["tokenizer"][2], FULL])
def test_a_library_s_words_for_a_full_disk_are_understood(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(RunError, match=r"^SSL316: .*\(No space left on device\): free space"), atomic.writing(tmp_path):
        raise error


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no number"), atomic.writing(tmp_path):
        raise ValueError("no number")
    inner = RunError(301, "the loss (os error 28)")
    with pytest.raises(RunError) as raised, atomic.writing(tmp_path):
        raise inner
    assert raised.value is inner


@pytest.mark.parametrize("where", ["write_table", "close"])
def test_a_parquet_file_that_cannot_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*args: object, **named: object) -> None:
        raise FULL

    monkeypatch.setattr(pq.ParquetWriter, where, fail)
    with pytest.raises(RunError, match="SSL316"):
        write_parquet(tmp_path / "rows.parquet", [("a",)], pa.schema([("text", pa.string())]))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    tiny_bert(folder / "model")
    (folder / "u.txt").write_text("\n".join(tiny_texts(12, seed=5)[0]))
    return folder


def pretraining(files: Path, out: Path) -> list[str]:
    return ["pretrain", str(files / "u.txt"), "--model", str(files / "model"), "--max-steps", "1", "--batch-size", "2",
            "--max-length", "16", "--cache-dir", str(files / "cache"), "--output-dir", str(out)]  # fmt: skip


@pytest.mark.parametrize("kind", ["weights", "tokenizer", "config"])
def test_pretrain_ends_in_one_line(
    files: Path, tmp_path: Path, full: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], kind: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(pretrain, "train", lone_fit)
    full(kind, 0)
    assert cli.run(pretraining(files, tmp_path / "out")) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("SSL316: no space left to write")
    assert not leftovers(tmp_path) and not (tmp_path / "out/model.safetensors").exists()


def lone_fit(method: Any, task: Task, config: TrainConfig, folder: RunFolder) -> Any:
    """A fit without its own files: what is written afterwards is looked at."""
    folder.path.mkdir()
    return type("Trained", (), {"module": task.build(0)})


def test_pretraining_whose_weights_cannot_be_kept(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object) -> None:
        raise WRITES["weights"][2]

    monkeypatch.setattr(pretrain, "train", lone_fit)
    monkeypatch.setattr(pretrain, "save_file", fail)
    assert cli.run(pretraining(files, tmp_path / "out")) == 1
    assert "SSL316: no space left to write" in capsys.readouterr().err and not list((tmp_path / "out").iterdir())


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception]]:
    """The error that writing a graph ends in."""
    module = pytest.importorskip("transformers.exporters.exporter_onnx")
    errors: list[Exception] = []

    def fail(*args: object, **named: object) -> None:
        raise errors[0]

    monkeypatch.setattr(module.OnnxExporter, "export", fail)
    yield errors


@pytest.mark.parametrize("error", [FULL, OSError("problem writing element 1024 to file")])
def test_export_tells_a_full_disk_from_a_model_that_has_no_graph(
    model: Path, tmp_path: Path, exporter: list[Exception], error: OSError
) -> None:
    exporter.append(error)
    with pytest.raises(RunError, match=f"^SSL316: no space left to write {tmp_path / 'onnx'} "):
        export(model, tmp_path / "onnx", texts=["good fun"])
    exporter[:] = [RuntimeError("no such operator")]
    with pytest.raises(RunError, match="SSL391"):
        export(model, tmp_path / "onnx", texts=["good fun"])
    assert not list(tmp_path.iterdir())


def test_export_on_a_disk_that_is_full_for_the_tokenizer(
    model: Path, tmp_path: Path, full: Callable[[str, int], None]
) -> None:
    full("tokenizer", 0)
    with pytest.raises(RunError, match="SSL316"):
        export(model, tmp_path / "onnx", texts=["good fun"])
    assert not list(tmp_path.iterdir())
