"""Figures from metrics.jsonl: what happened while the run went on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nlp_ssl.report.collect import Collected
from nlp_ssl.report.shades import Shades
from nlp_ssl.report.svg import Figure, Legend, Line, areas, lines

Value = Callable[[Mapping[str, Any]], Any]

# Of every line of metrics.jsonl; what else is a number there is a loss of the method.
_KNOWN = (
    "step", "seconds", "loss", "mask_rate", "pseudo_entropy", "pseudo_accuracy", "grad_norm", "padding_fraction",
    "learning_rate", "dev_accuracy", "dev_micro_f1",
)  # fmt: skip
_ABSENT = "This run did not log it."
# What the loop itself keeps beside the method's state: (heading, sentence).
_OWN = {
    "pool_mean": (
        "Predicted class shares",
        "Running mean of the predictions on the pool; pseudo-labels are shifted from it to the estimated shares.",
    )
}


def learning(run: Collected) -> list[Figure]:
    """Losses, accuracy on dev rows and learning rate."""
    return [
        losses(run),
        one(
            run, "dev-accuracy", f"{'Micro F1' if run.multi_label else 'Accuracy'} on dev rows",
            "dev_micro_f1" if run.multi_label else "dev_accuracy",
            "How often the model was right on the dev rows while it trained.",
            "The model was not scored while it trained: --dev FILE --eval-steps 50 does that.", percent=True,
        ),
        one(run, "learning-rate", "Learning rate", "learning_rate", "How large a step the encoder could take."),
    ]  # fmt: skip


def pseudo_labels(run: Collected, shades: Shades) -> list[Figure]:
    """Share of the pool in use, how right and how sure its pseudo-labels are, their classes, the method's own state."""
    if (rounds := run.by_round) is not None:
        return _in_rounds(rounds, shades)
    none = "This method logs no pseudo-labels."
    return [
        one(
            run, "mask-rate", "Share of the pool in use", "mask_rate",
            "How much of each pool batch had a pseudo-label sure enough to train on.", none, percent=True, whole=True,
        ),
        _right(run),
        histogram(run, shades, none),
        one(
            run, "pseudo-entropy", "Doubt in the pseudo-labels", "pseudo_entropy",
            "Mean entropy of the pseudo-labels in nats: 0 is certain, high is guessing.", none,
        ),
        *state(run, shades),
    ]  # fmt: skip


def _in_rounds(run: Collected, shades: Shades) -> list[Figure]:
    """The same where a line is a round, and how good each round's model is."""
    return [
        _drawn(
            run, "round-accuracy", "Accuracy by round", _accuracy(run.split),
            f"How often a round's model is right on the {run.split} rows; round 0 is the first teacher, trained on the "
            "labels alone.", "No test or dev rows were given.", percent=True,
        ),
        one(
            run, "mask-rate", "Share of the pool in use", "mask_rate",
            "How much of the pool had a pseudo-label that the round's student was trained on.", percent=True,
            whole=True,
        ),
        _right(run),
        histogram(run, shades, _ABSENT),
        one(
            run, "changed", "Pseudo-labels that changed", "changed",
            "Share of the pool whose pseudo-label is another one than a round before.", "There was one round.",
            percent=True,
        ),
    ]  # fmt: skip


def _accuracy(split: str) -> Value:
    return lambda line: line.get("scores", {}).get(split, {}).get("accuracy")


def _right(run: Collected) -> Figure:
    return one(
        run, "pseudo-accuracy", "Pseudo-labels that are right", "pseudo_accuracy",
        "Of the pseudo-labels in use, the share that agrees with the pool's hidden true labels.",
        "True labels of the pool are not known, so nobody can say how right its pseudo-labels are.", percent=True,
    )  # fmt: skip


def losses(run: Collected) -> Figure:
    """Every loss that the method returns, as the mean over seeds."""
    lines_of_first = [line for side in run.runs for line in side.metrics]
    names = [
        name
        for name in dict.fromkeys(key for line in lines_of_first for key in line)
        if name not in _KNOWN and any(_is_number(line.get(name)) for line in lines_of_first)
    ]
    series = {name: mean_line(run, _get(name)) for name in ["loss", *names]}
    logged = {name: points for name, points in series.items() if points}
    if not logged:
        return Figure("losses", "Losses", "No line of metrics.jsonl has been written yet.")
    # What is logged beside the losses of methods with several nets would need more colors than there are.
    drawn = [Line(n, p, f"c{i}", dashed=n == "loss") for i, (n, p) in enumerate(list(logged.items())[:8])]
    ends = ", ".join(f"{line.name} from {line.points[0][1]:.2g} to {line.points[-1][1]:.2g}" for line in drawn)
    return Figure(
        "losses",
        "Losses",
        f"Each part of the loss over the steps{_means(run)}; the dashed line is their sum.",
        lines(drawn, f"Line chart of losses: {ends}."),
        tuple(Legend("sum" if line.name == "loss" else line.name, line.color) for line in drawn),
    )


