"""Tiny nets and rows of pairs of texts."""

from pathlib import Path

import numpy as np
from tiny import BAD, FILLER, GOOD, tiny_bert, tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from nlp_ssl.data.table import Table, table_of


def tokenizer_of(pair: str, names: list[str]) -> PreTrainedTokenizerFast:
    plain = tiny_tokenizer()
    plain.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, model_input_names=names, **plain.special_tokens_map
    )


def pair_tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer_of("[CLS] $A [SEP] $B:1 [SEP]:1", ["input_ids", "token_type_ids", "attention_mask"])


def roberta_like() -> PreTrainedTokenizerFast:
    """Two separators between the texts, no token types."""
    return tokenizer_of("[CLS] $A [SEP] [SEP] $B [SEP]", ["input_ids", "attention_mask"])


def pair_rows(rows: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Whether both texts are of the same mood: no text alone tells."""
    rng = np.random.default_rng(seed)
    first, second, labels = [], [], []
    for i in range(rows):
        a, b = rng.choice(GOOD if i % 4 < 2 else BAD, 2), rng.choice(GOOD if i % 2 else BAD, 2)
        first.append(" ".join([*rng.choice(FILLER, 4), *a]))
        second.append(" ".join([*b, *rng.choice(FILLER, 4)]))
        labels.append("same" if (i % 4 < 2) == bool(i % 2) else "other")
    return first, second, labels


def pair_table(rows: int, seed: int) -> Table:
    first, second, labels = pair_rows(rows, seed)
    return table_of(first, labels, pairs=second, source=f"pairs {seed}")


def pair_bert(folder: Path) -> Path:
    tiny_bert(folder, names=("other", "same"))
    pair_tokenizer().save_pretrained(folder)
    return folder
