"""`nlp-ssl report`: a run's folder as one HTML page."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nlp_ssl.cli.command import Argument, Spec
from nlp_ssl.report.page import write_report

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class ReportOptions:
    """Flags of `report`."""

    out: Annotated[Path | None, "the page; RUN/report.html if not given"] = None


def main(run: str, options: ReportOptions) -> None:
    """Writes the page and says where it is."""
    log.info("report saved to %s", write_report(Path(run), options.out))


COMMANDS = {
    "report": Spec(
        main,
        "one HTML page about a training run",
        "Writes one self-contained HTML page about a training run, from the files in its folder alone.",
        "nlp-ssl report out",
        flags=(ReportOptions(),),
        arguments=(Argument("run"),),
    )
}