def one(
    run: Collected,
    id: str,
    title: str,
    name: str,
    sentence: str,
    absent: str = _ABSENT,
    *,
    percent: bool = False,
    whole: bool = False,
) -> Figure:
    """A single logged value: one thin line a seed and their mean."""
    return _drawn(run, id, title, _get(name), sentence, absent, percent=percent, whole=whole)


def _drawn(
    run: Collected,
    id: str,
    title: str,
    value: Value,
    sentence: str,
    absent: str,
    *,
    percent: bool = False,
    whole: bool = False,
) -> Figure:
    each = [points for side in run.runs if (points := _points(side.metrics, value))]
    if not each:
        return Figure(id, title, absent)
    mean = mean_line(run, value)
    thin = [Line("", points, "c0", thin=True) for points in each] if len(each) > 1 else []
    first, last = (f"{100 * v:.0f} %" if percent else f"{v:.3g}" for v in (mean[0][1], mean[-1][1]))
    alt = f"Line chart: {title.lower()} from {first} to {last} at {run.clock} {mean[-1][0]:g}."
    body = lines(
        [*thin, Line(title, mean)], alt, x_label=run.clock, percent=(False, percent),
        y_range=(0.0, 1.0) if whole else None,
    )  # fmt: skip
    seeds = " Thin lines are single seeds, the thick one is their mean." if thin else ""
    return Figure(id, title, sentence + seeds, body)


def histogram(run: Collected, shades: Shades, absent: str) -> Figure:
    """Which classes the pseudo-labels were of, over the steps, in the run whose model is kept."""
    at = [line for line in run.first.metrics if isinstance(line.get("pseudo_hist"), list)]
    title = "Classes of the pseudo-labels"
    if not at:
        return Figure("pseudo-classes", title, absent)
    if len(at) == 1:  # an area needs two edges
        at = [{**at[0], "step": at[0]["step"] - 1}, at[0]]
    shares = [shades.summed(line["pseudo_hist"]) for line in at]
    names = [name for name, _ in shades.legend]
    last = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares[-1], strict=True))
    body = areas(
        [line["step"] for line in at],
        list(zip(*shares, strict=True)),
        [color for _, color in shades.legend],
        f"Stacked area chart of the classes of pseudo-labels; at the end {last}.",
        run.clock,
    )
    sentence = (
        "How the pseudo-labels divide among the classes over time; one class that swallows the others is a collapse."
    )
    return Figure("pseudo-classes", title, sentence, body, shades.legend)


def state(run: Collected, shades: Shades) -> list[Figure]:
    """Running thresholds and shares of the method: a line for one number, one a class for many."""
    kept: dict[str, Any] = {}
    for line in run.first.metrics:
        if isinstance(line.get("state"), dict):
            kept |= line["state"]
    figures = []
    for name in sorted(kept.keys() - {"mass"}):
        title = f"The method\u2019s running \u201c{name}\u201d"
        if _is_number(_state(name)({"state": kept})):
            sentence = f"The number that {run.method} keeps as \u201c{name}\u201d and moves while it trains."
            figures.append(_drawn(run, f"state-{name}", title, _state(name), sentence, _ABSENT))
        elif isinstance(kept[name], list) and len(kept[name]) == len(shades.colors):
            figures.append(_by_class(run, name, title, shades))
    return [figure for figure in figures if figure.body is not None]


def _by_class(run: Collected, name: str, title: str, shades: Shades) -> Figure:
    drawn = []
    for i in shades.shown:
        if points := _points(run.first.metrics, _state(name, i)):
            drawn.append(Line(shades.names[i], points, shades.colors[i]))
    sentence = f"What {run.method} keeps for each class as \u201c{name}\u201d, over the steps."
    title, sentence = _OWN.get(name, (title, sentence))
    if not drawn:
        return Figure(f"state-{name}", title, sentence)
    ends = ", ".join(f"{line.name} {line.points[-1][1]:.2f}" for line in drawn)
    legend = tuple(Legend(line.name, line.color) for line in drawn)
    return Figure(f"state-{name}", title, sentence, lines(drawn, f"Line chart by class; at the end {ends}."), legend)


def mean_line(run: Collected, value: Value) -> list[tuple[float, float]]:
    """The mean over seeds at every step that all of them logged."""
    each = [dict(points) for side in run.runs if (points := _points(side.metrics, value))]
    if not each:
        return []
    steps = sorted(set(each[0]).intersection(*each[1:]))
    return [(step, sum(one[step] for one in each) / len(each)) for step in steps] or list(each[0].items())


def _points(metrics: Sequence[Mapping[str, Any]], value: Value) -> list[tuple[float, float]]:
    return [(float(line["step"]), float(v)) for line in metrics if _is_number(v := value(line))]


def _get(name: str) -> Value:
    return lambda line: line.get(name)


def _state(name: str, place: int | None = None) -> Value:
    """A number of the method's state, or that of a class."""

    def value(line: Mapping[str, Any]) -> Any:
        kept = line["state"].get(name) if isinstance(line.get("state"), dict) else None
        if place is None:
            return kept[0] if isinstance(kept, list) and len(kept) == 1 else kept
        return kept[place] if isinstance(kept, list) and place < len(kept) else None

    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _means(run: Collected) -> str:
    return ", as the mean over seeds" if len(run.runs) > 1 else ""
