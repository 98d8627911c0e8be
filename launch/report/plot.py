"""Line charts and threshold bars as inline SVG text, coloured by the page's CSS variables.

A chart is drawn about as wide as a phone shows it, so that its letters keep their size; wide
windows put several side by side.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 380, 216
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 26
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
# Two kept points (lowest and highest) per bucket and one bucket per two drawn units.
BUCKETS = INNER_WIDTH // 2
LOGARITHMIC_RATIO = 30.0


@dataclass(frozen=True, slots=True)
class Point:
    """One value at one step."""

    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """A named line; `tone` picks the page's colour 1, 2 or 3."""

    name: str
    points: tuple[Point, ...]
    tone: int = 1


class Scale(enum.Enum):
    """How values become heights."""

    LINEAR = "linear"
    LOGARITHMIC = "logarithmic"


@dataclass(frozen=True, slots=True)
class Range:
    """A closed interval that is never empty."""

    low: float
    high: float


def finite(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the points that can be drawn."""
    return tuple(point for point in points if math.isfinite(point.value))


def thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """Keep the lowest and the highest point of each bucket, so that no spike is lost."""
    if len(points) <= 2 * BUCKETS:
        return tuple(points)
    kept: list[Point] = [points[0]]
    for bucket in range(BUCKETS):
        start = bucket * len(points) // BUCKETS
        part = points[start : (bucket + 1) * len(points) // BUCKETS]
        low = min(part, key=lambda point: point.value)
        high = max(part, key=lambda point: point.value)
        kept.extend(sorted({low, high}, key=lambda point: point.step))
    kept.append(points[-1])
    return tuple(kept)


def chosen_scale(values: Sequence[float]) -> Scale:
    """Pick a logarithmic scale where positive values span more than a factor of thirty."""
    if values and min(values) > 0 and max(values) / min(values) > LOGARITHMIC_RATIO:
        return Scale.LOGARITHMIC
    return Scale.LINEAR


def ticks(interval: Range, scale: Scale, *, count: int = 4) -> tuple[float, ...]:
    """Return round values inside the interval: 1, 2 or 5 times a power of ten, or the powers."""
    if scale is Scale.LOGARITHMIC:
        first, last = math.floor(math.log10(interval.low)), math.ceil(math.log10(interval.high))
        marks: list[float] = []
        for factors in ((1,), (1, 2, 5)):
            values = [f * 10.0**power for power in range(first, last + 1) for f in factors]
            marks = [value for value in values if interval.low <= value <= interval.high]
            if len(marks) >= 3:
                break
        return tuple(marks[:: math.ceil(len(marks) / (count + 2))] if marks else ())
    raw = (interval.high - interval.low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(interval.low / size - 1e-9)
    last = math.floor(interval.high / size + 1e-9)
    return tuple(index * size for index in range(first, last + 1))


def short(value: float) -> str:
    """Write a number in at most six characters or so: 0.25, 1.2k, 3M, 2e-05."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit <= magnitude < 1e12:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def _interval(values: Sequence[float], scale: Scale) -> Range:
    low, high = min(values), max(values)
    if scale is Scale.LOGARITHMIC:
        return Range(low / 1.1, high * 1.1)
    if low == high:
        pad = abs(low) / 2 or 1.0
        return Range(low - pad, high + pad)
    pad = (high - low) * 0.05
    # A curve that stays above zero must not suggest that it could go below.
    return Range(max(0.0, low - pad) if low >= 0 else low - pad, high + pad)


@dataclass(frozen=True, slots=True)
class _Frame:
    steps: Range
    values: Range
    scale: Scale

    def x(self, step: float) -> float:
        share = (step - self.steps.low) / (self.steps.high - self.steps.low)
        return round(LEFT + share * INNER_WIDTH, 1)

    def y(self, value: float) -> float:
        low, high = self.values.low, self.values.high
        if self.scale is Scale.LOGARITHMIC:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return round(TOP + (1 - (value - low) / (high - low)) * INNER_HEIGHT, 1)


def line_chart(title: str, series: Sequence[Series], *, resumed: Sequence[int] = ()) -> str:
    """Draw series over steps; a dashed line marks each step at which the run was resumed.

    Values that are not finite are left out and counted under the chart. Returns a figure element.
    """
    drawn = [Series(s.name, thinned(finite(s.points)), s.tone) for s in series]
    drawn = [s for s in drawn if s.points]
    missing = sum(len(s.points) - len(finite(s.points)) for s in series)
    if not drawn:
        return _figure(title, (), '<p class="empty">nothing to draw yet</p>', missing)
    values = [point.value for s in drawn for point in s.points]
    steps = [point.step for s in drawn for point in s.points]
    scale = chosen_scale(values)
    # Step 1 of many is drawn as good as at the edge, so the axis starts with the fresh state.
    first = min(steps) if min(steps) > max(steps) / 20 + 1 else 0
    frame = _Frame(Range(first, max(max(steps), first + 1)), _interval(values, scale), scale)
    parts = [_axes(frame)]
    parts += [
        f'<line class="resumed" x1="{frame.x(step)}" x2="{frame.x(step)}" y1="{TOP}" '
        f'y2="{HEIGHT - BOTTOM}"><title>resumed from step {step}</title></line>'
        for step in resumed
        if frame.steps.low <= step <= frame.steps.high
    ]
    parts += [_curve(frame, s) for s in drawn]
    spoken = "; ".join(
        f"{s.name}: {short(s.points[0].value)} at step {s.points[0].step}, "
        f"{short(s.points[-1].value)} at step {s.points[-1].step}"
        for s in drawn
    )
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}. '
        f'{escape(spoken)}">{"".join(parts)}</svg>'
    )
    return _figure(title, drawn, svg, missing)


