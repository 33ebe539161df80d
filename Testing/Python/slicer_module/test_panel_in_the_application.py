"""What the panel did wrong in the application itself, and the host now shows."""

from __future__ import annotations

import numpy as np
import pytest
from panel_layout import cut_texts
from slicer_panel import open_tab, settle

from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome

pytestmark = pytest.mark.host
pytest_plugins = ("panel_fixtures", "slicer_panel")
NAMES = ("left ventricular myocardium", "portal and splenic vein", "left adrenal gland", "liver")


def outcome_of(volume, confidences, names=NAMES):
    from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry

    organs = []
    for value, (name, confidence) in enumerate(zip(names, confidences), 1):
        label = Label(value, name, (0.2 * value, 0.5, 0.3))
        found = (2135.3, confidence, (1, 1, 1), (1, 1, 2)) if confidence is not None else (0.0, None, None, None)
        organs.append(OrganOutcome(label, *found))
    return SegmentOutcome(volume_geometry(volume), (0,) * 6, "", tuple(organs), "model", "Model")


def add_scan(name="Scan"):
    import slicer

    return slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16), None, name)


@pytest.fixture
def show_result(host, scene, open_panel):
    """Shows a result in the panel of a width; returns the Segment tab."""

    def show(width, confidences):
        from HSAMSegmentLib.slicer.nodes.segment_session import Written

        widget, _ = open_panel(width)
        tab = open_tab(host, widget, "segment")
        scan = add_scan()
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
        tab.result.show(Written(outcome_of(scan, confidences), node, scan), show_3d=False)
        settle(host)
        return tab

    return show


@pytest.mark.parametrize("width", [380, 510, 700])
def test_no_name_of_a_result_is_cut(show_result, width):
    table = show_result(width, (0.92, 0.8, 0.4, None)).ui.resultTable
    assert cut_texts(table, wrapped=(0,)) == []
    assert not table.verticalScrollBar().isVisible()
    assert not table.horizontalScrollBar().isVisible()


def test_a_row_to_check_is_told_by_sign_word_weight_and_brightness(show_result):
    tab = show_result(510, (0.92, 0.8, 0.4, None))
    table = tab.ui.resultTable
    lights = [table.item(row, 2).text() for row in range(4)]
    assert lights == ["\u25cf good 92 %", "\u25b2 look 80 %", "\u25a0 check 40 %", "\u2013 not found"]
    assert [table.item(row, 0).font().bold() for row in range(4)] == [False, False, True, False]
    paper, ground = (table.palette.base().color().lightness(), table.item(2, 0).background().color().lightness())
    assert abs(paper - ground) >= 20, "the ground of the row is of another brightness"
    assert "in doubt (confidence 40 %)" in table.item(2, 0).toolTip()
    assert tab.ui.reviewLabel.text.startswith("\u25a0 Check before use: left adrenal gland.")


@pytest.mark.parametrize("width", [510, 700])
def test_no_name_of_a_pair_is_cut(host, scene, open_panel, width):
    widget, _ = open_panel(width)
    tab = open_tab(host, widget, "compare")
    labels = LabelSet(tuple(Label(value, name, (0.1 * value, 0.5, 0.5)) for value, name in enumerate(NAMES, 1)))
    tab.pairs.show(labels, labels, ())
    tab.ui.pairSection.visible, tab.ui.pairSection.collapsed = True, False
    settle(host)
    assert cut_texts(tab.ui.pairTable, wrapped=(0,)) == []


def test_the_sentence_of_a_result_stays_when_its_scan_is_removed(driver, scene, ct_scan):
    driver.segment()
    sentence = driver.status
    assert "2 of 2 organs found" in sentence
    scene.RemoveNode(ct_scan)
    driver.host.process_events()
    assert driver.ui.scanSelector.currentNode() is None
    assert driver.status == sentence
    assert not driver.ui.applyButton.enabled
    assert driver.ui.applyButton.toolTip == "Choose a scan."


