"""Sentence embeddings by any encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.text import quiet


@dataclass(frozen=True)
class Embedder:
    """A sentence encoder, loaded when it is first asked.

    Attributes:
        encoder: folder or hub name; without pooling of its own the token vectors are averaged.

    Raises:
        ConfigError: the encoder cannot be opened.
    """

    encoder: str

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        try:
            with quiet():
                return SentenceTransformer(self.encoder, model_kwargs={"use_safetensors": True})
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(286, f"no encoder can be opened as {self.encoder!r} ({reason}): name a folder") from error

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of length 1, float32 [n, D]."""
        found: np.ndarray = self._model.encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return found
