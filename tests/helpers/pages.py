"""Reading and changing reports in tests."""

import json
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq

from nlp_ssl.training.model_files import PREDICTIONS
from nlp_ssl.training.predictions import FACTS

FIGURES = [
    "seeds", "losses", "learning-rate", "mask-rate", "pseudo-accuracy", "pseudo-classes", "pseudo-entropy", "state-tau",
    "state-p", "confusion", "risk", "scores", "reliability-0", "reliability-1", "map", "uncertain", "flipped", "wrong",
    "augmentation",
]  # fmt: skip


class Page(HTMLParser):
    """Elements with their attributes, ids by figure, and whether an element of class card is empty."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.empty, self.text = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if "card" in (found.get("class") or "").split():
            self.empty[found.get("id")] = "empty" in found["class"].split()

    def handle_data(self, data):
        self.text.append(data)


def edit(folder, change):
    """Changes the rows of a predictions file."""
    table = pq.read_table(folder / PREDICTIONS)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / PREDICTIONS)


def rename(folder, classes):
    table = pq.read_table(folder / PREDICTIONS)
    facts = {**json.loads(table.schema.metadata[FACTS]), "classes": classes}
    pq.write_table(table.replace_schema_metadata({FACTS: json.dumps(facts)}), folder / PREDICTIONS)
