from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.host
HOST_FOLDER = Path(__file__).resolve().parents[2] / "Host"


def add_volume(name="Scan"):
    import slicer

    array = np.zeros((8, 9, 10), np.int16)
    array[2:6, 3:6, 4:7] = 100
    return slicer.util.addVolumeFromArray(array, np.diag([-1.0, -1.0, 2.0, 1.0]), name)


def test_properties_are_read_and_written_without_parentheses(host):
    import qt

    button = qt.QPushButton("Run")
    button.enabled = False
    button.text = "Stop"
    assert (button.text, button.enabled) == ("Stop", False)
    with pytest.raises(TypeError):
        button.text()


def test_signals_are_connected_by_text_and_an_unknown_signature_is_refused(host):
    import qt

    button, clicks = qt.QPushButton(), []
    button.connect("clicked(bool)", clicks.append)
    button.click()
    button.disconnect("clicked(bool)", clicks.append)
    button.click()
    assert clicks == [False]
    with pytest.raises(ValueError, match="no such signal"):
        button.connect("clicked(QString)", clicks.append)


def test_a_node_selector_follows_the_real_scene(scene):
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.addEnabled = False
    seen = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    selector.setMRMLScene(scene)
    volume = add_volume()
    assert selector.currentNode() is volume
    scene.RemoveNode(volume)
    assert selector.currentNode() is None
    assert seen == [volume, None]


def test_a_scene_with_a_segmentation_survives_a_bundle_file(host, scene, tmp_path):
    import slicer

    volume = add_volume()
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.GetSegmentation().AddEmptySegment("liver", "Liver")
    array = (slicer.util.arrayFromVolume(volume) > 0).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, segmentation, "liver", volume)
    assert host.save_scene(tmp_path / "scene.mrb")
    scene.Clear(0)
    assert host.load_scene(tmp_path / "scene.mrb")
    segmentation, volume = slicer.util.getNode("Organs"), slicer.util.getNode("Scan")
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "liver", volume), array)


def test_a_slice_view_shows_the_volume(host, scene):
    import slicer

    volume = add_volume()
    volume.CreateDefaultDisplayNodes()
    view = slicer.app.layoutManager().sliceWidget("Red").view
    view.show(volume)
    picture = view.grab()
    assert picture.shape == (512, 512, 3)
    assert picture.max() > picture.min()


def run_in_new_host(code):
    """Run a script in a process of its own; returns what it printed."""
    script = f"import sys; sys.path.insert(0, {str(HOST_FOLDER)!r})\nfrom slicerhost import start_host\n"
    script += "host = start_host()\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


COUNT_IN_A_THREAD = """
    import hashlib, threading, time
    import qt
    from slicerhost.event_loop import run_holding_gil
    count, done = [0], threading.Event()
    data = bytes(100_000)

    def work():  # gives the GIL away and wants it back at every step, as torch does
        while not done.is_set():
            hashlib.sha256(data)
            count[0] += 1

    def run(loop):
        count[0] = 0
        started = time.monotonic()
        loop(lambda: time.monotonic() - started > 1.0)
        return count[0]

    def run_releasing_gil(until):
        timer = qt.QTimer()
        timer.timeout.connect(lambda: until() and qt.QCoreApplication.quit())
        timer.start(20)
        host.qt_application.exec()

    threading.Thread(target=work, daemon=True).start()
    released, held = run(run_releasing_gil), run(run_holding_gil)
    done.set()
    print(released, held)
"""


def test_the_loop_that_holds_the_gil_starves_a_thread_as_slicer_does(host):
    released, held = (int(part) for part in run_in_new_host(COUNT_IN_A_THREAD).split())
    assert held < released / 2


def test_a_foreign_module_opens_unmodified(host, scene):
    path = os.environ.get("FOREIGN_SLICER_MODULE")
    if not path:
        pytest.skip("FOREIGN_SLICER_MODULE names no scripted module of somebody else")
    host.load_module(path)
    widget = host.open_module(Path(path).stem)
    add_volume()
    host.process_events()
    picture = widget.parent.grab()
    assert not picture.isNull()
    assert len(widget.parent.findChildren(type(widget.parent).__mro__[2])) > 5


def test_a_tooltip_is_one_paragraph_in_the_style_of_its_widget_as_in_slicer(host):
    import qt
    from slicerhost.tooltips import ShownToolTip

    button = qt.QPushButton("Run")
    button.toolTip = "one\ntwo"
    assert ShownToolTip(button).lines == ["one two"], "a newline is not a line break in a paragraph"
    assert ShownToolTip(button, "one<br>two").lines == ["one", "two"]
    assert not ShownToolTip(button).is_bold
    button.setStyleSheet("font-weight: bold;")
    assert ShownToolTip(button).is_bold
    button.setStyleSheet("QPushButton { font-weight: bold; }")
    assert not ShownToolTip(button).is_bold


def test_a_section_keeps_hidden_what_code_has_hidden(host):
    import ctk
    import qt

    section = ctk.ctkCollapsibleButton()
    layout = qt.QVBoxLayout(section)
    shown, hidden = qt.QLabel("shown"), qt.QLabel("hidden")
    layout.addWidget(shown)
    layout.addWidget(hidden)
    hidden.setVisible(False)
    section.show()
    section.collapsed = True
    assert shown.isHidden()
    section.collapsed = False
    section.text = "Another title"
    assert not shown.isHidden()
    assert hidden.isHidden()


def test_a_module_panel_asks_every_page_of_a_stack_for_its_height_as_slicers_does(host):
    import qt
    from slicerhost.module_panel import ModulePanel

    module = qt.QWidget()
    tabs = qt.QTabWidget()
    qt.QVBoxLayout(module).addWidget(tabs)
    for height in (100, 900):
        page = qt.QWidget()
        label = qt.QLabel("text")
        label.setWordWrap(True)
        label.setMinimumHeight(height)
        qt.QVBoxLayout(page).addWidget(label)
        page.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Ignored)
        tabs.addTab(page, str(height))
    panel = ModulePanel(module, 400, 300)
    panel.show()
    host.process_events()
    assert panel.widget().height > 900, "the size policy of a page counts for nothing"


def test_a_legend_in_a_plot_view_of_a_quarter_of_the_window_covers_points(scene):
    import numpy as np
    import slicer
    from slicerhost.plot_view import PlotView

    table = scene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.util.updateTableFromArray(table, np.array([[0.0, 0.2], [1.0, 0.95]]), ["x", "y"])
    series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "A name of some length")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    view = PlotView(chart)
    view.draw()
    assert view.is_under_legend(0.95, 0.95)
    assert not view.is_under_legend(0.1, 0.3)
    chart.SetLegendVisibility(False)
    view.draw()
    assert not view.is_under_legend(0.95, 0.95)
