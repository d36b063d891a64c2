"""How strong a strong view may be: as strong as the model can stand before training."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_ssl.data.dataset import Data
from nlp_ssl.inference.predict import predict
from nlp_ssl.nets.base import Module
from nlp_ssl.ops.multilabel import binary_logits
from nlp_ssl.utils.precision import Autocast

log = logging.getLogger("nlp_ssl")
_ROWS = 256  # pool rows looked at


@dataclass(frozen=True)
class Strongest:
    """The first of `candidates` (strongest first) under which enough predictions stay as they are; else the last.

    Noise that changes the label teaches wrong labels: replacing two words of ten destroys "who", "where" and "how
    many" in a question and hardly matters in a news item. No fixed strength suits both. Looked at is the half of a
    pool sample that the started model is most confident of, because pseudo-labels come from there.
    """

    candidates: tuple[Any, ...]
    agreement: float = 0.9

    def settle(self, module: Module, data: Data, seed: int, context: Autocast) -> int:
        """Number of the candidate to use, from the started model's predictions on plain and changed pool rows."""
        rng = np.random.default_rng((seed, 5))
        rows = rng.choice(data.unlabeled, min(_ROWS, len(data.unlabeled)), replace=False)
        seen = binary_logits if data.kind == "multi-label" else lambda logits: logits
        plain = seen(predict(module, data.store, rows, context))
        confidence = plain.softmax(-1).amax(-1)
        sure = confidence >= confidence.median()
        for number, candidate in enumerate(self.candidates):
            changed = seen(predict(module, data.store, rows, context, augment=candidate, seed=seed))
            same = float((changed.argmax(-1) == plain.argmax(-1))[sure].float().mean())
            if same >= self.agreement:
                log.info("strong view: %s (%.0f %% of the confident predictions stay)", candidate, 100 * same)
                return number
        log.info("strong view: %s (every stronger one changes too many predictions)", self.candidates[-1])
        return len(self.candidates) - 1
