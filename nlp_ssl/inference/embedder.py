"""Sentence embeddings by any encoder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from torch import nn

from nlp_ssl.data.values import refuse_one_text
from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.opening import check_encoder, entries, is_length, opening, positions
from nlp_ssl.utils.progress import bar

EncoderPrecision = Literal["float32", "bf16"]

# Characters of a batch: measured on two cores with a small BERT; a GPU wants more of them at once.
_CHARACTERS, _CHARACTERS_BF16, _CHARACTERS_GPU = 2048, 8192, 131_072


@dataclass(frozen=True)
class Embedder:
    """A sentence encoder, loaded when it is first asked.

    Attributes:
        encoder: folder or hub name; without pooling of its own the token vectors are averaged.
        precision: of its weights; bf16 is faster where the processor computes in it, and a little rougher.
    """

    encoder: str
    precision: EncoderPrecision = "float32"

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        with opening(self._refusal):
            check_encoder(self.encoder)
            model = SentenceTransformer(self.encoder, model_kwargs={"use_safetensors": True}, trust_remote_code=False)
            _check(model)
            model.encode(["A first text."], show_progress_bar=False)  # what opens may still fail at the first text
        return model.bfloat16() if self.precision == "bf16" else model

    def _refusal(self, reason: str) -> ConfigError:
        return ConfigError(286, f"no encoder can be opened as {self.encoder!r} ({reason}): name a folder")

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of length 1, float32 [n, D].

        Texts of about the same length go through the encoder together, many short ones or few long ones.

        Raises:
            ConfigError: the encoder cannot be opened, or `texts` is one text instead of a list.
        """
        refuse_one_text(texts, "texts")
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        batches = list(batches_of(order, texts, self._budget())) or [[]]
        with bar("embedding", len(texts)) as advance:
            parts = []
            for batch in batches:
                parts.append(self._encode([texts[number] for number in batch]))
                advance(len(batch))
        sorted_vectors = np.concatenate(parts)
        vectors = np.empty_like(sorted_vectors)
        vectors[order] = sorted_vectors
        if self.precision == "bf16":  # whose lengths are rounded, too
            vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
        return vectors

    def _budget(self) -> int:
        """Characters of a batch, padding counted."""
        if self._model.device.type != "cpu":
            return _CHARACTERS_GPU
        return _CHARACTERS_BF16 if self.precision == "bf16" else _CHARACTERS

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = self._model.encode(
            list(texts), batch_size=max(len(texts), 1), normalize_embeddings=True, convert_to_numpy=True,
            show_progress_bar=False,
        )  # fmt: skip
        return vectors


def _check(model: Any) -> None:
    """Refuses an encoder that fails at some texts alone.

    Raises:
        ValueError: its tokenizer cuts texts where it has no positions, or knows words that it has no vectors of.
    """
    from sentence_transformers.models import Transformer

    longest, cut = positions(model), model.max_seq_length
    if longest is not None and not (is_length(cut) and cut <= longest):
        raise ValueError(f"texts are cut to {cut} tokens, it has positions for {longest}")
    if isinstance(model[0], Transformer) and isinstance(words := model[0].model.get_input_embeddings(), nn.Embedding):
        if (wanted := entries(model.tokenizer)) > words.num_embeddings:
            raise ValueError(f"its tokenizer has {wanted} entries, the model only {words.num_embeddings}")


def batches_of(order: Sequence[int], texts: Sequence[str], budget: int) -> Iterator[list[int]]:
    """Runs of the numbers of texts, longest text first, that fill a budget of characters or hold one text."""
    at = 0
    while at < len(order):
        size = max(budget // max(len(texts[order[at]]), 1), 1)
        yield list(order[at : at + size])
        at += size
