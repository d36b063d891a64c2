"""Texts and labels as they are compared and kept: one spelling of each, without what no text may hold."""

import math
import re
import sys
import unicodedata
from collections import Counter

import numpy as np

from nlp_ssl.data.markers import MINUS_ONE, Markers, MinusOne, spelling, stripped
from nlp_ssl.data.values import is_missing
from nlp_ssl.errors import ConfigError, DataError, shown

_MAX_CHARS = 1_000_000  # a longer text is cut: no encoder reads further, and tokenizing it would stall a run
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_text(place: str, number: int, value: object, counts: Counter[str]) -> str | None:
    """A cleaned text; None where there is nothing.

    Raises:
        DataError: the value is no text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        counts["null texts dropped"] += 1
        return None
    if not isinstance(value, str):
        raise DataError(
            114, f"{place} row {number}: the text is {shown(value)} of type {type(value).__name__}: make it a string"
        )
    text = _clean_characters(str(value), counts)
    if text.strip():
        return text
    counts["empty texts dropped"] += 1
    return None


def _clean_characters(text: str, counts: Counter[str]) -> str:
    if "\0" in text:
        counts["texts with NUL characters removed"] += 1
        text = text.replace("\0", "")
    if len(text) > _MAX_CHARS:
        counts[f"warning: texts cut to {_MAX_CHARS:,} characters"] += 1
        text = text[:_MAX_CHARS]
    if text.isascii():
        return text
    if _SURROGATE.search(text):
        counts["texts with lone surrogates replaced"] += 1
        text = _SURROGATE.sub("\ufffd", text)
    if not unicodedata.is_normalized("NFC", text):
        counts["texts brought to Unicode NFC"] += 1
        text = unicodedata.normalize("NFC", text)
    return text


def label_name(value: object) -> str | None:
    """The one name of a label: 1, "1", 1.0 -> "1", True -> "true", " pos" -> "pos", missing or blank -> None.

    Raises:
        TypeError: the value is not a single label (a list, a mapping, bytes, infinity).
    """
    if is_missing(value):
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isinf(number):
            return str(int(number)) if number.is_integer() else str(number)
    if isinstance(value, str):
        word = stripped(value)
        if not (word.startswith("[") and word.endswith("]")):
            return _label_word(word)
    raise TypeError(f"label {shown(value)} of type {type(value).__name__} is not a single class")


def _label_word(word: str) -> str | None:
    if not word:
        return None
    if word.lower() in ("true", "false"):
        return word.lower()
    if spelling(word) == MINUS_ONE:
        return MINUS_ONE
    # A column of whole numbers with gaps is often written as 1.0, 0.0.
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(word))


def clean_name(value: object) -> str | None:
    """As `label_name`, in NFC and without what no text may hold."""
    name = label_name(value)
    return None if name is None else sys.intern(stripped(_clean_characters(name, Counter()))) or None


def markers_of(unlabeled_value: str | None, minus_one: MinusOne | None) -> Markers:
    """The rule for unlabeled rows that these arguments make.

    Raises:
        ConfigError: there is no such label, or they contradict each other.
    """
    if minus_one not in (None, "class", "unlabeled"):
        raise ConfigError(411, f"minus_one cannot be {minus_one!r}: give 'class' or 'unlabeled'")
    try:
        return Markers(clean_name(unlabeled_value), minus_one)
    except TypeError as error:
        raise ConfigError(411, f"--unlabeled-value: {error}: give a label as it stands in the file") from None
