"""How honest the saved model's probabilities are, before and after temperature scaling."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from scipy.special import softmax

from nlp_ssl.report.collect import Predictions
from nlp_ssl.report.quality import NO_PREDICTIONS, NO_SCORED
from nlp_ssl.report.svg import Figure, drawing, frame
from nlp_ssl.training.calibration import temperature_of

_BINS = 10
_FEW = 5  # rows whose share says little: their bar is pale


@dataclass(frozen=True)
class Scaling:
    """Logits of the same rows before and after temperature scaling, and where the temperature is from."""

    before: np.ndarray
    after: np.ndarray
    source: str


def scaling(predictions: Predictions, split: str) -> Scaling:
    """What temperature scaling does to the rows of a split, or would do where the model was saved without."""
    rows, saved = predictions.part(split), float(predictions.facts.get("temperature", 1.0))
    if saved != 1.0:
        source = (
            f"The saved model was scaled by a temperature of {saved:.2f}; without that it would look as on the left."
        )
        return Scaling(rows.logits * saved, rows.logits, source)
    if split == "test" and len(dev := predictions.part("dev")):
        fitted = temperature_of(dev.logits, dev.labels)
        source = f"The model was saved as on the left; a temperature of {fitted:.2f} from the dev rows gives the right."
        return Scaling(rows.logits, rows.logits / fitted, f"{source} --calibrate dev saves it so.")
    halves = np.random.default_rng(0).permutation(len(rows)) % 2
    after = rows.logits.copy()
    for half in (0, 1):
        if (halves != half).any():
            after[halves == half] /= temperature_of(rows.logits[halves != half], rows.labels[halves != half])
    source = (
        "The model was saved as on the left; on the right each half of the rows is scaled by what fits the other half."
    )
    return Scaling(rows.logits, after, f"{source} --calibrate labels saves such a model.")


def diagrams(predictions: Predictions | None, split: str | None) -> list[Figure]:
    """Two diagrams: how often rows of a confidence are right, before and after temperature scaling."""
    titles = ("Reliability before scaling", "Reliability after temperature scaling")
    if predictions is None or split is None:
        why = NO_PREDICTIONS if predictions is None else NO_SCORED
        return [Figure(f"reliability-{i}", title, why) for i, title in enumerate(titles)]
    both, labels = scaling(predictions, split), predictions.part(split).labels
    sentences = (
        "Among rows of like confidence, the share that is right: bars on the dashed line are honest, lower ones boast; "
        "gray, how many rows they stand for; pale, fewer than five.",
        both.source,
    )
    figures = []
    for i, (title, logits) in enumerate(zip(titles, (both.before, both.after), strict=True)):
        p = softmax(logits, axis=1)
        confidence, right = p.max(1), p.argmax(1) == labels
        error = calibration_error(confidence, right)
        sentence = f"{sentences[i]} Calibration error {error:.3f}."
        figures.append(Figure(f"reliability-{i}", title, sentence, _diagram(confidence, right, error)))
    return figures


def _bins(confidence: np.ndarray) -> np.ndarray:
    bins: np.ndarray = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return bins


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over ten bins, weighted by their rows."""
    gap = np.bincount(_bins(confidence), confidence - right, _BINS)
    return float(np.abs(gap).sum() / len(confidence))


def _diagram(confidence: np.ndarray, right: np.ndarray, error: float) -> Markup:
    bins = _bins(confidence)
    size, hits = np.bincount(bins, minlength=_BINS), np.bincount(bins, right, _BINS)
    across, up, parts = frame((0.0, 1.0), (0.0, 1.0), ("confidence", "share right"), (True, True))
    bar = Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
    wide, spoken = across(1 / _BINS) - across(0), []
    for b in np.flatnonzero(size).tolist():
        share = hits[b] / size[b]
        text = f"confidence {b / _BINS:.0%} to {(b + 1) / _BINS:.0%}: {size[b]} rows, {share:.0%} right"
        spoken.append(text)
        top = up(share)
        kind = "c0" if size[b] >= _FEW else "c0 few"
        parts.append(bar.format(kind, across(b / _BINS) + 1.5, top, round(wide - 3, 1), round(up(0) - top, 1), text))
        tall = 26 * size[b] / size.max()  # how many rows a bar stands for, along the floor
        parts.append(bar.format("rows", across(b / _BINS) + 6, up(0) - tall, round(wide - 12, 1), round(tall, 1), text))
    parts.append(Markup('<line class="line rest dashed" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        across(0), up(0), across(1), up(1)
    ))  # fmt: skip
    return drawing(parts, f"Reliability diagram, calibration error {error:.3f}: {'; '.join(spoken)}.")
