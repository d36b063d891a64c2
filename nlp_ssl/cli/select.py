"""`nlp-ssl select`: of a large pool of other texts those that look most like the task's own."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import click
import numpy as np
import pyarrow as pa

from nlp_ssl.cli.command import Argument, Spec
from nlp_ssl.config import DEFAULT_MODEL
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.schema import log_notes
from nlp_ssl.data.select import IN_DOMAIN, Picked, Scorer, domain_scorer, select
from nlp_ssl.data.sources import read_table
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.inference.predict import longest_text, predict_texts
from nlp_ssl.nets.text import class_names, load_trained
from nlp_ssl.paraphrase.back_translation import texts_of
from nlp_ssl.utils.parquet import write_parquet
from nlp_ssl.utils.progress import track
from nlp_ssl.utils.ranges import check

log = logging.getLogger("nlp_ssl")
_SAMPLE = 10_000  # texts of the pool that the domain classifier learns from at most
_SCHEMA = pa.schema(
    [("text", pa.large_string()), ("row", pa.int64()), ("predicted", pa.string()), ("probability", pa.float64())]
)


@dataclass(frozen=True)
class SelectOptions:
    """Flags of `select`."""

    classifier: Annotated[Path | None, "folder that `nlp-ssl train` wrote: texts are kept by its classes"] = None
    in_domain: Annotated[Path | None, "file of texts of the task: texts are kept that look like them"] = None
    encoder: Annotated[str, "encoder for --in-domain: folder, hub name or bundled"] = DEFAULT_MODEL
    keep: Annotated[int, "texts kept of every class, or in all with --in-domain"] = 1000
    floor: Annotated[float, "probability of a kept text, at least"] = 0.0
    text_column: Annotated[str | None, "column of the texts, where it is not found by itself"] = None
    encoding: Annotated[str, "of the files"] = "utf-8"
    on_bad_lines: Annotated[Literal["error", "skip"], "what to do with ragged rows"] = "error"
    seed: Annotated[int, "draws what the domain classifier learns from"] = 0
    out: Annotated[Path | None, "Parquet file of the texts (text, row, predicted, probability)"] = None
    overwrite: Annotated[bool, "replace that file"] = False
    index: Annotated[Path | None, "bank of sentences to retrieve from instead: see --index BANK --help"] = None

    def __post_init__(self) -> None:
        check(self.keep, "keep", 1, 1e9)
        check(self.floor, "floor", 0.0, 1.0)


def main(pool: str, options: SelectOptions) -> None:
    """Keeps the texts of a pool that look most like the task's own."""
    if options.out is None:
        raise ConfigError(206, "select needs --out FILE: nlp-ssl select pool.txt --classifier out --out s.parquet")
    if (options.classifier is None) == (options.in_domain is None):
        raise ConfigError(294, "select goes by --classifier FOLDER or by --in-domain FILE: give one of them")
    if options.out.resolve() in {Path(place).resolve() for place in (pool, options.in_domain) if place}:
        raise ConfigError(295, f"{options.out}: the result would take the place of what is read: name another --out")
    if options.out.exists() and not options.overwrite:
        raise ConfigError(442, f"{options.out} exists: name another file or add --overwrite")
    table = read_table(
        pool,
        text_column=options.text_column,
        encoding=options.encoding,
        on_bad_lines=options.on_bad_lines,
        label_columns=(),
    )
    log_notes(table.notes)
    if table.splits is not None and {"dev", "test"} & set(table.splits):
        log.info("rows of dev and test are left out")
        table = table.take(np.flatnonzero([split not in ("dev", "test") for split in table.splits]))
        if not len(table):
            raise DataError(118, f"{pool}: only dev and test rows: name a pool of other texts")
    rows = zip(table.rows.tolist(), texts_of(table.texts), strict=True)
    if options.classifier is not None:
        score, classes = _by_class(options.classifier)
    else:
        score, classes = _by_domain(options, table.texts), [IN_DOMAIN]
    picked = select(track(rows, "texts", len(table)), score, options.keep, options.floor)
    # Under the name that it had: `train --text-column` is the same for both of its files.
    names = [options.text_column or "text", *_SCHEMA.names[1:]]
    write_parquet(options.out, picked, pa.schema([f.with_name(n) for f, n in zip(_SCHEMA, names, strict=True)]))
    for line in _lines(picked, classes, len(table), options.keep):
        click.echo(line)


def _by_class(folder: Path) -> tuple[Scorer, list[str]]:
    """Scores by a trained classifier, and all of its classes.

    Raises:
        DataError: the folder holds no whole model.
    """
    net = load_trained(folder)
    longest = longest_text(net)
    return lambda texts: predict_texts(net, texts, longest), class_names(net.model.config)


def _by_domain(options: SelectOptions, pool: pa.ChunkedArray) -> Scorer:
    """Scores by a classifier of texts of the file against texts of the pool."""
    assert options.in_domain is not None
    ours = read_table(
        options.in_domain,
        text_column=options.text_column,
        encoding=options.encoding,
        on_bad_lines=options.on_bad_lines,
        label_columns=(),
    )
    # Drawn, not every n-th: a pool that was put together in turns from several sources would give texts of one alone.
    drawn = np.random.default_rng(options.seed).choice(len(pool), min(len(pool), _SAMPLE), replace=False)
    theirs = pool.take(pa.array(drawn))
    embed = Embedder(encoder_name(options.encoder))
    return domain_scorer(ours.texts.to_pylist(), theirs.to_pylist(), embed, options.seed)


def _lines(picked: Sequence[Picked], classes: Sequence[str], total: int, keep: int) -> Iterator[str]:
    """What was kept, a line for each class, those that got nothing too: training on the rest would forget them."""
    yield f"{len(picked)} of {total} texts kept"
    for label in classes:
        kept = [one.probability for one in picked if one.predicted == label]
        least = f", probability from {min(kept):.3f}" if kept else ""
        short = f": fewer than the {keep} asked for" if len(kept) < keep else ""
        yield f"  {label}: {len(kept)}{least}{short}"


COMMANDS = {
    "select": Spec(
        main,
        "of a large pool the texts that a model is surest of, or most like the task's own",
        "Keeps those texts of POOL that a classifier is surest of, equally many of each class (the data filter of "
        "UDA), or those that look most like the texts of a file. nlp-ssl train --unlabeled takes the result. With "
        "--index BANK it retrieves from a bank of sentences instead: nlp-ssl select --index BANK --help.",
        "nlp-ssl select news.parquet --classifier out --keep 5000 --out selected.parquet",
        flags=(SelectOptions(),),
        arguments=(Argument("pool"),),
        instead=("index", "select --index"),
    )
}
