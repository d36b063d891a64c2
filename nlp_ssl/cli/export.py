"""`nlp-ssl export`: a trained model for programs that run ONNX graphs."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import click

from nlp_ssl.cli.command import Argument, Spec
from nlp_ssl.data.sources import stream_rows
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.export import Parity, Quantize, export, is_exported
from nlp_ssl.utils.ranges import check

_TRIED = 512  # texts of the file at most


@dataclass(frozen=True)
class ExportOptions:
    """Flags of `export`."""

    out: Annotated[Path | None, "folder to write"] = None
    format: Annotated[Literal["onnx"], "of the graph"] = "onnx"
    quantize: Annotated[Quantize, "int8: smaller, and faster on many CPUs; tried on your texts before it is kept"] = (
        "no"
    )
    texts: Annotated[Path | None, "file of texts that both models are tried on; by default random words"] = None
    text_column: Annotated[str | None, "column of the texts"] = None
    pair_column: Annotated[str | None, "column of the second texts, for a model of pairs"] = None
    encoding: Annotated[str, "of the file"] = "utf-8"
    tolerance: Annotated[float | None, "largest difference of a probability; by default 0.001, int8 0.1"] = None
    overwrite: Annotated[bool, "replace a former export"] = False
    json: Annotated[bool, "print JSON instead"] = False

    def __post_init__(self) -> None:
        if self.tolerance is not None:
            check(self.tolerance, "tolerance", 0.0, 1.0)
        if self.texts is None and (self.text_column or self.pair_column):
            raise ConfigError(481, "columns are those of a file of texts: name it with --texts")


def main(model: str, options: ExportOptions) -> None:
    """Writes an ONNX graph and its tokenizer, and says how near its answers are."""
    if options.out is None:
        raise ConfigError(206, "export needs --out DIR: nlp-ssl export out --out onnx")
    if options.out.exists() and not (options.overwrite and is_exported(options.out)):
        raise ConfigError(442, f"{options.out} exists: name another folder, or replace a former export by --overwrite")
    texts, pairs = _sample(options)
    parity = export(Path(model), options.out, quantize=options.quantize, tolerance=options.tolerance,
                   texts=texts, pairs=pairs)  # fmt: skip
    if options.json:
        click.echo(json.dumps(asdict(parity), indent=1))
    else:
        for line in _lines(options.out, parity):
            click.echo(line)


def _sample(options: ExportOptions) -> tuple[list[str] | None, list[str] | None]:
    """The first texts of the file, if one is named, and their second texts, if those are.

    Raises:
        DataError: the file cannot be read as texts.
    """
    if options.texts is None:
        return None, None
    rows = stream_rows(
        options.texts, text_column=options.text_column, pair_column=options.pair_column, encoding=options.encoding,
        counts=Counter(),
    )  # fmt: skip
    sample = list(islice((texts for _, texts in rows if texts is not None), _TRIED))
    return [first for first, *_ in sample], None if options.pair_column is None else [second for _, second in sample]


def _lines(out: Path, parity: Parity) -> Iterator[str]:
    yield f"{out}: {_megabytes(out):.1f} MB"
    same = f"{parity.same_labels:.1%} same labels"
    yield f"{parity.texts} texts: {same}, probabilities differ by {parity.difference:.2g} at most"
    yield f"texts per second: {parity.onnx_per_second:,.0f}, the model itself {parity.torch_per_second:,.0f}"


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


COMMANDS = {
    "export": Spec(
        main,
        "a trained model as an ONNX graph, checked against the model",
        "Writes a model that train saved as an ONNX graph with its tokenizer, if both give the same answers. nlp-ssl "
        "predict takes the folder, and so does any program with ONNX Runtime.",
        "nlp-ssl export out --out onnx --quantize int8 --texts texts.csv",
        flags=(ExportOptions(),),
        arguments=(Argument("model"),),
    )
}
