"""Curves lie where their values say, and none of their spikes is lost."""

import numpy as np
import pytest

from fcnseg.reports.charts import MOST_POINTS, chart, thinned


def test_values_are_where_the_ticks_say():
    steps, values = np.array([0.0, 50, 100]), np.array([1.0, 0.25, 0.5])
    drawn = chart("loss", {"a": [(steps, values)]})
    (line,) = drawn.lines
    for axis, ticks, known in ((0, drawn.x_ticks, steps), (1, drawn.y_ticks, values)):
        at, value = np.array([(place, float(text)) for place, text in ticks]).T
        slope, offset = np.polyfit(value, at, 1)
        np.testing.assert_allclose([point[axis] for point in line.parts[0]], slope * known + offset, atol=0.2)
    assert line.last == 0.5
    assert len(drawn.y_ticks) >= 4


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0], [0.0, 0.0], [-1.0, -1.0], [1e-9, 2e-9], [-3.0, 1e6]])
def test_any_finite_values_are_drawn_within_the_picture(values):
    drawn = chart("a", {"a": [(np.arange(5.0, 5 + len(values)), np.array(values))]})
    points = drawn.lines[0].parts[0]
    assert len(points) == len(values)
    assert all(52 <= x <= 628 and 10 <= y <= 244 for x, y in points)
    assert drawn.x_ticks
    assert drawn.y_ticks


def test_a_run_has_one_colour_in_all_charts():
    curve = [(np.array([0.0, 1]), np.array([1.0, 2]))]
    drawn = chart("a", {"without": [], "with": curve, **{str(i): curve for i in range(7)}})
    assert [(line.name, line.look) for line in drawn.lines[:2]] == [("with", "c1"), ("0", "c2")]
    assert drawn.lines[-1].look == "c0 dashed"


def test_nothing_is_drawn_of_nothing():
    assert chart("a", {}) is None
    assert chart("a", {"b": [(np.array([]), np.array([]))]}) is None


def test_long_curves_keep_their_ends_and_extremes():
    values = np.random.default_rng(0).normal(size=100_000)
    values[[1234, 77_777]] = 50, -60
    steps, kept = thinned((np.arange(100_000.0), values))
    assert len(steps) <= MOST_POINTS
    assert {0, 1234, 77_777, 99_999} <= set(steps.astype(int))
    np.testing.assert_array_equal(kept, values[steps.astype(int)])
    assert (np.diff(steps) > 0).all()
