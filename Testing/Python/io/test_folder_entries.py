"""What lies in a folder of scans and is none: label maps, links, lists; each is told, and scans stay scans."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.io.scan_folder import find_scans


def write(path, array, spacing=(1.0, 1.0, 2.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def scan_array(dtype=np.int16):
    return np.random.default_rng(0).integers(0, 400, (4, 24, 24)).astype(dtype)


def label_array():
    array = np.zeros((4, 24, 24), np.uint8)
    array[:, 4:12, 4:12] = 1
    array[1:3, 14:18, 5:15] = 7
    return array


def skipped(folder):
    return {scan.path.name: scan.skipped for scan in find_scans(folder) if scan.skipped}


def wanted(folder):
    return [scan.name for scan in find_scans(folder) if not scan.skipped]


@pytest.mark.parametrize(
    ("scan", "labels", "words"),
    [
        ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "nnU-Net"),
        ("imagesTs/a_0000.nii.gz", "labelsTs/a.nii.gz", "nnU-Net"),
        ("sub-1/anat/sub-1_T2w.nii.gz", "derivatives/x/sub-1/anat/sub-1_dseg.nii.gz", "BIDS"),
        ("sub-1_T1w.nii", "sub-1_desc-brain_mask.nii", "name and content"),
        ("a.nrrd", "a.seg.nrrd", "segmentation"),
        ("a.nii.gz", "drawn.nii.gz", 'grid of "a.nii.gz"'),
        ("a.mha", "drawn.nrrd", 'grid of "a.mha"'),
    ],
)
def test_a_label_map_is_told_from_a_scan(tmp_path, scan, labels, words):
    write(tmp_path / scan, scan_array())
    file = write(tmp_path / labels, label_array())
    assert words in skipped(tmp_path)[file.name]
    assert len(wanted(tmp_path)) == 1


def test_labels_stored_as_floats_are_skipped_by_their_name(tmp_path):
    write(tmp_path / "a.nii.gz", scan_array())
    write(tmp_path / "a_labels.nii.gz", label_array().astype(np.float32))
    assert list(skipped(tmp_path)) == ["a_labels.nii.gz"]


@pytest.mark.parametrize("name", ["b.nii.gz", "b_mask.nii.gz", "seg.nii.gz"])
def test_a_scan_stays_a_scan_whatever_lies_beside_it(tmp_path, name):
    write(tmp_path / "a.nii.gz", scan_array())
    write(tmp_path / name, scan_array() + np.int16(3))
    assert len(wanted(tmp_path)) == 2


def test_a_mostly_empty_noisy_scan_is_no_label_map(tmp_path):
    array = scan_array() % np.int16(90)
    array[:, :, 8:] = 0
    write(tmp_path / "a.nii.gz", scan_array())
    write(tmp_path / "b.nii.gz", array)
    assert len(wanted(tmp_path)) == 2


def test_few_values_on_another_grid_are_not_taken_for_labels(tmp_path):
    write(tmp_path / "a.nii.gz", scan_array())
    write(tmp_path / "b.nii.gz", label_array(), spacing=(3.0, 3.0, 3.0))
    assert len(wanted(tmp_path)) == 2


def test_a_folder_of_label_maps_only_says_so(tmp_path):
    write(tmp_path / "a.seg.nrrd", label_array())
    with pytest.raises(RequestError, match=r"no scan in .*a\.seg\.nrrd"):
        find_scans(tmp_path)


def test_links_and_lists_get_a_line_each(tmp_path):
    write(tmp_path / "a.nii.gz", scan_array())
    (tmp_path / "gone.nii.gz").symlink_to("../.git/annex/objects/XX/gone.nii.gz")
    (tmp_path / "circle.nii").symlink_to("circle.nii")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    scans = {scan.path.name: scan for scan in find_scans(tmp_path)}
    assert "git annex get" in scans["gone.nii.gz"].problem
    assert "link without content" in scans["circle.nii"].problem
    assert "link to a folder" in scans["again"].skipped
    assert "lists DICOM files" in scans["DICOMDIR"].skipped
    assert not scans["a.nii.gz"].problem + scans["a.nii.gz"].skipped


def test_results_have_names_of_their_own_on_every_disk(tmp_path):
    for name in ("a.nii", "a.nii.gz", "A.nrrd", "a_nii.mha"):
        write(tmp_path / name, scan_array())
    names = wanted(tmp_path)
    assert len(names) == 4
    assert len({name.casefold() for name in names}) == 4
