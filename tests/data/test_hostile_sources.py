"""Values that Python cannot hold, columns of one name, and what is neither a file nor a folder: one line, at once."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlp_ssl import cli
from nlp_ssl.data.sources import column_values, read_table, stream_rows, stream_texts
from nlp_ssl.errors import DataError
from nlp_ssl.paraphrase.views import made_of, read_views

TEXTS, LABELS = pa.array(["good", "bad"]), pa.array(["pos", "neg"])
READ: dict[str, Callable[[Path], Any]] = {
    "table": lambda path: read_table(path, expect_labels=True),
    "rows": lambda path: list(stream_rows(path, counts=Counter())),
    "texts": lambda path: list(stream_texts(path, counts=Counter())),
    "column": lambda path: column_values(path, "text"),
}


def parquet(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(autouse=True)
def not_for_ever() -> Iterator[None]:
    """Ends what waits for a pipe."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# ---- two columns of one name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("read", READ)
def test_two_columns_of_one_name(tmp_path: Path, read: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_arrays([TEXTS, TEXTS, LABELS], names=["text", "text", "label"]), path)
    else:
        path.write_text("text,text,label\ngood,fun,pos\nbad,dull,neg\n")
    with pytest.raises(DataError, match="SSL109: .*column 'text' occurs more than once: rename one of them"):
        READ[read](path)


@pytest.mark.parametrize("read", READ)
def test_two_columns_of_one_name_that_nobody_reads(tmp_path: Path, read: str) -> None:
    names = ["text", "label", "id", "id"]
    pq.write_table(pa.Table.from_arrays([TEXTS, LABELS, LABELS, LABELS], names=names), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("text,label,,\ngood,pos,,\nbad,neg,,\n")
    for name in ("a.parquet", "a.csv"):
        assert len(READ[read](tmp_path / name)) == 2


def test_two_columns_of_one_name_in_a_frame() -> None:
    frame = pd.DataFrame([["good", "pos", "pos"]], columns=["text", "label", "label"])
    with pytest.raises(DataError, match="SSL109: .*'label'"):
        read_table(frame, expect_labels=True)


def test_two_columns_of_one_name_among_views(tmp_path: Path) -> None:
    views = pa.Table.from_arrays([TEXTS, TEXTS, TEXTS], names=["text", "view", "view"])
    pq.write_table(views, tmp_path / "views.parquet")
    with pytest.raises(DataError, match="SSL140"):
        read_views(tmp_path / "views.parquet")


# ---- values ---------------------------------------------------------------------------------------------------------

FAR = {
    "date32": pa.array([2**31 - 1, 0], pa.date32()),
    "timestamp": pa.array([2**62, 0], pa.timestamp("us")),
    "zoned": pa.array([2**62, 0], pa.timestamp("us", tz="UTC")),
    "duration": pa.array([2**62, 0], pa.duration("s")),
    "list": pa.array([[2**31 - 1], [0]], pa.list_(pa.date32())),
    "struct": pa.StructArray.from_arrays([LABELS, LABELS], names=["a", "a"]),
}


@pytest.mark.parametrize("kind", FAR)
def test_a_label_that_python_cannot_hold(tmp_path: Path, kind: str) -> None:
    path = parquet(tmp_path / "a.parquet", text=TEXTS, label=FAR[kind])
    wanted = "SSL154: .*after row 0: column 'label' of type .* cannot be read .*: write it as text"
    with pytest.raises(DataError, match=wanted):
        read_table(path, expect_labels=True)
    with pytest.raises(DataError, match=wanted):
        column_values(path, "label")
    assert list(stream_texts(path, counts=Counter())) == ["good", "bad"], "nobody asked for that column"


@pytest.mark.parametrize("read", READ)
def test_a_text_that_python_cannot_hold(tmp_path: Path, read: str) -> None:
    with pytest.raises(DataError, match="SSL154: .*column 'text' of type duration"):
        READ[read](parquet(tmp_path / "a.parquet", text=FAR["duration"], label=LABELS))


# ---- pipes and devices ----------------------------------------------------------------------------------------------


def pipe(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.parquet", "a.txt.gz", "a"])
@pytest.mark.parametrize("read", READ)
def test_a_pipe_is_refused(tmp_path: Path, read: str, name: str) -> None:
    with pytest.raises(DataError, match="SSL153: .*a pipe, a device or a socket, not a file: write its rows to a file"):
        READ[read](pipe(tmp_path, name))


def test_a_device_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="SSL153"):
        read_table(tmp_path / "a.txt")


def test_pipes_in_place_of_views(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SSL153"):
        read_views(pipe(tmp_path, "views.parquet"))
    assert made_of(tmp_path / "views.parquet") is None


def test_a_pipe_beside_the_files_of_a_folder_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\ngood,pos\nbad,neg\n")
    pipe(folder, "test.csv")
    assert len(read_table(folder)) == 2


@pytest.mark.parametrize(
    "command",
    [
        ["augment", "{pipe}", "--how", "swap:0.2", "--out", "{folder}/views.parquet"],
        ["augment", "{pipe}", "--how", "swap:0.2", "--out", "{folder}/views.parquet", "--overwrite"],
        ["doctor", "--labeled", "{pipe}"],
        ["doctor", "--labeled", "{folder}/l.csv", "--unlabeled", "{pipe}"],
        ["pretrain", "{pipe}", "--output-dir", "{folder}/out"],
        ["index", "build", "{pipe}", "--out", "{folder}/bank"],
        ["train", "--labeled", "{folder}/l.csv", "--unlabeled", "{pipe}", "--output-dir", "{folder}/out"],
    ],
)
def test_commands_do_not_wait_for_a_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (tmp_path / "l.csv").write_text("text,label\ngood,pos\nbad,neg\n")
    place = pipe(tmp_path, "pool.txt")
    assert cli.run([word.format(pipe=place, folder=tmp_path) for word in command]) == 3
    assert "SSL153" in "".join(capsys.readouterr())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.csv", "pool.txt"]


def test_augment_refuses_to_compare_with_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "u.txt").write_text("good fun\n")
    out = pipe(tmp_path, "views.parquet")
    assert cli.run(["augment", str(tmp_path / "u.txt"), "--how", "swap:0.2", "--out", str(out)]) == 2
    assert "SSL442" in capsys.readouterr().err
