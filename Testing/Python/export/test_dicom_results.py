"""DICOM Segmentations and RT Structure Sets hold the same voxels at the same place, for readers that others wrote."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_scans import (
    NAMES,
    OBLIQUE,
    STRAIGHT,
    every_way,
    labeled,
    structures,
    tilted,
    values_by_name,
    written_scan,
)

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.export import dicom_seg
from HSAMSegmentLib.export.dicom_seg import write_dicom_seg
from HSAMSegmentLib.export.formats import save_segmentation
from HSAMSegmentLib.export.rtstruct import write_rtstruct
from HSAMSegmentLib.export.source_images import Origin
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import geometry_of
from HSAMSegmentLib.labels.grids import resample_array
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.segmentation_files import read_segmentation
from HSAMSegmentLib.labels.terminology import label_for

highdicom = pytest.importorskip("highdicom", reason="highdicom writes DICOM Segmentations: pip install highdicom")

GRIDS = {"straight": STRAIGHT, "oblique": OBLIQUE, "tilted": tilted()}
WRITERS = {"dicom-seg": write_dicom_seg, "rtstruct": write_rtstruct}


@pytest.fixture(params=[*GRIDS, "frames"])
def scan(request, tmp_path):
    """A scan, and the structures on its grid with their origin."""
    grid = GRIDS.get(request.param, OBLIQUE)
    volume = written_scan(tmp_path / "scan", grid, frames=request.param == "frames")
    return volume, *labeled(volume, structures(), grid)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_voxels_come_back(scan, tmp_path, kind):
    volume, labels, origin = scan
    WRITERS[kind](labels, tmp_path / "out.dcm", origin)
    found = read_segmentation(tmp_path / "out.dcm", grid=volume.geometry)
    assert set(np.unique(labels.array)) == {0, *NAMES}
    np.testing.assert_array_equal(values_by_name(found, volume.geometry), labels.array)
    assert found.notes == ()


# Every fifth one has each order of the axes and each direction of each.
WAYS = [pytest.param(way, marks=() if way % 5 == 0 else pytest.mark.slow) for way in range(48)]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("way", WAYS)
def test_the_place_is_right_in_all_48_orientations(tmp_path, kind, way):
    grid = every_way(OBLIQUE)[way]
    volume = written_scan(tmp_path / "scan", grid, frames=way % 2 == 1)
    labels, origin = labeled(volume, structures(), OBLIQUE)
    WRITERS[kind](labels, tmp_path / "out.dcm", origin)
    found = read_segmentation(tmp_path / "out.dcm", grid=volume.geometry)
    np.testing.assert_array_equal(values_by_name(found, OBLIQUE), structures())


@pytest.mark.parametrize("kind", WRITERS)
def test_names_codes_sides_and_colors_come_back(scan, tmp_path, kind):
    volume, labels, origin = scan
    WRITERS[kind](labels, tmp_path / "out.dcm", origin)
    found = {label.name: label for label in read_segmentation(tmp_path / "out.dcm", grid=volume.geometry).labels}
    assert set(found) == set(NAMES.values())
    for label in labels.labels:
        assert found[label.name].terminology == label.terminology
        np.testing.assert_allclose(found[label.name].color, label.color, atol=0.003)


def test_the_segments_say_who_made_them_of_what(scan, tmp_path):
    volume, labels, origin = scan
    write_dicom_seg(labels, tmp_path / "out.dcm", origin)
    data = pydicom.dcmread(tmp_path / "out.dcm")
    source = pydicom.dcmread(volume.dicom_files[0])
    assert (data.StudyInstanceUID, data.PatientID) == (source.StudyInstanceUID, source.PatientID)
    assert data.SeriesInstanceUID != source.SeriesInstanceUID
    (series,) = data.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    kidney = next(item for item in data.SegmentSequence if item.SegmentLabel == "right kidney")
    assert kidney.SegmentAlgorithmType == "AUTOMATIC"
    assert kidney.SegmentAlgorithmName == "HSAMSegment abdomen-ct"
    (kind,) = kidney.SegmentedPropertyTypeCodeSequence
    assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("SCT", "64033007")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    uids = {str(item.SOPInstanceUID) for path in volume.dicom_files for item in [pydicom.dcmread(path)]}
    for frame in data.PerFrameFunctionalGroupsSequence:
        (derived,) = frame.DerivationImageSequence
        assert str(derived.SourceImageSequence[0].ReferencedSOPInstanceUID) in uids


@pytest.mark.parametrize("thickness", [None, ""], ids=["absent", "empty"])
def test_images_without_a_thickness_are_referenced_too(tmp_path, thickness):
    volume = written_scan(tmp_path / "scan", OBLIQUE)
    for path in volume.dicom_files:
        data = pydicom.dcmread(path)
        del data.SliceThickness
        if thickness is not None:
            data.SliceThickness = thickness
        data.save_as(path)
    labels, origin = labeled(volume, structures(), OBLIQUE)
    write_dicom_seg(labels, tmp_path / "out.dcm", origin)
    found = pydicom.dcmread(tmp_path / "out.dcm")
    assert all(len(frame.DerivationImageSequence) == 1 for frame in found.PerFrameFunctionalGroupsSequence)
    (measures,) = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == pytest.approx(OBLIQUE.spacing_mm[2])


def test_a_structure_keeps_its_tracking_uid_from_result_to_result(scan, tmp_path):
    _, labels, origin = scan
    uids = []
    for name in ("one.dcm", "two.dcm"):
        write_dicom_seg(labels, tmp_path / name, origin)
        data = pydicom.dcmread(tmp_path / name)
        uids.append(([item.TrackingUID for item in data.SegmentSequence], data.SOPInstanceUID))
    assert uids[0][0] == uids[1][0]
    assert len(set(uids[0][0])) == len(NAMES)
    assert uids[0][1] != uids[1][1]


def test_highdicom_reads_the_same_voxels(scan, tmp_path):
    volume, labels, origin = scan
    write_dicom_seg(labels, tmp_path / "out.dcm", origin)
    read = highdicom.seg.segread(tmp_path / "out.dcm")
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in volume.dicom_files]
    if len(uids) > 1:
        found = read.get_pixels_by_source_instance(
            uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
    else:
        numbers = range(1, volume.geometry.size[2] + 1)
        found = read.get_pixels_by_source_frame(
            uids[0], numbers, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
    for number, name in enumerate(read_names(read)):
        value = {name: value for value, name in NAMES.items()}[name]
        np.testing.assert_array_equal(found[..., number], labels.array == value)


def read_names(read) -> list[str]:
    return [str(item.SegmentLabel) for item in read.SegmentSequence]


def test_dcmqi_reads_the_same_voxels(scan, tmp_path):
    volume, labels, origin = scan
    write_dicom_seg(labels, tmp_path / "out.dcm", origin)
    np.testing.assert_array_equal(voxels_of_dcmqi(tmp_path / "out.dcm", volume.geometry), labels.array)


@pytest.mark.parametrize("way", WAYS)
def test_two_foreign_readers_find_the_place_in_all_48_orientations(tmp_path, way):
    volume = written_scan(tmp_path / "scan", every_way(OBLIQUE)[way], frames=way % 2 == 1)
    labels, origin = labeled(volume, structures(), OBLIQUE)
    write_dicom_seg(labels, tmp_path / "out.dcm", origin)
    np.testing.assert_array_equal(voxels_of_highdicom(tmp_path / "out.dcm", volume.geometry), labels.array)
    np.testing.assert_array_equal(voxels_of_dcmqi(tmp_path / "out.dcm", volume.geometry), labels.array)


def voxels_of_highdicom(path: Path, grid: Geometry) -> np.ndarray:
    """What highdicom takes for the volume of a DICOM Segmentation, on a grid, with the values of `NAMES`."""
    read = highdicom.seg.segread(path)
    if not hasattr(read, "get_volume"):
        pytest.skip("the highdicom for this Python reads no volumes")
    found = read.get_volume(combine_segments=True, allow_missing_positions=True)
    indices = np.argwhere(found.array)
    points = np.column_stack([indices, np.ones(len(indices))]) @ found.get_affine("LPS").T
    i, j, k = np.rint(points @ np.linalg.inv(grid.ijk_to_lps).T).astype(int)[:, :3].T
    by_name = {name: value for value, name in NAMES.items()}
    values = np.array([0, *(by_name[name] for name in read_names(read))], dtype=np.uint8)
    seen = np.zeros(grid.shape, np.uint8)
    seen[k, j, i] = values[found.array[tuple(indices.T)]]
    return seen


def voxels_of_dcmqi(path: Path, grid: Geometry) -> np.ndarray:
    """What dcmqi reads from a DICOM Segmentation, without a warning, on a grid, with the values of `NAMES`."""
    program = Path(sys.executable).parent / "segimage2itkimage"
    if not program.exists():
        pytest.skip("dcmqi's reader is not installed: pip install dcmqi")
    folder = path.parent / "read"
    folder.mkdir()
    command = [program, "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "absent in" not in done.stderr
    seen = np.zeros(grid.shape, np.uint8)
    names = read_names(pydicom.dcmread(path))
    by_name = {name: value for value, name in NAMES.items()}
    for file in sorted(folder.glob("*.nrrd")):
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image).astype(np.uint8)
        moved = resample_array(array, as_sheared(geometry_of(image), grid), grid)
        for number in set(np.unique(array).tolist()) - {0}:
            seen[moved == number] = by_name[names[number - 1]]
    return seen


def as_sheared(found: Geometry, scan: Geometry) -> Geometry:
    """The grid of dcmqi's image; its slices lie straight above each other, so those of a tilted gantry are shifted."""
    normal = np.cross(scan.direction_matrix[:, 0], scan.direction_matrix[:, 1])
    return (
        replace(found, direction=scan.direction, spacing_mm=scan.spacing_mm)
        if abs(normal @ scan.direction_matrix[:, 2]) < 0.999
        else found
    )


