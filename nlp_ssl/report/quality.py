"""Figures of how good the models are: seeds and scores side by side, confusions, errors among the surest rows."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from scipy.special import softmax

from nlp_ssl.experiments.compare import Comparison
from nlp_ssl.inference.metrics import Scores
from nlp_ssl.report.collect import Collected, Rows
from nlp_ssl.report.shades import Shades
from nlp_ssl.report.svg import Figure, Legend, Line, drawing, lines, number, ticks

NO_PREDICTIONS = (
    "There are no predictions: the run has not finished, is older than this report (train again), or is multi-label, "
    "for which this figure is not drawn."
)
NO_SCORED = "There are no labeled test or dev rows: --test FILE gives some."
_TABLE = 12  # classes that a table of confusions has room for


def seeds(comparison: Comparison | None, split: str) -> Figure:
    """A dot a seed for the method and each label-only side, and their means."""
    title = "Every seed"
    if comparison is None:
        return Figure("seeds", title, "No seed has finished yet.")
    accuracies = comparison.accuracies(split)
    if not accuracies:
        return Figure("seeds", title, NO_SCORED)
    every = np.concatenate(list(accuracies.values()))
    marks = ticks(float(every.min()) - 0.005, float(every.max()) + 0.005, 4)
    left, right, row = 96, 348, 40
    span = (marks[-1] - marks[0]) or 1.0

    def at(value: float) -> float:
        return round(left + (right - left) * (value - marks[0]) / span, 1)

    height = row * len(accuracies) + 34
    grid = Markup(
        '<line class="rule" x1="{0}" x2="{0}" y1="4" y2="{1}"/><text class="tick mid" x="{0}" y="{2}">{3}</text>'
    )
    parts = [grid.format(at(m), height - 30, height - 16, number(m, True)) for m in marks]
    for i, (name, values) in enumerate(accuracies.items()):
        color, y = "c0" if name == comparison.method else "rest", row * i + 24
        parts.append(Markup('<text class="name end" x="{}" y="{}">{}</text>').format(left - 12, y + 4, _short(name)))
        dot = Markup('<circle class="seed {}" cx="{}" cy="{}" r="5"><title>seed {}: {}</title></circle>')
        parts += [dot.format(color, at(v), y, s, f"{v:.1%}") for v, s in zip(values, comparison.seeds, strict=True)]
        if len(values) == 1:
            continue
        bar = Markup('<line class="mean {}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts.append(bar.format(color, at(values.mean()), at(values.mean()), y - 12, y + 12))
    spoken = "; ".join(f"{name} {', '.join(f'{v:.1%}' for v in values)}" for name, values in accuracies.items())
    score = comparison.score_name(split)
    sentence = f"{score[:1].upper()}{score[1:]} on the {split} rows: a dot is one seed" + (
        ", the bar their mean." if len(comparison.seeds) > 1 else "."
    )
    return Figure("seeds", title, sentence, drawing(parts, f"Dot chart of {split} {score} by seed: {spoken}.", height))


def scores(comparison: Comparison | None, split: str) -> Figure:
    """All scores of the method and the label-only sides, as means over seeds."""
    title = "Scores"
    if comparison is None or not any(split in o.scores for o in comparison.outcomes):
        return Figure("scores", title, "No seed has finished yet." if comparison is None else NO_SCORED)
    row = Markup('<tr><th scope="row">{}</th>{}</tr>')
    columns = {name: [o.scores[split] for o in side if split in o.scores] for name, side in comparison.results.items()}
    body = []
    for name in _words(next(o.scores[split] for o in comparison.outcomes if split in o.scores)):
        means = [np.mean([_words(s)[name] for s in side]) if side else None for side in columns.values()]
        cells = [Markup("<td>{}</td>").format("-" if m is None else f"{m:.3f}") for m in means]
        body.append(row.format(name, Markup("").join(cells)))
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(_short(name)) for name in columns)
    table = Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of scores"><table class="plain scores">'
        "<thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table></div>"
    )
    sentence = f"What each side came to on the {split} rows, as means over seeds; of the last two, less is better."
    return Figure("scores", title, sentence, table.format(head, Markup("").join(body)))


def _words(scores: Scores) -> dict[str, float]:
    return {**scores.named(), "log loss": scores.nll, "calibration error": scores.calibration_error}


def confusion_figure(rows: Rows | None, split: str, shades: Shades) -> Figure:
    """Which class is taken for which: a table, or the commonest mistakes where there are many classes."""
    title = "Confusions"
    if rows is None:
        return Figure("confusion", title, NO_SCORED)
    counts = np.zeros((len(shades.names),) * 2, dtype=int)
    np.add.at(counts, (rows.labels, rows.logits.argmax(1)), 1)
    if len(shades.names) > _TABLE:
        sentence = f"The commonest mistakes of the saved model on the {split} rows, most frequent first."
        return Figure("confusion", title, sentence, _mistakes(counts, shades), wide=True)
    sentence = (
        f"Rows are the true classes of the {split} rows, columns what the saved model says; "
        "the stronger the color the larger the share of the row, and the diagonal is right."
    )
    return Figure("confusion", title, sentence, _matrix(counts, shades), wide=True)


def _matrix(counts: np.ndarray, shades: Shades) -> Markup:
    head = Markup("").join(
        Markup('<th scope="col"><abbr title="{}">{}</abbr></th>').format(name, i + 1)
        for i, name in enumerate(shades.names)
    )
    body = []
    for i, name in enumerate(shades.names):
        total = max(int(counts[i].sum()), 1)
        cells = Markup("").join(
            Markup('<td class="{}" style="--share:{}%">{}</td>').format(
                "hit" if i == j else "miss", round(100 * n / total), n
            )
            for j, n in enumerate(counts[i].tolist())
        )
        first = Markup('<th scope="row"><span class="no">{}</span> <bdi>{}</bdi></th>').format(i + 1, _short(name, 18))
        body.append(Markup("<tr>{}{}<td>{}</td></tr>").format(first, cells, f"{counts[i, i] / total:.0%}"))
    table = Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of confusions"><table class="matrix">'
        "<thead><tr><th>true \u2193 said \u2192</th>{}<th>right</th></tr></thead><tbody>{}</tbody></table></div>"
    )
    return table.format(head, Markup("").join(body))


def _mistakes(counts: np.ndarray, shades: Shades) -> Markup:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_TABLE]
    pairs = [divmod(int(k), len(counts)) for k in order if wrong.flat[k]]
    row = Markup("<tr><td><bdi>{}</bdi></td><td><bdi>{}</bdi></td><td>{}</td></tr>")
    body = [row.format(_short(shades.names[i], 40), _short(shades.names[j], 40), wrong[i, j]) for i, j in pairs]
    head = Markup('<table class="plain"><thead><tr><th>true class</th><th>taken for</th><th>rows</th></tr></thead>')
    return head + Markup("<tbody>{}</tbody></table>").format(Markup("").join(body))


def risk(run: Collected, split: str | None) -> Figure:
    """Error among the surest rows, for every share of rows that is answered."""
    title = "Risk and coverage"
    sides = {run.method: run.first.predictions}
    if run.baselines[0] is not None:
        sides["supervised"] = run.baselines[0].predictions
    curves = {n: risks(rows) for n, side in sides.items() if side and split and len(rows := side.part(split))}
    if not curves:
        return Figure("risk", title, NO_PREDICTIONS if run.first.predictions is None else NO_SCORED)
    colors = dict(zip(curves, ("c0", "c1"), strict=False))
    drawn = [Line(name, _thinned(curve), colors[name]) for name, curve in curves.items()]
    spoken = "; ".join(
        f"{name}: {curve[len(curve) // 2 - 1 if len(curve) > 1 else 0]:.1%} wrong among the surest half, "
        f"{curve[-1]:.1%} among all"
        for name, curve in curves.items()
    )
    sentence = (
        "If only the surest rows are answered, the share of them that is wrong: the lower and flatter the better."
    )
    body = lines(
        drawn, f"Line chart of risk over coverage. {spoken}.", x_label="share of rows answered", y_label="share wrong",
        percent=(True, True), y_range=(0.0, max(max(y for _, y in line.points) for line in drawn) or 0.01),
        x_range=(0.0, 1.0),
    )  # fmt: skip
    return Figure("risk", title, sentence, body, tuple(Legend(name, color) for name, color in colors.items()))


def risks(rows: Rows) -> np.ndarray:
    """Share that is wrong among the k surest rows, for k = 1, 2, ... [n]."""
    p = softmax(rows.logits, axis=1)
    order = np.argsort(-p.max(1), kind="stable")
    wrong = (p.argmax(1) != rows.labels)[order]
    risk: np.ndarray = np.cumsum(wrong) / np.arange(1, len(wrong) + 1)
    return risk


def _thinned(curve: np.ndarray, most: int = 100) -> Sequence[tuple[float, float]]:
    """At most so many points; the first few rows are left out, where one row is a jump."""
    first = min(max(len(curve) // 50, 1), len(curve))
    at = np.unique(np.linspace(first, len(curve), most).round().astype(int))
    return [(float(k / len(curve)), float(curve[k - 1])) for k in at]


def _short(name: str, most: int = 14) -> str:
    return name if len(name) <= most else name[: most - 1] + "\u2026"
