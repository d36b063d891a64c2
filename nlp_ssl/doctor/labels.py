"""What labels, counts and duplicates say, without a model."""

import difflib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from nlp_ssl.data.dataset import Data
from nlp_ssl.data.markers import spelling
from nlp_ssl.data.splits import pair_keys
from nlp_ssl.data.table import Table
from nlp_ssl.doctor.finding import Fact, Finding, counted, warning
from nlp_ssl.errors import listed

FEW_LABELS = 5  # different texts of a class: below, one odd text decides
UNEVEN = 10  # largest class over smallest
_ALIKE = 0.8  # of two label names, by difflib
_REPEATS = 0.2  # share of a pool
_FEW_SCORED = 200  # rows: an accuracy is then known to 7 points at best
_SHOWN = 3
_BLANK = ("empty texts dropped:", "null texts dropped:")  # notes of reading that end in a number


def label_warnings(labeled: Table, data: Data) -> Iterator[Finding]:
    """What may spoil training, the worst first."""
    keys = pair_keys(data.texts, data.pairs)
    yield from _blank(labeled)
    yield from _conflicts(labeled)
    yield from _typos(labeled)
    different = different_texts(data, keys)
    few = [f"{name!r} {n}" for name, n in different.items() if n < FEW_LABELS]
    if few:
        yield warning(
            f"few labels: {listed(few)} (different texts): label at least {FEW_LABELS} of each class, better 10, "
            "before training"
        )
    total = int(sum(different.values()))
    if total < 0.8 * len(data.labeled):
        yield warning(f"only {total} of {len(data.labeled)} labeled texts differ: label other texts, not copies")
    ranked = sorted((name for name in different if different[name]), key=lambda name: different[name])
    small, large = ranked[0], ranked[-1]
    if different[large] >= UNEVEN * different[small]:
        yield warning(
            f"uneven classes: {large!r} has {different[large]} texts, {small!r} {different[small]}: label more of it, "
            "and read macro-F1, not accuracy"
        )
    yield from _scored(data)
    yield from _pool(data, keys)
    for note in data.notes:
        text = note.removeprefix("warning: ")
        if text != note and not text.startswith(("no unlabeled texts", "classes with a single", "class ")):
            yield warning(text)


def label_facts(data: Data) -> Iterator[Fact]:
    """Rows, classes, the size of the pool and repeats."""
    keys = pair_keys(data.texts, data.pairs)
    parts = {"labeled": data.labeled, "unlabeled": data.unlabeled, "dev": data.dev, "test": data.test}
    rows = {name: len(at) for name, at in parts.items()}
    yield Fact("rows", ", ".join(f"{n:,} {name}" for name, n in rows.items() if n), rows)
    sizes = {name: int(n) for name, n in _sizes(data, data.labeled)}
    shown = [f"{name!r} {n:,}" for name, n in sorted(sizes.items(), key=lambda pair: -pair[1])]
    yield Fact("classes", f"{len(sizes)}: {listed(shown, 12)}", sizes)
    if rows["unlabeled"]:
        ratio = rows["unlabeled"] / rows["labeled"]
        yield Fact("pool", f"{ratio:,.1f} unlabeled texts for each labeled one", ratio)
    repeats = {name: len(at) - len(np.unique(keys[at])) for name, at in parts.items() if len(at)}
    text = ", ".join(f"{n:,} in {name}" for name, n in repeats.items() if n)
    yield Fact("repeats", text or "none within a file", repeats)
    notes = [n for n in data.notes if not n.startswith("warning:") and "duplicate texts" not in n]
    if notes:
        yield Fact("reading", "; ".join(notes), notes)


def different_texts(data: Data, keys: np.ndarray) -> dict[str, int]:
    """Different labeled texts of each class."""
    labels = data.labels[data.labeled]
    return {name: len(np.unique(keys[data.labeled[labels == i]])) for i, name in enumerate(data.classes)}


