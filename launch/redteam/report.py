"""The red team's report: one HTML page with the table and a plot of margins."""

import math
from html import escape

from anh_jax.redteam.table import HEADS, columns
from launch.redteam.suite import Result
from launch.report.elements import section, table
from launch.report.style import STYLE

_ROW, _LEFT, _WIDTH, _RIGHT = 18, 170, 620, 60
_LOWEST, _HIGHEST = -2.0, 8.0


def page(result: Result) -> str:
    """Return the page."""
    body = section("Margins", margins(result))
    body += section("Attacks", table(HEADS, columns(result.lines)))
    if result.honest is not None:
        told = "".join(f"<p>{escape(line)}</p>" for line in result.honest.lines())
        body += section("Honest variants", told + table(result.honest.heads, result.honest.rows()))
    title = f"Red team against {escape(result.config)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    )


def margins(result: Result) -> str:
    """Draw one bar for each attack that a statistic judged, from 0.01 to 1e8, a line at 1.

    A bar that stays left of the line was accepted; one beyond the right edge is cut there.
    """
    shown = [line for line in result.lines if line.margin is not None]
    height = _ROW * (len(shown) + 2)
    inner = _WIDTH - _LEFT - _RIGHT
    parts: list[str] = []
    for index, line in enumerate(shown):
        assert line.margin is not None
        top = _ROW * (index + 1)
        width = inner * place(line.margin)
        tone = "var(--one)" if line.detected == line.n else "var(--bad)"
        parts.append(f'<text x="{_LEFT - 6}" y="{top + 12}" text-anchor="end">'
                     f"{escape(line.name)}</text>"
                     f'<rect x="{_LEFT}" y="{top + 2}" width="{width:.1f}" height="{_ROW - 5}" '
                     f'fill="{tone}"/>'
                     f'<text x="{_LEFT + width + 4:.1f}" y="{top + 12}">'
                     f"{line.margin:.3g}</text>")  # fmt: skip
    one = _LEFT + inner * place(1.0)
    parts.append(f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{_ROW}" y2="{height - _ROW}" '
                 'stroke="currentColor" stroke-dasharray="3 3"/>'
                 f'<text x="{one:.1f}" y="{height - 4}" text-anchor="middle">1</text>')  # fmt: skip
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="margins" font-size="11" '
        f'fill="currentColor">{"".join(parts)}</svg>'
    )


def place(margin: float) -> float:
    """Return where a margin lies between the edges, 0 to 1, by its logarithm."""
    if math.isnan(margin):
        return 1.0
    power = math.log10(max(margin, 10**_LOWEST)) if margin < math.inf else _HIGHEST
    return (min(power, _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)
