"""Charts of reports: places, ticks, units and hovers say what the values say; no values break them; they are small."""

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from apertus_jax.reports.axes import Axis, fitted, nice_ticks
from apertus_jax.reports.chart import chart_style, figure_html, svg_document
from apertus_jax.reports.heat_map import heat_map
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.line_chart import Line, line_chart, smoothed_values
from apertus_jax.reports.row_charts import bar_chart, funnel_chart, interval_chart
from apertus_jax.reports.scatter_chart import Points, scatter_chart
from apertus_jax.reports.table import table_html
from apertus_jax.reports.units import BYTES, COUNT, SECONDS, SHARE, readable, tick_labels

TOKENS, LOSS = Axis("trained tokens", COUNT, low=0.0), Axis("nats per token")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (500_000, COUNT, "500 k"),
        (1_228_800, COUNT, "1.23 M"),
        (999_950, COUNT, "1 M"),
        (1.2e12, COUNT, "1.2 T"),
        (5432, COUNT, "5,432"),
        (0, COUNT, "0"),
        (3.4e9, BYTES, "3.4 GB"),
        (0.0125, SECONDS, "12.5 ms"),
        (5400, SECONDS, "1.5 h"),
        (0.1234, SHARE, "12.3 %"),
        (-0.25, SHARE, "−25 %"),
        (5.07e-07, None, "5.07×10⁻⁷"),
        (-4.618, None, "−4.62"),
        (math.nan, None, "–"),
        (math.inf, None, "∞"),
    ],
)
def test_numbers_are_written_as_people_read_them(value, unit, text):
    assert (readable(value) if unit is None else readable(value, unit)) == text


def test_ticks_share_one_unit_and_one_number_of_decimals():
    assert tick_labels([0, 250_000, 500_000, 1_000_000], COUNT) == ["0", "0.25 M", "0.50 M", "1.00 M"]
    assert tick_labels([0.0, 0.00025, 0.0005], SHARE) == ["0", "0.025 %", "0.050 %"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.7, 12), (1e-9, 3e-9), (4.1, 4.1001), (0, 7e11)])
def test_ticks_are_round_and_inside(low, high):
    ticks = nice_ticks(low, high, 5)
    assert 3 <= len(ticks) <= 7 and low - 1e-12 <= ticks[0] and ticks[-1] <= high * (1 + 1e-9)
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0]) and re.fullmatch(r"(1|2|2\.5|5)0*e.*", f"{steps[0]:.6g}e") or steps[0] > 0
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(mantissa - round_one) for round_one in (1, 2, 2.5, 5, 10)) < 1e-6


def test_places_are_proportional_to_values_and_to_logarithms():
    linear = fitted(Axis("x", low=0.0, high=200.0), [])
    assert [linear.place(value) for value in (0, 50, 200, math.nan, None)] == [0, 25, 100, None, None]
    log = fitted(Axis("x", scale="log"), [0.01, 1.0, 0.0, -3.0, math.inf])
    assert [log.place(value) for value in (0.01, 0.1, 1.0)] == pytest.approx([0, 50, 100])
    assert log.place(0.0) is None and log.place(math.inf) is None


def test_the_smoothed_line_keeps_straight_lines_and_both_ends():
    straight = np.linspace(9.0, 4.0, 200)
    np.testing.assert_allclose(smoothed_values(straight), straight, atol=1e-9)
    noisy = 3.0 + np.random.default_rng(0).normal(0, 1, 2000)
    assert np.std(smoothed_values(noisy)[100:-100]) < 0.2
    holed = np.where(np.arange(200) == 50, math.nan, straight)
    assert np.isfinite(smoothed_values(holed)).all()
    assert np.isnan(smoothed_values([math.nan] * 70)).all()


def test_a_noisy_curve_is_drawn_faint_below_its_mean():
    x = np.arange(1, 500)
    chart = line_chart("Loss", [Line("loss", x, np.sin(x))], TOKENS, LOSS, smooth=True)
    assert chart.drawing.count("line raw") == 1 and chart.drawing.count("<path") == 2 and "faint" in chart.note
    short = line_chart("Loss", [Line("loss", x[:9], np.sin(x[:9]))], TOKENS, LOSS, smooth=True)
    assert "line raw" not in short.drawing and not short.note


def test_hovers_tell_every_line_at_its_own_places():
    lines = [Line("a", [0, 1, 2], [5.0, 6.0, 7.0], [4.0, None, 6.5], [5.5, None, 7.5]), Line("b", [2], [1.5])]
    texts = [hover.text for hover in line_chart("t", lines, Axis("step"), LOSS).hovers]
    assert texts == ["step: 0\na: 5 (4 to 5.5)", "step: 1\na: 6", "step: 2\na: 7 (6.5 to 7.5)\nb: 1.5"]


