"""Which method to begin with, and why: rules that follow the comparisons of the README."""

from dataclasses import dataclass

from nlp_ssl.data.dataset import Data
from nlp_ssl.doctor.look import Look

_HARD = 0.35  # of the way from chance to all right; IMDb with 10 labels per class is below, TREC-6 and AG News above
_LARGE_POOL = 20_000  # texts: label_propagation reads all of them again every 50 steps
_MANY_LABELS = 100  # per class; the comparisons had fewer


@dataclass(frozen=True)
class Advice:
    """A method to begin with and the reasons, one line each."""

    method: str
    reasons: tuple[str, ...]


def advise(data: Data, look: Look) -> Advice:
    """What to begin with. Reasons say what was compared; none of them is a promise."""
    method, reasons = _method(data, look)
    smallest = min(int((data.labels[data.labeled] == i).sum()) for i in range(len(data.classes)))
    if method != "supervised" and smallest >= _MANY_LABELS:
        reasons.append(f"With {smallest} and more labels per class the pool has less to add.")
    if method != "supervised":
        reasons.append("--baseline trains on the labels alone, too: keep whichever is better in the closing table.")
    return Advice(method, tuple(reasons))


def _method(data: Data, look: Look) -> tuple[str, list[str]]:
    if not len(data.unlabeled):
        return "supervised", ["There are no unlabeled texts, and the other methods learn from those."]
    if look.probe is None or look.probe.above_chance < _HARD or look.probe.low <= look.probe.chance:
        hard = "The classes are hard to separate with these labels, so many pseudo-labels would be wrong."
        return "uda", [
            hard if look.probe else "There are too few labels to see whether the classes can be separated.",
            "On film reviews, a case like this, UDA made no difference that stands out (README).",
            "More labels are the surest help.",
        ]
    if len(data.unlabeled) > _LARGE_POOL:
        return "softmatch", [
            "On TREC-6 and AG News it was better than the labels alone with every seed (README). label_propagation was",
            f"a little better still, but reads the whole pool again every 50 steps: {len(data.unlabeled):,} texts.",
        ]
    return "label_propagation", [
        "On TREC-6 and AG News it was better than the labels alone with every seed (README). Your data may differ.",
    ]
