"""What a frozen encoder shows of texts: lengths, out-of-domain texts in the pool, and how separable the classes are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from nlp_ssl.data.dataset import Data
from nlp_ssl.data.schema import TRUNCATED_SHARE
from nlp_ssl.data.splits import text_keys
from nlp_ssl.doctor.finding import Fact, Finding, warning
from nlp_ssl.doctor.languages import languages_of
from nlp_ssl.doctor.probe import Probe, probe_of
from nlp_ssl.errors import listed
from nlp_ssl.inference.predict import features_of_texts
from nlp_ssl.nets.text import TextNet

MOST_TEXTS = 1000  # of the labeled texts and of the pool, that lengths and languages are taken from
_MOST_TOKENS = 30_000  # of either, that are embedded: about 15 s on one core with a small encoder
FOREIGN_QUANTILE = 0.05  # of the labeled texts are this far from the others by definition
FOREIGN = 0.2  # share of a pool; the own pools of six data sets, with 20 to 80 labels, reached 0.16
_CHARS = 100_000  # of a text, to take its length from
_FEW = 5  # texts of a class: below, a recall of 0 may be chance
_LENGTHS = (32, 64, 128, 256, 384, 512)


@dataclass(frozen=True)
class Look:
    """What a sample of the texts shows.

    Attributes:
        lengths: tokens of the drawn texts of all parts [n].
        max_length: tokens of a text that training reads.
        longest: tokens the encoder has positions for; None if any number.
        languages: by part, the share of each language; None without py3langid.
        foreign: share of `pool_texts` pool texts further from every labeled text than 95 % of those from each other.
        probe: None with fewer than two classes of two texts.
    """

    lengths: np.ndarray
    max_length: int
    longest: int | None
    languages: Mapping[str, Mapping[str, float]] | None
    foreign: float | None
    pool_texts: int
    probe: Probe | None

    @property
    def cut(self) -> float:
        """Share of the texts that are longer than training reads."""
        return float((self.lengths > self.max_length).mean())

    def enough(self) -> int | None:
        """The smallest usual length at which few texts are cut, or all the encoder can read; None if it is no gain."""
        usual = [n for n in _LENGTHS if self.longest is None or n <= self.longest] or [self.longest or self.max_length]
        fits = [n for n in usual if (self.lengths > n).mean() <= TRUNCATED_SHARE]
        length = fits[0] if fits else usual[-1]
        return length if length > self.max_length else None

    def facts(self) -> Iterator[Fact]:
        """Lengths, languages, domain and separability, a line each."""
        middle, most = (int(np.quantile(self.lengths, q)) for q in (0.5, 0.95))
        text = f"median {middle} tokens, 95% up to {most}; {self.cut:.0%} are cut at {self.max_length}"
        value = {"median": middle, "p95": most, "max_length": self.max_length, "cut": self.cut}
        yield Fact("lengths", f"{text} ({len(self.lengths)} texts drawn)", value)
        if self.languages is None:
            yield Fact("languages", "not examined: pip install 'nlp-ssl[languages]'", None)
        else:
            parts = [f"{part} {listed(_percent(shares), 4)}" for part, shares in self.languages.items()]
            yield Fact("languages", "; ".join(parts) or "too few texts", dict(self.languages))
        if self.foreign is not None:
            text = (
                f"{self.foreign:.0%} of {self.pool_texts} drawn pool texts are far from the labeled ones (5% is usual)"
            )
            yield Fact("domain", text, self.foreign)
        if self.probe is not None:
            yield from self.probe_facts(self.probe)

    def probe_facts(self, probe: Probe) -> Iterator[Fact]:
        """How well classes are predicted, and which are confused."""
        text = (
            f"a plain classifier on the untrained encoder is right on {probe.accuracy:.0%} of {probe.texts} held-out "
            f"labeled texts (95% interval {probe.low:.0%} to {probe.high:.0%}; guessing {probe.chance:.0%})"
        )
        yield Fact("separability", text, asdict(probe))
        shown = [f"{name!r} predicted as {other!r} ({n} of {of})" for name, other, n, of in probe.confused]
        if shown:
            yield Fact("confused", listed(shown, 3), shown)

    def warnings(self) -> Iterator[Finding]:
        """What may spoil training."""
        yield from self._foreign_languages()
        if self.foreign is not None and self.foreign >= FOREIGN:
            yield warning(
                f"another domain: {self.foreign:.0%} of the drawn pool texts are far from all labeled texts (5% is "
                "usual): look at some, and keep those near: nlp-ssl select POOL --in-domain LABELED --keep N --out FILE"
            )
        if self.cut > TRUNCATED_SHARE:
            enough = self.enough()
            way = f"--max-length {enough} reads more and takes longer" if enough else "the encoder reads no further"
            yield warning(f"{self.cut:.0%} of the texts are longer than {self.max_length} tokens and are cut: {way}")
        weak = [] if self.probe is None else self._at_chance(self.probe)
        if weak:
            yield warning(
                f"hard to predict: {listed(weak)}, no better than guessing: look whether their labels are right, label "
                "more of them, or merge classes"
            )

    def _at_chance(self, probe: Probe) -> list[str]:
        chance = 1 / len(probe.recall)
        return [
            f"{name!r} (recall {recall:.0%})"
            for name, recall in probe.recall.items()
            if recall <= chance and probe.sizes[name] >= _FEW
        ]

    def _foreign_languages(self) -> Iterator[Finding]:
        if self.languages is None or "labeled" not in self.languages:
            return
        ours, pool = self.languages["labeled"], self.languages.get("unlabeled", {})
        others = {name: share for name, share in pool.items() if share >= 0.05 and ours.get(name, 0) < 0.01}
        if others:
            yield warning(
                f"other languages in the pool: {listed(_percent(others))}, which no labeled text has: leave them out"
            )


def take_look(net: TextNet, data: Data, max_length: int, seed: int) -> Look:
    """Draws texts of a size that takes seconds, and looks at them through the encoder."""
    rng, whole = np.random.default_rng(seed), data.whole_texts
    assert whole is not None
    # Copies would be judged by a fit on themselves, and leave no distance between labeled texts.
    _, first = np.unique(text_keys(whole.take(pa.array(data.labeled))), return_index=True)
    rows = {
        "labeled": _evenly(rng.permutation(data.labeled[first]), data.labels)[:MOST_TEXTS],
        "unlabeled": rng.permutation(data.unlabeled)[:MOST_TEXTS],
    }
    texts = {part: _texts(whole, at) for part, at in rows.items() if len(at)}
    lengths = {part: _lengths(net, drawn) for part, drawn in texts.items()}
    known = _embedded(net, texts["labeled"], lengths["labeled"], max_length)
    pool = np.empty((0, known.shape[1]))
    if "unlabeled" in texts:
        pool = _embedded(net, texts["unlabeled"], lengths["unlabeled"], max_length)
    return Look(
        lengths=np.concatenate(list(lengths.values())),
        max_length=max_length,
        longest=net.longest(),
        languages=languages_of(texts),
        foreign=foreign_share(known, pool),
        pool_texts=len(pool),
        probe=probe_of(known, [data.classes[i] for i in data.labels[rows["labeled"][: len(known)]]], seed),
    )


def foreign_share(known: np.ndarray, pool: np.ndarray) -> float | None:
    """Share of `pool` [m, D] further from all of `known` [n, D] than 95 % of those are from the nearest other one."""
    if len(known) < 10 or not len(pool):
        return None
    among = known @ known.T
    np.fill_diagonal(among, -np.inf)
    return float(((pool @ known.T).max(1) < np.quantile(among.max(1), FOREIGN_QUANTILE)).mean())


def _percent(shares: Mapping[str, float]) -> list[str]:
    return [f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005]


def _texts(texts: pa.ChunkedArray, rows: np.ndarray) -> list[str]:
    drawn: list[str] = texts.take(pa.array(rows, pa.int64())).to_pylist()
    return drawn


def _lengths(net: TextNet, texts: Sequence[str]) -> np.ndarray:
    tokens = net.tokenizer([text[:_CHARS] for text in texts], verbose=False)["input_ids"]
    return np.array([len(t) for t in tokens])


def _evenly(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows in an order whose beginnings hold classes as evenly as can be."""
    turn = np.empty(len(rows), dtype=np.int64)
    for label in np.unique(labels[rows]):
        of_class = labels[rows] == label
        turn[of_class] = np.arange(of_class.sum())
    return rows[np.argsort(turn, kind="stable")]


def _embedded(net: TextNet, texts: Sequence[str], lengths: np.ndarray, max_length: int) -> np.ndarray:
    """Directions [n, D] of the first texts that fit the budget: what all dimensions share is no direction."""
    fits = int(np.searchsorted(np.minimum(lengths, max_length).cumsum(), _MOST_TOKENS))
    features = features_of_texts(net, [t[:_CHARS] for t in texts[: max(fits, 1)]], max_length).numpy()
    features = features - features.mean(1, keepdims=True)
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))
