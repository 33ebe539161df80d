"""Cases: labels are checked, brought to the volume's grid, and sparse ones are not taken for background."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from small_cases import segmentation_of, small_case, small_volume

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.training.data.cases import UNLABELED, common_labels, make_case, matched_labels, read_case
from HSAMSegmentLib.training.data.sampling import BalancedSampler, hold_out_blocks
from HSAMSegmentLib.training.data.slice_bank import build_slice_bank

RULE = SliceRule(framing="spacing", pixel_spacing_mm=2.5, context="adjacent", context_mm=7.7)


@pytest.fixture(scope="module")
def drawn(data_folder):
    return small_volume(data_folder)


def slice_bank_of(case, size: int = 64, rule: SliceRule = RULE):
    return build_slice_bank(case, slices=rule, intensity=IntensityRule(), image_size=size)


def test_a_case_is_read_from_files_and_named(data_folder):
    folder = data_folder / "chaos_t2"
    names = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
    case = read_case(folder / "images" / "chaos_t2_02.nii.gz", folder / "labels" / "chaos_t2_02.nii.gz", names=names)
    assert [label.name for label in case.label_set] == list(names.values())
    assert case.labeled is None
    assert case.labels.shape == case.volume.array.shape


def test_a_segmentation_file_brings_its_own_names(drawn, tmp_path):
    from HSAMSegmentLib.images.sitk_images import image_of
    from HSAMSegmentLib.labels.segmentation_files import write_segmentation

    volume, labels = drawn
    sitk.WriteImage(image_of(volume.array, volume.geometry), str(tmp_path / "scan.nrrd"))
    named = segmentation_of(labels, volume.geometry, {1: "liver", 2: "strange organ"})
    write_segmentation(named, tmp_path / "drawn.seg.nrrd")
    case = read_case(tmp_path / "scan.nrrd", tmp_path / "drawn.seg.nrrd")
    assert [label.name for label in case.label_set] == ["liver", "strange organ"]
    assert np.array_equal(case.labels, labels)


def test_labels_on_a_finer_shifted_grid_come_to_the_volumes_grid(drawn):
    volume, labels = drawn
    finer = np.repeat(labels, 2, axis=2)
    spacing = (1.25, *volume.geometry.spacing_mm[1:])
    origin = (-0.625, 0.0, 0.0)
    geometry = Geometry(size=(128, 64, 14), spacing_mm=spacing, origin_mm=origin)
    case = make_case(volume, segmentation_of(finer, geometry))
    assert np.array_equal(case.labels, labels)
    assert any("another grid" in note for note in case.notes)


def test_labels_on_a_left_handed_grid_stay_where_they_are_in_the_patient(drawn):
    volume, labels = drawn
    mirrored = Geometry(
        size=volume.geometry.size,
        spacing_mm=volume.geometry.spacing_mm,
        origin_mm=(63 * 2.5, 0.0, 0.0),
        direction=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    case = make_case(volume, segmentation_of(labels[:, :, ::-1].copy(), mirrored))
    assert np.array_equal(case.labels, labels)


def test_labels_elsewhere_in_space_are_refused(drawn):
    volume, labels = drawn
    elsewhere = replace(volume.geometry, origin_mm=(5000.0, 0.0, 0.0))
    with pytest.raises(TrainingError, match="do not overlap"):
        make_case(volume, segmentation_of(labels, elsewhere))


def test_empty_labels_are_refused(drawn):
    volume, labels = drawn
    with pytest.raises(TrainingError, match="empty"):
        make_case(volume, segmentation_of(np.zeros_like(labels), volume.geometry))


def test_a_value_without_a_name_is_refused(drawn):
    volume, labels = drawn
    with pytest.raises(TrainingError, match="value 2"):
        make_case(volume, segmentation_of(labels, volume.geometry, {1: "liver"}))


def test_a_label_that_occurs_nowhere_is_left_out_and_said(drawn):
    volume, labels = drawn
    segmentation = segmentation_of(labels, volume.geometry)
    only_liver = replace(segmentation, array=np.where(labels == 1, labels, 0).astype(np.uint8))
    case = make_case(volume, only_liver)
    assert [label.name for label in case.label_set] == ["liver"]
    assert any("right kidney" in note for note in case.notes)


def test_unlabeled_slices_between_labeled_ones_are_not_background(drawn):
    volume, labels = drawn
    sparse = labels.copy()
    kept = [2, 6, 10]
    sparse[[index for index in range(14) if index not in kept]] = 0
    case = make_case(volume, segmentation_of(sparse, volume.geometry))
    assert any("sparsely" in note for note in case.notes)
    bank = slice_bank_of(case)
    for index in range(14):
        assert bool((bank.labels[index] == UNLABELED).all()) == (index not in kept)
    sampler = BalancedSampler([bank], num_classes=len(case.label_set))
    assert sorted({item.slice_index for item in sampler.items}) == kept


def test_a_whole_organ_in_a_block_of_slices_leaves_the_rest_background(drawn):
    volume, labels = drawn
    block = labels.copy()
    block[:4] = 0
    block[11:] = 0
    assert make_case(volume, segmentation_of(block, volume.geometry)).labeled is None


def test_labels_of_the_same_name_get_the_same_value_in_all_cases(drawn):
    volume, labels = drawn
    first = make_case(volume, segmentation_of(labels, volume.geometry, {1: "liver", 2: "right kidney"}))
    swapped = np.array([0, 2, 1, 3, 4], np.uint8)[labels]
    second = make_case(volume, segmentation_of(swapped, volume.geometry, {2: "Liver", 1: "right_kidney"}))
    cases, label_set, notes = common_labels([first, second])
    assert [label.name for label in label_set] == ["liver", "right kidney"]
    assert np.array_equal(cases[0].labels, cases[1].labels)
    assert notes == ()


def test_labels_that_nobody_named_are_told_with_the_way_to_name_them(drawn):
    volume, labels = drawn
    unnamed = make_case(volume, segmentation_of(labels, volume.geometry, {1: "Label 1", 2: "spleen"}))
    (note,) = common_labels([unnamed])[2]
    assert "Label 1." in note
    assert "spleen" not in note.partition("With names")[0]
    assert "--names" in note


def test_a_case_to_validate_on_without_any_of_the_labels_is_refused(drawn):
    volume, labels = drawn
    finetuned = make_case(volume, segmentation_of(labels, volume.geometry))
    strange = make_case(volume, segmentation_of(labels, volume.geometry, {1: "heart", 2: "lung"}))
    _, label_set, _ = common_labels([finetuned])
    with pytest.raises(TrainingError, match="cannot be used for validation"):
        matched_labels([strange], label_set)


def test_no_case_at_all_is_refused():
    with pytest.raises(TrainingError, match="no training cases"):
        common_labels([])


def test_slices_of_a_bank_are_framed_as_in_segmenting(drawn):
    from HSAMSegmentLib.images.orientation import to_slices
    from HSAMSegmentLib.preprocess.intensity import intensity_scaler
    from HSAMSegmentLib.preprocess.network_input import NetworkInput, SliceFraming

    volume, labels = drawn
    rule = SliceRule(framing="spacing", pixel_spacing_mm=2.0, context="adjacent", context_mm=8.0)
    bank = slice_bank_of(make_case(volume, segmentation_of(labels, volume.geometry)), 96, rule)
    stack, frame = to_slices(volume.array, volume.geometry, rule.plane)
    framing = SliceFraming(rule, image_size=96, slice_shape=stack.shape[1:], pixel_spacing_mm=frame.pixel_spacing_mm)
    source = NetworkInput(
        stack,
        rule=rule,
        framing=framing,
        slice_spacing_mm=frame.slice_spacing_mm,
        scale=intensity_scaler(volume.array, IntensityRule()),
    )
    expected = source.batch(0, 14, "cpu")
    assert float((bank.all_tiles(range(14)) - expected).abs().max()) < 1e-3


def test_small_organs_are_drawn_as_often_as_large_ones(data_folder):
    volume, labels = small_volume(data_folder)
    labels[::2][labels[::2] == 2] = 0
    bank = slice_bank_of(make_case(volume, segmentation_of(labels, volume.geometry)))
    sampler = BalancedSampler([bank], num_classes=2, any_slice_share=0.0)

    drawn = sampler.draw(400, torch.Generator().manual_seed(0))
    with_kidney = sum(bool((bank.labels[item.slice_index] == 2).any()) for item in drawn) / 400
    slices_with_kidney = np.mean([(bank.labels[index] == 2).any().item() for index in range(14)])
    assert slices_with_kidney < 0.7
    assert with_kidney > 0.5 + 0.5 * slices_with_kidney - 0.1


def test_held_out_slices_come_in_blocks_and_are_never_drawn(data_folder):
    bank = slice_bank_of(small_case(data_folder))
    held = hold_out_blocks(bank)
    assert 2 <= len(held.slices) <= 5
    sampler = BalancedSampler([bank], num_classes=2, excluded=[frozenset(held.slices)])
    assert not {item.slice_index for item in sampler.items} & set(held.slices)
    assert len(sampler) == 14 - len(held.slices)


def test_too_few_labeled_slices_are_all_needed_for_learning(drawn):
    volume, labels = drawn
    few = labels.copy()
    few[3:] = 0
    bank = slice_bank_of(make_case(volume, segmentation_of(few, volume.geometry)))
    assert hold_out_blocks(bank) is None
