"""A small SVG of a distribution: a dot per scan, a bar for the middle half, and a band for a reference range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 220, 56
_LEFT, _RIGHT, _TOP, _BOTTOM = 6, 6, 6, 10
_FEW = 50
_GOLDEN_RATIO = 0.618033988749895


@dataclass(frozen=True)
class Dot:
    """One scan in a chart.

    Attributes:
        value: position on the axis.
        title: tooltip; only marked dots have one.
        link: ID of the page element that it links to.
        marked: whether it is highlighted.
    """

    value: float
    title: str = ""
    link: str = ""
    marked: bool = False


def strip_chart(dots: Sequence[Dot], *, band: tuple[float, float] | None = None, lowest: float | None = None) -> str:
    """Render the SVG; an empty string without dots.

    Args:
        dots: the scans.
        band: reference range to show behind them.
        lowest: start of the axis, if not the lowest dot.
    """
    if not dots:
        return ""
    values = np.array([dot.value for dot in dots], dtype=float)
    low, high = float(values.min() if lowest is None else min(lowest, values.min())), float(values.max())
    margin = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = (low if lowest is not None else low - margin), high + margin

    def across(value: float) -> float:
        part = (min(max(value, low), high) - low) / (high - low)
        return round(_LEFT + part * (WIDTH - _LEFT - _RIGHT), 1)

    quarter, median, three_quarters = (across(value) for value in np.percentile(values, (25, 50, 75)))
    places = [(across(dot.value), _height(number)) for number, dot in enumerate(dots)]
    plain = "".join(f"M{x} {y}h0" for (x, y), dot in zip(places, dots) if not dot.marked)
    parts = [
        f'<svg class="strip{" few" if len(dots) <= _FEW else ""}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{len(dots)} scans, from {values.min():.4g} to {values.max():.4g}, median '
        f'{np.median(values):.4g}">',
        _band(band, across, low, high),
        f'<path class="axis" d="M{_LEFT} {HEIGHT - 4}H{WIDTH - _RIGHT}"/>',
        f'<rect class="box" x="{quarter}" y="{HEIGHT - 7}" width="{max(three_quarters - quarter, 1):.1f}" height="6"/>',
        f'<path class="dots" d="{plain}"/>' if plain else "",
        f'<path class="median" d="M{median} {_TOP - 4}V{HEIGHT - 1}"/>',
        *(_marked(place, dot) for place, dot in zip(places, dots) if dot.marked),
        "</svg>",
    ]
    return "".join(parts)


def _height(number: int) -> float:
    """Spread the dots vertically, reproducibly and with neighbors apart."""
    return round(_TOP + (number * _GOLDEN_RATIO % 1.0) * (HEIGHT - _TOP - _BOTTOM - 4), 1)


def _band(band: tuple[float, float] | None, across: Callable[[float], float], low: float, high: float) -> str:
    if band is None or band[1] < low or band[0] > high:
        return ""
    start, end = across(band[0]), across(band[1])
    return f'<rect class="band" x="{start}" y="0" width="{max(end - start, 1):.1f}" height="{HEIGHT - 4}"/>'


def _marked(place: tuple[float, float], dot: Dot) -> str:
    x, y = place
    circle = f'<circle cx="{x}" cy="{y}" r="4"><title>{escape(dot.title)}</title></circle>'
    return f'<a href="#{escape(dot.link)}">{circle}</a>' if dot.link else circle
