"""All errors of a set of tables rather than the first: each is noted and fixed in memory, and the check goes on."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nlp_ssl.data.dataset import Data
from nlp_ssl.data.markers import spelling
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.table import Table
from nlp_ssl.doctor.finding import Finding
from nlp_ssl.errors import DataError, listed


@dataclass(frozen=True)
class TaskOptions:
    """What `nlp_ssl.data.schema.build` needs beside the tables."""

    labels_per_class: int | None = None
    seed: int = 0
    allow_transductive: bool = False
    drop_leaks: bool = False


Tables = dict[str, Table | None]
# The tables and options after a fix, and details of what was wrong; None where nothing can be fixed.
Fixed = tuple[Tables, TaskOptions, str] | None


def fixed(tables: Mapping[str, Table | None], options: TaskOptions) -> tuple[Data | None, list[Finding]]:
    """The checked texts, with the errors fixed in memory; None where one of them cannot be fixed.

    Every error is the line that training would end with. Errors behind one that cannot be fixed stay unseen.
    """
    left: Tables = {role: tables.get(role) for role in ("labeled", "unlabeled", "dev", "test")}
    errors: list[Finding] = []
    seen: set[int] = set()
    while (labeled := left["labeled"]) is not None:
        try:
            data = build_data(
                labeled,
                left["unlabeled"],
                left["dev"],
                left["test"],
                labels_per_class=options.labels_per_class,
                seed=options.seed,
                allow_transductive=options.allow_transductive,
                drop_leaks=options.drop_leaks,
            )
            return data, errors
        except DataError as error:
            fix = _FIXES.get(error.code)
            result = None if fix is None or error.code in seen else fix(left, options)
            details = "" if result is None else result[2]
            errors.append(Finding("error", f"{error}{f' ({details})' if details else ''}", error.code))
            seen.add(error.code)
            if result is None:
                break
            left, options, _ = result
    return None, errors


def _all_rows(tables: Tables, options: TaskOptions) -> Fixed:
    return tables, replace(options, labels_per_class=None), ""


def _marked_scored(tables: Tables, options: TaskOptions) -> Fixed:
    """Rows to be scored that a marker says are unlabeled become rows without a label."""
    left = dict(tables)
    for role in ("dev", "test"):
        table = tables[role]
        if table is not None and table.markers is not None:
            left[role] = replace(table, markers=None) if _has_labels(table) else None
    return left, options, ""


def _unknown_scored(tables: Tables, options: TaskOptions) -> Fixed:
    """Labels that no labeled row has are removed."""
    labeled = tables["labeled"]
    known = set((labeled.labels if labeled else None) or ())
    unknown: Counter[str] = Counter()
    left = dict(tables)
    for role in ("dev", "test"):
        table = tables[role]
        if table is None or table.labels is None:
            continue
        unknown.update(name for name in table.labels if name is not None and name not in known)
        kept = [name if name in known else None for name in table.labels]
        # A table without any label left is out of the check: that it has none is no error of its own.
        left[role] = replace(table, labels=kept) if any(kept) else None
    if not unknown:
        return None
    counts = [f"{name!r} in {rows}" for name, rows in unknown.most_common()]
    return left, options, f"rows with such labels: {listed(counts)}"


def _one_spelling(tables: Tables, options: TaskOptions) -> Fixed:
    """Labels that are nearly alike become the one that most labeled rows have."""
    labeled = tables["labeled"]
    sizes = Counter(name for name in (labeled.labels if labeled else None) or () if name is not None)
    chosen: dict[str, str] = {}
    for name, _ in sizes.most_common():
        chosen.setdefault(spelling(name), name)
    left: Tables = {}
    for role, table in tables.items():
        names = None if table is None else table.labels
        left[role] = table
        if table is not None and names is not None:
            respelt = [None if name is None else chosen.get(spelling(name), name) for name in names]
            left[role] = replace(table, labels=respelt)
    others = [f"{name!r} in {rows}" for name, rows in sizes.items() if name not in chosen.values()]
    return left, options, f"rows with such labels: {listed(others)}"


def _without_leaks(tables: Tables, options: TaskOptions) -> Fixed:
    return tables, replace(options, drop_leaks=True), ""


def _without_unlabeled_rows(tables: Tables, options: TaskOptions) -> Fixed:
    left = {
        role: None if role in ("dev", "test") and not _has_labels(table) else table for role, table in tables.items()
    }
    return left, options, ""


def _has_labels(table: Table | None) -> bool:
    return table is not None and any(name is not None for name in table.labels or ())


_FIXES: dict[int, Callable[[Tables, TaskOptions], Fixed]] = {
    124: _marked_scored,
    131: _all_rows,
    134: _unknown_scored,
    136: _one_spelling,
    137: _without_leaks,
    139: _without_unlabeled_rows,
}
