"""How the panel sits in Slicer's module panel: heights, gaps, widths, names that are cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from panel_layout import gaps

pytestmark = pytest.mark.host
MODULE = Path(__file__).resolve().parents[3] / "HSAMSegment" / "HSAMSegment.py"
TABS = ("segment", "finetune", "compare", "batch")
MOST_GAP, MOST_WIDTH = 12, 400
SMALL_SCREEN, LARGE_SCREEN = 720, 1050


@pytest.fixture
def widget(host, scene):
    import slicer

    if not hasattr(slicer.modules, "hsamsegment"):
        host.load_module(MODULE)
    widget = host.open_module("HSAMSegment")
    yield widget
    widget.cleanup()


@pytest.fixture
def show(host, widget):
    """Puts the panel into a dock of a width and a height."""
    panels = []

    def show(width=510, height=SMALL_SCREEN):
        panels.append(host.show_in_panel(widget, width, height))
        return panels[-1]

    yield show
    for panel in panels:
        panel.give_back()
    host.process_events()


def open_tab(host, widget, key):
    part = widget.shell.open(key)
    for _ in range(4):  # a scroll area and the layouts in it agree after some rounds
        host.process_events()
    return part


def test_a_tab_is_as_high_as_its_own_form_wherever_one_was_before(host, widget, show):
    panel = show(height=100)
    first = {key: (open_tab(host, widget, key), panel.widget().height)[1] for key in TABS}
    again = {key: (open_tab(host, widget, key), panel.widget().height)[1] for key in TABS}
    assert again == first
    assert first["segment"] < first["finetune"]


@pytest.mark.parametrize("height", [SMALL_SCREEN, LARGE_SCREEN])
@pytest.mark.parametrize("key", TABS)
def test_no_tab_has_a_gap_before_anything_is_loaded(host, widget, show, key, height):
    show(height=height)
    part = open_tab(host, widget, key)
    assert max(gaps(part.widget)) <= MOST_GAP


@pytest.mark.parametrize("key", TABS)
def test_no_tab_makes_the_dock_wide(host, widget, show, key):
    panel = show(width=380)
    open_tab(host, widget, key)
    assert panel.needed_width() <= MOST_WIDTH


def test_compare_has_no_empty_section_before_anything_is_chosen(host, widget, show):
    show()
    part = open_tab(host, widget, "compare")
    assert not part.ui.pairSection.isVisible()
