"""`nlp-ssl report`: a run's folder as one HTML page."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nlp_ssl.cli.options import parse
from nlp_ssl.errors import ConfigError

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class Options:
    """Flags of `report`."""

    out: Annotated[Path | None, "the page; RUN/report.html if not given"] = None


def main(argv: Sequence[str]) -> None:
    """`nlp-ssl report RUN`: writes the page and says where it lies."""
    places = [a for a in argv[:1] if not a.startswith("-")]
    doc = "Writes one self-contained HTML page about a training run, from the files in its folder alone."
    (options,) = parse(list(argv)[len(places) :], Options(), name="nlp-ssl report RUN", doc=doc)
    if not places:
        raise ConfigError(403, "report needs the folder of a run: nlp-ssl report out")
    from nlp_ssl.report.page import write_report

    log.info("the report lies in %s", write_report(Path(places[0]), options.out))
