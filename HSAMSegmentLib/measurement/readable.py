"""Numbers as a person reads them."""

from __future__ import annotations


def readable_number(value: float) -> str:
    """Three digits that count, without an exponent: 1480, 63.5, 0.82, 0.0042."""
    if abs(value) >= 100.0:
        return f"{value:.0f}"
    if abs(value) >= 10.0:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
