"""Strong views by name: `tfidf(p=0.4)`, `back_translation+tfidf`, `some_of(2, tfidf(0.1..0.4), swap, span)`."""

import re
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from nlp_ssl.augment.base import Augment, Identity, Vocabulary
from nlp_ssl.augment.word_noise import WORD_OPS, stream
from nlp_ssl.errors import ConfigError, nearest
from nlp_ssl.utils.counter_rng import mix_bits, uniform
from nlp_ssl.utils.ragged import Ragged
from nlp_ssl.utils.ranges import check

BACK_TRANSLATION = "back_translation"
_STRENGTH = {"tfidf": 0.4}  # default strengths; the others have 0.15
_ONE_OF, _SOME_OF = "one_of", "some_of"
_TOKEN = re.compile(r"\.\.|[a-z_]+|\d*\.?\d+(?:e[+-]?\d+)?|[()+,=]", re.IGNORECASE)

_LONGEST = 500  # tokens: deeper nesting would exhaust the stack
_MAGNITUDE, _CHOICE = 6, 7  # random streams of their own, beside those of word noise


@dataclass(frozen=True)
class Operation:
    """One word operation; each row draws its strength between `low` and `high`.

    Raises:
        ConfigError: a strength outside [0, 1], or low above high.
    """

    name: str  # of `WORD_OPS`
    low: float
    high: float

    def __post_init__(self) -> None:
        check(self.high, f"p of {self.name}", 0.0, 1.0)
        check(self.low, f"p of {self.name}", 0.0, self.high)

    def apply(
        self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary, use: np.ndarray
    ) -> tuple[Ragged, np.ndarray]:
        """Changes the rows where `use` [n] holds."""
        p = np.full(len(words), self.low)
        if self.high > self.low:
            p += (self.high - self.low) * uniform(stream(keys, _MAGNITUDE), np.zeros(len(words)))
        return WORD_OPS[self.name](words, weights, keys, vocabulary, p * use)


@dataclass(frozen=True)
class SomeOf:
    """Each row draws `count` of the chains and runs them in their order.

    With strengths in ranges this is RandAugment (Cubuk et al. 2020, arXiv:1909.13719) over word operations. Differs
    from the paper: an operation is drawn at most once, and each draws its own magnitude.

    Raises:
        ConfigError: there are fewer chains.
    """

    count: int
    chains: tuple["Chain", ...]

    def __post_init__(self) -> None:
        check(self.count, "number of operations in some_of", 1, len(self.chains))

    def apply(
        self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary, use: np.ndarray
    ) -> tuple[Ragged, np.ndarray]:
        """Changes the rows where `use` [n] holds."""
        stream_of_choice = stream(keys, _CHOICE)
        drawn = np.stack([uniform(stream_of_choice, np.full(len(words), i)) for i in range(len(self.chains))], axis=-1)
        chosen = drawn.argsort(axis=-1).argsort(axis=-1) < self.count  # [n, chains]
        for i, chain in enumerate(self.chains):
            words, weights = chain.apply(words, weights, _apart(keys, i + 1), vocabulary, use & chosen[:, i])
        return words, weights


@dataclass(frozen=True)
class Chain:
    """Steps one after the other."""

    steps: tuple[Operation | SomeOf, ...]

    def __call__(self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary) -> Ragged:
        return self.apply(words, weights, keys, vocabulary, np.ones(len(words), dtype=bool))[0]

    def apply(
        self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary, use: np.ndarray
    ) -> tuple[Ragged, np.ndarray]:
        """Changes the rows where `use` [n] holds."""
        for i, step in enumerate(self.steps):
            words, weights = step.apply(words, weights, _apart(keys, i), vocabulary, use)
        return words, weights


def _apart(keys: np.ndarray, place: int) -> np.ndarray:
    """Keys of their own for a place in a policy: an operation that occurs twice does not repeat its draws.

    Mixed, so that places within places never cancel.
    """
    return mix_bits(keys ^ np.uint64(place)) if place else keys


