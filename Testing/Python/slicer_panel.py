"""The whole module in Slicer's module panel, at a width and a height."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "HSAMSegment" / "HSAMSegment.py"
SMALL_SCREEN, LARGE_SCREEN = 720, 1050
TABS = ("segment", "finetune", "compare", "batch")


@pytest.fixture
def open_panel(host, scene):
    """Opens the module in a dock; returns its widget and the dock."""
    import slicer

    if not hasattr(slicer.modules, "hsamsegment"):
        host.load_module(MODULE)
    widget = host.open_module("HSAMSegment")
    panels = []

    def open_panel(width=510, height=SMALL_SCREEN):
        panels.append(host.show_in_panel(widget, width, height))
        settle(host)
        return widget, panels[-1]

    yield open_panel
    for panel in panels:
        panel.give_back()
    host.close_module("HSAMSegment")
    settle(host)


def open_tab(host, widget, key):
    """Bring a tab into sight."""
    tab = widget.shell.open(key)
    settle(host)
    return tab


def settle(host, seconds=0.0):
    """Let the application run; a scroll area and the layouts in it agree after some rounds."""
    deadline = time.monotonic() + seconds
    for _ in range(8):
        host.process_events()
    while time.monotonic() < deadline:
        host.process_events()
        time.sleep(0.01)
