"""DICOM Segmentations and RT Structure Sets are read with names and codes, at their true place."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import write_series
from grids_of_tests import oblique_geometry
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.io.dicom.writing import write_dicom
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.grids import resample_array
from HSAMSegmentLib.labels.rtstruct import RTSTRUCT_CLASS
from HSAMSegmentLib.labels.segmentation_files import read_segmentation

SERIES = "1.2.826.0.1.3680043.8.498.77"
STRAIGHT = Geometry(size=(40, 36, 14), spacing_mm=(0.7, 1.1, 5.3), origin_mm=(-12.0, 8.0, -40.0))
GRIDS = {"straight": STRAIGHT, "oblique": oblique_geometry(), "left-handed": oblique_geometry(left_handed=True)}
NAMES = {1: "liver", 2: "right kidney"}


def two_organs(geometry) -> np.ndarray:
    array = np.zeros(geometry.shape, dtype=np.uint8)
    k, j, i = geometry.shape
    array[1 : k - 1, 1 : j // 2, 1 : i - 1] = 1
    array[k // 2 : k - 1, j // 2 + 1 : j - 1, 1 : i // 2] = 2
    return array


@pytest.fixture(params=sorted(GRIDS))
def scan(request, tmp_path):
    """A series in a folder, its files in the order of the slices, and its grid."""
    geometry = GRIDS[request.param]
    tags = {"SliceThickness": geometry.spacing_mm[2], "uid": SERIES, "modality": "MR"}
    tags["PixelSpacing"] = [geometry.spacing_mm[1], geometry.spacing_mm[0]]
    paths = write_series(tmp_path / "scan", np.zeros(geometry.shape, np.int16), geometry, **tags)
    for path in paths:
        data = pydicom.dcmread(path)
        data.FrameOfReferenceUID, data.SeriesNumber, data.PatientName = "1.2.9", 4, "Phantom^A"
        data.PatientBirthDate = data.PatientSex = data.AccessionNumber = data.StudyID = data.StudyDate = ""
        data.StudyTime = data.ReferringPhysicianName = ""
        data.save_as(path)
    grid = read_volume(tmp_path / "scan").geometry
    normal = np.cross(grid.direction_matrix[:, 0], grid.direction_matrix[:, 1])
    paths.sort(key=lambda path: float(normal @ np.array(pydicom.dcmread(path).ImagePositionPatient, dtype=float)))
    return tmp_path / "scan", paths, grid


def write_seg(path, scan_paths, array, kind):
    highdicom = pytest.importorskip("highdicom", reason="highdicom writes the DICOM Segmentations of these tests")
    if not hasattr(highdicom.seg.SegmentationTypeValues, kind):
        pytest.skip(f"the highdicom for this Python writes no {kind}")
    codes = pytest.importorskip("pydicom.sr.codedict").codes
    source = [pydicom.dcmread(item) for item in scan_paths]
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver if number == 1 else codes.SCT.Kidney,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in NAMES.items()
    ]
    pixels = array if kind == "LABELMAP" else np.stack([array == value for value in NAMES], -1)
    pixels = pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    made = highdicom.seg.Segmentation(
        source, pixels, kind, described, highdicom.UID(), 100, highdicom.UID(), 1, "none", "none", "1", "0"
    )
    made.save_as(path)
    return path


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_dicom_segmentation_comes_back_voxel_by_voxel(scan, tmp_path, kind):
    _, paths, geometry = scan
    array = two_organs(geometry)
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", paths, array, kind))
    assert {label.value: label.name for label in found.labels} == NAMES
    assert found.labels.by_value(1).terminology.type.value == "10200004"
    np.testing.assert_array_equal(resample_array(found.array, found.geometry, geometry), array)
    assert any("fractional" in note for note in found.notes) == (kind == "FRACTIONAL")


def test_overlapping_segments_keep_the_smaller_one_and_say_so(scan, tmp_path):
    highdicom = pytest.importorskip("highdicom", reason="highdicom writes the DICOM Segmentations of these tests")
    _, paths, geometry = scan
    path = write_seg(tmp_path / "seg.dcm", paths, two_organs(geometry), "BINARY")
    data = highdicom.seg.segread(path)
    for frame in data.PerFrameFunctionalGroupsSequence:
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1
    last = data.PerFrameFunctionalGroupsSequence[-1]
    last.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2
    twin = data.PerFrameFunctionalGroupsSequence[0]
    last.PlanePositionSequence = twin.PlanePositionSequence
    data.save_as(path)
    found = read_segmentation(path)
    shared = np.count_nonzero(data.pixel_array[0] & data.pixel_array[-1])
    assert shared == 0 or any(f"overlap in {shared} voxels" in note for note in found.notes)
    assert (found.array == 2).sum() == np.count_nonzero(data.pixel_array[-1])


def write_rtstruct(path, geometry, contours, series=SERIES):
    """Contours by name: lists of (geometric type, voxel indices [n, 3])."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = RTSTRUCT_CLASS
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = "RTSTRUCT", generate_uid(), "1.2"
    referenced, study, frame = Dataset(), Dataset(), Dataset()
    referenced.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence = [referenced]
    frame.RTReferencedStudySequence = [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, parts) in enumerate(contours.items(), start=1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber = drawn.ReferencedROINumber = number
        region.ROIName, drawn.ROIDisplayColor, drawn.ContourSequence = name, [255, 0, 128], []
        for kind, indices in parts:
            points = (geometry.ijk_to_lps @ np.c_[indices, np.ones(len(indices))].T)[:3].T
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [round(float(value), 5) for value in points.ravel()]
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(region)
        data.ROIContourSequence.append(drawn)
    write_dicom(data, path)
    return path


def rectangle(i0, i1, j0, j1, k):
    return np.array([[i0, j0, k], [i1, j0, k], [i1, j1, k], [i0, j1, k]], dtype=float)


def test_contours_are_filled_with_holes_on_the_grid_of_the_scan(scan):
    folder, _, geometry = scan
    (i, j, k), outer = geometry.size, "CLOSED_PLANAR"
    slices = range(1, k - 1)
    contours = {
        "liver": [(outer, rectangle(0.5, i - 1.5, 0.5, j - 1.5, z)) for z in slices]
        + [(outer, rectangle(1.5, i - 2.5, 1.5, 2.5, z)) for z in slices],
        "marker": [("POINT", np.array([[1.0, 1.0, 1.0]]))],
    }
    path = write_rtstruct(folder / "rtstruct.dcm", geometry, contours)
    found = read_segmentation(path)
    expected = np.zeros(geometry.shape, dtype=np.uint8)
    expected[1 : k - 1, 1 : j - 1, 1 : i - 1] = 1
    expected[1 : k - 1, 2:3, 2 : i - 2] = 0
    np.testing.assert_array_equal(found.array, expected)
    assert found.geometry == geometry
    assert found.labels.by_value(1).name == "liver"
    assert any("not closed" in note for note in found.notes)
    np.testing.assert_array_equal(read_segmentation(path, grid=geometry).array, expected)


def test_contours_on_every_other_slice_reach_halfway_to_the_next(scan):
    folder, _, geometry = scan
    i, j, k = geometry.size
    drawn = range(0, k - 1, 2)
    contours = {"liver": [("CLOSED_PLANAR", rectangle(0.5, i - 1.5, 0.5, j - 1.5, z)) for z in drawn]}
    found = read_segmentation(write_rtstruct(folder / "rtstruct.dcm", geometry, contours))
    assert found.array[: max(drawn) + 1].any(axis=(1, 2)).all()


def test_a_structure_set_without_its_scan_says_what_it_needs(scan, tmp_path):
    _, _, geometry = scan
    contours = {"liver": [("CLOSED_PLANAR", rectangle(0.5, 3.5, 0.5, 3.5, 1))]}
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(VolumeError, match="put the file into the folder of the scan"):
        read_segmentation(write_rtstruct(tmp_path / "elsewhere" / "alone.dcm", geometry, contours))


def test_contours_across_the_slices_are_refused(scan):
    folder, _, geometry = scan
    tilted = rectangle(0.5, 3.5, 0.5, 3.5, 1)
    tilted[2:, 2] += 2
    with pytest.raises(VolumeError, match="do not lie in the slices"):
        read_segmentation(write_rtstruct(folder / "rt.dcm", geometry, {"liver": [("CLOSED_PLANAR", tilted)]}))


def test_a_dicom_image_is_not_taken_for_labels(scan):
    _, paths, _ = scan
    with pytest.raises(VolumeError, match="kind MR, not a segmentation"):
        read_segmentation(paths[0])


def test_contours_of_one_plane_stay_together_when_their_depths_differ_by_rounding(scan):
    folder, _, geometry = scan
    i, j, _ = geometry.size
    outer, inner = rectangle(0.5, i - 1.5, 0.5, j - 1.5, 1), rectangle(1.5, i - 2.5, 1.5, 2.5, 1)
    inner[:, 2] += 0.02
    contours = {"liver": [("CLOSED_PLANAR", outer), ("CLOSED_PLANAR", inner)]}
    found = read_segmentation(write_rtstruct(folder / "rtstruct.dcm", geometry, contours))
    assert found.array[1, 1, 1] == 1
    assert not found.array[1, 2, 2 : i - 2].any()


def test_contours_beyond_the_scan_and_odd_colors_are_no_obstacle(scan):
    folder, _, geometry = scan
    i, j, _ = geometry.size
    contours = {"liver": [("CLOSED_PLANAR", rectangle(-6, i + 4, 0.5, j - 1.5, 1))]}
    path = write_rtstruct(folder / "rtstruct.dcm", geometry, contours)
    data = pydicom.dcmread(path)
    data.ROIContourSequence[0].ROIDisplayColor = 7
    data.save_as(path)
    found = read_segmentation(path)
    assert found.array[1, 1].all()
    assert any("reach beyond the scan" in note for note in found.notes)


def change_seg(path, change):
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)
    return read_segmentation(path)


