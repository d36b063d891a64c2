"""Single rows worth a look, and views of pool rows side by side."""

import base64
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from nlp_ssl.report.collect import Collected, Predictions, Rows
from nlp_ssl.report.quality import NO_PREDICTIONS, NO_SCORED
from nlp_ssl.report.shades import Shades

_SHOWN = 6  # rows of a list
_VIEWS = 4  # rows with their views


@dataclass(frozen=True)
class Content:
    """What the page shows of a row: the beginning of a text, or an image as a data address."""

    text: str = ""
    image: str = ""

    @classmethod
    def of(cls, content: bytes | None, kind: str) -> "Content":
        """From the bytes of a predictions file, with nothing in them that a page cannot show."""
        if content is None:
            return cls("(not kept)")
        if kind == "image":
            return cls(image="data:image/png;base64," + base64.b64encode(content).decode())
        return cls(readable(content))


class Said(NamedTuple):
    """Who says which class (name and color), and how sure in percent."""

    who: str
    name: str
    color: str
    percent: int | None = None


@dataclass(frozen=True)
class Item:
    """A row with what is said of it."""

    content: Content
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Listing:
    """Rows worth a look, or the sentence that says why there are none."""

    id: str
    title: str
    sentence: str
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Views:
    """A row of the pool and what the method trained on in its place."""

    content: Content
    weak: Content | None
    strong: Content | None

    @property
    def marked(self) -> list[tuple[str, bool]]:
        """The strong view in runs of words, with whether the weak view lacks them at this place."""
        old = self.weak.text.split() if self.weak is not None else []
        new = self.strong.text.split() if self.strong is not None else []
        steps = SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if old else [("equal", 0, 0, 0, len(new))]
        return [(" ".join(new[a:b]), way != "equal") for way, _, _, a, b in steps if b > a]


def readable(content: bytes, most: int = 401) -> str:
    """The beginning of a text in UTF-8, without characters that are not for reading."""
    text = content[: 4 * most].decode(errors="replace")[:most]  # a character has four bytes at most
    return "".join(c if c.isprintable() or ord(c) > 159 else " " for c in text)


@dataclass(frozen=True)
class _Judged:
    """The rows of a split with what the saved model says of them."""

    run: Collected
    shades: Shades
    rows: Rows
    split: str
    kind: str

    @cached_property
    def p(self) -> np.ndarray:
        """Probabilities [n, C]."""
        p: np.ndarray = softmax(self.rows.logits, axis=1)
        return p

    def items(self, at: np.ndarray, baseline: np.ndarray | None = None) -> tuple[Item, ...]:
        """The first few of the rows at these places."""
        contents = self.rows.contents()
        items = []
        for i in at[:_SHOWN].tolist():
            label = int(self.rows.labels[i])
            judgments = [Said("true", self.shades.name(label), self.shades.color(label))]
            if baseline is not None:
                judgments.append(self._said("baseline", baseline[i]))
            judgments.append(self._said(self.run.method, self.p[i]))
            items.append(Item(Content.of(contents[i], self.kind), tuple(judgments)))
        return tuple(items)

    def _said(self, who: str, p: np.ndarray) -> Said:
        best = int(p.argmax())
        return Said(who, self.shades.name(best), self.shades.color(best), round(100 * float(p[best])))


def listings(run: Collected, split: str | None, shades: Shades) -> list[Listing]:
    """The least sure rows, those the baseline sees otherwise, and the surest mistakes."""
    predictions = run.first.predictions
    titles = ("Least sure", f"Baseline and {run.method} disagree", "Wrong and sure of it")
    if predictions is None or split is None:
        why = NO_PREDICTIONS if predictions is None else NO_SCORED
        return [Listing(id, title, why) for id, title in zip(("uncertain", "flipped", "wrong"), titles, strict=True)]
    judged = _Judged(run, shades, predictions.part(split), split, predictions.facts["kind"])
    return [_unsure(judged, titles[0]), _flipped(judged, titles[1]), _wrong(judged, titles[2])]


def _unsure(judged: _Judged, title: str) -> Listing:
    sentence = f"The {judged.split} rows on which the saved model comes closest to guessing."
    return Listing("uncertain", title, sentence, judged.items(np.argsort(judged.p.max(1), kind="stable")))


def _flipped(judged: _Judged, title: str) -> Listing:
    side = judged.run.baselines[0]
    theirs = side.predictions.part(judged.split) if side is not None and side.predictions is not None else None
    ours = judged.rows.table["row"].to_numpy()
    if theirs is None or not np.array_equal(theirs.table["row"].to_numpy(), ours):
        return Listing("flipped", title, "The run has no label-only baseline beside it: --baseline trains one.")
    p = softmax(theirs.logits, axis=1)
    both = np.minimum(p.max(1), judged.p.max(1))
    other, guess, true = p.argmax(1), judged.p.argmax(1), judged.rows.labels
    at = np.flatnonzero(other != guess)
    better, worse = int(((guess == true) & (other != true)).sum()), int(((guess != true) & (other == true)).sum())
    sentence = (
        f"{len(at)} of {len(ours)} {judged.split} rows got another class than from the label-only baseline: "
        f"{better} were put right, {worse} were put wrong; these are the ones on which both are surest."
    )
    if not len(at):
        sentence = f"Model and label-only baseline give every {judged.split} row the same class."
    return Listing("flipped", title, sentence, judged.items(at[np.argsort(-both[at], kind="stable")], p))


def _wrong(judged: _Judged, title: str) -> Listing:
    at = np.flatnonzero(judged.p.argmax(1) != judged.rows.labels)
    order = at[np.argsort(-judged.p[at].max(1), kind="stable")] if len(at) else at
    sentence = f"The surest mistakes on the {judged.split} rows; wrong labels in the data are often among them."
    if not len(at):
        sentence = f"There is no mistake on the {judged.split} rows."
    return Listing("wrong", title, sentence, judged.items(order))


def views(predictions: Predictions | None) -> list[Views]:
    """Pool rows with their weak and strong view, as far as the method has them."""
    if predictions is None:
        return []
    rows, kind = predictions.part("pool"), predictions.facts["kind"]
    columns = (rows.contents(), rows.contents("weak"), rows.contents("strong"))
    shown_views = []
    for content, weak, strong in zip(*columns, strict=True):
        if weak is not None or strong is not None:
            shown = [None if view is None else Content.of(view, kind) for view in (weak, strong)]
            shown_views.append(Views(Content.of(content, kind), *shown))
    return shown_views[:_VIEWS]
