"""A picture of arrivals against the limit, as SVG text."""

from collections.abc import Sequence
from itertools import pairwise

import attrs

WIDTH, HEIGHT = 880, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 28, 34, 34
# Room for the legend below the panels.
LEGEND = 34


@attrs.frozen
class Panel:
    """One curve: the arrivals of the last period at every moment, and the moments at which a cooldown began."""

    title: str
    arrivals: Sequence[float]
    cooled: Sequence[float]


def steps(arrivals: Sequence[float], period: float, end: float) -> list[tuple[float, int]]:
    """Return the moments at which the count over the last period changes, with the count from then on."""
    changes = sorted([(at, 1) for at in arrivals] + [(at + period, -1) for at in arrivals])
    points = [(0.0, 0)]
    for at, change in changes:
        if at > end:
            break
        points.append((at, points[-1][1] + change))
    return [*points, (end, points[-1][1])]


def draw(panels: Sequence[Panel], *, limit: int, period: float, cooldown: float, end: float) -> str:
    """Draw the panels one below the other, on the same scales."""
    curves = [steps(panel.arrivals, period, end) for panel in panels]
    top = 1.08 * max(limit, *(count for curve in curves for _, count in curve))
    whole = HEIGHT * len(panels) + LEGEND
    # White below everything, with a margin of its own: the labels are dark, the page around it may be dark too.
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{whole}" viewBox="0 0 {WIDTH} {whole}" '
        'font-family="sans-serif" font-size="13" fill="#1a1a1a">',
        f'<rect width="{WIDTH}" height="{whole}" rx="8" fill="#ffffff"/>',
    ]
    for index, (panel, curve) in enumerate(zip(panels, curves, strict=True)):
        parts.append(f'<g transform="translate(0 {index * HEIGHT})">')
        parts += _panel(panel, curve, limit, cooldown, end, top)
        parts.append("</g>")
    parts += _legend(HEIGHT * len(panels), limit, period)
    return "\n".join([*parts, "</svg>", ""])


def _legend(top: float, limit: int, period: float) -> list[str]:
    """Say what line, dashes and bands are."""
    middle = top + LEGEND / 2 - 4
    marks = (
        (
            LEFT,
            f'<path d="M{{x}} {middle}h28" stroke="#2458a6" stroke-width="2"/>',
            f"arrivals in the last {period:g} s",
        ),
        (LEFT + 250, f'<path d="M{{x}} {middle}h28" stroke="#c01c28" stroke-dasharray="6 4"/>', f"the limit, {limit}"),
        (
            LEFT + 430,
            f'<rect x="{{x}}" y="{middle - 8}" width="28" height="16" fill="#f6d5d5"/>',
            "cooldown after a 429: nothing is processed",
        ),
    )
    return [
        part
        for x, mark, text in marks
        for part in (mark.format(x=x), f'<text x="{x + 36}" y="{middle + 4}">{text}</text>')
    ]


def _panel(
    panel: Panel, curve: list[tuple[float, int]], limit: int, cooldown: float, end: float, top: float
) -> list[str]:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(at: float) -> float:
        return round(LEFT + width * min(at, end) / end, 1)

    def y(count: float) -> float:
        return round(TOP + height * (1 - count / top), 1)

    parts = [f'<text x="{LEFT}" y="20" font-weight="bold">{panel.title}</text>']
    for at in panel.cooled:
        band = f'x="{x(at)}" y="{TOP}" width="{round(x(at + cooldown) - x(at), 1)}" height="{height}"'
        parts.append(f'<rect {band} fill="#f6d5d5"/>')
    line = f"M{x(0)} {y(0)}" + "".join(f"H{x(at)}V{y(count)}" for (_, _), (at, count) in pairwise(curve))
    parts.append(f'<path d="{line}" fill="none" stroke="#2458a6" stroke-width="1.4"/>')
    parts.append(f'<path d="M{LEFT} {y(limit)}H{WIDTH - RIGHT}" stroke="#c01c28" stroke-dasharray="6 4"/>')
    parts.append(f'<path d="M{LEFT} {TOP}V{y(0)}H{WIDTH - RIGHT}" fill="none" stroke="#444444"/>')
    parts += [f'<text x="{LEFT - 8}" y="{y(count) + 4}" text-anchor="end">{count}</text>' for count in (0, limit)]
    parts += [
        f'<text x="{x(second)}" y="{HEIGHT - 14}" text-anchor="middle">{second} s</text>'
        for second in range(0, round(end) + 1, 20)
    ]
    return parts
