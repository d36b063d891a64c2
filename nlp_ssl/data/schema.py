"""One validated set of texts, labels and positions out of the tables a user brings."""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import xxhash

from nlp_ssl.data.dataset import Data
from nlp_ssl.data.label_sets import bare, encode_sets, outside
from nlp_ssl.data.markers import MINUS_ONE, minus_one_error, spelling, stripped
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.splits import check_draw, draw_per_class, pair_keys
from nlp_ssl.data.table import Table, hidden_columns, in_roles
from nlp_ssl.errors import ConfigError, DataError, nearest
from nlp_ssl.ops.multilabel import refuse_multilabel

if TYPE_CHECKING:
    from nlp_ssl.data.sources import Source

log = logging.getLogger("nlp_ssl")
MANY_CLASSES = 10_000
EXTREME_IMBALANCE = 1_000
TRUNCATED_SHARE = 0.1

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


class _Stack:
    """Tables laid end to end, so that a row of any of them is one position."""

    def __init__(self, tables: Mapping[str, Table | None]) -> None:
        self.tables = {name: table for name, table in tables.items() if table is not None}
        self.texts = pa.chunked_array([c for t in self.tables.values() for c in t.texts.chunks], pa.large_string())
        self.pairs = _second_texts(self.tables)
        self.keys = pair_keys(self.texts, self.pairs)
        self.spans = {name: np.empty(0, dtype=np.int64) for name in tables}
        start = 0
        for name, table in self.tables.items():
            self.spans[name] = np.arange(start, start + len(table), dtype=np.int64)
            start += len(table)

    def place(self, position: int) -> str:
        """The source and row of a position, for messages."""
        name = next(name for name, span in self.spans.items() if len(span) and position <= span[-1])
        return _place(self.tables[name], position - int(self.spans[name][0]))


def build_data(
    labeled: "Table | Source",
    unlabeled: "Table | Source | None" = None,
    dev: "Table | Source | None" = None,
    test: "Table | Source | None" = None,
    *,
    labels_per_class: int | None = None,
    seed: int = 0,
    allow_transductive: bool = False,
    drop_leaks: bool = False,
    conflicts: Literal["drop", "error"] = "drop",
) -> Data:
    """Checks the tables against each other and decides which rows are labeled, unlabeled, dev and test.

    Files, frames and datasets are read by `read_table` first, and of those the rows are sorted by their split, where
    they have one: dev and test rows among labeled ones become dev and test.

    With `labels_per_class`, that many rows of every class are drawn from `labeled` by `seed`, and its other rows join
    the unlabeled pool, their labels kept as hidden truth. Rows of `labeled` without a label join the pool in any case.
    Two texts are the same when they differ only in case or white space; of pairs both must be. A labeled text that
    stands there with two labels is dropped, or is an error with `conflicts="error"`. Pool texts that repeat a labeled
    text are dropped.
    Labels of `unlabeled` are hidden truth where they stand in a column of the same name as those of `labeled`; the ones
    that are no class are not known. Dev and test rows must not be labeled with a marker of unlabeled rows.
    Dev and test texts must not occur among the labeled or unlabeled ones: `drop_leaks` removes them there,
    `allow_transductive` keeps them.

    Raises:
        ConfigError: the options contradict each other or are out of range.
        DataError: labels are missing, unknown, doubtful or too few, texts leak, or labels conflict.
    """
    if drop_leaks and allow_transductive:
        raise ConfigError(230, "drop_leaks and allow_transductive contradict each other: choose one")
    check_draw(seed, labels_per_class)
    tables = _tables({"labeled": labeled, "unlabeled": unlabeled, "dev": dev, "test": test})
    if (labeled := tables["labeled"]) is None:
        raise DataError(132, "no row has a label: label a few texts of each class")
    named, many = _labels_in(labeled), labeled.label_sets is not None
    _check_declared(labeled)
    classes = _classes(labeled, named)
    if many and labels_per_class is not None:
        refuse_multilabel("labels_per_class")
    pool, pool_notes = _hidden(tables["unlabeled"], labeled, classes)
    stack = _Stack({**tables, "unlabeled": pool})
    _check_markers(stack, classes)
    labels = np.concatenate([_encode(table, classes, many) for table in stack.tables.values()])
    notes = _source_notes(stack) + pool_notes + _repeats(stack)

    usable = _without_conflicts(stack, labels, conflicts, notes)
    usable &= _without_leaks(stack, allow_transductive, drop_leaks, notes)
    candidates = np.where(usable if labels.ndim == 1 else usable[:, None], labels, -1)[stack.spans["labeled"]]
    _check_class_sizes(candidates, classes, named, labeled.source, notes)
    if many:
        _note_constant_labels(candidates, classes, notes)
    labeled_rows = _draw(candidates, classes, labels_per_class, seed)
    unlabeled_rows = _pool(stack, usable, labeled_rows, notes)
    _note_single_rows(labels[labeled_rows], classes, notes)
    dev_rows, test_rows = (_scored(stack, labels, name, notes) for name in ("dev", "test"))
    second = [] if stack.pairs is None else [text_hash(stack.pairs)]
    return Data(
        classes=classes,
        texts=stack.texts,
        labels=labels,
        labeled=labeled_rows,
        unlabeled=unlabeled_rows,
        dev=dev_rows,
        test=test_rows,
        notes=tuple(notes),
        content_hash=content_hash_of(
            classes, stack.texts, [labels, labeled_rows, unlabeled_rows, dev_rows, test_rows, *second]
        ),
        pairs=stack.pairs,
    )


