"""Tooltips of more than one line: the application wraps each tooltip in a paragraph, where a newline breaks no line."""

from __future__ import annotations

import html
from collections.abc import Iterable


def tip_of(lines: Iterable[str]) -> str:
    """Rich text that shows each sentence on a line of its own; empty ones are left out."""
    return "<br>".join(html.escape(line, quote=False) for line in lines if line)
