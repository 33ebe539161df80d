"""Numbers that flatter are refused or said: validation on a training scan, pairs given twice, labels out of place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from small_cases import segmentation_of

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.segmentation_files import write_segmentation
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.training.data.cases import (
    distinct_cases,
    make_case,
    read_case,
    refuse_training_scans,
    voxel_hash,
)


@pytest.fixture(scope="module")
def phantom():
    return abdomen_phantom(seed=1, geometry=phantom_geometry((64, 56, 12), (5.0, 5.0, 15.0), oblique_degrees=5.0))


@pytest.fixture
def case(phantom):
    return make_case(*phantom)


def test_a_scan_is_known_again_in_every_format_order_and_type(phantom, tmp_path):
    volume, _ = phantom
    image = image_of(volume.array, volume.geometry)
    copies = {
        "copy.nrrd": image,
        "other name.nii.gz": sitk.Cast(image, sitk.sitkFloat32),
        "flipped.mha": sitk.Flip(image, [True, False, True]),
        "turned.nrrd": sitk.PermuteAxes(image, [2, 0, 1]),
    }
    for name, copy in copies.items():
        sitk.WriteImage(copy, str(tmp_path / name))
        assert voxel_hash(read_volume(tmp_path / name)) == voxel_hash(volume), name
    changed = volume.array.copy()
    changed[3, 4, 5] += 1
    assert voxel_hash(replace(volume, array=changed)) != voxel_hash(volume)


def test_validating_on_a_finetuned_scan_is_refused_whatever_its_name(phantom, case, tmp_path):
    volume, labels = phantom
    sitk.WriteImage(image_of(volume.array, volume.geometry), str(tmp_path / "renamed.nii.gz"))
    write_segmentation(labels, tmp_path / "renamed.seg.nrrd")
    again = read_case(tmp_path / "renamed.nii.gz", tmp_path / "renamed.seg.nrrd")
    with pytest.raises(TrainingError, match="'renamed' is given for validation and for training"):
        refuse_training_scans([case], [again])
    other = make_case(*abdomen_phantom(seed=2, geometry=volume.geometry))
    refuse_training_scans([case], [other])


def test_a_pair_given_twice_counts_once_and_is_said(case):
    kept, notes = distinct_cases([case, replace(case), case])
    assert len(kept) == 1
    assert len(notes) == 2
    assert "counts once" in notes[0]


def test_the_same_scan_with_other_labels_is_another_case(phantom, case):
    volume, labels = phantom
    fewer = np.where(labels.array > 1, 0, labels.array).astype(np.uint8)
    other = make_case(volume, segmentation_of(fewer, volume.geometry, {1: labels.labels.by_value(1).name}))
    assert len(distinct_cases([case, other])[0]) == 2


def test_labels_that_lost_their_place_are_said_with_their_share(phantom):
    volume, labels = phantom
    moved = replace(labels.geometry, origin_mm=tuple(np.add(labels.geometry.origin_mm, (140.0, 0.0, 60.0)).tolist()))
    case = make_case(volume, replace(labels, geometry=moved))
    (sentence,) = [note for note in case.notes if note.startswith("Only ")]
    assert "lose their place" in sentence
    assert "% of" in sentence


def test_what_reading_the_labels_noted_reaches_the_case(phantom, tmp_path):
    volume, labels = phantom
    sitk.WriteImage(
        image_of(labels.array.astype(np.float32) * np.float32(1.00001), labels.geometry), str(tmp_path / "l.nrrd")
    )
    sitk.WriteImage(image_of(volume.array, volume.geometry), str(tmp_path / "s.nrrd"))
    case = read_case(tmp_path / "s.nrrd", tmp_path / "l.nrrd")
    assert any("were rounded" in note for note in case.notes)
