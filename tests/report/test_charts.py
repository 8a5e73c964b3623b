"""Charts are strings of SVG: all inside their frame, all text escaped, nothing drawn for nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.report.charts import (
    HEIGHT,
    LEFT,
    RIGHT,
    SHAPES,
    WIDTH,
    Band,
    Mark,
    Score,
    Series,
    interval_chart,
    line_chart,
    share_bar,
)
from gristmill.report.page import TEMPLATE

finite = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(finite, finite, st.floats(min_value=0, max_value=1e3)), min_size=1, max_size=30))
def test_every_point_lies_inside_the_frame(points: list[tuple[float, float, float]]) -> None:
    xs, ys, errors = zip(*sorted(points))
    intervals = [(y - error, y + error) if error else None for y, error in zip(ys, errors)]
    svg = line_chart([Series(name="one", xs=xs, ys=ys, intervals=intervals)], x_label="x", y_label="y")
    ElementTree.fromstring(svg)
    for found in re.findall(r'points="([^"]*)"', svg):
        for x, y in (pair.split(",") for pair in found.split()):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT


def test_names_are_escaped() -> None:
    evil = '<script>alert("x")</script>'
    svg = line_chart(
        [Series(name=evil, xs=[0, 1], ys=[0, 1]), Series(name="b", xs=[0], ys=[1])],
        x_label=evil,
        y_label=evil,
        bands=[Band(name=evil, start=0, end=1)],
    )
    svg += interval_chart([Score(name=evil, value=0.5, low=0.4, high=0.6)], x_label=evil, level=0.5, level_name=evil)
    svg += share_bar([(evil, 0.5)])
    assert "<script" not in svg


def test_a_mark_is_a_line_from_top_to_bottom_at_its_place_and_says_what_happened() -> None:
    svg = line_chart(
        [Series(name="a", xs=[0, 10], ys=[0, 1])], x_label="x", y_label="y", marks=[Mark(name="a <spike>", x=5)]
    )
    (found,) = re.findall(r'<line class="level" x1="([\d.]+)" x2="([\d.]+)" [^>]*><title>(.*?)</title>', svg)
    middle = (LEFT + WIDTH - RIGHT) / 2
    assert found == (f"{middle:.1f}", f"{middle:.1f}", "a &lt;spike&gt;")


def test_an_empty_chart_says_so() -> None:
    assert "nothing was measured" in line_chart([], x_label="x", y_label="y")
    assert "nothing was measured" in interval_chart([], x_label="x")


def test_a_score_that_cannot_be_told_from_chance_is_grey() -> None:
    svg = interval_chart([Score(name="a", value=0.25, low=0.2, high=0.3, grey=True)], x_label="accuracy", level=0.25)
    assert 'class="dot grey"' in svg
    assert 'class="dot s0"' not in svg


def test_interval_reaches_from_low_to_high() -> None:
    svg = interval_chart([Score(name="a", value=2.0, low=1.0, high=3.0)], x_label="x")
    x1, x2 = (float(value) for value in re.search(r'stroke s0" x1="([\d.]+)" x2="([\d.]+)"', svg).groups())  # type: ignore[union-attr]
    dot = float(re.search(r'cx="([\d.]+)"', svg)[1])  # type: ignore[index]
    assert x1 < dot < x2
    assert abs((x1 + x2) / 2 - dot) < 0.2


def test_lines_of_a_chart_differ_in_more_than_colour() -> None:
    """By dashes and marks together, in the chart and in its legend; the page draws s4 and s0 alike but for colour and mark."""
    svg = line_chart(
        [Series(name=str(number), xs=[0, 1], ys=[0, number]) for number in range(4)], x_label="x", y_label="y"
    )
    chart, legend = svg.split("</svg>", 1)
    for drawn in (chart, legend):
        shapes = dict(re.findall(r'<(?:circle|path) class="dot (s\d)"[^>]*? (?:d|r)="([^"]*)"', drawn))
        assert list(shapes) == ["s0", "s1", "s2", "s3"]
        assert len(set(shapes.values())) == 4
    css = TEMPLATE.read_text(encoding="utf-8")
    dashes = dict(re.findall(r"\.line\.(s\d) { stroke-dasharray: ([^;]*);", css))
    assert len({(dashes.get(f"s{index}"), index % len(SHAPES)) for index in range(4)}) == 4
    assert len({dashes.get(f"s{index}") for index in range(4)}) == 4


def test_a_decision_is_a_whole_line_with_its_number_inside_the_frame() -> None:
    for x in (0, 5, 10):
        svg = line_chart(
            [Series(name="a", xs=[0, 10], ys=[0, 1])],
            x_label="x",
            y_label="y",
            marks=[Mark(name="why", x=x, number=12)],
        )
        ElementTree.fromstring(svg)
        assert 'class="level"' not in svg
        line, number = re.search(r'<line class="change" x1="([\d.]+)"', svg), re.search(r'change" x="([\d.]+)"', svg)
        assert line is not None
        assert number is not None
        assert float(line[1]) - 2 * 11 <= float(number[1]) <= WIDTH - RIGHT
        assert ">12<title>why</title></text>" in svg
