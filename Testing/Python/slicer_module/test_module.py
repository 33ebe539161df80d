from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path

import numpy as np
import pytest
from untrained_model import write_untrained_model

from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError, RequestError

pytestmark = pytest.mark.host
REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = REPOSITORY / "HSAMSegment" / "HSAMSegment.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_untrained_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", modality="")


@pytest.fixture(scope="module")
def module(host):
    return host.load_module(MODULE)


@pytest.fixture(scope="module")
def shared_logic(module):
    logic = module.HSAMSegmentLogic()
    yield logic
    logic.close()


@pytest.fixture
def logic(shared_logic, scene):
    return shared_logic


def write_left_handed(source, target):
    """The same scan with its slices in the opposite order and a direction that says so."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(source))
    flipped = SimpleITK.Flip(image, [False, False, True], False)
    SimpleITK.WriteImage(flipped, str(target))
    direction = np.reshape(flipped.GetDirection(), (3, 3))
    assert np.linalg.det(direction) < 0
    return target


@pytest.fixture(params=["axial", "oblique", "left-handed", "transformed"])
def scan_file(request, data_folder, tmp_path):
    """A scan, and the matrix of a parent transform or None."""
    axial = data_folder / "ct_totalsegmentator" / "images" / "ct_example_30.nii.gz"
    if request.param == "oblique":
        return sorted((data_folder / "cmr_bssfp" / "images").glob("*.nii.gz"))[0], None
    if request.param == "left-handed":
        return write_left_handed(axial, tmp_path / "left-handed.nii.gz"), None
    turn = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    return axial, turn if request.param == "transformed" else None


@pytest.mark.slow
def test_the_scene_gets_voxel_by_voxel_what_the_command_line_writes(logic, scene, scan_file, model, tmp_path):
    import slicer
    from segment_requests import segment_to

    path, matrix = scan_file
    volume = slicer.util.loadVolume(str(path), {})
    if matrix is not None:
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        slicer.util.updateTransformMatrixFromArray(transform, matrix)
        volume.SetAndObserveTransformNodeID(transform.GetID())
    ours = logic.segmentAndWait(volume, model).segmentation_node
    segment_to(path, tmp_path / "organs.seg.nrrd", model=model, device="auto")
    theirs = slicer.util.loadSegmentation(str(tmp_path / "organs.seg.nrrd"), {})
    theirs.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    names = {ours.GetSegmentation().GetSegment(item).GetName() for item in ours.GetSegmentation().GetSegmentIDs()}
    assert names
    for name in names:
        masks = [
            slicer.util.arrayFromSegmentBinaryLabelmap(
                node, node.GetSegmentation().GetSegmentIdBySegmentName(name), volume
            )
            for node in (ours, theirs)
        ]
        assert masks[0].any()
        assert np.array_equal(masks[0] > 0, masks[1] > 0)


def add_noise_volume(shape=(12, 48, 48), name="Noise"):
    import slicer

    array = np.random.default_rng(0).normal(50, 100, shape).astype(np.int16)
    return slicer.util.addVolumeFromArray(array, np.diag([-3.0, -3.0, 3.0, 1.0]), name)


def test_a_script_can_segment_in_the_background_with_a_callback(host, logic, model):
    from HSAMSegmentLib.runtime.progress import Progress
    from HSAMSegmentLib.slicer.nodes.segment_session import Written

    events = []
    logic.segment(add_noise_volume(), model, onEvent=events.append, organs=["Liver"])
    with pytest.raises(RequestError, match="Another job is running"):
        logic.segment(add_noise_volume(), model)
    while logic.isBusy():
        host.process_events()
    *progress, last = events
    assert all(isinstance(event, Progress) for event in progress)
    assert isinstance(last, Written)
    assert [organ.label.name for organ in last.outcome.organs] == ["Liver"]


def test_a_script_learns_by_an_exception_what_went_wrong(logic, model, tmp_path):
    with pytest.raises(HSAMSegmentError, match="nowhere"):
        logic.segmentAndWait(add_noise_volume(), tmp_path / "nowhere.safetensors")
    with pytest.raises(HSAMSegmentError, match="pancreas"):
        logic.segmentAndWait(add_noise_volume(), model, organs=["pancreas"])
    with pytest.raises(RequestError, match="Choose a scan"):
        logic.segment(None, model)


def test_a_cancel_from_a_callback_ends_the_wait(logic, model):
    import qt

    qt.QTimer.singleShot(50, logic.cancel)
    with pytest.raises(CancelledError):
        logic.segmentAndWait(add_noise_volume((600, 200, 200)), model)


def test_sample_data_and_terminology_are_registered(host):
    from SampleData import SampleDataLogic

    before = len(SampleDataLogic.sources)  # other tests of this process may have loaded the module, too
    host.load_module(MODULE)
    (source,) = [item for item in SampleDataLogic.sources[before:] if item["category"] == "HSAM Segment"]
    assert source["checksums"].startswith("SHA256:")
    assert source["uris"].startswith("https://")
    import slicer
    import vtk

    names = vtk.vtkStringArray()
    slicer.modules.terminologies.logic().GetLoadedTerminologyNames(names)
    loaded = [names.GetValue(index) for index in range(names.GetNumberOfValues())]
    assert "Segmentation category and type - HSAM Segment" in loaded


@pytest.fixture
def widget(host, module, scene):
    widget = host.open_module("HSAMSegment")
    yield widget
    host.close_module("HSAMSegment")


@pytest.mark.slow
def test_closing_the_scene_while_a_job_runs_ends_the_job_and_leaves_a_working_panel(host, widget, scene, model):
    add_noise_volume((600, 200, 200))
    panel = widget.shell.open("segment")
    widget.logic.segment(panel.ui.scanSelector.currentNode() or add_noise_volume(), model)
    scene.Clear(0)
    while widget.logic.isBusy():
        host.process_events()
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
    volume = add_noise_volume()
    host.process_events()
    panel.ui.scanSelector.setCurrentNode(volume)
    assert widget.logic.segmentAndWait(volume, model).volume_node is volume


def test_the_panel_survives_a_reload_of_the_module(host, widget, scene):
    import slicer

    volume = add_noise_volume()
    panel = widget.shell.open("segment")
    panel.ui.scanSelector.setCurrentNode(volume)
    panel.ui.minimumBox.value = 0.7
    slicer.util.reloadScriptedModule("HSAMSegment")
    reloaded = slicer.modules.HSAMSegmentWidget
    assert reloaded is not widget
    panel = reloaded.shell.open("segment")
    assert panel.ui.minimumBox.value == 0.7
    assert panel.ui.scanSelector.currentNode() is volume


@pytest.mark.slow
def test_a_reload_while_a_job_runs_ends_the_job_and_its_worker_and_the_new_module_works(host, widget, scene, model):
    import psutil
    import slicer

    widget.logic.segment(add_noise_volume((600, 200, 200)), model)
    while widget.logic.engine._session._runner.worker_pid is None:
        host.process_events()
    pid = widget.logic.engine._session._runner.worker_pid
    slicer.util.reloadScriptedModule("HSAMSegment")
    assert not psutil.pid_exists(pid)
    reloaded = slicer.modules.HSAMSegmentWidget
    assert not reloaded.logic.isBusy()
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
    volume = add_noise_volume()
    assert reloaded.logic.segmentAndWait(volume, model).volume_node is volume


def test_another_scene_on_the_form_and_the_old_one_again_leave_a_working_panel(host, widget, scene):
    import slicer

    volume = add_noise_volume()
    panel = widget.shell.open("segment")
    other = slicer.vtkMRMLScene()
    for next_scene in (other, None, scene):
        panel.widget.setMRMLScene(next_scene)
        host.process_events()
    widget.enter()
    panel.ui.scanSelector.setCurrentNode(volume)
    assert panel.ui.scanSelector.currentNode() is volume


def run_in_new_host(code, **environment):
    script = f"import sys; sys.path.insert(0, {str(REPOSITORY / 'Testing' / 'Host')!r})\n"
    script += "from slicerhost import start_host\nhost = start_host()\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_loading_and_opening_the_module_imports_neither_torch_nor_monai_nor_psutil(host):
    printed = run_in_new_host(f"""
        host.load_module({str(MODULE)!r})
        import sys
        print("HSAMSegmentLib" in sys.modules, "numpy.testing" in sys.modules)
        host.open_module("HSAMSegment")
        print([name for name in ("torch", "monai", "psutil", "SimpleITK", "scipy") if name in sys.modules])
    """)
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_the_application_can_exit_while_a_job_runs_and_leaves_no_worker(host, model, tmp_path):
    import psutil

    printed = run_in_new_host(
        f"""
        import numpy as np, slicer, time
        module = host.load_module({str(MODULE)!r})
        volume = slicer.util.addVolumeFromArray(np.zeros((600, 200, 200), np.int16))
        logic = module.HSAMSegmentLogic()
        logic.segment(volume, {str(model)!r})
        while logic.engine._session._runner.worker_pid is None:
            host.process_events()
        print(logic.engine._session._runner.worker_pid)
    """,
        TMPDIR=str(tmp_path),
    )
    pid = int(printed.splitlines()[-1])
    assert not psutil.pid_exists(pid)
    assert not list(tmp_path.glob("hsamsegment-*"))


def run_self_test(module):
    """Run it as `slicer.testing.runUnitTest` does: every test method by unittest."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(module.HSAMSegmentTest).run(result)
    assert result.testsRun == 4
    assert not result.errors + result.failures, (result.errors + result.failures)[0][1]
    return [reason for _, reason in result.skipped]


@pytest.mark.slow
def test_the_self_test_of_the_module_passes(module, scene):
    skipped = run_self_test(module)
    if skipped:
        pytest.skip("; ".join(skipped))


@pytest.mark.slow
def test_a_self_test_that_cannot_run_is_skipped_with_its_reason_and_never_passes(module, scene, monkeypatch):
    from HSAMSegmentLib.slicer import self_test

    monkeypatch.setattr(self_test, "MODEL", "not-there")
    assert run_self_test(module) == ["the model 'not-there' is not installed"]
    said = []
    (skipped,) = self_test.run_all(module.HSAMSegmentTest(), said.append)
    assert skipped == "test_a_phantom_is_segmented: skipped, the model 'not-there' is not installed"
    assert [line for line in said if line.endswith(": passed")] == said[1:]
