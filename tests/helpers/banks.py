"""Small banks of texts whose vectors cost nothing."""

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from nlp_ssl.retrieval import BankOptions, build

D = 16


def embed(texts):
    """A vector for each text, the same whatever stands beside it."""
    return np.stack([np.random.default_rng([len(t), *t.encode()]).normal(size=D) for t in texts]).astype(np.float32)


def unit(texts):
    rows = embed(texts)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def built(
    folder, *corpora, encode=embed, part_size=64, kind="flat", append=False, encoder="none", workers=0, **options
):
    return build(folder, list(map(str, corpora)), BankOptions(part_size=part_size, **options), encoder=encoder,
                 kind=kind, append=append, ray_workers=workers, embed=encode)  # fmt: skip


def texts_of(found):
    return [found.bank.text(i) for i in range(len(found))]


def files_of(folder):
    """Contents of all files but the lock."""
    names = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in names}


def static_encoder(folder):
    """The folder of an encoder that averages a vector for each word."""
    words = {word: i for i, word in enumerate(["[UNK]", *"this is the text number".split(), *map(str, range(500))])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    vectors = np.random.default_rng(0).normal(size=(len(words), D)).astype(np.float32)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=vectors)]).save(str(folder))
    return folder