def _sizes(data: Data, rows: np.ndarray) -> Iterator[tuple[str, int]]:
    return zip(data.classes, np.bincount(data.labels[rows], minlength=len(data.classes)), strict=True)


def _blank(labeled: Table) -> Iterator[Finding]:
    """Rows of the labeled file that have no text."""
    blank = sum(int(note.rsplit(" ", 1)[1]) for note in labeled.notes if note.startswith(_BLANK))
    if blank:
        yield warning(
            f"{labeled.source}: {counted(blank, 'row')} without a text, left out: look whether the text column is the "
            "right one (--text-column)"
        )


def _conflicts(labeled: Table) -> Iterator[Finding]:
    """Texts that have several labels: training leaves all of their rows out."""
    seen: dict[int, dict[str, int]] = {}
    rows: Counter[int] = Counter()
    for key, name, row in zip(pair_keys(labeled.texts, labeled.pairs), labeled.labels or (), labeled.rows, strict=True):
        if name is not None:
            seen.setdefault(int(key), {}).setdefault(name, int(row))
            rows[int(key)] += 1
    conflicts = {key: names for key, names in seen.items() if len(names) > 1}
    if conflicts:
        lost = sum(rows[key] for key in conflicts)
        examples = [
            " and ".join(f"row {row} says {name!r}" for name, row in names.items())
            for names in list(conflicts.values())[:_SHOWN]
        ]
        yield warning(
            f"conflicting labels: {labeled.source}: {counted(len(conflicts), 'text')} with two labels, {lost} rows "
            f"that training leaves out: decide on one label ({'; '.join(examples)})"
        )


def _typos(labeled: Table) -> Iterator[Finding]:
    """Rare labels that look like common ones. Numbered names look alike without being typos."""
    sizes = Counter(name for name in labeled.labels or () if name is not None)
    common = [name for name, _ in sizes.most_common()]
    for name, rows in sizes.items():
        if rows > max(2, len(labeled) // 50) or any(c.isdigit() for c in name):
            continue
        # Names that are nearly alike are errors of their own.
        larger = [o for o in common if sizes[o] > 2 * rows and spelling(o) != spelling(name)]
        near = difflib.get_close_matches(name, larger, n=1, cutoff=_ALIKE)
        if near:
            row = labeled.rows[(labeled.labels or []).index(name)]
            yield warning(
                f"label {name!r} in {counted(rows, 'row')} ({labeled.source} row {row}) looks like {near[0]!r} "
                f"({counted(sizes[near[0]], 'row')}): if it is a typo, fix it; else leave it"
            )


def _scored(data: Data) -> Iterator[Finding]:
    rows = len(data.test) or len(data.dev)
    if not rows:
        yield warning(
            "no test rows: nothing will show whether training or the unlabeled texts helped: "
            "hold out labeled rows, 100 or more, and name them with --test"
        )
        return
    if rows < _FEW_SCORED:
        points = 100 * 1.96 * np.sqrt(0.25 / rows)
        yield warning(f"{counted(rows, 'test row')}: an accuracy measured on them may be {points:.0f} points off")
    absent = [repr(name) for name, n in _sizes(data, data.test if len(data.test) else data.dev) if not n]
    if absent:
        yield warning(f"classes without a test row: {listed(absent)}: nothing will show how well they are predicted")


def _pool(data: Data, keys: np.ndarray) -> Iterator[Finding]:
    pool = len(data.unlabeled)
    if not pool:
        yield warning("no unlabeled texts: there is nothing to learn from but the labels: name a pool with --unlabeled")
        return
    if pool < 3 * len(data.labeled):
        yield warning(f"a small pool: {counted(pool, 'unlabeled text')} for {len(data.labeled)} labels: expect little")
    repeats = pool - len(np.unique(keys[data.unlabeled]))
    if repeats > _REPEATS * pool:
        yield warning(f"{repeats / pool:.0%} of the pool repeats other texts of it: remove copies, they count as often")
