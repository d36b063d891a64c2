"""Texts changed word by word, by the operations that training runs on token ids (`nlp_ssl.augment.policy`)."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nlp_ssl.augment.base import Augment, Vocabulary
from nlp_ssl.augment.tfidf import (
    document_frequency,
    inverse_document_frequency,
    replace_weights,
    summed_scores,
    tfidf_scores,
)
from nlp_ssl.paraphrase.checks import Checks
from nlp_ssl.paraphrase.gates import Gates, View
from nlp_ssl.utils.counter_rng import row_keys
from nlp_ssl.utils.ragged import Ragged

_BLOCK = 4096


def change_words(
    texts: pa.ChunkedArray,
    policy: Augment,
    *,
    samples: int = 1,
    seed: int = 0,
    gates: Gates | None = None,
    checks: Checks | None = None,
) -> Iterator[View]:
    """Views of texts [N] in their order, all samples of one after the other; words are separated by white space.

    All texts count in the word statistics; a view is a pure function of them, the seed, the row and the sample.
    """
    gates, checks = gates or Gates(), checks or Checks()
    whole = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)).combine_chunks()
    spelled = whole.flatten().dictionary_encode()
    words = Ragged(spelled.indices.to_numpy(), np.append(0, np.cumsum(pc.list_value_length(whole).to_numpy())))
    spelling = spelled.dictionary
    df = document_frequency(words, len(spelling))
    idf = inverse_document_frequency(df, len(words))
    nothing = Ragged(np.zeros(0, dtype=np.int32), np.zeros(len(spelling) + 1, dtype=np.int64))
    vocabulary = Vocabulary(nothing, df, summed_scores(words, idf))
    for start in range(0, len(words), _BLOCK):
        rows = words.slice(start, min(start + _BLOCK, len(words)))
        weights, ids = (
            replace_weights(Ragged(tfidf_scores(rows, idf), rows.offsets)),
            np.arange(start, start + len(rows)),
        )
        changed = [policy(rows, weights, row_keys(seed, s, ids), vocabulary) for s in range(samples)]
        plain, *views = (_joined(words, spelling) for words in (rows, *changed))
        candidates = [  # other white space alone is no change
            gates.view(text, sample, text if view[i] == plain[i] else view[i])
            for i, text in enumerate(texts.slice(start, len(rows)).to_pylist())
            for sample, view in enumerate(views)
        ]
        yield from checks(candidates, gates)


def _joined(words: Ragged, spelling: pa.Array) -> list[str]:
    """Rows of word ids as texts."""
    rows = pa.ListArray.from_arrays(pa.array(words.offsets, pa.int32()), spelling.take(pa.array(words.values)))
    texts: list[str] = pc.binary_join(rows, pa.scalar(" ", spelling.type)).to_pylist()
    return texts
