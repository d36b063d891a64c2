"""The files of a task: their flags, and the way from them to tables, for every command that reads labeled texts."""

from dataclasses import dataclass
from typing import Annotated, Literal

from nlp_ssl.data.cleaning import markers_of
from nlp_ssl.data.columns import LABEL_COLUMNS
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.markers import MinusOne
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import Table, hidden_columns, in_roles
from nlp_ssl.errors import DataError

ROLES = ("labeled", "unlabeled", "dev", "test")
Tables = dict[str, Table | None]


@dataclass(frozen=True, kw_only=True)
class Marking:
    """Flags that say which labels mark unlabeled rows, for every command that reads labels."""

    unlabeled_value: Annotated[str | None, "label that marks an unlabeled row, beside the empty one and -1"] = None
    minus_one: Annotated[MinusOne | None, "what the label -1 is; has to be said where others are numbers"] = None

    def __post_init__(self) -> None:
        markers_of(self.unlabeled_value, self.minus_one)


@dataclass(frozen=True, kw_only=True)
class Files(Marking):
    """Flags that say which files there are and how to read them."""

    labeled: Annotated[str | None, "file (csv, tsv, jsonl, json, parquet), folder or hub data set with labels"] = None
    unlabeled: Annotated[str | None, "the same without labels, or a txt file with a text per line"] = None
    dev: Annotated[str | None, "labeled rows for early stopping"] = None
    test: Annotated[str | None, "labeled rows for the closing table"] = None
    text_column: Annotated[str | None, "column of the texts, where it is not found by itself"] = None
    label_column: Annotated[
        str | None, "column of the labels, where it is not found by itself; a,b,c where each has a column of 0 and 1"
    ] = None
    label_separator: Annotated[str | None, "multi-label: what separates the labels of a row, e.g. ';'"] = None
    class_names: Annotated[str | None, "a,b,c: what the numbers stand for where labels are rows of 0 and 1"] = None
    pair_column: Annotated[str | None, "column of the second texts, where rows are pairs of texts"] = None
    encoding: Annotated[str, "of the files"] = "utf-8"
    on_bad_lines: Annotated[Literal["error", "skip"], "what to do with ragged rows"] = "error"
    labels_per_class: Annotated[int | None, "draw that many labels per class; the other rows join the pool"] = None
    allow_transductive: Annotated[bool, "keep pool texts that are also test texts"] = False
    drop_leaks: Annotated[bool, "remove training and pool texts that are also test texts"] = False

    def named(self) -> dict[str, str]:
        """The sources that were named, in the order of the roles."""
        sources = (self.labeled, self.unlabeled, self.dev, self.test)
        return {role: source for role, source in zip(ROLES, sources, strict=True) if source is not None}


def read(files: Files, role: str, labeled: Table | None) -> Table | None:
    """The whole table of one flag; None where the flag is not given.

    Of a pool only the column counts that is called as that of the `labeled` table.

    Raises:
        DataError: it cannot be read.
    """
    source = files.named().get(role)
    if source is None:
        return None
    return read_table(
        source,
        text_column=files.text_column,
        label_column=None if role == "unlabeled" else files.label_column,
        pair_column=files.pair_column,
        encoding=files.encoding,
        on_bad_lines=files.on_bad_lines,
        unlabeled_value=files.unlabeled_value,
        minus_one=files.minus_one,
        expect_labels=role != "unlabeled",
        label_separator=files.label_separator,
        label_lists=True,
        label_columns=hidden_columns(labeled) if role == "unlabeled" else LABEL_COLUMNS,
        class_names=None if files.class_names is None else files.class_names.split(","),
    )


def tables(files: Files) -> Tables:
    """The tables of all flags.

    Raises:
        DataError: one of them cannot be read.
    """
    by_role: Tables = {}
    for role in ROLES:
        by_role[role] = read(files, role, by_role.get("labeled"))
    return in_roles(by_role)


def text(files: Files, tables: Tables, seed: int) -> Data:
    """The checked texts of a task; `seed` draws the labels where `labels_per_class` is given.

    Raises:
        DataError: there are no labeled rows, or the tables do not fit together.
    """
    labeled = tables["labeled"]
    if labeled is None:
        raise DataError(132, "no row has a label: give --labeled FILE")
    return build_data(
        labeled,
        tables["unlabeled"],
        tables["dev"],
        tables["test"],
        labels_per_class=files.labels_per_class,
        seed=seed,
        allow_transductive=files.allow_transductive,
        drop_leaks=files.drop_leaks,
    )