@dataclass(frozen=True)
class Rewritten:
    """A share p of the rows that have stored rewritings takes one of them, drawn by its key, and `then` changes that.

    The other rows are changed by `otherwise`: UDA's mixture is back-translation where there is one and words replaced
    elsewhere (Xie et al. 2020, arXiv:1904.12848). The token store holds the rewritings.
    """

    then: Augment = Identity()
    otherwise: Augment = Chain((Operation("tfidf", 0.4, 0.4),))
    p: float = 1.0

    def __post_init__(self) -> None:
        check(self.p, f"p of {BACK_TRANSLATION}", 0.0, 1.0)

    def __call__(self, words: Ragged, weights: np.ndarray, keys: np.ndarray, vocabulary: Vocabulary) -> Ragged:
        return self.otherwise(words, weights, keys, vocabulary)


def parse_policy(text: str) -> Augment:
    """The strong view of a policy.

    `a+b` runs one after the other, `one_of(a, b)` one of them for each row, `some_of(2, a, b, c)` two. An operation has
    its usual strength, a fixed one `tfidf(p=0.2)` or one drawn for each row `tfidf(0.1..0.4)`. `back_translation` comes
    first: rows without a stored rewriting have words replaced, with `back_translation(p=0.5)` half of the others too.

    Raises:
        ConfigError: unknown operation (with the nearest name), or not of this form.
    """
    return _Parser(text).policy()


class _Parser:
    """Reads a policy from left to right."""

    def __init__(self, text: str) -> None:
        self._text, plain = text, text.replace(" ", "")
        self._tokens = _TOKEN.findall(plain)
        if "".join(self._tokens) != plain or len(self._tokens) > _LONGEST:
            self._fail()

    def policy(self) -> Augment:
        policy = self._rewritten() if self._tokens[:1] == [BACK_TRANSLATION] else self._chain()
        if self._tokens:
            self._fail()
        return policy

    def _fail(self, reason: str = "write operations like tfidf(p=0.4)+swap") -> NoReturn:
        raise ConfigError(283, f"policy {self._text!r}: {reason}")

    def _accept(self, token: str) -> bool:
        """Whether this token is next; if so, it is consumed."""
        if self._tokens[:1] != [token]:
            return False
        del self._tokens[0]
        return True

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            self._fail()

    def _number(self) -> float:
        token = self._tokens.pop(0) if self._tokens else ""
        if not re.match(r"[\d.]+\d|\d", token) or not np.isfinite(number := float(token)):
            self._fail()
        return number

    def _rewritten(self) -> Rewritten:
        self._expect(BACK_TRANSLATION)
        p, high = self._strengths() if self._accept("(") else (1.0, 1.0)
        if p != high:
            self._fail("back_translation has one share, as in back_translation(p=0.5)")
        return Rewritten(then=self._chain() if self._accept("+") else Identity(), p=p)

    def _chain(self) -> Chain:
        steps = [self._step()]
        while self._accept("+"):
            steps.append(self._step())
        return Chain(tuple(steps))

    def _step(self) -> Operation | SomeOf:
        name = self._tokens.pop(0) if self._tokens else ""
        if name in (_ONE_OF, _SOME_OF):
            return self._some_of(name)
        if name == BACK_TRANSLATION:
            self._fail("back_translation comes first; back_translation(p=0.5) takes it for half of the rows")
        if not name.isidentifier():
            self._fail()
        if name not in WORD_OPS:
            hint = nearest(name, [BACK_TRANSLATION, _ONE_OF, _SOME_OF, *WORD_OPS])
            self._fail(f"no operation {name!r}.{hint}")
        usual = _STRENGTH.get(name, 0.15)
        return Operation(name, *(self._strengths() if self._accept("(") else (usual, usual)))

    def _some_of(self, name: str) -> SomeOf:
        self._expect("(")
        count = 1.0
        if name == _SOME_OF:
            count = self._number()
            self._expect(",")
        chains = [self._chain()]
        while self._accept(","):
            chains.append(self._chain())
        self._expect(")")
        if count != int(count):
            self._fail(f"{count} is no number of operations")
        return SomeOf(int(count), tuple(chains))

    def _strengths(self) -> tuple[float, float]:
        if self._accept("p"):
            self._expect("=")
        low = self._number()
        high = self._number() if self._accept("..") else low
        self._expect(")")
        return low, high
