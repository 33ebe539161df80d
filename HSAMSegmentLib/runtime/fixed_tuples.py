"""Tuples of a known length, for points, colors, and boxes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def pair(items: Iterable[Item]) -> tuple[Item, Item]:
    """The only two items; ValueError if there are more or fewer."""
    first, second = items
    return first, second


def triple(items: Iterable[Item]) -> tuple[Item, Item, Item]:
    """The only three items; ValueError if there are more or fewer."""
    first, second, third = items
    return first, second, third
