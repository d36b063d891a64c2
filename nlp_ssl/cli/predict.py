"""`nlp-ssl predict`: label and probability per text, streaming."""

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nlp_ssl.cli.options import parse
from nlp_ssl.data.sources import read_table
from nlp_ssl.errors import ConfigError
from nlp_ssl.evaluate import longest_text, predict_texts
from nlp_ssl.method import check
from nlp_ssl.nets.text import load_trained

_CHUNK = 4096  # texts read, sorted by length and predicted at a time


@dataclass(frozen=True)
class Options:
    """Flags of `predict`."""

    text_column: Annotated[str | None, "column of the texts"] = None
    pair_column: Annotated[str | None, "column of the second texts, for a model of pairs"] = None
    encoding: Annotated[str, "of the file"] = "utf-8"
    max_length: Annotated[int | None, "tokens; longer texts are cut; by default as in training"] = None

    def __post_init__(self) -> None:
        if self.max_length is not None:
            check(self.max_length, "max_length", 3, 1e6)


def main(argv: Sequence[str]) -> None:
    """`nlp-ssl predict MODEL_DIR FILE`: one line `label<TAB>probability` per text on standard output."""
    places = [a for a in argv[:2] if not a.startswith("-")]
    doc = "Writes label and probability of every text of FILE, in order, one line each."
    (options,) = parse(list(argv)[len(places) :], Options(), name="nlp-ssl predict MODEL_DIR FILE", doc=doc)
    if len(places) != 2:
        raise ConfigError(206, "predict needs a model folder and a file of texts: nlp-ssl predict out texts.txt")
    writer = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
    for label, probability in predict_file(Path(places[0]), Path(places[1]), options):
        writer.writerow(["", ""] if label is None else [_harmless(label), f"{probability:.4f}"])
    sys.stdout.flush()


def predict_file(model: Path, file: Path, options: Options) -> Iterator[tuple[str | None, float]]:
    """(label, probability) of every row, read and predicted in chunks; label None for rows without text.

    Raises:
        DataError: the file cannot be read, or the folder holds no model.
    """
    net = load_trained(model)
    net.check_pairs(options.pair_column)
    table = read_table(
        file, text_column=options.text_column, pair_column=options.pair_column, encoding=options.encoding
    )
    max_length = longest_text(net, options.max_length)
    row = 1
    for start in range(0, len(table), _CHUNK):
        texts = table.texts.slice(start, _CHUNK).to_pylist()
        pairs = None if table.pairs is None else table.pairs.slice(start, _CHUNK).to_pylist()
        answers = predict_texts(net, texts, max_length, pairs)
        for at, answer in zip(table.rows[start : start + _CHUNK], answers, strict=True):
            yield from ((None, 0.0) for _ in range(row, int(at)))  # blank rows, so that lines keep their places
            row = int(at) + 1
            yield answer


def _harmless(label: str) -> str:
    """A label that a spreadsheet does not run as a formula."""
    return f"'{label}" if label[:1] in ("=", "+", "-", "@", "\t", "\r") else label
