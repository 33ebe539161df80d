"""The body of the module's self test: the same code in Slicer and in the headless host.

A check raises AssertionError with what is wrong, or `unittest.SkipTest` with why it cannot run here.
"""

from __future__ import annotations

import subprocess
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
import vtk

from HSAMSegmentLib.errors import ModelNotFoundError
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.slicer.nodes.segment_session import Written
from HSAMSegmentLib.slicer.nodes.segmentations.segments import LABELMAP, create_segmentation, find_segment
from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry
from HSAMSegmentLib.weights.store import Store

MODEL = "abdomen-mr"
NEIGHBOR = "Neighbor"
PLACED = ("liver", "right kidney")
_LEAST_DICE = 0.6
"""Far below what the model reaches on the phantom, far above what a flipped or shifted kidney would."""

_IMPORT_ENGINE = """
import sys
sys.path.insert(0, sys.argv[1])
import HSAMSegmentLib.weights.store, HSAMSegmentLib.inference.options, HSAMSegmentLib.workflows.run
import HSAMSegmentLib.phantom
sys.exit(",".join(name for name in ("torch", "monai") if name in sys.modules) or 0)
"""


def run_all(case: unittest.TestCase, say: Callable[[str], object]) -> list[str]:
    """Run all tests of a case one after the other, and say of each whether it passed or was skipped, and why.

    Returns:
        One sentence per skipped test.
    """
    skipped = []
    for name in unittest.TestLoader().getTestCaseNames(type(case)):
        case.setUp()
        try:
            getattr(case, name)()
            say(f"{name}: passed")
        except unittest.SkipTest as reason:
            skipped.append(f"{name}: skipped, {reason}")
            say(skipped[-1])
        finally:
            case.tearDown()
    return skipped


def add_phantom(name: str, *, seed: int = 0, oblique_degrees: float = 0.0):
    """Add the synthetic abdomen to the scene as a scan."""
    volume, _ = abdomen_phantom(seed=seed, geometry=phantom_geometry(oblique_degrees=oblique_degrees))
    node = slicer.util.addVolumeFromArray(volume.array, volume.geometry.ijk_to_ras, name)
    node.SetAttribute("DICOM.Modality", volume.modality)
    return node


def check_engine_imports_without_torch() -> None:
    """Opening the module must not load torch; asked in a fresh interpreter, since this one may have it already."""
    try:
        from HSAMSegmentLib.worker.process_runner import worker_python
    except ModuleNotFoundError as error:
        raise unittest.SkipTest(f"the package {error.name} is not installed") from error
    library = str(Path(__file__).resolve().parents[2])
    command = [worker_python(), "-c", _IMPORT_ENGINE, library]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"importing the engine also imports, or fails with: {done.stderr.strip()}"


def check_geometry() -> None:
    """The grid of an oblique, left-handed volume is read exactly."""
    matrix = np.diag([-1.5, 1.5, 3.0, 1.0]) @ _turned(20.0)
    matrix[:3, 3] = (10.0, -20.0, 30.0)
    volume = slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), matrix, "Self test")
    assert np.allclose(volume_geometry(volume).ijk_to_ras, matrix), "the geometry of a volume node is read wrongly"


def _turned(degrees: float) -> np.ndarray:
    """Rotation around the third axis."""
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def require_model() -> None:
    """Skip if the built-in model is not installed."""
    try:
        present = Store().find(MODEL).is_present
    except ModelNotFoundError:
        present = False
    if not present:
        raise unittest.SkipTest(f"the model '{MODEL}' is not installed")