def test_segment_numbers_beyond_eight_bits_are_numbered_anew(scan, tmp_path):
    _, paths, geometry = scan
    array = two_organs(geometry)

    def renumber(data):
        data.SegmentSequence[1].SegmentNumber = 300
        for frame in data.PerFrameFunctionalGroupsSequence:
            identified = frame.SegmentIdentificationSequence[0]
            if identified.ReferencedSegmentNumber == 2:
                identified.ReferencedSegmentNumber = 300

    found = change_seg(write_seg(tmp_path / "seg.dcm", paths, array, "BINARY"), renumber)
    assert {label.value: label.name for label in found.labels} == NAMES
    np.testing.assert_array_equal(resample_array(found.array, found.geometry, geometry), array)


def test_a_segment_that_is_not_described_is_left_out_and_said(scan, tmp_path):
    _, paths, geometry = scan

    def forget(data):
        data.SegmentSequence = data.SegmentSequence[:1]

    found = change_seg(write_seg(tmp_path / "seg.dcm", paths, two_organs(geometry), "BINARY"), forget)
    assert set(np.unique(found.array)) == {0, 1}
    assert any("Segment 2 is not described" in note for note in found.notes)


def test_frames_left_out_between_two_do_not_stretch_the_slices(scan, tmp_path):
    _, paths, geometry = scan
    array = np.zeros(geometry.shape, dtype=np.uint8)
    array[0, 1, 1] = array[3, 1, 1] = 1

    def without_spacing(data):
        for measures in data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence:
            if "SpacingBetweenSlices" in measures:
                del measures.SpacingBetweenSlices

    found = change_seg(write_seg(tmp_path / "seg.dcm", paths, array, "BINARY"), without_spacing)
    assert found.geometry.spacing_mm[2] == pytest.approx(geometry.spacing_mm[2], rel=1e-3)
    np.testing.assert_array_equal(resample_array(found.array, found.geometry, geometry), array)