def _axes(frame: _Frame) -> str:
    parts: list[str] = []
    for value in ticks(frame.values, frame.scale):
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 3.5}">{short(value)}</text>')
    marks = [value for value in ticks(frame.steps, Scale.LINEAR) if value == int(value)]
    for index, value in enumerate(marks):
        x = frame.x(value)
        label = short(value) + (" steps" if index == len(marks) - 1 else "")
        # The last label, which names the unit, must not run over the edge.
        anchor = "end" if x > WIDTH - 40 else "middle"
        at = min(x + 14, WIDTH - 2) if anchor == "end" else x
        parts.append(f'<text class="tick {anchor}" x="{at}" y="{HEIGHT - 8}">{label}</text>')
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    return "".join(parts)


def _curve(frame: _Frame, series: Series) -> str:
    places = [(frame.x(point.step), frame.y(point.value)) for point in series.points]
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    x, y = places[-1]
    last = series.points[-1]
    tip = f"{escape(series.name)} {last.value:.6g} at step {last.step}"
    return (
        f'<path class="curve tone{series.tone}" d="{path}"/>'
        f'<circle class="dot tone{series.tone}" cx="{x}" cy="{y}" r="3"><title>{tip}</title>'
        "</circle>"
    )


def _figure(title: str, series: Sequence[Series], body: str, missing: int) -> str:
    legend = "".join(
        f'<span><i class="key tone{s.tone}"></i>{escape(s.name)} '
        f"<b>{short(s.points[-1].value)}</b></span>"
        for s in series
    )
    note = f'<p class="note">{missing} values that are not finite are not drawn</p>'
    return (
        f'<figure class="chart"><figcaption><strong>{escape(title)}</strong>'
        f'<span class="legend">{legend}</span></figcaption>{body}{note if missing else ""}</figure>'
    )


def threshold_bar(name: str, value: float | None) -> str:
    """Draw one audit statistic as a bar against its limit 1; a value not computed says so.

    The bar is full at 1.5; whatever is not `<= 1`, NaN included, is drawn as an excess.
    """
    if value is None:
        return (
            f'<div class="stat"><span>{escape(name)}</span><span class="track"></span>'
            "<span>not computed</span></div>"
        )
    inside = value <= 1
    share = min(value / 1.5, 1.0) * 100 if math.isfinite(value) and value >= 0 else 100.0
    tone = "good" if inside else "bad"
    return (
        f'<div class="stat"><span>{escape(name)}</span><span class="track">'
        f'<i class="fill {tone}" style="width:{share:.1f}%"></i><i class="limit"></i></span>'
        f"<span>{value:.3g}</span></div>"
    )
