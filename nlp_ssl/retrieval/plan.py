"""What an index is built from: options, encoder and corpora, saved before anything else."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import xxhash

from nlp_ssl.data.readers import check_regular, data_stem
from nlp_ssl.errors import ConfigError, DataError, SSLError
from nlp_ssl.utils import atomic
from nlp_ssl.utils.hashing import contents
from nlp_ssl.utils.lock import exclusive
from nlp_ssl.utils.paths import absolute
from nlp_ssl.utils.ranges import check

PARTS, TEXTS, INDEX = "parts", "texts", "index"  # texts with vectors; texts still without; what is searched
PLAN = "build.json"
UNREAD = {"finished": 0, "parts_then": 0}  # of a plan that does not say which corpora were read to their ends


@dataclass(frozen=True)
class BankOptions:
    """Which texts of a corpus are kept, and in what pieces."""

    sentences: Annotated[bool, "cut the texts into sentences"] = False
    fewest_words: Annotated[int, "of a text that is kept"] = 3
    most_words: Annotated[int, "of a text that is kept"] = 100
    duplicates: Annotated[
        Literal["drop", "drop_near", "keep"],
        "texts equal but for case and spaces; drop_near: but for punctuation and numbers, too",
    ] = "drop"
    part_size: Annotated[int, "texts encoded and saved at once, which a kill can cost"] = 16_384

    def __post_init__(self) -> None:
        check(self.fewest_words, "fewest_words", 1, 1e6)
        check(self.most_words, "most_words", self.fewest_words, 1e9)
        check(self.part_size, "part_size", 1, 1e8)


def corpus_files(corpora: Sequence[str]) -> Iterator[str]:
    """The corpora, a folder as each of its files of texts.

    Raises:
        DataError: a folder holds none.
    """
    for corpus in corpora:
        path = Path(corpus)
        names = sorted(path.iterdir()) if path.is_dir() else []
        data = [p for p in names if p.is_file() and p.name[0] not in "._" and data_stem(p) is not None]
        if path.is_dir() and not data:
            raise DataError(142, f"{path}: no files of texts in this folder: name files of texts, or a folder of them")
        yield from map(str, data) if data else [corpus]


def corpus_identity(source: str) -> dict[str, Any]:
    """A corpus by its contents, so that one that has changed is noticed.

    Raises:
        DataError: it cannot be read.
    """
    path = Path(source)
    check_regular(path)
    if not path.is_file():
        return {"source": source}
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise DataError(101, f"{path}: cannot be read ({error.strerror}): check the path") from error
    return {"source": str(path.absolute()), "hash": digest.hexdigest()}


def corpus_keys(corpora: Sequence[dict[str, Any]]) -> list[str]:
    """The hash of each corpus, or the name of a data set."""
    return [corpus.get("hash", corpus["source"]) for corpus in corpora]


def make_plan(
    folder: Path, corpora: list[dict[str, Any]], options: dict[str, Any], encoder: str, append: bool
) -> dict[str, Any]:
    """The plan of a folder: the one that is saved in it, unless nothing is encoded yet.

    With as many parts as `parts_then` says its `finished` first corpora are read to their ends, and no longer needed.

    Raises:
        ConfigError: the folder holds something else.
        DataError: its plan is damaged.
    """
    name = absolute(encoder) if Path(encoder).is_dir() else encoder
    wanted = {
        "format": 1,
        "options": options,
        "encoder": name,
        "encoder_hash": contents([encoder]),
        "corpora": corpora,
        **UNREAD,
    }
    if start_plan(folder, wanted):
        if append:
            raise ConfigError(297, f"{folder} holds no index to add to: leave out --append")
        return wanted
    known = read_plan(folder)
    same = {"encoder_hash"} if known["encoder_hash"] else {"encoder"}  # the same folder may have been moved
    different = [k for k in sorted(same) if known[k] != wanted[k]]
    different += [k for k, v in options.items() if known["options"].get(k) != v]
    if different:
        flags = ", ".join(f"--{name.replace('_hash', '').replace('_', '-')}" for name in different)
        raise ConfigError(297, f"{folder} was started with another {flags}: give the same, or another folder")
    known["encoder"] = name
    if append:
        known_keys = corpus_keys(known["corpora"])
        known["corpora"] += [c for c in corpora if corpus_keys([c])[0] not in known_keys]
        write_plan(folder, known)
    elif corpus_keys(known["corpora"]) != corpus_keys(corpora):
        raise ConfigError(
            297,
            f"{folder} holds other corpora, or these as they were before: --append adds them, or name another folder",
        )
    return known


@contextmanager
def undone_on_failure(folder: Path) -> Iterator[None]:
    """Leaves a folder as it was where the block fails before it has saved a single text, or adds to a whole index.

    An index keeps its parts and its corpora: those that were not read to their ends are taken out again where one of
    them cannot be read. Where there was no index, nothing is left, or the texts that were read.
    """
    path, saved, existed = folder / PLAN, _saved(folder), folder.is_dir()
    before = path.read_text() if path.is_file() else None
    with exclusive(folder):
        try:
            yield
        except BaseException as error:
            if _saved(folder) == saved:
                _put_back(folder, before, existed)
            if isinstance(error, DataError) and before is not None:
                _take_out_unread(folder, before, saved)
            raise


def _saved(folder: Path) -> set[Path]:
    """The parts and pieces of a folder."""
    return {path for where in (PARTS, TEXTS) for path in (folder / where).glob("[0-9]*")}


def _put_back(folder: Path, plan: str | None, existed: bool) -> None:
    with suppress(OSError, SSLError):  # the failure itself is what the user sees
        if plan is not None:
            atomic.write_text(folder / PLAN, plan)
            return
        for name in (PLAN, PARTS, TEXTS, ".lock"):
            atomic.remove(folder / name)
        if not existed:
            folder.rmdir()


def _take_out_unread(folder: Path, before: str, saved: set[Path]) -> None:
    """Takes out of an index the corpora that were not read to their ends, and the texts that were read of them."""
    with suppress(OSError, SSLError):  # as above
        plan = read_plan(folder)
        if not any((folder / PARTS).iterdir()):
            return  # the first build: another one starts anew
        if plan["finished"]:
            corpora, first = plan["corpora"][: plan["finished"]], plan["parts_then"]
            unread = [path for path in (folder / TEXTS).glob("[0-9]*") if int(path.name) >= first]
        else:  # a plan that does not say how far it was read
            corpora, unread = json.loads(before)["corpora"], sorted(_saved(folder) - saved)
        if plan["corpora"] != corpora:
            write_plan(folder, {**plan, "corpora": corpora})
        for path in unread:
            atomic.discard(path)


def start_plan(folder: Path, plan: dict[str, Any]) -> bool:
    """Whether nothing is encoded yet; the plan is then saved, and texts that were read for another one are removed."""
    if any((folder / PARTS).iterdir()):
        return False
    if not (folder / PLAN).exists() or not same_index(read_plan(folder), plan):
        if (folder / TEXTS).exists():
            atomic.discard(folder / TEXTS)
        write_plan(folder, plan)
    return True


def same_index(plan: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two plans are of the same index, however far either was carried out."""
    return {**plan, **UNREAD} == {**other, **UNREAD}


def write_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Saves the plan of a folder.

    Raises:
        RunError: the folder cannot be written.
    """
    atomic.write_text(folder / PLAN, json.dumps(plan, indent=1))


def note_finished(folder: Path, plan: dict[str, Any], parts: int) -> None:
    """Notes that all corpora were read to their ends, into this many parts.

    Raises:
        RunError: the folder cannot be written.
    """
    done = {"finished": len(plan["corpora"]), "parts_then": parts}
    if {**plan, **done} != plan:
        plan |= done
        write_plan(folder, plan)


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan that is saved in a folder.

    Raises:
        ConfigError: it is missing.
        DataError: it is damaged.
    """
    path = folder / PLAN
    if not path.exists():
        raise ConfigError(297, f"{path} is missing beside its parts: restore it, or name another folder")
    with atomic.reading(path):
        try:
            plan: dict[str, Any] = json.loads(path.read_text())
            named = all(isinstance(corpus["source"], str) for corpus in plan["corpora"])
            if plan["format"] == 1 and {"encoder", "encoder_hash"} <= plan.keys() and dict(plan["options"]) and named:
                return UNREAD | plan
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
    raise DataError(143, f"{path} is damaged: restore it, or build in another folder")
