"""Plots lose no spike, have round ticks, and take any numbers."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.report.plot import (
    BUCKETS,
    Point,
    Range,
    Scale,
    Series,
    chosen_scale,
    line_chart,
    short,
    thinned,
    threshold_bar,
    ticks,
)


def points(values: list[float]) -> tuple[Point, ...]:
    return tuple(Point(step, value) for step, value in enumerate(values, start=1))


def test_thinning_keeps_every_bucket_s_extremes() -> None:
    values = [1.0] * 100_000
    values[54_321], values[77_777] = 9.0, -9.0
    kept = thinned(points(values))
    assert len(kept) <= 2 * BUCKETS + 2
    assert {9.0, -9.0} <= {point.value for point in kept}
    assert [point.step for point in kept] == sorted(point.step for point in kept)
    assert kept[0].step == 1 and kept[-1].step == 100_000


def test_few_points_are_not_thinned() -> None:
    assert thinned(points([1.0, 2.0])) == points([1.0, 2.0])


@pytest.mark.parametrize(
    "interval, scale, expected",
    [
        (Range(0, 10), Scale.LINEAR, (0, 5, 10)),
        (Range(0.13, 0.97), Scale.LINEAR, (0.5,)),
        (Range(0, 1), Scale.LINEAR, (0, 0.5, 1)),
        (Range(0.001, 1), Scale.LOGARITHMIC, (0.001, 0.01, 0.1, 1)),
        (Range(0.05, 2.8), Scale.LOGARITHMIC, (0.05, 0.1, 0.2, 0.5, 1, 2)),
    ],
)
def test_ticks_are_round(interval: Range, scale: Scale, expected: tuple[float, ...]) -> None:
    found = ticks(interval, scale)
    assert len(found) >= 1
    for value in found:
        assert interval.low * 0.999 - 1e-9 <= value <= interval.high * 1.001 + 1e-9
    if scale is Scale.LOGARITHMIC:
        assert found == pytest.approx(expected)
    else:
        assert set(expected) & {round(value, 9) for value in found}


def test_scale_is_logarithmic_only_for_positive_values_far_apart() -> None:
    assert chosen_scale([0.01, 1.0]) is Scale.LOGARITHMIC
    assert chosen_scale([0.5, 1.0]) is Scale.LINEAR
    assert chosen_scale([-1.0, 1000.0]) is Scale.LINEAR
    assert chosen_scale([]) is Scale.LINEAR


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (0.25, "0.25"), (1234, "1.23k"), (2e6, "2M"), (3e9, "3G"), (2e-5, "2e-05")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def svg_of(figure: str) -> ElementTree.Element | None:
    return ElementTree.fromstring(figure).find("svg")


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    figure = line_chart("Loss", [Series("loss", points([1.0, math.nan, math.inf, 2.0]))])
    assert "2 values that are not finite are not drawn" in figure
    assert "nan" not in figure and "inf" not in figure.replace("info", "")


def test_nothing_to_draw_says_so() -> None:
    assert "nothing to draw yet" in line_chart("Loss", [Series("loss", ())])
    assert "1 values" in line_chart("Loss", [Series("loss", points([math.nan]))])


def test_resumes_are_marked_where_they_fall_in_the_plot() -> None:
    figure = line_chart("Loss", [Series("loss", points([3.0, 2.0, 1.0]))], resumed=[2, 99])
    assert figure.count('class="resumed"') == 1 and "resumed from step 2" in figure


def test_text_from_a_run_is_escaped() -> None:
    figure = line_chart("<b>", [Series("<i>&", points([1.0, 2.0]))])
    assert "<i>&" not in figure and "<b>&" not in figure and "&lt;i&gt;&amp;" in figure


@given(
    st.lists(
        st.floats(min_value=-1e300, max_value=1e300) | st.just(math.nan), min_size=1, max_size=50
    )
)
def test_any_series_gives_one_well_formed_figure(values: list[float]) -> None:
    figure = line_chart("Loss", [Series("loss", points(values))])
    svg = svg_of(figure)
    if any(math.isfinite(value) for value in values):
        assert svg is not None
        numbers = [
            float(n) for path in svg.iter("circle") for n in (path.get("cx"), path.get("cy"))
        ]
        assert all(-1 <= number <= 400 for number in numbers)


@pytest.mark.parametrize(
    "value, tone",
    [(0.5, "good"), (1.0, "good"), (1.0001, "bad"), (math.nan, "bad"), (math.inf, "bad")],
)
def test_statistic_is_good_only_at_most_at_its_limit(value: float, tone: str) -> None:
    assert f'class="fill {tone}"' in threshold_bar("A", value)


def test_statistic_that_was_not_computed_is_not_drawn_as_zero() -> None:
    bar = threshold_bar("A", None)
    assert "not computed" in bar and "fill" not in bar
