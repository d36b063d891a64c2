"""One index from several that were built separately, without encoding anything again."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.retrieval import ann
from nlp_ssl.retrieval.bank import Bank, Part, part_name, write_part
from nlp_ssl.retrieval.build import check_folder, make_index, remove_leftovers
from nlp_ssl.retrieval.index import Index
from nlp_ssl.retrieval.plan import (
    INDEX,
    PARTS,
    TEXTS,
    UNREAD,
    corpus_keys,
    note_finished,
    read_plan,
    same_index,
    start_plan,
    undone_on_failure,
)
from nlp_ssl.retrieval.texts import Seen
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranges import check

log = logging.getLogger("nlp_ssl")
_FILES = ("texts.bin", "offsets.npy", "keys.npy", "vectors.npy")


def merge(folder: Path, shards: Sequence[Path], *, kind: str = "auto", target: float = 0.95) -> Index:
    """Builds the index that one build of all corpora of the shards, in their order, would have built.

    Parts are linked where the file system allows it, otherwise copied; one with texts that an earlier shard has is
    written anew without them. The index is then trained and filled from the stored vectors. It goes on where it was
    stopped; texts can be added to the result like to any other.

    Args:
        folder: of the index to build.
        shards: folders of finished indexes.
        kind: as for `build`.
        target: recall, as for `build`.

    Raises:
        ConfigError: the shards are of different encoders or options, two hold the same corpus, or the folder contains
            something else.
        DataError: a shard is not finished.
        CheckpointError: a file of a shard has changed.
        RunError: the folder cannot be written.
    """
    ann.factory_of(kind, 1, 1)
    check(target, "recall", 0.0, 1.0)
    banks = [_finished(shard) for shard in shards]
    ann.check_factory(kind, banks[0].dim)
    plan = _joint_plan(shards, [read_plan(shard) for shard in shards], banks)
    check_folder(folder)
    with undone_on_failure(folder):
        remove_leftovers(folder)
        if not start_plan(folder, plan) and not same_index(read_plan(folder), plan):
            raise ConfigError(462, f"{folder} contains an index of something else: name another folder")
        note_finished(folder, plan, _gather(folder / PARTS, shards, banks, plan["options"]["duplicates"] != "keep"))
        make_index(folder, plan, kind, target)
    return Index.open(folder)


def _finished(shard: Path) -> Bank:
    """The parts of an index that is finished."""
    if not (shard / INDEX).is_dir():
        raise DataError(184, f"{shard} contains no finished index: run its `nlp-ssl index build` to the end")
    meta, bank = atomic.verify(shard / INDEX, contents=False), Bank(shard / PARTS)
    indexed = [[part.name, part.fingerprint] for part in bank.parts]
    if indexed != meta.get("parts") or any((shard / TEXTS).glob("[0-9]*")):
        raise DataError(184, f"{shard} contains texts that its index lacks: run its `nlp-ssl index build` to the end")
    return bank


def _joint_plan(shards: Sequence[Path], plans: Sequence[dict[str, Any]], banks: Sequence[Bank]) -> dict[str, Any]:
    """The plan of one build of all corpora."""
    first, owners = plans[0], dict[str, Path]()
    for shard, plan, bank in zip(shards, plans, banks, strict=True):
        different = [name for name, value in first["options"].items() if plan["options"].get(name) != value]
        same = "encoder_hash" if first["encoder_hash"] else "encoder"  # the same folder may have been moved
        different += ["encoder"] * (plan[same] != first[same] or bank.dim != banks[0].dim)
        if different:
            raise ConfigError(460, f"{shards[0]} and {shard} differ in {', '.join(different)}: build both same_index")
        for corpus, name in zip(plan["corpora"], corpus_keys(plan["corpora"]), strict=True):
            if name in owners:
                both = f"{owners[name]} and {shard} both hold {corpus['source']}"
                raise ConfigError(461, f"{both}: name each shard once, and build it from other corpora")
        owners |= dict.fromkeys(corpus_keys(plan["corpora"]), shard)
    return first | UNREAD | {"corpora": [corpus for plan in plans for corpus in plan["corpora"]]}


def _gather(folder: Path, shards: Sequence[Path], banks: Sequence[Bank], once: bool) -> int:
    """Writes the parts that are still missing and counts all; with `once` texts of earlier shards are left out."""
    seen, number, corpora, dropped = Seen(), 0, 0, 0
    for shard, bank in zip(shards, banks, strict=True):
        for part in bank.parts:
            keep = ~seen.contains(part.keys) if once else np.ones(len(part), dtype=bool)
            dropped += len(part) - int(keep.sum())
            if not keep.any():
                continue
            place, number = folder / part_name(number), number + 1
            if not place.exists():
                corpus, read = part.meta["read"]
                atomic.verify(shard / PARTS / part.name)
                _write_kept(shard / PARTS / part.name, part, keep, place, {"read": [corpora + corpus, read]})
        for part in bank.parts if once else []:  # within a shard no text comes twice
            seen.add_all(np.asarray(part.keys))
        corpora += len(read_plan(shard)["corpora"])
    log.info("%d texts of earlier shards left out", dropped)
    return number


def _write_kept(source: Path, part: Part, keep: np.ndarray, place: Path, meta: dict[str, Any]) -> None:
    """Makes a part of the texts of another that are kept."""
    if not keep.all():
        rows = np.flatnonzero(keep)
        write_part(place, [part.text(row) for row in rows.tolist()], part.vectors[rows], part.keys[rows], meta)
        return
    with atomic.write_dir(place, meta) as temporary:
        for name in _FILES:
            try:
                os.link(source / name, temporary / name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source / name, temporary / name)
