from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.host
REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = REPOSITORY / "HSAMSegment" / "HSAMSegment.py"


@pytest.fixture
def widget(host, scene):
    import slicer

    if not hasattr(slicer.modules, "hsamsegment"):
        host.load_module(MODULE)
    widget = host.open_module("HSAMSegment")
    yield widget
    host.close_module("HSAMSegment")


def tabs(widget):
    bar = widget.shell.widget
    return [bar.tabText(index) for index in range(bar.count)]


def test_the_panel_has_four_parts_and_opens_the_first(widget):
    assert tabs(widget) == ["Segment", "Fine-tune", "Compare", "Batch"]
    assert widget.shell.widget.currentIndex == 0
    assert widget.shell.widget.currentWidget().findChild(object, "applyButton") is not None


def test_a_part_is_built_when_its_tab_is_opened_and_only_once(host, widget):
    bar = widget.shell.widget
    assert bar.widget(2).layout().count() == 0
    bar.setCurrentIndex(2)
    host.process_events()
    assert bar.widget(2).layout().count() == 1
    part = widget.shell.open("compare")
    bar.setCurrentIndex(0)
    assert widget.shell.open("compare") is part


def test_every_part_survives_a_closed_scene_and_another_module(host, widget, scene):
    for index in range(widget.shell.widget.count):
        widget.shell.widget.setCurrentIndex(index)
        scene.Clear(0)
        host.process_events()
        widget.parent.exit()
        widget.parent.enter()
        host.process_events()
        assert widget.shell.widget.currentIndex == index


def test_a_job_of_one_part_holds_the_others_back_with_a_word_until_it_ends(host, widget, tmp_path):
    from HSAMSegmentLib.workflows.requests import VerifyRequest

    (tmp_path / "file").write_bytes(b"content")
    panel = widget.shell.open("segment")
    widget.logic.engine.start_request(VerifyRequest(str(tmp_path / "file")), lambda event: None)
    panel.refresh()
    assert not panel.ui.applyButton.enabled
    assert "Another job is running" in panel.ui.statusLabel.text
    while widget.logic.isBusy():
        host.process_events()
    assert "Another job is running" not in panel.ui.statusLabel.text


def test_a_reload_closes_every_part_and_builds_new_ones(host, widget):
    import slicer

    before = [widget.shell.open(key) for key in ("segment", "finetune", "compare", "batch")]
    widget.cleanup()
    slicer.util.reloadScriptedModule("HSAMSegment")
    reloaded = slicer.modules.HSAMSegmentWidget
    assert tabs(reloaded) == tabs(widget)
    assert all(reloaded.shell.open(key) not in before for key in ("segment", "finetune", "compare", "batch"))
    slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.int16))  # nobody of the old parts may answer to it
    host.process_events()
