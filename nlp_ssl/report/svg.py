"""Small charts as inline SVG. Colors are CSS classes, so that one drawing serves a light and a dark page.

A chart is 360 units wide: on a phone one fills the screen, on a wide screen three stand side by side, and its letters
are of one size everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

COLORS = 10  # classes c0 to c9 of the style sheet; "rest" is gray
_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 16, 22, 34


class Legend(NamedTuple):
    """A name and its color."""

    name: str
    color: str


@dataclass(frozen=True)
class Figure:
    """A drawing with its heading and one sentence on what it shows; without a drawing the sentence says why.

    Attributes:
        id: name within the page.
        title: heading.
        sentence: what is to be seen.
        body: the drawing; None where the run does not hold what it takes.
        legend: what the colors stand for.
        wide: whether it takes the whole width.
    """

    id: str
    title: str
    sentence: str
    body: Markup | None = None
    legend: tuple[Legend, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Line:
    """A named run of points, in color; a thin one stands behind the others."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str = "c0"
    thin: bool = False
    dashed: bool = False


class Scale(NamedTuple):
    """Places of numbers from `low` to `high` between two edges of the drawing."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The place of a value, kept within the drawing."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + (self.stop - self.start) * min(max(share, 0.0), 1.0), 1)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers that cover the range."""
    span = max(high - low, 1e-12)
    size = 10.0 ** math.floor(math.log10(span / most))
    step = next(size * m for m in (1, 2, 5, 10, 20) if span / (size * m) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def drawing(parts: Sequence[Markup], alt: str, height: int = _HEIGHT, kind: str = "chart") -> Markup:
    """The parts as one picture with a text for those who cannot see it."""
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return head.format(kind, _WIDTH, height, alt) + Markup("").join(parts) + Markup("</svg>")


def frame(
    x: tuple[float, float], y: tuple[float, float], labels: tuple[str, str], percent: tuple[bool, bool] = (False, False)
) -> tuple[Scale, Scale, list[Markup]]:
    """Scales for ranges of x and y, widened to round numbers where y is no share, and the drawn axes."""
    ys = ticks(*y)
    xs = [t for t in ticks(*x) if x[0] <= t <= x[1] and (percent[0] or t == int(t))]  # steps and rounds are whole
    across = Scale(x[0], x[1] if x[1] > x[0] else x[0] + 1, _LEFT, _WIDTH - _RIGHT)
    up = Scale(ys[0], ys[-1], _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for value in ys:
        at = up(value)
        parts.append(
            Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, _WIDTH - _RIGHT, at, at)
        )
        text = Markup('<text class="tick end" x="{}" y="{}">{}</text>')
        parts.append(text.format(_LEFT - 5, at + 3.5, number(value, percent[1])))
    for value in xs:
        text = Markup('<text class="tick mid" x="{}" y="{}">{}</text>')
        parts.append(text.format(across(value), _HEIGHT - _BOTTOM + 14, number(value, percent[0])))
    name = Markup('<text class="axis mid" x="{}" y="{}">{}</text>')
    parts.append(name.format((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, labels[0]))
    if labels[1]:
        parts.append(Markup('<text class="axis" x="0" y="9">{}</text>').format(labels[1]))
    return across, up, parts


def number(value: float, percent: bool = False) -> str:
    """A tick's number."""
    if percent:
        return f"{100 * value:.3g}%"
    return f"{value:.1e}".replace("e-0", "e-") if value and abs(value) < 1e-3 else f"{value:g}"


def lines(
    drawn: Sequence[Line],
    alt: str,
    *,
    x_label: str = "step",
    y_label: str = "",
    percent: tuple[bool, bool] = (False, False),
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
) -> Markup:
    """A line chart; few points are marked."""
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    low, high = y_range or (min(ys), max(ys))
    if 0 < low < 0.6 * high or 0 < low == high:
        low = 0.0
    if high == low:
        low, high = low - 1.0, high + 1.0
    across, up, parts = frame(x_range or (min(xs), max(xs)), (low, high), (x_label, y_label), percent)
    for line in sorted(drawn, key=lambda line: not line.thin):
        path = " ".join(f"{across(x)},{up(y)}" for x, y in line.points)
        kind = f"{line.color}{' thin' if line.thin else ''}{' dashed' if line.dashed else ''}"
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(kind, path))
        if len(line.points) <= 15 and not line.thin and not line.dashed:
            mark = Markup('<circle class="dot {}" cx="{}" cy="{}" r="2.6"/>')
            parts += [mark.format(line.color, across(x), up(y)) for x, y in line.points]
    return drawing(parts, alt)


def areas(
    steps: Sequence[float], shares: Sequence[Sequence[float]], colors: Sequence[str], alt: str, x_label: str = "step"
) -> Markup:
    """Shares [kind][step] stacked up to their sum, over the steps."""
    across, up, parts = frame((min(steps), max(steps)), (0.0, 1.0), (x_label, ""), (False, True))
    below = [0.0] * len(steps)
    bands = []
    for share, color in zip(shares, colors, strict=True):
        above = [b + s for b, s in zip(below, share, strict=True)]
        edge = [f"{across(x)},{up(y)}" for x, y in zip(steps, above, strict=True)]
        edge += [f"{across(x)},{up(y)}" for x, y in zip(reversed(steps), reversed(below), strict=True)]
        bands.append(Markup('<polygon class="area {}" points="{}"/>').format(color, " ".join(edge)))
        below = above
    return drawing([*bands, *parts], alt)
