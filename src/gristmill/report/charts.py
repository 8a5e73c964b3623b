"""Charts as inline SVG: lines with error bars and stage bands, and scores with intervals. Colours come from the page's CSS.

A chart is a string of SVG within the page; it needs no script. Series carry classes s0…s7, which the page
colours for light and dark, each with its own dashes; four shapes of marks do the same: lines never differ by colour only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gristmill.units import on_axis

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 48, 46
LETTER = 11  # width of a letter on a phone, where the page enlarges text; labels that would not fit are left out
MARKS = 6  # marks on a line with many points, about
SHAPES = ("circle", "M-3.5,-3.5h7v7h-7z", "M0,-4.5l4.5,8h-9z", "M0,-4.8l4.8,4.8l-4.8,4.8l-4.8,-4.8z")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: points in order of x, and optionally an interval per point, drawn as a bar (None: the point has none)."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    intervals: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True, kw_only=True)
class Band:
    """A named stretch of the x axis, such as a stage."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A place on the x axis where something happened, such as a spike; a pointer over it shows `name`. number: of a decision, which is drawn
    as a whole line with its number."""

    name: str
    x: float
    number: int | None = None


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
    level: float | None = None,
    level_name: str = "",
    from_zero: bool = False,
) -> str:
    """Lines over a common x axis. `level` draws a dashed horizontal line, such as chance; each of `marks` a vertical one."""
    drawn = [one for one in series if len(one.xs) > 0]
    if not drawn:
        return '<p class="quiet">nothing was measured</p>'
    heights = [y for one in drawn for y in one.ys]
    heights += [edge for one in drawn for interval in one.intervals if interval for edge in interval]
    if level is not None:
        heights.append(level)
    axes = _Axes(
        x=_span(
            [x for one in drawn for x in one.xs]
            + [edge for band in bands for edge in (band.start, band.end)]
            + [mark.x for mark in marks]
        ),
        y=_span([*heights, *([0.0] if from_zero else [])], margin=0.05),
    )
    parts = [_svg_open(f"{y_label} over {x_label}", HEIGHT), *_bands(bands, axes), *_grid(axes, x_label, y_label)]
    if level is not None:
        y = axes.to_y(level)
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{WIDTH - RIGHT}" y="{y - 5:.1f}" text-anchor="end">{escape(level_name)}</text>'
        )
    for mark in marks:
        x, kind = axes.to_x(mark.x), "level" if mark.number is None else "change"
        parts.append(
            f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"><title>{escape(mark.name)}</title></line>'
        )
        if mark.number is not None:
            at = min(x + 4, WIDTH - RIGHT - LETTER)
            parts.append(
                f'<text class="tick change" x="{at:.1f}" y="{TOP + 12}">{mark.number}<title>{escape(mark.name)}</title></text>'
            )
    for index, one in enumerate(drawn):
        parts += _line(one, index, axes)
    parts.append("</svg>")
    return "".join(parts) + _legend([one.name for one in drawn])


@dataclass(frozen=True, kw_only=True)
class Score:
    """A value with its interval; grey when it does not lie wholly above chance."""

    name: str
    value: float
    low: float
    high: float
    grey: bool = False


def interval_chart(scores: Sequence[Score], *, x_label: str, level: float | None = None, level_name: str = "") -> str:
    """One row per score: a dot and its interval."""
    if not scores:
        return '<p class="quiet">nothing was measured</p>'
    row, left = 28, 240
    height = TOP + row * len(scores) + BOTTOM
    values = [edge for score in scores for edge in (score.low, score.high)] + ([level] if level is not None else [])
    low, high = _span(values, margin=0.05)
    scale = (WIDTH - left - RIGHT) / (high - low)

    def to_x(value: float) -> float:
        return left + (value - low) * scale

    parts = [_svg_open(x_label, height)]
    for tick in _ticks(low, high):
        parts.append(
            f'<line class="grid" x1="{to_x(tick):.1f}" x2="{to_x(tick):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        )
        parts.append(
            f'<text class="tick" x="{to_x(tick):.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{on_axis(tick)}</text>'
        )
    if level is not None:
        parts.append(
            f'<line class="level" x1="{to_x(level):.1f}" x2="{to_x(level):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        )
        parts.append(
            f'<text class="tick" x="{to_x(level):.1f}" y="{TOP - 6}" text-anchor="middle">{escape(level_name)}</text>'
        )
    for index, score in enumerate(scores):
        y = TOP + row * index + row / 2
        kind = "grey" if score.grey else "s0"
        parts.append(
            f'<text class="label {"quiet" if score.grey else ""}" x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(score.name)}</text>'
        )
        parts.append(
            f'<line class="stroke {kind}" x1="{to_x(score.low):.1f}" x2="{to_x(score.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<circle class="dot {kind}" cx="{to_x(score.value):.1f}" cy="{y:.1f}" r="4"><title>{score.value:.4g}</title></circle>'
        )
    parts.append(
        f'<text class="axis" x="{(left + WIDTH - RIGHT) / 2:.0f}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text></svg>'
    )
    return "".join(parts)


def share_bar(shares: Sequence[tuple[str, float]]) -> str:
    """One stacked bar of named shares that sum to at most 1; the page colours each by its name."""
    parts = ['<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="shares">']
    at = 0.0
    for name, share in shares:
        parts.append(
            f'<rect class="share {escape(name)}" x="{at * 100:.3f}" width="{share * 100:.3f}" y="0" height="6"><title>{escape(name)} {share:.1%}</title></rect>'
        )
        at += share
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a flow in one unit: how much there was, how much of it left here and under which class of the page, and the figure beside it."""

    before: float
    left: float
    kind: str
    figure: str
    title: str