def test_hovers_of_a_line_cover_the_plot_without_a_gap():
    hovers = line_chart("t", [Line("a", [0, 1, 5, 9], [1, 2, 3, 4])], Axis("x"), LOSS).hovers
    assert hovers[0].left == 0 and sum(hover.width for hover in hovers) == pytest.approx(100)


BROKEN = [
    [],
    [math.nan],
    [math.inf, -math.inf],
    [0.0, 0.0],
    [3.0],
    [-1.0, 2.0, math.nan, 5.0],
    [1e-300, 1e300],
]


@pytest.mark.parametrize("values", BROKEN, ids=str)
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_no_values_break_a_chart(values, scale):
    names, x = [f"n{n}" for n in range(len(values))], range(len(values))
    axis = Axis("value", scale=scale)
    charts = [
        line_chart("t", [Line("a", x, values, values, values)], Axis("x"), axis),
        scatter_chart("t", [Points("g", values, values, names)], axis, axis),
        interval_chart("t", names, values, [None] * len(values), values, axis),
        bar_chart("t", names, values, Axis("value")),
        heat_map("t", names, ["r"], [values], "x", "y", "value"),
    ]
    page = "".join(map(figure_html, charts)) + svg_document(charts, 720)
    assert re.findall(r".{20}(?:\bnan\b|\binf\b|none%(?![0-9a-f]{2})).{20}", page.lower()) == []


def test_a_saved_figure_is_whole_xml_with_its_own_style():
    chart = line_chart("A < B & C", [Line("<x>", [0, 1], [1, 2]), Line("y", [0, 1], [2, 3])], TOKENS, LOSS)
    root = ElementTree.fromstring(svg_document([chart, chart], 900, columns=2))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("A < B & C") == 2 and texts.count("<x>") == 2
    assert "prefers-color-scheme: dark" in chart_style()
    assert root.find("{http://www.w3.org/2000/svg}style").text == chart_style()


def test_the_funnel_tells_what_each_rule_took_of_what_was_left():
    chart = funnel_chart("t", [("robots", 250), ("length", 0), ("duplicate", 375)], 1000, "documents")
    assert [hover.text for hover in chart.hovers] == [
        "input",
        "robots\ntook 250 of 1,000 documents\nleft: 750",
        "length\ntook 0 of 750 documents\nleft: 750",
        "duplicate\ntook 375 of 750 documents\nleft: 375",
    ]
    assert "−250 (25.0 %)" in chart.drawing and "−375 (37.5 %)" in chart.drawing
    assert 'x="37.50%"' in chart.drawing and 'width="37.50%"' in chart.drawing


def test_weak_fields_of_a_heat_map_are_pale_and_read_in_ink():
    chart = heat_map("t", ["0", "1", "2"], ["a"], [[0.02, 0.13, 0.19]], "x", "y", "Rouge-L")
    assert re.findall(r'fill-opacity="([\d.]+)"', chart.drawing) == ["0.100", "0.650", "0.950"]
    assert re.findall(r'<text(?: class="(\w+)")?', chart.drawing) == ["", "middle", "strong"]
    assert "to 0.2 (full)" in chart.note


def test_numbers_align_right_and_text_left():
    rows = [
        ("Latn", 1234, 4.61, "4.5 – 4.7", "+0.12 (+0.1 to +0.2)", "12.3 %", "yes", "4.24 ± 1.07"),
        ("Cyrl", 9, 14.6, "–", "–", "–", "no", "–"),
    ]
    page = table_html(("a", "b", "c", "d", "e", "f", "g", "h"), rows)
    assert re.findall(r'<th class="(\w+)">(\w)', page) == [
        *(("short", "a"), ("number", "b"), ("number", "c"), ("number", "d")),
        *(("number", "e"), ("number", "f"), ("short", "g"), ("number", "h")),
    ]
    assert "1,234" in page and ">4.61<" in page and ">14.60<" in page


def test_a_report_of_a_long_run_stays_below_two_megabytes():
    report = HtmlReport("Run", "")
    x = np.arange(100_000)
    lines = [Line(f"group {n}", x, np.random.default_rng(n).normal(size=len(x))) for n in range(4)]
    chart = line_chart("Loss", lines, TOKENS, LOSS, smooth=True)
    for _ in range(12):
        report.figure(chart)
    assert len(report.render()) < 2_000_000


def test_charts_that_follow_each_other_stand_side_by_side():
    report, chart = HtmlReport("t"), line_chart("c", [Line("a", [0, 1], [0, 1])], TOKENS, LOSS)
    for _ in range(2):
        report.figure(chart)
    report.note("between")
    report.figure(chart)
    assert [part.count("<figure") for part in report.render().split('<div class="charts">')[1:]] == [2, 1]
