"""One HTML page about a run: nothing in it is loaded from elsewhere, and nothing in it runs."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from nlp_ssl.report import curves, quality, reliability
from nlp_ssl.report.collect import Collected, collect
from nlp_ssl.report.map import maps
from nlp_ssl.report.shades import Shades
from nlp_ssl.report.svg import COLORS, Figure
from nlp_ssl.report.texts import listings, views
from nlp_ssl.utils import atomic

REPORT = "report.html"


class SummaryItem(NamedTuple):
    """A number with its name, and what to know about it."""

    name: str
    value: str
    note: str = ""


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page about the run in a folder, `report.html` there if no place is named; returns the place.

    Raises:
        ConfigError: there is no run in the folder.
        RunError: the page cannot be written, or a result is damaged.
    """
    place = folder / REPORT if out is None else out
    atomic.write_text(place, render(collect(folder)))
    return place


def render(run: Collected) -> str:
    """The page."""
    predictions, split = run.first.predictions, run.split
    scored = predictions.split if predictions is not None else None
    shades = shades_of(run)
    rows = predictions.part(scored) if predictions is not None and scored is not None else None
    compared = run.comparison
    page = _template().render(
        title=f"{run.method} on {run.name}",
        run=run,
        answer=headline(run),
        verdict=compared.verdict(split)
        if compared is not None
        else "The run has not finished: there is no verdict yet.",
        facts=facts(run),
        seeds=quality.seeds(compared, split),
        learning=curves.learning(run),
        pseudo=curves.pseudo_labels(run, shades),
        quality=[
            quality.confusion_figure(rows, scored or "", shades) if predictions is not None else _no_predictions(),
            quality.risk(run, scored),
            quality.scores(compared, split),
            *reliability.diagrams(predictions, scored),
        ],
        map=maps(run, shades),
        listings=listings(run, scored, shades),
        views=views(predictions),
        settings=settings(run),
        colors=[*(f"c{i}" for i in range(COLORS)), "rest"],
    )
    return page.encode(errors="replace").decode()  # half of a surrogate pair cannot be written


def _no_predictions() -> Figure:
    return Figure("confusion", "Confusions", quality.NO_PREDICTIONS, wide=True)


@cache
def _template() -> Template:
    loader = PackageLoader("nlp_ssl.report", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["flags"] = flags
    return environment.get_template("page.html.j2")


def flags(sentence: str) -> Markup:
    """Options of the command line in it do not break across lines."""
    parts = re.split(r"(--[a-z][a-z-]*(?: (?:[A-Z]+|[\d,]*\d|dev|labels)\b)?)", sentence)
    return Markup("").join(Markup("<code>{}</code>").format(p) if p.startswith("--") else p for p in parts)


def headline(run: Collected) -> tuple[str, str]:
    """Did the unlabeled rows help: (word, CSS class)."""
    gain = run.comparison.gain(run.split) if run.comparison is not None else None
    if gain is None:
        return "No verdict", "unknown"
    mean, half = gain
    if mean < 0:
        return "No", "no"
    return ("Yes", "yes") if half and mean - half > 0 else ("Not shown", "unsure")


def shades_of(run: Collected) -> Shades:
    """Colors of the classes; without predictions they are numbered as metrics count them."""
    predictions = run.first.predictions
    if predictions is None:
        shares: list[float] = next((line["pseudo_hist"] for line in run.first.metrics if line.get("pseudo_hist")), [])
        names = ("no", "yes") if run.multi_label else tuple(f"class {i}" for i in range(len(shares)))
        return Shades(names[: len(shares)], (1,) * len(shares))
    classes = tuple(map(str, predictions.facts["classes"]))
    labels = predictions.table["label"].to_numpy()
    sizes = np.bincount(labels[labels >= 0], minlength=len(classes))
    return Shades(classes, tuple(sizes.tolist()))


def facts(run: Collected) -> list[SummaryItem]:
    """The numbers that a reader looks for first."""
    items = []
    if run.comparison is not None:
        accuracies = run.comparison.accuracies(run.split)
        kept = [name for name in (run.comparison.baseline(run.split), run.method) if name in accuracies]
        for name in reversed(kept):
            values = 100 * accuracies[str(name)]
            spread = f"\u00b1 {values.std(ddof=1):.1f} over {len(values)} seeds" if len(values) > 1 else "one seed"
            role = (
                f"{run.split} {run.comparison.score_name(run.split)}" if name == run.method else "best label-only side"
            )
            items.append(SummaryItem(f"{name}, {role}", f"{values.mean():.1f} %", spread))
    if run.first.predictions is not None:
        rows = run.first.predictions.facts["rows"]
        per_class = run.first.predictions.facts.get("labels")
        each = f"{min(per_class)} to {max(per_class)} per class" if per_class else "soft labels"
        if per_class and min(per_class) == max(per_class):
            each = f"{per_class[0]} per class"
        pseudo_labeled = f"{rows['pseudo_labeled']:,} pseudo-labeled, " if rows.get("pseudo_labeled") else ""
        items.append(SummaryItem("labeled rows", f"{rows['labeled']:,}", each))
        items.append(
            SummaryItem(
                "unlabeled rows",
                f"{rows['unlabeled']:,}",
                f"{pseudo_labeled}beside {rows['dev']:,} dev, {rows['test']:,} test",
            )
        )
    outcomes = [run.outcome for run in run.runs if run.outcome is not None]
    if outcomes:
        seconds = sum(o.seconds for o in outcomes) / len(outcomes)
        items.append(
            SummaryItem("steps", f"{outcomes[0].steps:,}", f"{seconds:,.0f} s per seed, without the warm start")
        )
    return items


def settings(run: Collected) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything that was set, in groups."""
    identity, predictions = run.identity, run.first.predictions
    groups: dict[str, Mapping[str, Any]] = {
        "Method": {"method": run.trained_by, **identity.get("options", {})},
        "Task": {
            **identity.get("task", {}),
            **({"strong view": predictions.facts["strong"]} if predictions is not None else {}),
        },
        "Data": {"content hash": identity.get("data", ""), "seeds": ", ".join(map(str, run.seeds))},
        "Training": {k: v for k, v in identity.get("config", {}).items() if k != "seed"},
    }
    if "model" in groups["Task"]:
        groups["Task"] = {**groups["Task"], "model": model_name(str(groups["Task"]["model"]))}
    return [(name, [(k, _value(v)) for k, v in values.items()]) for name, values in groups.items() if values]


def model_name(name: str) -> str:
    """The name of an encoder; of a folder its last two parts, so that no page tells where things lie on a machine."""
    return "/".join(Path(name).parts[-2:]) if Path(name).is_absolute() else name


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
