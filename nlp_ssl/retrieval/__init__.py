"""Sentences of a large bank that are like a query: built once on disk, searched by meaning."""

from nlp_ssl.retrieval.build import BankOptions, build
from nlp_ssl.retrieval.index import Hit, Index

__all__ = ["BankOptions", "Hit", "Index", "build"]
