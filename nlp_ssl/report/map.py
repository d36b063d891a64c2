"""A map of the embedding space, before and after training."""

import numpy as np
from markupsafe import Markup
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from nlp_ssl.report.collect import Collected, Predictions, Rows
from nlp_ssl.report.quality import NO_PREDICTIONS
from nlp_ssl.report.shades import Shades
from nlp_ssl.report.svg import Figure, drawing
from nlp_ssl.report.texts import readable

_HINT = 90  # characters shown under the pointer
_FEW = 12  # rows under which neighbors are no use


def maps(run: Collected, shades: Shades) -> Figure:
    """The embedding space before and after training; the colors are chosen on the page."""
    title, predictions = "Map of training rows", run.first.predictions
    if predictions is None:
        return Figure("map", title, NO_PREDICTIONS, wide=True)
    rows = predictions.part("pool", "labeled")
    if len(rows) < 2:
        return Figure("map", title, "There are fewer than two training rows.", wide=True)
    drawn = [
        _map(rows, place(rows.numbers(column)), run, shades, predictions, when)
        for column, when in (("before", "before training"), ("after", "after training"))
    ]
    panels = Markup(
        '<div class="panel"><p class="caption">{}</p>{}</div><div class="panel"><p class="caption">{}</p>{}</div>'
    )
    body = panels.format("Before: the encoder as it came", drawn[0], "After: the saved model", drawn[1])
    how = "neighbors in the embedding space lie together (t-SNE)" if len(rows) >= _FEW else "two main directions (PCA)"
    sentence = (
        f"{len(predictions.part('pool'))} pool rows and {len(predictions.part('labeled'))} labeled ones (diamonds), "
        f"{how}. Training has worked where the colors form separate islands."
    )
    return Figure("map", title, sentence, body, (*shades.legend,), wide=True)


def place(features: np.ndarray) -> np.ndarray:
    """Two coordinates [n, 2] between 0 and 1: t-SNE, or the first two directions of a few rows."""
    if features.shape[1] < 2:
        features = np.concatenate([features, np.zeros_like(features)], 1)
    at = features[:, :2]
    if len(features) >= _FEW and features.std() > 1e-9:
        tsne = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=0, n_jobs=1)
        # Of its many short loops, threads that wait for one another make minutes on a busy machine.
        with threadpool_limits(1):
            at = tsne.fit_transform(features)
    low, high = at.min(0), at.max(0)
    scaled: np.ndarray = (at - low) / np.maximum(high - low, 1e-9)
    return scaled


def _map(rows: Rows, at: np.ndarray, run: Collected, shades: Shades, predictions: Predictions, when: str) -> Markup:
    guess, pseudo = rows.logits.argmax(1), _pseudo(rows, run)
    hints = [readable(c, _HINT) if c and predictions.facts["kind"] == "text" else "" for c in rows.contents()]
    parts = []
    labeled = np.array(rows.table["part"].to_pylist()) == "labeled"
    for i in np.argsort(labeled, kind="stable").tolist():
        colors = (shades.color(int(v)) for v in (rows.labels[i], pseudo[i], guess[i]))
        kind = "pt " + " ".join(f"{way}-{color}" for way, color in zip("tpq", colors, strict=True))
        x, y = round(8 + 344 * at[i, 0], 1), round(8 + 284 * at[i, 1], 1)
        hint = Markup("<title>{}</title>").format(hints[i]) if hints[i] else ""
        if labeled[i]:
            shape = Markup('<path class="{} known" d="M{} {}l5 5l-5 5l-5 -5z">{}</path>')
            parts.append(shape.format(kind, x, round(y - 5, 1), hint))
        else:
            parts.append(Markup('<circle class="{}" cx="{}" cy="{}" r="3">{}</circle>').format(kind, x, y, hint))
    return drawing(parts, f"Map of {len(rows)} rows {when}, one mark each, colored by class.", 300, "chart map")


def _pseudo(rows: Rows, run: Collected) -> np.ndarray:
    """The pseudo-label of every row, -1 where it is not sure enough for the method; a labeled row has its label."""
    threshold = run.identity.get("options", {}).get("threshold")
    least = threshold if isinstance(threshold, int | float) else 0.0
    label = rows.labels.copy()
    for i, p in enumerate(rows.table["pseudo"].to_pylist()):
        if p:
            label[i] = int(np.argmax(p)) if max(p) >= least else -1
    return label