def _tables(given: "Mapping[str, Table | Source | None]") -> dict[str, Table | None]:
    """The sources of the roles as tables."""
    labeled, read = given["labeled"], dict[str, Table | None]()
    for role, source in given.items():
        if source is None or isinstance(source, Table):
            read[role] = None
        elif role == "unlabeled":
            beside = labeled if isinstance(labeled, Table) else read["labeled"]
            read[role] = read_table(source, label_lists=True, label_columns=hidden_columns(beside))
        else:
            read[role] = read_table(source, expect_labels=True, label_lists=True)
    by_role = in_roles(read)
    return {role: source if isinstance(source, Table) else by_role[role] for role, source in given.items()}


def check_lengths(lengths: np.ndarray, max_length: int) -> str | None:
    """A note on how many texts of `lengths` tokens [N] are cut at `max_length`, a warning above 10 %; None if none."""
    cut = int((lengths > max_length).sum())
    if cut == 0:
        return None
    share = cut / len(lengths)
    note = f"{cut} of {len(lengths)} texts ({share:.1%}) are longer than {max_length} tokens and are cut"
    return f"warning: {note}: raise max-length (longest: {lengths.max()})" if share > TRUNCATED_SHARE else note


def log_notes(notes: Iterable[str]) -> None:
    """Logs notes on data: as warnings those that begin with "warning: "."""
    for note in notes:
        log.log(logging.WARNING if note.startswith("warning: ") else logging.INFO, "%s", note)


def _place(table: Table, position: int) -> str:
    return f"{table.source} row {table.rows[position]}"


