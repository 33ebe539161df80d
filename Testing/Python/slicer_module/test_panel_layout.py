"""How the panel sits in Slicer's module panel: heights, gaps, widths, names that are cut."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from panel_layout import gaps, overlaps
from panel_states import STATES, show_state
from slicer_panel import LARGE_SCREEN, SMALL_SCREEN, TABS, open_tab

pytestmark = pytest.mark.host
pytest_plugins = ("slicer_panel",)
MOST_GAP, MOST_WIDTH = 12, 400
FORMS = sorted((Path(__file__).resolve().parents[3] / "HSAMSegment" / "Resources" / "UI").glob("*.ui"))


def test_a_tab_is_as_high_as_its_own_form_wherever_one_was_before(host, open_panel):
    widget, panel = open_panel(height=100)
    first = {key: (open_tab(host, widget, key), panel.widget().height)[1] for key in TABS}
    again = {key: (open_tab(host, widget, key), panel.widget().height)[1] for key in TABS}
    assert again == first
    assert first["segment"] < first["finetune"]


@pytest.mark.parametrize("height", [SMALL_SCREEN, LARGE_SCREEN])
@pytest.mark.parametrize("key", TABS)
def test_no_tab_has_a_gap_before_anything_is_loaded(host, open_panel, key, height):
    widget, _ = open_panel(height=height)
    part = open_tab(host, widget, key)
    assert max(gaps(part.widget)) <= MOST_GAP


@pytest.mark.parametrize("key", TABS)
def test_no_tab_makes_the_dock_wide(host, open_panel, key):
    widget, panel = open_panel(width=380)
    open_tab(host, widget, key)
    assert panel.needed_width() <= MOST_WIDTH


def test_compare_has_no_empty_section_before_anything_is_chosen(host, open_panel):
    widget, _ = open_panel()
    part = open_tab(host, widget, "compare")
    assert not part.ui.pairSection.isVisible()


ALL_STATES = [(key, state) for key, states in STATES.items() for state in states]


@pytest.mark.parametrize("width", [380, pytest.param(700, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("key", "state"), ALL_STATES, ids=[f"{key} {state}" for key, state in ALL_STATES])
def test_no_state_has_a_gap_or_makes_the_dock_wide(host, open_panel, key, state, width):
    widget, panel = open_panel(width=width, height=SMALL_SCREEN)
    tab = show_state(host, widget, key, state)
    assert max(gaps(tab.widget)) <= MOST_GAP
    assert overlaps(tab.widget) == []
    assert panel.needed_width() <= MOST_WIDTH


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_lists_of_a_form_take_no_spare_height_and_choices_no_spare_width(form):
    for widget in ElementTree.parse(form).iter("widget"):
        name, kind = widget.get("name"), widget.get("class")
        if kind in ("QTableWidget", "QListWidget"):
            policy = widget.find("./property[@name='sizePolicy']/sizepolicy")
            assert policy is not None, name
            assert policy.get("vsizetype") == "Fixed", name
        if kind in ("QComboBox", "qMRMLNodeComboBox"):
            policy = widget.find("./property[@name='sizeAdjustPolicy']/enum")
            assert policy is not None, name
            assert policy.text == "QComboBox::AdjustToMinimumContentsLengthWithIcon", name