def test_contours_have_holes_by_a_keyhole_and_refer_to_their_image(scan, tmp_path):
    volume, labels, origin = scan
    write_rtstruct(labels, tmp_path / "out.dcm", origin)
    data = pydicom.dcmread(tmp_path / "out.dcm")
    number = next(item.ROINumber for item in data.StructureSetROISequence if item.ROIName == "liver")
    drawn = next(item for item in data.ROIContourSequence if item.ReferencedROINumber == number)
    assert {item.ContourGeometricType for item in drawn.ContourSequence} == {"CLOSED_PLANAR"}
    counts = {}
    places = {}
    for item in drawn.ContourSequence:
        points = np.array(item.ContourData, dtype=float).reshape(-1, 3)
        indices = points @ np.linalg.inv(volume.geometry.ijk_to_lps)[:3, :3].T
        indices += np.linalg.inv(volume.geometry.ijk_to_lps)[:3, 3]
        k = int(np.rint(indices[:, 2].mean()))
        assert np.abs(indices[:, 2] - k).max() < 0.01
        counts[k] = counts.get(k, 0) + 1
        (reference,) = item.ContourImageSequence
        places[k] = (str(reference.ReferencedSOPInstanceUID), reference.get("ReferencedFrameNumber"))
    is_liver = labels.array == 5
    with_island = [k for k in range(len(is_liver)) if counts.get(k) == 2]
    assert len(with_island) == 1
    assert set(counts) == set(np.flatnonzero(is_liver.any(axis=(1, 2))).tolist())
    for k, (uid, frame) in places.items():
        own = volume.dicom_files[k if len(volume.dicom_files) > 1 else 0]
        assert uid == str(pydicom.dcmread(own).SOPInstanceUID)
        assert frame == (None if len(volume.dicom_files) > 1 else k + 1)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_scan_that_is_no_dicom_series_is_refused_in_a_sentence(tmp_path, kind):
    labels = Segmentation(structures(), STRAIGHT, LabelSet((label_for(2, "liver"),)))
    with pytest.raises(OutputError, match="the scan is not a DICOM series; segment the DICOM files, or"):
        save_segmentation(labels, tmp_path / "out.dcm", Origin(), format_name=kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_files_that_changed_since_are_no_source(scan, tmp_path, kind):
    volume, labels, origin = scan
    if len(volume.dicom_files) > 1:
        fewer = Origin(origin.dicom_files[:-1])
        with pytest.raises(OutputError, match="not on the grid of the labels"):
            WRITERS[kind](labels, tmp_path / "out.dcm", fewer)
    volume.dicom_files[0].unlink()
    with pytest.raises(OutputError, match="can no longer be read"):
        WRITERS[kind](labels, tmp_path / "out.dcm", origin)


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_found_is_a_file_with_empty_structures(scan, tmp_path, kind):
    _, labels, origin = scan
    empty = Segmentation(np.zeros_like(labels.array), labels.geometry, labels.labels)
    WRITERS[kind](empty, tmp_path / "out.dcm", origin)
    data = pydicom.dcmread(tmp_path / "out.dcm")
    described = data.SegmentSequence if kind == "dicom-seg" else data.StructureSetROISequence
    assert len(described) == len(NAMES)
    assert kind == "rtstruct" or not data.pixel_array.any()


@pytest.mark.parametrize("kind", WRITERS)
def test_an_existing_file_is_replaced_only_on_request(scan, tmp_path, kind):
    _, labels, origin = scan
    path = tmp_path / "out.dcm"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        WRITERS[kind](labels, path, origin)
    assert path.read_text() == "mine"
    WRITERS[kind](labels, path, origin, overwrite=True)
    assert pydicom.dcmread(path).Modality in ("SEG", "RTSTRUCT")
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["out.dcm"]


def test_long_and_odd_names_fit_into_dicom(scan, tmp_path):
    _, labels, origin = scan
    names = {2: "right kidney " * 9, 5: "right kidney " * 8 + "2", 9: "a\\b"}
    odd = Segmentation(
        labels.array, labels.geometry, LabelSet(tuple(label_for(value, name) for value, name in names.items()))
    )
    write_dicom_seg(odd, tmp_path / "out.dcm", origin)
    stored = read_names(pydicom.dcmread(tmp_path / "out.dcm"))
    assert len(set(stored)) == 3
    assert all(len(name) <= 64 for name in stored)
    assert stored[2] == "a/b"


def test_a_missing_highdicom_is_named_with_the_command_that_installs_it(scan, tmp_path, monkeypatch):
    _, labels, origin = scan
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"needs highdicom; install it with: pip install 'hsamsegment\[dicom\]'"):
        write_dicom_seg(labels, tmp_path / "out.dcm", origin)
