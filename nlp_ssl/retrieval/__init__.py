"""Sentences of a large bank that are like a query: built once on disk, searched by meaning."""

from nlp_ssl.retrieval.build import build
from nlp_ssl.retrieval.index import Hit, Index
from nlp_ssl.retrieval.merge import merge
from nlp_ssl.retrieval.plan import BankOptions

__all__ = ["BankOptions", "Hit", "Index", "build", "merge"]
