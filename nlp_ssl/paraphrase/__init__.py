"""Texts rewritten by a program or a model: engines, a cache on disk, and gates that reject bad rewritings."""