def check_segmentation(logic, say: Callable[[str], object]) -> None:
    """Segment the phantom into a segmentation that holds a neighbor already, look at everything, and take it back.

    Args:
        logic: a `HSAMSegmentLogic`; it is closed at the end.
        say: tells what happens.
    """
    require_model()
    volume = add_phantom("Self test phantom", oblique_degrees=15.0)
    node = create_segmentation(volume, "Self test organs")
    neighbor = _add_neighbor(node, volume)
    try:
        say("Segmenting the phantom")
        written = logic.segmentAndWait(volume, MODEL, segmentationNode=node)
        _check_written(written, volume, node)
        assert np.array_equal(_mask(node, NEIGHBOR, volume), neighbor), "a foreign segment was changed"
        say("Saving and loading the segmentation")
        _check_round_trip(written, volume, node)
        logic.engine.history.undo()
        names = list(node.GetSegmentation().GetSegmentIDs())
        assert names == [NEIGHBOR], f"undo left {names}"
        assert np.array_equal(_mask(node, NEIGHBOR, volume), neighbor), "undo changed a foreign segment"
    finally:
        logic.close()


def _add_neighbor(node, volume) -> np.ndarray:
    """A segment that is not ours, in the middle of the liver; returns its mask."""
    _, truth = abdomen_phantom(geometry=volume_geometry(volume))
    mask = (truth.array == next(iter(truth.labels)).value).astype(np.uint8)
    mask[::2] = 0
    node.GetSegmentation().AddEmptySegment(NEIGHBOR, NEIGHBOR)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, NEIGHBOR, volume)
    return mask


def _mask(node, identifier: str, volume) -> np.ndarray:
    return (slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume) > 0).astype(np.uint8)


def _check_written(written: Written, volume, node) -> None:
    segmentation = node.GetSegmentation()
    assert written.segmentation_node is node, "the result went into another segmentation"
    assert written.outcome.found, "nothing was found in the phantom"
    for organ in written.outcome.found:
        segment = segmentation.GetSegment(find_segment(segmentation, organ.label.name))
        assert segment.GetName() == organ.label.name, f"{organ.label.name} is called {segment.GetName()}"
        assert np.allclose(segment.GetColor(), organ.label.color), f"{organ.label.name} has another color"
        assert organ.label.terminology.type.value in _tag(segment), f"{organ.label.name} has no terminology"
        _check_grid(segment, volume)
    _check_place(volume, node)


def _check_grid(segment, volume) -> None:
    """Each segment must lie on the voxels of the scan, wherever its own box begins."""
    matrix, expected = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    segment.GetRepresentation(LABELMAP).GetImageToWorldMatrix(matrix)
    volume.GetIJKToRASMatrix(expected)
    found, wanted = (slicer.util.arrayFromVTKMatrix(item) for item in (matrix, expected))
    assert np.allclose(found, wanted, atol=1e-6), f"{segment.GetName()} is not on the grid of the scan"


def _check_place(volume, node) -> None:
    """Organs must be where the phantom has them: together, those that are checked survive no flip and no shift."""
    _, truth = abdomen_phantom(geometry=volume_geometry(volume))
    for label in (item for item in truth.labels if item.name in PLACED):
        expected = truth.array == label.value
        found = _mask(node, find_segment(node.GetSegmentation(), label.name), volume) > 0
        dice = 2.0 * np.sum(found & expected) / max(1, np.sum(found) + np.sum(expected))
        assert dice > _LEAST_DICE, f"the {label.name} is not where it should be (Dice {dice:.2f})"


def _check_round_trip(written: Written, volume, node) -> None:
    """A saved segmentation keeps voxels and terminology."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "organs.seg.nrrd")
        assert slicer.util.saveNode(node, path, {}), "the segmentation could not be saved"
        loaded = slicer.util.loadSegmentation(path, {})
    for organ in written.outcome.found:
        identifiers = [find_segment(item.GetSegmentation(), organ.label.name) for item in (node, loaded)]
        masks = [_mask(item, identifier, volume) for item, identifier in zip((node, loaded), identifiers)]
        assert np.array_equal(*masks), f"{organ.label.name} has other voxels after saving and loading"
        tag = _tag(loaded.GetSegmentation().GetSegment(identifiers[1]))
        assert organ.label.terminology.type.value in tag, f"{organ.label.name} lost its terminology in the file"
    slicer.mrmlScene.RemoveNode(loaded)


def _tag(segment) -> str:
    value = vtk.mutable("")
    segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), value)
    return str(value)
