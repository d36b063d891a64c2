"""Strong views by name: `tfidf(p=0.4)`, `back_translation+tfidf`, `span(p=0.1)+swap`."""

import re
from dataclasses import dataclass

import numpy as np

from nlp_ssl.augment.base import Augment, Identity, Vocabulary
from nlp_ssl.augment.word_noise import WORD_OPS
from nlp_ssl.data.ragged import Ragged
from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.method import check

BACK_TRANSLATION = "back_translation"
_NAMES = {"tfidf": "replace", **{name: name for name in WORD_OPS if name != "replace"}}  # in a policy: operation
_STRENGTH = {"replace": 0.4}  # where none is given; the others have 0.15
_TERM = re.compile(r"(?P<name>[a-z_]+)(\(\s*(p\s*=\s*)?(?P<p>[0-9.eE+-]+)\s*\))?")


@dataclass(frozen=True)
class Chain:
    """Word operations one after the other, each with its strength p.

    Raises:
        ConfigError: p outside [0, 1].
    """

    steps: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        for name, p in self.steps:
            check(p, f"p of {name}", 0.0, 1.0)

    def __call__(self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary) -> Ragged:
        for name, p in self.steps:
            words, weights = WORD_OPS[name](words, weights, keys, vocabulary, np.full(len(words), p))
        return words


@dataclass(frozen=True)
class Rewritten:
    """Each row makes way for one of its stored rewritings, drawn by its key, and `then` changes that.

    A row without any is changed by `otherwise`: UDA's mixture is back-translation where there is one and words replaced
    elsewhere (Xie et al. 2020, arXiv:1904.12848). The token store knows the rewritings.
    """

    then: Augment = Identity()
    otherwise: Augment = Chain((("replace", 0.4),))

    def __call__(self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary) -> Ragged:
        return self.otherwise(words, weights, keys, vocabulary)


def parse_policy(text: str) -> Augment:
    """The strong view that a policy names.

    Raises:
        ConfigError: unknown operation (with the nearest name), or a strength that is none.
    """
    steps, first, rewritten = [], True, False
    for term in re.split(r"\+(?![0-9])", text.replace(" ", "")):
        match = _TERM.fullmatch(term)
        if match is None:
            raise ConfigError(283, f"policy {text!r}: write operations like tfidf(p=0.4)+swap")
        name, p = match["name"], match["p"]
        if name == BACK_TRANSLATION:
            if not first or p is not None:
                raise ConfigError(283, f"policy {text!r}: back_translation comes first and has no strength")
            rewritten = True
        elif name not in _NAMES:
            hint = nearest(name, [BACK_TRANSLATION, *_NAMES])
            raise ConfigError(283, f"policy {text!r}: no operation {name!r}.{hint}")
        else:
            steps.append((_NAMES[name], _strength(text, p, _STRENGTH.get(_NAMES[name], 0.15))))
        first = False
    chain = Chain(tuple(steps))
    return Rewritten(then=chain if steps else Identity()) if rewritten else chain


def _strength(text: str, p: str | None, default: float) -> float:
    try:
        return default if p is None else float(p)
    except ValueError:
        raise ConfigError(283, f"policy {text!r}: {p!r} is no strength") from None
