"""All errors of a set of tables rather than the first: each is noted, mended in memory, and the check goes on."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nlp_ssl.data.dataset import Data
from nlp_ssl.data.schema import build
from nlp_ssl.data.table import Table
from nlp_ssl.doctor.finding import Finding
from nlp_ssl.errors import DataError, listed


@dataclass(frozen=True)
class Options:
    """What `nlp_ssl.data.schema.build` is told beside the tables."""

    labels_per_class: int | None = None
    seed: int = 0
    allow_transductive: bool = False
    drop_leaks: bool = False


Tables = dict[str, Table | None]
# The tables and options after a mend, and more of what was wrong; None where nothing can be mended.
Mended = tuple[Tables, Options, str] | None


def mended(tables: Mapping[str, Table | None], options: Options) -> tuple[Data | None, list[Finding]]:
    """The checked texts, with what stands in their way mended in memory; None where they cannot be had at all.

    Every error is the line that training would end with. Errors behind one that cannot be mended stay unseen.
    """
    left: Tables = {role: tables.get(role) for role in ("labeled", "unlabeled", "dev", "test")}
    found: list[Finding] = []
    done: set[int] = set()
    while (labeled := left["labeled"]) is not None:
        try:
            data = build(
                labeled,
                left["unlabeled"],
                left["dev"],
                left["test"],
                labels_per_class=options.labels_per_class,
                seed=options.seed,
                allow_transductive=options.allow_transductive,
                drop_leaks=options.drop_leaks,
            )
            return data, found
        except DataError as error:
            mend = _MENDS.get(error.code)
            tried = None if mend is None or error.code in done else mend(left, options)
            more = "" if tried is None else tried[2]
            found.append(Finding("error", f"{error}{f' ({more})' if more else ''}", error.code))
            done.add(error.code)
            if tried is None:
                break
            left, options = tried[0], tried[1]
    return None, found


def _all_rows(tables: Tables, options: Options) -> Mended:
    return tables, replace(options, labels_per_class=None), ""


def _marked_scored(tables: Tables, options: Options) -> Mended:
    """Marked rows to be scored are taken as any other rows without a label."""
    left = dict(tables)
    for role in ("dev", "test"):
        table = tables[role]
        if table is not None and table.markers is not None:
            left[role] = replace(table, markers=None) if _labels(table) else None
    return left, options, ""


def _unknown_scored(tables: Tables, options: Options) -> Mended:
    """Labels that no labeled row has are taken away."""
    labeled = tables["labeled"]
    known = set((labeled.labels if labeled else None) or ())
    strange: Counter[str] = Counter()
    left = dict(tables)
    for role in ("dev", "test"):
        table = tables[role]
        if table is None or table.labels is None:
            continue
        strange.update(name for name in table.labels if name is not None and name not in known)
        kept = [name if name in known else None for name in table.labels]
        # A table without any label left is out of the check: that it has none is no error of its own.
        left[role] = replace(table, labels=kept) if any(kept) else None
    if not strange:
        return None
    all_of_them = [f"{name!r} in {rows}" for name, rows in strange.most_common()]
    return left, options, f"rows with such labels: {listed(all_of_them)}"


def _one_spelling(tables: Tables, options: Options) -> Mended:
    """Labels that differ in case or space alone become the one that most labeled rows have."""
    labeled = tables["labeled"]
    sizes = Counter(name for name in (labeled.labels if labeled else None) or () if name is not None)
    chosen: dict[str, str] = {}
    for name, _ in sizes.most_common():
        chosen.setdefault(name.strip().casefold(), name)
    left: Tables = {}
    for role, table in tables.items():
        names = None if table is None else table.labels
        left[role] = table
        if table is not None and names is not None:
            spelt = [None if n is None else chosen.get(n.strip().casefold(), n) for n in names]
            left[role] = replace(table, labels=spelt)
    others = [f"{name!r} in {rows}" for name, rows in sizes.items() if name not in chosen.values()]
    return left, options, f"rows with such labels: {listed(others)}"


def _without_leaks(tables: Tables, options: Options) -> Mended:
    return tables, replace(options, drop_leaks=True), ""


def _without_unlabeled_rows(tables: Tables, options: Options) -> Mended:
    left = {role: None if role in ("dev", "test") and not _labels(table) else table for role, table in tables.items()}
    return left, options, ""


def _labels(table: Table | None) -> bool:
    return table is not None and any(name is not None for name in table.labels or ())


_MENDS: dict[int, Callable[[Tables, Options], Mended]] = {
    124: _marked_scored,
    131: _all_rows,
    134: _unknown_scored,
    136: _one_spelling,
    137: _without_leaks,
    139: _without_unlabeled_rows,
}
