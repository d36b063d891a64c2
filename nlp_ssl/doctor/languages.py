"""Languages of texts, by py3langid where it is installed."""

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence

_SURE = 0.8  # probability of a language
_FEWEST = 10  # texts for shares of languages


def languages_of(texts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]] | None:
    """By part of 10 texts or more, the share of each language where it is clear; None without py3langid."""
    if importlib.util.find_spec("py3langid") is None:
        return None
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    shares = {}
    for part, some in texts.items():
        answers = [identifier.classify(text[:1000]) for text in some]
        sure = Counter(language for language, p in answers if p >= _SURE)
        if sure.total() >= _FEWEST:
            shares[part] = {language: n / sure.total() for language, n in sure.most_common()}
    return shares
