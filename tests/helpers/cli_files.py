"""The command line in process, on small files."""

from pathlib import Path

from tiny import tiny_bert, tiny_texts

from nlp_ssl.cli import run


def command_files(folder: Path) -> Path:
    """A tiny model and files of labeled rows, of a pool and of test rows: "model", "l.csv", "u.txt", "t.csv"."""
    tiny_bert(folder / "model", names=("other", "classes"))  # a task starts with a last layer of its own
    texts, labels = tiny_texts(120, seed=5)
    lines = ["text,label", *(f"{t},{y}" for t, y in zip(texts, labels, strict=True))]
    (folder / "l.csv").write_text("\n".join(lines[:17]) + "\n")
    (folder / "u.txt").write_text("\n".join(texts[16:80]) + "\n")
    (folder / "t.csv").write_text("\n".join([lines[0], *lines[81:]]) + "\n")
    return folder


def train(files: Path, out: Path, *more: str) -> int:
    """The exit code of a short `train` on these files."""
    return run([
        "train", "--model", str(files / "model"), "--labeled", str(files / "l.csv"), "--unlabeled",
        str(files / "u.txt"), "--test", str(files / "t.csv"), "--max-steps", "4", "--batch-size", "4",
        "--max-length", "24", "--warm-steps", "3", "--mixed-precision", "no", "--cache-dir", str(files / "cache"),
        "--output-dir", str(out), *more,
    ])  # fmt: skip