@dataclass(frozen=True, kw_only=True)
class FlowRow:
    """A step of a flow, a bar in each unit."""

    name: str
    bars: Sequence[Bar]


FLOW_LEFT, FLOW_ROW, FLOW_BAR, FLOW_FIGURE = 166, 25, 126, 104


def flow_chart(rows: Sequence[FlowRow], *, units: Sequence[str], label: str) -> str:
    """What passes through a row of steps, in several units side by side; the widest bar of a unit is its whole.

    Each bar is what the step passed on; what left there stands at its end in another colour, at least as a line.
    """
    height = TOP - 18 + FLOW_ROW * len(rows)
    parts = [_svg_open(label, height)]
    for place, unit in enumerate(units):
        x = FLOW_LEFT + place * (FLOW_BAR + FLOW_FIGURE)
        parts.append(f'<text class="axis" x="{x}" y="17">{escape(unit)}</text>')
        whole = max([row.bars[place].before for row in rows] + [1e-300])
        for index, row in enumerate(rows):
            bar, y = row.bars[place], TOP - 18 + FLOW_ROW * index
            end, gone = FLOW_BAR * bar.before / whole, FLOW_BAR * bar.left / whole
            gone = max(gone, 1.5) if bar.left else 0.0
            parts.append(
                f"<g><title>{escape(bar.title)}</title>"
                f'<rect class="share kept" x="{x}" width="{max(end - gone, 0.0):.1f}" y="{y}" height="14"/>'
                f'<rect class="share {bar.kind}" x="{x + max(end - gone, 0.0):.1f}" width="{gone:.1f}" y="{y}" height="14"/>'
                f'<text class="tick" x="{x + FLOW_BAR + 8}" y="{y + 11}">{escape(bar.figure)}</text></g>'
            )
    for index, row in enumerate(rows):
        y = TOP - 7 + FLOW_ROW * index
        parts.append(f'<text class="label" x="{FLOW_LEFT - 10}" y="{y}" text-anchor="end">{escape(row.name)}</text>')
    return "".join([*parts, "</svg>"])


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class _Axes:
    x: tuple[float, float]
    y: tuple[float, float]

    def to_x(self, value: float) -> float:
        return LEFT + (value - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)

    def to_y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)


def _svg_open(title: str, height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'


def _span(values: Sequence[float], *, margin: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-300:  # too little to be divided by ticks
        return low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _grid(axes: _Axes, x_label: str, y_label: str) -> list[str]:
    parts = []
    for tick in _ticks(*axes.y):
        y = axes.to_y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{on_axis(tick)}</text>')
    for tick in _ticks(*axes.x):
        parts.append(
            f'<text class="tick" x="{axes.to_x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{on_axis(tick)}</text>'
        )
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>')
    parts.append(f'<text class="axis" x="4" y="17">{escape(y_label)}</text>')
    return parts


def _bands(bands: Sequence[Band], axes: _Axes) -> list[str]:
    parts = []
    for index, band in enumerate(bands):
        left, right = axes.to_x(band.start), axes.to_x(band.end)
        parts.append(
            f'<rect class="band b{index % 2}" x="{left:.1f}" width="{right - left:.1f}" y="{TOP}" height="{HEIGHT - TOP - BOTTOM}"><title>{escape(band.name)}</title></rect>'
        )
        if right - left > LETTER * len(band.name):
            parts.append(
                f'<text class="tick" x="{(left + right) / 2:.1f}" y="{TOP - 7}" text-anchor="middle">{escape(band.name)}</text>'
            )
    return parts


def _line(one: Series, index: int, axes: _Axes) -> list[str]:
    kind = f"s{index % 8}"
    points = [(axes.to_x(x), axes.to_y(y)) for x, y in zip(one.xs, one.ys)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [f'<polyline class="line {kind}" points="{path}"><title>{escape(one.name)}</title></polyline>']
    for (x, y), value, interval in zip(points, one.ys, one.intervals):
        said = f"{escape(one.name)}: {value:.4g}"
        if interval is not None:
            bottom, top = map(axes.to_y, interval)
            parts.append(f'<line class="stroke {kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
            said += f", {interval[0]:.4g} to {interval[1]:.4g}"
        parts.append(_mark(index, x, y, said))
    if not one.intervals:
        every = max(1, len(points) // MARKS)
        shift = index * every // len(SHAPES)  # so that marks of overlapping lines differ in place
        parts += [_mark(index, x, y, escape(one.name)) for x, y in points[shift::every]]
    return parts


def _mark(index: int, x: float, y: float, title: str) -> str:
    """A mark of a series. title: what a pointer over it shows, escaped."""
    shape, kind = SHAPES[index % len(SHAPES)], f"dot s{index % 8}"
    if shape == "circle":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{title}</title></circle>'
    return f'<path class="{kind}" transform="translate({x:.1f} {y:.1f})" d="{shape}"><title>{title}</title></path>'


def _legend(names: Sequence[str]) -> str:
    """Each line as it is drawn, with its name."""
    if len(names) < 2:
        return ""
    items = "".join(
        f'<span><svg class="key" viewBox="0 0 34 12" aria-hidden="true"><polyline class="line s{index % 8}" points="0,6 34,6"/>'
        f"{_mark(index, 17, 6, escape(name))}</svg>{escape(name)}</span>"
        for index, name in enumerate(names)
    )
    return f'<div class="legend">{items}</div>'
