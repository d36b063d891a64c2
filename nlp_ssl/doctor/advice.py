"""Which method to begin with, and why: rules over what was found, grounded in what README measured."""

from dataclasses import dataclass

from nlp_ssl.data.dataset import Data
from nlp_ssl.doctor.look import Look

_HARD = 0.35  # of the way from guessing to all right; IMDb with 10 labels a class lies below, TREC-6 and AG News above
_LARGE_POOL = 20_000  # texts: label_propagation reads all of them again every 50 steps
_MANY_LABELS = 100  # a class; measured were 10 to 40


@dataclass(frozen=True)
class Advice:
    """A method to begin with and the reasons, one line each."""

    method: str
    reasons: tuple[str, ...]


def advise(data: Data, look: Look) -> Advice:
    """What to begin with. Reasons tell what was measured; none of them is a promise."""
    method, reasons = _method(data, look)
    smallest = min(int((data.labels[data.labeled] == i).sum()) for i in range(len(data.classes)))
    if method != "supervised" and smallest >= _MANY_LABELS:
        reasons.append(
            f"With {smallest} and more labels a class the pool has less to add: measured were 10 to 40 a class."
        )
    if method != "supervised":
        reasons.append("--baseline trains on the labels alone, too: keep whichever the closing table favours.")
    return Advice(method, tuple(reasons))


def _method(data: Data, look: Look) -> tuple[str, list[str]]:
    if not len(data.unlabeled):
        return "supervised", ["There are no unlabeled texts, and the other methods learn from those."]
    if look.probe is None or look.probe.above_chance < _HARD or look.probe.low <= look.probe.chance:
        hard = "The classes are hard to tell from these labels, so many pseudo-labels would be wrong."
        return "uda", [
            hard if look.probe else "There are too few labels to see whether the classes can be told apart.",
            "On reviews, a case like this, UDA did no harm (+0.5 +- 0.9 points, three seeds) and no good.",
            "More labels are the surest help.",
        ]
    if len(data.unlabeled) > _LARGE_POOL:
        return "softmatch", [
            "Beyond training on the labels alone it gained 4.1 +- 1.6 points on TREC-6 and 1.0 +- 0.6 on AG News",
            "(10 labels a class, three seeds). label_propagation gained a little more, but reads the whole pool again",
            f"every 50 steps: {len(data.unlabeled):,} texts.",
        ]
    return "label_propagation", [
        "Beyond training on the labels alone it gained 6.2 +- 0.3 points on TREC-6 and 1.2 +- 0.4 on AG News",
        "(10 labels a class, three seeds), more steadily than the other methods compared. Yours may differ.",
    ]
