"""How separable the classes are in the embeddings of a frozen encoder: a linear probe."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from nlp_ssl.data.schema import in_order
from nlp_ssl.ops.fits import without_remarks


@dataclass(frozen=True)
class Probe:
    """Logistic regression on frozen embeddings, each labeled text predicted by a fit on others (`folds`-fold).

    Attributes:
        accuracy: share of the texts given their own class.
        low, high: its 95 % interval (Wilson).
        chance: share of the largest class among them.
        recall, sizes: by class, the share of its texts that are predicted as it, and their number.
        confused: (class, predicted class, how many, of how many), most frequent first.
    """

    texts: int
    folds: int
    accuracy: float
    low: float
    high: float
    chance: float
    recall: Mapping[str, float]
    sizes: Mapping[str, int]
    confused: tuple[tuple[str, str, int, int], ...]

    @property
    def above_chance(self) -> float:
        """0 at chance, 1 where all are right."""
        return (self.accuracy - self.chance) / (1 - self.chance)


@without_remarks()
def probe_of(features: np.ndarray, labels: Sequence[str], seed: int) -> Probe | None:
    """How well classes are predicted from `features` [n, D]; classes of a single text are left out."""
    truth = np.array(labels)
    sizes = Counter(labels)
    kept = np.array([sizes[name] > 1 for name in labels])
    names = in_order(name for name, n in sizes.items() if n > 1)
    if len(names) < 2:
        return None
    features, truth = features[kept], truth[kept]
    folds = min(5, min(sizes[name] for name in names))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    predicted = cross_val_predict(LogisticRegression(max_iter=1000, C=10.0), features, truth, cv=split)
    right = predicted == truth
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    wrong = Counter(zip(truth[~right].tolist(), predicted[~right].tolist(), strict=True))
    return Probe(
        texts=len(truth),
        folds=folds,
        accuracy=float(right.mean()),
        low=float(interval.low),
        high=float(interval.high),
        chance=max(sizes[name] for name in names) / len(truth),
        recall={name: float(right[truth == name].mean()) for name in names},
        sizes={name: sizes[name] for name in names},
        confused=tuple((a, b, n, sizes[a]) for (a, b), n in wrong.most_common(5) if n > 1),
    )
