"""Flags of the strong view, for every command that trains on texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa

from nlp_ssl.augment.base import Augment
from nlp_ssl.augment.policy import Rewritten, parse_policy
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.data.table import Table
from nlp_ssl.errors import ConfigError
from nlp_ssl.paraphrase.back_translation import EngineName, back_translate
from nlp_ssl.paraphrase.views import read_views


@dataclass(frozen=True, kw_only=True)
class StrongView:
    """Flags of the strong view: words replaced by default, rewritings where there are some."""

    replace_words: Annotated[float | None, "share of words the strong view replaces (TF-IDF); chosen if not given"] = (
        None
    )
    strong: Annotated[str | None, "strong view, e.g. tfidf(p=0.2) or back_translation+swap; chosen if not given"] = None
    views: Annotated[Path | None, "rewritings made by `nlp-ssl augment`, used as the strong view"] = None
    back_translation: Annotated[EngineName | None, "make the rewritings now, with this engine; they are kept"] = None

    def policy(self) -> Augment | None:
        """The strong view that the flags name; None leaves the choice to the task.

        Raises:
            ConfigError: two flags name one, or it needs rewritings and there are none.
        """
        if self.replace_words is not None and self.strong is not None:
            raise ConfigError(284, "--replace-words and --strong both name the strong view: drop one")
        if self.views is not None and self.back_translation is not None:
            raise ConfigError(284, "--views and --back-translation both bring rewritings: drop one")
        policy: Augment | None = None if self.replace_words is None else TfidfReplace(self.replace_words)
        if self.strong is not None:
            policy = parse_policy(self.strong)
        has_rewritings = self.views is not None or self.back_translation is not None
        if isinstance(policy, Rewritten) and not has_rewritings:
            raise ConfigError(284, "back_translation needs rewritings: add --back-translation apertium or --views FILE")
        if has_rewritings and policy is not None and not isinstance(policy, Rewritten):
            raise ConfigError(284, "the strong view takes no rewritings: begin --strong with back_translation+")
        return policy

    def rewritings(self, tables: Sequence[Table]) -> pa.Table | None:
        """Rewritings of the texts of the tables, read or made now; None where the flags ask for none.

        Raises:
            DataError: the file of views cannot be read.
            ConfigError: the engine cannot be started.
        """
        if self.back_translation is None:
            return None if self.views is None else read_views(self.views)
        columns = [c for table in tables for c in (table.texts, table.pairs) if c is not None]
        return back_translate(*columns, engine=self.back_translation)