def test_a_scan_that_is_loaded_while_the_panel_is_open_is_chosen(host, scene, open_panel, data_folder):
    import slicer

    widget, _ = open_panel(510)
    tab = open_tab(host, widget, "segment")
    assert tab.ui.scanSelector.currentNode() is None
    path = data_folder / "ct_totalsegmentator" / "images" / "ct_example_30.nii.gz"
    for _ in range(2):  # the second one, too: it is what the slice views show now
        scan = slicer.util.loadVolume(str(path), {})
        settle(host, seconds=0.3)
        assert tab.ui.scanSelector.currentNode() is scan
    hidden = slicer.util.loadVolume(str(path), {"show": False})
    settle(host, seconds=0.3)
    assert tab.ui.scanSelector.currentNode() is not hidden


def test_segmentations_that_are_loaded_while_compare_is_open_are_chosen(host, scene, open_panel):
    widget, _ = open_panel(510)
    tab = open_tab(host, widget, "compare")
    nodes = []
    for name in ("First", "Second"):
        nodes.append(scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name))
        nodes[-1].GetSegmentation().AddEmptySegment("liver", "liver")
        settle(host, seconds=0.3)
    assert list(tab.nodes) == nodes


def test_out_of_sight_no_parameter_node_comes_into_a_scene(host, scene, open_panel):
    import slicer

    def parameter_nodes():
        return slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")

    widget, _ = open_panel(510)
    assert len(parameter_nodes()) == 1
    widget.parent.exit()
    scene.RemoveNode(parameter_nodes()[0])  # closing a scene alone would keep it
    scene.Clear(0)
    add_scan()
    settle(host, seconds=0.3)
    assert parameter_nodes() == []
    widget.parent.enter()
    assert len(parameter_nodes()) == 1
    scene.RemoveNode(parameter_nodes()[0])
    scene.Clear(0)
    assert len(parameter_nodes()) == 1, "in sight it is made at once"


@pytest.mark.parametrize(
    ("key", "button"),
    [
        ("segment", "applyButton"),
        ("finetune", "startButton"),
        ("compare", "compareButton"),
        ("batch", "batchButton"),
    ],
)
def test_the_tooltip_of_a_bold_button_is_not_bold(host, scene, open_panel, key, button):
    from slicerhost.tooltips import ShownToolTip

    widget, _ = open_panel(510)
    shown = getattr(open_tab(host, widget, key).ui, button)
    assert shown.font.bold() or "bold" in shown.styleSheet
    assert not ShownToolTip(shown).is_bold


def test_no_style_sheet_is_without_a_selector():
    from pathlib import Path
    from xml.etree import ElementTree

    folder = Path(__file__).resolve().parents[3] / "HSAMSegment" / "Resources" / "UI"
    for form in folder.glob("*.ui"):
        for sheet in ElementTree.parse(form).iterfind(".//property[@name='styleSheet']/string"):
            assert "{" in sheet.text, f"{form.name}: {sheet.text} styles the tooltip, too"


def test_each_sentence_of_a_tooltip_has_a_line_of_its_own(host):
    import qt
    from slicerhost.tooltips import ShownToolTip

    from HSAMSegmentLib.slicer.panels.widgets.device_list import DeviceList

    class Section:
        def connect(self, *_signal):
            """Never opened."""

    combo = qt.QComboBox()
    combo.toolTip = "Where the network runs."
    devices = DeviceList(combo, Section(), lambda: False)
    broken = {"name": "cuda:0", "title": "Card", "works": False, "sentence": "Card <old> has no kernel."}
    DeviceList._probed.append(broken)
    try:
        devices._show("auto")
        assert ShownToolTip(combo).lines == ["Where the network runs.", "Card <old> has no kernel."]
    finally:
        DeviceList._probed.remove(broken)


def test_batch_says_once_why_a_file_cannot_be_read(host, scene, open_panel, tmp_path):
    from HSAMSegmentLib.errors import VolumeError
    from HSAMSegmentLib.workflows.segment_folder.folder_request import FAILED, BatchRow

    widget, _ = open_panel(510)
    tab = open_tab(host, widget, "batch")
    reason = "scan.nii.gz cannot be read: it is cut off."

    class UnreadableBatch:
        is_running = False

        def show(self, number):
            raise VolumeError(reason)

    tab._batch = UnreadableBatch()
    tab._on_row(0, BatchRow(name="scan.nii.gz", state=FAILED, message=reason))
    assert tab.ui.detailLabel.text.count(reason) == 1
    tab._on_row(0, BatchRow(name="scan.nii.gz", state=FAILED, message="There is too little memory."))
    assert "It cannot be shown: " + reason in tab.ui.detailLabel.text
