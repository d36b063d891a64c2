"""Checks of rewritings by models: whether the meaning is kept, and the label."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.inference.predict import longest_text, predict_texts
from nlp_ssl.nets.text import TextNet, load_trained
from nlp_ssl.paraphrase.gates import ACCEPTED, Gates, View


@dataclass(frozen=True)
class Checks:
    """Checks that take a model; each is left out if not given.

    Attributes:
        cosines: cosine of the embeddings of each text and its rewriting, float [n], for `Gates.lowest_cosine`.
        labels: the class of each text; a rewriting of another class than its text is not accepted.
    """

    cosines: Callable[[list[str], list[str]], np.ndarray] | None = None
    labels: Callable[[list[str]], list[str]] | None = None

    def __call__(self, views: list[View], gates: Gates) -> list[View]:
        """The views; where the rewriting is not accepted, with the text in its place."""
        views = list(views)
        changed = [i for i, v in enumerate(views) if v.changed]
        if self.cosines is not None and changed:
            cosines = self.cosines([views[i].text for i in changed], [views[i].view for i in changed])
            for i, cosine in zip(changed, cosines.tolist(), strict=True):
                views[i] = views[i]._replace(cosine=cosine)
                if cosine < gates.lowest_cosine:
                    views[i] = views[i]._replace(view=views[i].text, outcome="other meaning")
        changed = [i for i in changed if views[i].outcome == ACCEPTED]
        if self.labels is not None and changed:
            known = list(dict.fromkeys(text for i in changed for text in (views[i].text, views[i].view)))
            label = dict(zip(known, self.labels(known), strict=True))
            for i in changed:
                if label[views[i].text] != label[views[i].view]:
                    views[i] = views[i]._replace(view=views[i].text, outcome="other label")
        return views


@dataclass(frozen=True)
class Cosines:
    """`Checks.cosines` by a sentence encoder."""

    embed: Embedder

    def __call__(self, texts: list[str], views: list[str]) -> np.ndarray:
        known = list(dict.fromkeys([*texts, *views]))
        z, place = self.embed(known), {text: i for i, text in enumerate(known)}
        cosines: np.ndarray = (z[[place[t] for t in texts]] * z[[place[v] for v in views]]).sum(-1)
        return cosines.clip(-1, 1)  # rounding may exceed 1


@dataclass(frozen=True)
class LabelCheck:
    """`Checks.labels` by a classifier of `nlp-ssl train`, loaded at its first use.

    Raises:
        DataError: the folder holds no whole model.
    """

    folder: Path

    @cached_property
    def _net(self) -> TextNet:
        return load_trained(self.folder)

    def __call__(self, texts: list[str]) -> list[str]:
        return [label for label, _ in predict_texts(self._net, texts, longest_text(self._net))]