def in_order(names: Iterable[str]) -> list[str]:
    """Class names in the order that a model's outputs have where no source declares one.

    Names that all are whole numbers sort as numbers, so that 0 to 11 are at the places 0 to 11; others as strings.
    """
    names = list(names)
    if all(_WHOLE_NUMBER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _labels_in(labeled: Table) -> list[str]:
    """The labels that rows of the labeled table have, each once."""
    names = [name for name in dict.fromkeys(labeled.labels or ()) if name is not None]
    names += list(dict.fromkeys(bare(name) for row in labeled.label_sets or () for name in row or ()))
    if not names:
        raise DataError(132, f"{labeled.source}: no row has a label: label a few texts of each class")
    if len(names) == 1 and labeled.label_sets is None:
        raise DataError(133, f"{labeled.source}: the only class is {names[0]!r}: label texts of a second class")
    spellings: dict[str, str] = {}
    for name in names:
        other = spellings.setdefault(spelling(name), name)
        if other != name:
            row = _place(labeled, _first_with(labeled, name))
            raise DataError(136, f"{row}: label {name!r} is nearly {other!r}: spell them alike, or rename one")
    return names


def _classes(labeled: Table, named: Sequence[str]) -> tuple[str, ...]:
    """The classes of a task, in the order that models, files and reports have them.

    Those that the labeled source declares come first, as it counts them, whether a row has them or not; then the other
    labels of its rows as `in_order` sorts them.
    """
    declared = labeled.classes or ()
    return (*declared, *in_order(name for name in named if name not in declared))


def _check_declared(labeled: Table) -> None:
    """Refuses labels that are not among the class names that were given."""
    if labeled.classes is not None:
        rows = [((name,) if name is not None else ()) for name in labeled.labels or ()] or labeled.label_sets or []
        if (strange := outside(rows, labeled.classes)) is not None:
            row, name = _place(labeled, strange[0]), strange[1]
            raise DataError(134, f"{row}: label {name!r} is not among the class names.{nearest(name, labeled.classes)}")


def _first_with(labeled: Table, name: str) -> int:
    """Position of the first row with a label."""
    return next(
        i for i in range(len(labeled))
        if (name == labeled.labels[i] if labeled.labels else name in map(bare, (labeled.label_sets or [])[i] or ()))
    )  # fmt: skip


def _hidden(pool: Table | None, labeled: Table, classes: Sequence[str]) -> tuple[Table | None, list[str]]:
    """The pool with what counts of its labels as hidden truth, and what does not count in words.

    Pools come with columns of many kinds: none of them stops a run.
    """
    if pool is None:
        return None, []
    none = replace(pool, labels=None, label_sets=None)
    if not any(known is not None for known in pool.labels or pool.label_sets or ()):
        return none, []
    here, there = pool.label_column, labeled.label_column
    if here is not None and there is not None and stripped(here).lower() != stripped(there).lower():
        return none, [f"{pool.source}: column {here!r} ignored: the labeled rows have theirs in {there!r}"]
    if (pool.labels is None) == (labeled.label_sets is None):
        kinds = ("lists", "single labels") if pool.labels is None else ("single labels", "lists")
        return none, [f"warning: {pool.source}: {kinds[0]} ignored: the labeled rows have {kinds[1]}"]
    known = frozenset(classes)
    if pool.labels is not None:
        strange = Counter(name for name in pool.labels if name is not None and name not in known)
        with_known = replace(pool, labels=[name if name in known else None for name in pool.labels])
    else:
        sets = [names if known.issuperset(map(bare, names or ())) else None for names in pool.label_sets or ()]
        rows = zip(pool.label_sets or (), sets, strict=True)
        strange = Counter(bare(n) for was, now in rows if now is None for n in was or () if bare(n) not in known)
        with_known = replace(pool, label_sets=sets)
    if not strange:
        return pool, []
    shown = ", ".join(f"{name!r} {rows}" for name, rows in strange.most_common(5)) + ", ..." * (len(strange) > 5)
    return with_known, [
        f"warning: {pool.source}: labels that are no class of the labeled rows, taken as not known: {shown}"
    ]


def _check_markers(stack: _Stack, classes: Sequence[str]) -> None:
    """Refuses -1 that marks rows of one table and is a class of another, and any marker where rows are scored."""
    for name, table in stack.tables.items():
        if table.markers is None:
            continue
        if MINUS_ONE in classes and MINUS_ONE in table.markers:
            row = _place(table, table.markers.index(MINUS_ONE))
            raise minus_one_error(f"{row}: label '-1', a class of the labeled rows,")
        if name in ("dev", "test"):
            refuse_markers(table, name)


def refuse_markers(table: Table, name: str) -> None:
    """Refuses rows to be scored whose label marks unlabeled ones.

    Raises:
        DataError: there is one.
    """
    at = next((i for i, marker in enumerate(table.markers or ()) if marker is not None), None)
    if at is not None and table.markers is not None:
        marker = table.markers[at]
        more = "; or say --minus-one class if it is a class" if marker == MINUS_ONE else ""
        raise DataError(
            124,
            f"{_place(table, at)}: label {marker!r} marks an unlabeled row, and {name} rows are to be scored: take the "
            f"row out, or empty its label{more}",
        )


def _encode(table: Table, classes: Sequence[str], many: bool) -> np.ndarray:
    """Labels of one table as `Data` has them."""
    if (table.labels if many else table.label_sets) is not None:
        raise DataError(
            198, f"{table.source}: {'single labels' if many else 'lists of labels'}, where the labeled rows have "
            f"{'lists' if many else 'single ones'}: write all files alike, or name the --label-separator"
        )  # fmt: skip
    if many:
        return encode_sets(table.label_sets or [None] * len(table), classes, lambda row: _place(table, row))
    index = {None: -1} | {label: i for i, label in enumerate(classes)}
    labels = table.labels if table.labels is not None else [None] * len(table)
    unknown = next((i for i, label in enumerate(labels) if label not in index), None)
    if unknown is not None:
        label = str(labels[unknown])
        row = _place(table, unknown)
        raise DataError(134, f"{row}: label {label!r} is not a class of the labeled set.{nearest(label, classes)}")
    return np.fromiter((index[label] for label in labels), dtype=np.int64, count=len(table))


def _source_notes(stack: _Stack) -> list[str]:
    """What reading the tables noted, once for each source: several tables may come from one."""
    notes: dict[str, None] = {}
    for table in stack.tables.values():
        for note in table.notes:
            text = note.removeprefix("warning: ")
            notes[f"{'warning: ' if text != note else ''}{table.source}: {text}"] = None
    return list(notes)


def _repeats(stack: _Stack) -> list[str]:
    """Notes on texts that repeat within a table, and on dev texts that are in the test set."""
    notes = []
    for name, table in stack.tables.items():
        keys = stack.keys[stack.spans[name]]
        repeats = len(keys) - len(np.unique(keys))
        if repeats:
            notes.append(f"{table.source}: duplicate texts among the {name} rows: {repeats}")
    shared = int(np.isin(stack.keys[stack.spans["dev"]], stack.keys[stack.spans["test"]]).sum())
    return notes + [f"warning: dev texts that are also test texts: {shared}"] * bool(shared)


def _without_conflicts(stack: _Stack, labels: np.ndarray, policy: str, notes: list[str]) -> np.ndarray:
    """A bool mask [N] that leaves out labeled rows whose text also stands there with another label."""
    span = stack.spans["labeled"]
    span = span[_known(labels[span])]
    names = labels[span] if labels.ndim == 1 else np.unique(labels[span], axis=0, return_inverse=True)[1].ravel()
    pairs = np.unique(np.stack([stack.keys[span], names.astype(np.uint64)]), axis=1)  # [2, M]
    keys, times = np.unique(pairs[0], return_counts=True)
    conflicting = span[np.isin(stack.keys[span], keys[times > 1])]
    usable = np.ones(len(labels), dtype=bool)
    if not len(conflicting):
        return usable
    if policy == "error":
        raise DataError(
            138,
            f"{stack.place(conflicting[0])}: {len(conflicting)} rows repeat a text with another label, this is the "
            "first: fix them, or drop conflicts",
        )
    notes.append(f"labeled rows dropped because their text has two labels: {len(conflicting)}")
    usable[conflicting] = False
    return usable


def _without_leaks(stack: _Stack, allow: bool, drop: bool, notes: list[str]) -> np.ndarray:
    """A bool mask [N] that leaves out labeled and pool rows whose text is a dev or test text."""
    usable = np.ones(len(stack.keys), dtype=bool)
    training = np.concatenate([stack.spans["labeled"], stack.spans["unlabeled"]])
    for name in ("dev", "test"):
        span = stack.spans[name]
        leaked = span[np.isin(stack.keys[span], stack.keys[training])]
        if not len(leaked):
            continue
        copies = training[np.isin(stack.keys[training], stack.keys[leaked])]
        count = f"{len(leaked)} of {len(span)} {name} texts are also labeled or unlabeled texts"
        if not allow and not drop:
            twin = copies[stack.keys[copies] == stack.keys[leaked[0]]][0]
            raise DataError(
                137,
                f"{stack.place(leaked[0])}: {count}, the first at {stack.place(twin)}: remove them with --drop-leaks, "
                "or keep them with --allow-transductive",
            )
        if allow:
            notes.append(f"warning: {count}: scores on {name} are transductive")
        else:
            notes.append(f"training rows dropped because they are {name} texts: {len(copies)}")
            usable[copies] = False
    return usable


def _known(labels: np.ndarray) -> np.ndarray:
    """A bool mask [n] of the rows of which some label is known."""
    return np.asarray(labels >= 0 if labels.ndim == 1 else (labels >= 0).any(1))


def _sizes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Rows [C] that have each label."""
    if labels.ndim == 2:
        return np.asarray((labels == 1).sum(0), dtype=np.int64)
    counts: np.ndarray = np.bincount(labels[labels >= 0], minlength=classes)
    return counts


def _check_class_sizes(
    candidates: np.ndarray, classes: Sequence[str], named: Collection[str], source: str, notes: list[str]
) -> None:
    """Refuses a class that has lost all its rows; notes declared ones without any, many classes, extreme imbalance."""
    sizes = _sizes(candidates, len(classes))
    empty = [classes[i] for i in np.flatnonzero(sizes == 0).tolist()]
    lost = next((name for name in empty if name in named), None)
    if lost is not None:
        raise DataError(135, f"{source}: class {lost!r} has no usable labeled row left: label more of its texts")
    if empty and candidates.ndim == 1:  # a row of multi-label data that lacks a label teaches it, too
        notes.append(
            f"warning: classes without a labeled row: {_first_few(empty)}: the model has a place for them, but nothing "
            "to learn them from: label texts of them"
        )
    sizes = np.where(sizes > 0, sizes, sizes.max())
    if len(classes) > MANY_CLASSES:
        notes.append(f"warning: {len(classes)} classes: is the label column the right one?")
    if sizes.max() >= EXTREME_IMBALANCE * sizes.min():
        small, large = classes[int(sizes.argmin())], classes[int(sizes.argmax())]
        notes.append(
            f"warning: class {small!r} has {sizes.min()} rows and {large!r} has {sizes.max()}: take a method with "
            "class-wise thresholds (flexmatch) or distribution alignment, and read macro-F1"
        )


def _note_constant_labels(candidates: np.ndarray, classes: Sequence[str], notes: list[str]) -> None:
    """Notes labels of which no row is an example of the one answer, or of the other."""
    for which, answer in (("every labeled row", 0), ("no labeled row", 1)):
        constant = [repr(name) for name, has in zip(classes, (candidates == answer).any(0), strict=True) if not has]
        if constant:
            shown = ", ".join(constant[:5]) + ", ..." * (len(constant) > 5)
            notes.append(f"warning: labels that apply to {which}, which teaches nothing of them: {shown}")


def _draw(candidates: np.ndarray, classes: Sequence[str], per_class: int | None, seed: int) -> np.ndarray:
    """Positions of the rows to train on with their labels; the labeled table comes first, so rows are positions."""
    if per_class is None:
        return np.flatnonzero(_known(candidates)).astype(np.int64)
    return draw_per_class([classes[i] if i >= 0 else None for i in candidates], per_class, seed)


def _pool(stack: _Stack, usable: np.ndarray, labeled_rows: np.ndarray, notes: list[str]) -> np.ndarray:
    """Positions of the unlabeled pool: what the draw left, then the unlabeled table, without labeled texts."""
    training = np.concatenate([stack.spans["labeled"], stack.spans["unlabeled"]])
    pool = np.setdiff1d(training[usable[training]], labeled_rows)
    repeats = np.isin(stack.keys[pool], stack.keys[labeled_rows])
    if repeats.any():
        notes.append(f"unlabeled rows dropped because they repeat a labeled text: {repeats.sum()}")
        pool = pool[~repeats]
    if not len(pool):
        notes.append("warning: no unlabeled texts: training is supervised only")
    return pool


def _note_single_rows(labels: np.ndarray, classes: Sequence[str], notes: list[str]) -> None:
    single = [classes[label] for label in np.flatnonzero(_sizes(labels, len(classes)) == 1).tolist()]
    if single:
        notes.append(f"warning: classes with a single labeled row, which cannot be split: {_first_few(single)}")


def _first_few(names: Sequence[str]) -> str:
    """`7 ('a', 'b', 'c', 'd', 'e', ...)`: how many, and the first ones."""
    return f"{len(names)} ({', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''})"


def _scored(stack: _Stack, labels: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    """Positions of the dev or test rows that have a label to score against."""
    span = stack.spans[name]
    scored: np.ndarray = span[_known(labels[span])]
    if len(span) and not len(scored):
        raise DataError(139, f"{stack.tables[name].source}: no {name} row has a label: add labels, or leave it out")
    if len(scored) < len(span):
        notes.append(f"{name} rows left out because they have no label: {len(span) - len(scored)}")
    return scored


def _second_texts(tables: Mapping[str, Table]) -> pa.ChunkedArray | None:
    """The second texts of all tables, laid end to end.

    Raises:
        DataError: some have them and others not.
    """
    without = [table.source for table in tables.values() if table.pairs is None]
    if len(without) == len(tables):
        return None
    if without:
        raise DataError(
            150, f"{without[0]}: single texts, where other files hold pairs: give a second text to every row"
        )
    return pa.chunked_array([c for t in tables.values() if t.pairs is not None for c in t.pairs.chunks])


def text_hash(texts: pa.ChunkedArray) -> np.ndarray:
    """A hash of texts as bytes [32]."""
    return np.frombuffer(content_hash_of((), texts, []).encode(), dtype=np.uint8)


def content_hash_of(classes: Sequence[str], texts: pa.ChunkedArray, arrays: Sequence[np.ndarray]) -> str:
    """A hash that does not depend on how the texts are cut into chunks."""
    whole, bytes_, sizes = xxhash.xxh3_128(), xxhash.xxh3_128(), xxhash.xxh3_128()
    for chunk in texts.iterchunks():
        if len(chunk):
            _, offsets, data = chunk.buffers()
            ends = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            bytes_.update(memoryview(data)[ends[0] : ends[-1]])
            sizes.update(np.diff(ends).tobytes())
    for part in ("\0".join(classes).encode(), bytes_.digest(), sizes.digest(), *(a.tobytes() for a in arrays)):
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()
