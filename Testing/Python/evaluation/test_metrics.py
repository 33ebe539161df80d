"""Dice, surface distances and volumes: by hand, against brute force and MONAI, and against the papers' own numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from HSAMSegmentLib.errors import CancelledError, RequestError, VolumeError
from HSAMSegmentLib.evaluation.metrics import compare, surface_voxels
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_for
from HSAMSegmentLib.report.comparison_report import comparison_to_json
from HSAMSegmentLib.runtime.progress import CancelToken

GRAY = (0.5, 0.5, 0.5)


def label_set(*names):
    return LabelSet(tuple(Label(value, name, GRAY) for value, name in enumerate(names, start=1)))


def segmentation(array, names=("liver",), spacing=(1.0, 1.0, 1.0)):
    array = np.asarray(array, dtype=np.uint8)
    return Segmentation(array, Geometry(size=array.shape[::-1], spacing_mm=spacing), label_set(*names))


def box(shape, *slices):
    array = np.zeros(shape, dtype=np.uint8)
    array[slices] = 1
    return array


def blobs(seed, shape=(9, 14, 12), labels=3):
    """A smooth random label map; every label occurs."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((labels + 1, *shape)), (0, 2, 2, 2))
    return noise.argmax(axis=0).astype(np.uint8)


def brute_force_distances(one, other, kji_to_mm):
    """Distance of every boundary voxel of `one` to the nearest of `other`, by comparing all pairs."""

    def boundary(mask):
        padded = np.pad(mask, 1)
        points = []
        for index in np.argwhere(mask):
            steps = [np.roll((sign, 0, 0), axis) for axis in range(3) for sign in (-1, 1)]
            if not all(padded[tuple(index + 1 + step)] for step in steps):
                points.append(index)
        return np.asarray(points) @ kji_to_mm

    first, second = boundary(one), boundary(other)
    return np.sqrt(((first[:, None] - second[None]) ** 2).sum(axis=2)).min(axis=1)


def test_identical_segmentations_agree_perfectly():
    array = blobs(0)
    comparison = compare(segmentation(array, "abc"), segmentation(array, "abc"))
    for score in comparison.scores:
        assert (score.dice, score.jaccard, score.hd95, score.asd) == (1.0, 1.0, 0.0, 0.0)
        assert score.volume_difference_ml == 0.0
    assert comparison.mean("dice") == 1.0


def test_a_box_shifted_by_one_voxel_has_the_numbers_computed_by_hand():
    prediction = box((4, 4, 10), slice(1, 3), slice(1, 3), slice(2, 6))
    reference = box((4, 4, 10), slice(1, 3), slice(1, 3), slice(3, 7))
    score = compare(segmentation(prediction), segmentation(reference), "ours").scores[0]
    assert score.dice == pytest.approx(2 * 12 / 32)
    assert score.jaccard == pytest.approx(12 / 20)
    assert score.asd == pytest.approx(8 / 32)  # 4 voxels at one end of each box are 1 mm off, the other 12 are 0
    assert score.hd95 == pytest.approx(1.0)


def test_distances_follow_the_spacing_of_their_axis():
    shape = (9, 9, 9)
    reference = box(shape, 4, 4, 4)
    for axis, step in enumerate((5.0, 0.7, 2.0)):
        index = [4, 4, 4]
        index[axis] += 3
        score = compare(
            segmentation(box(shape, *index), spacing=(2.0, 0.7, 5.0)),
            segmentation(reference, spacing=(2.0, 0.7, 5.0)),
        ).scores[0]
        assert score.hd95 == pytest.approx(3 * step)
        assert score.asd == pytest.approx(3 * step)


def test_volumes_are_in_milliliters_and_their_difference_has_a_sign():
    prediction = box((10, 10, 10), slice(0, 6), slice(0, 5), slice(0, 10))
    reference = box((10, 10, 10), slice(0, 8), slice(0, 5), slice(0, 10))
    spacing = (0.5, 2.0, 4.0)
    score = compare(segmentation(prediction, spacing=spacing), segmentation(reference, spacing=spacing)).scores[0]
    assert score.prediction_ml == pytest.approx(300 * 4 / 1000)
    assert score.reference_ml == pytest.approx(400 * 4 / 1000)
    assert score.volume_difference_ml == pytest.approx(-0.4)
    assert score.volume_difference_percent == pytest.approx(-25.0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.25, 1.25, 7.7), (0.3, 2.0, 1.1)])
def test_surface_distances_equal_a_comparison_of_all_pairs(spacing):
    prediction, reference = blobs(1), blobs(2)
    comparison = compare(segmentation(prediction, "abc", spacing), segmentation(reference, "abc", spacing))
    for score in comparison.scores:
        ours, theirs = prediction == score.prediction_value, reference == score.reference_value
        forward = brute_force_distances(ours, theirs, np.diag(spacing[::-1]))
        backward = brute_force_distances(theirs, ours, np.diag(spacing[::-1]))
        assert score.hd95 == pytest.approx(max(np.percentile(forward, 95), np.percentile(backward, 95)), abs=1e-9)
        assert score.asd == pytest.approx(np.concatenate((forward, backward)).mean(), abs=1e-9)


def test_distances_on_sheared_axes_are_those_in_the_patient():
    prediction, reference = blobs(1), blobs(2)
    axes = np.array([[1.0, 0.1, 0.3], [0.0, 1.0, 0.5], [0.2, 0.0, 1.0]])
    axes /= np.linalg.norm(axes, axis=0)
    spacing = (1.5, 0.8, 3.0)
    tilted = Geometry(reference.shape[::-1], spacing, direction=tuple(axes.ravel()))
    ours, theirs = (replace(segmentation(array, "abc"), geometry=tilted) for array in (prediction, reference))
    kji_to_mm = tilted.ijk_to_lps[:3, :3].T[::-1]
    for value, score in enumerate(compare(ours, theirs).scores, start=1):
        forward = brute_force_distances(prediction == value, reference == value, kji_to_mm)
        backward = brute_force_distances(reference == value, prediction == value, kji_to_mm)
        assert score.hd95 == pytest.approx(max(np.percentile(forward, 95), np.percentile(backward, 95)))
        assert score.asd == pytest.approx(np.concatenate((forward, backward)).mean())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_dice_hd95_and_asd_equal_monai_on_the_grid():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    prediction, reference = blobs(3), blobs(4)
    comparison = compare(segmentation(prediction, "abc"), segmentation(reference, "abc"))

    def one_hot(array):
        return torch.stack([torch.from_numpy(array == value) for value in range(4)])[None].float()

    pair = (one_hot(prediction), one_hot(reference))
    dice = metrics.compute_dice(*pair, include_background=False)[0].tolist()
    hd95 = metrics.compute_hausdorff_distance(*pair, percentile=95)[0].tolist()
    asd = metrics.compute_average_surface_distance(*pair, symmetric=True)[0].tolist()
    assert [score.dice for score in comparison.scores] == pytest.approx(dice, abs=1e-6)
    assert [score.hd95 for score in comparison.scores] == pytest.approx(hd95, abs=1e-5)
    assert [score.asd for score in comparison.scores] == pytest.approx(asd, abs=1e-5)


def test_the_edge_of_the_volume_counts_as_outside():
    full = np.ones((3, 4, 5), dtype=bool)
    inside = np.zeros_like(full)
    inside[1:-1, 1:-1, 1:-1] = True
    assert np.array_equal(surface_voxels(full), full & ~inside)


def test_in_a_volume_of_one_slice_the_surface_is_the_outline():
    prediction = box((1, 20, 20), 0, slice(5, 15), slice(5, 15))
    reference = box((1, 20, 20), 0, slice(5, 15), slice(6, 15))
    score = compare(segmentation(prediction), segmentation(reference)).scores[0]
    outline = 36 + 34
    assert score.asd == pytest.approx((10 + 8) / outline)  # the column that is missing, and the one behind it


@pytest.mark.parametrize("case", ["direct512", "direct512_stage2", "via224"])
def test_the_papers_convention_reproduces_the_recorded_metrics(parity_folder, case):
    with np.load(parity_folder / "hsam_volume_pipeline_512.npz") as data:
        expected = json.loads(str(data["meta_json"]))["info"][case]["metrics_dice_hd95_per_class"]
        names = [f"class {value}" for value in range(1, 9)]
        spacing = (3.0, 2.0, 1.0)
        prediction = segmentation(data[f"{case}_labels"], names, spacing)
        reference = segmentation(data["label_u8"], names, spacing)
    comparison = compare(prediction, reference, "hsam")
    assert [score.dice for score in comparison.scores] == pytest.approx([pair[0] for pair in expected], rel=1e-12)
    assert [score.hd95 for score in comparison.scores] == pytest.approx([pair[1] for pair in expected], rel=1e-12)
    assert comparison.unit == "voxel"


def empty_cases():
    """both / false alarm / missed / absent, as labels 1 to 4."""
    prediction, reference = np.zeros((2, 6, 12), dtype=np.uint8)[:, None, :, :].repeat(3, axis=1)
    prediction[0, :2, :2] = reference[0, :2, :2] = 1
    prediction[1, 3:, 3:6] = 2
    reference[2, 3:, 8:] = 3
    return segmentation(prediction, "abcd"), segmentation(reference, "abcd")


def test_an_empty_structure_counts_as_the_docstring_says():
    comparison = compare(*empty_cases())
    scores = {score.name: score for score in comparison.scores}
    assert [score.state for score in comparison.scores] == ["both", "false alarm", "missed", "absent"]
    for name in "bc":
        assert (scores[name].dice, scores[name].jaccard, scores[name].hd95, scores[name].asd) == (0.0, 0.0, None, None)
    assert (scores["d"].dice, scores["d"].jaccard, scores["d"].hd95) == (None, None, None)
    assert scores["b"].volume_difference_percent is None
    assert comparison.mean("dice") == pytest.approx(1 / 3)
    assert comparison.counted("dice") == 3
    assert comparison.mean("hd95") == 0.0
    assert comparison.counted("hd95") == 1


def test_an_empty_structure_counts_as_in_the_papers_if_asked_for():
    comparison = compare(*empty_cases(), "hsam")
    assert [(score.dice, score.hd95) for score in comparison.scores] == [(1, 0), (1, 0), (0, 0), (0, 0)]
    assert comparison.mean("dice") == 0.5


def test_labels_with_other_numbers_are_matched_by_name():
    array = blobs(5)
    renumbered = np.asarray([0, 3, 1, 2], dtype=np.uint8)[array]
    comparison = compare(
        segmentation(array, ("Right kidney", "Liver", "Spleen")),
        segmentation(renumbered, ("liver", "SPLEEN", "kidney_right")),
    )
    assert [score.dice for score in comparison.scores] == [1.0, 1.0, 1.0]
    assert [(s.reference_value, s.prediction_value) for s in comparison.scores] == [(1, 2), (2, 3), (3, 1)]


def test_unnamed_labels_are_matched_by_value_and_take_the_name_of_the_other_side():
    array = blobs(6)
    comparison = compare(segmentation(array, ("liver", "spleen", "aorta")), segmentation(array, ("1", "Label 2", "3")))
    assert [(score.name, score.dice) for score in comparison.scores] == [("liver", 1), ("spleen", 1), ("aorta", 1)]


def test_two_names_with_the_same_number_are_not_taken_for_the_same_organ():
    array = box((4, 4, 4), slice(1, 3), slice(1, 3), slice(1, 3))
    comparison = compare(segmentation(array, ("liver",)), segmentation(array, ("spleen",)))
    assert [(score.name, score.state, score.dice) for score in comparison.scores] == [("spleen", "missed", 0.0)]
    assert any("liver" in note for note in comparison.notes)
    assert any("spleen" in note for note in comparison.notes)


def test_only_the_named_organs_are_compared_and_an_unknown_one_is_answered_with_the_list():
    array = blobs(7)
    pair = (segmentation(array, ("liver", "spleen", "aorta")), segmentation(array, ("liver", "spleen", "aorta")))
    comparison = compare(*pair, organs=("Aorta", "liver"))
    assert [score.name for score in comparison.scores] == ["aorta", "liver"]
    with pytest.raises(RequestError, match=r"pancreas.*liver, spleen, aorta"):
        compare(*pair, organs=("pancreas",))


def test_an_unknown_convention_is_refused():
    pair = empty_cases()
    with pytest.raises(RequestError, match="theirs"):
        compare(*pair, "theirs")


def test_names_in_other_words_and_codes_are_the_same_organ():
    array = blobs(8, labels=2)
    coded = LabelSet((label_for(1, "Liver"), label_for(2, "kidney_right")))
    renamed = LabelSet((replace(label_for(2, "Liver"), name="Leber"), replace(label_for(1, "right kidney"), name="RN")))
    swapped = np.asarray([0, 2, 1], dtype=np.uint8)[array]
    prediction = Segmentation(array, Geometry(size=array.shape[::-1]), coded)
    reference = Segmentation(swapped, Geometry(size=array.shape[::-1]), renamed)
    assert [(score.name, score.dice) for score in compare(prediction, reference).scores] == [("Leber", 1), ("RN", 1)]


def test_a_prediction_on_another_grid_is_resampled_and_that_is_said():
    shape = (8, 20, 20)
    reference = segmentation(box(shape, slice(2, 6), slice(4, 16), slice(4, 16)), spacing=(1.0, 1.0, 2.0))
    finer = reference.array.repeat(2, axis=0)
    geometry = Geometry(size=(20, 20, 16), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, -0.5))
    comparison = compare(Segmentation(finer, geometry, reference.labels), reference)
    assert comparison.scores[0].dice == 1.0
    assert comparison.scores[0].prediction_ml == pytest.approx(reference.array.sum() * 2 / 1000)
    assert any("nearest neighbor" in note for note in comparison.notes)


def test_a_flipped_copy_of_the_reference_agrees_with_it():
    array = blobs(9)
    reference = segmentation(array, "abc", (1.0, 2.0, 3.0))
    direction = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = replace(reference.geometry, origin_mm=(array.shape[2] - 1.0, 0.0, 0.0), direction=direction)
    flipped = Segmentation(np.ascontiguousarray(array[:, :, ::-1]), geometry, reference.labels)
    assert compare(flipped, reference).mean("dice") == 1.0


def test_segmentations_of_different_places_are_refused():
    reference = segmentation(box((4, 8, 8), slice(1, 3), slice(2, 6), slice(2, 6)))
    elsewhere = replace(reference, geometry=replace(reference.geometry, origin_mm=(500.0, 0.0, 0.0)))
    with pytest.raises(VolumeError, match="overlap"):
        compare(elsewhere, reference)


def test_a_cancelled_comparison_stops():
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(CancelledError):
        compare(*empty_cases(), cancel=cancel)


def test_each_slice_has_its_dice_and_the_worst_one_is_named():
    shape = (5, 6, 6)
    reference = box(shape, slice(1, 4), slice(1, 5), slice(1, 5))
    prediction = reference.copy()
    prediction[2, 1:5, 3:5] = 0
    score = compare(segmentation(prediction), segmentation(reference)).scores[0]
    assert score.slice_dice == (None, 1.0, pytest.approx(2 * 8 / 24), 1.0, None)
    assert score.worst_slice == 2


def test_of_equally_bad_slices_the_worst_is_the_one_with_the_most_wrong_voxels():
    reference = box((4, 6, 6), slice(0, 4), slice(1, 3), slice(1, 3))
    prediction = reference.copy()
    prediction[1:3] = 0
    prediction[2, 4:6, 4:6] = 1
    score = compare(segmentation(prediction), segmentation(reference)).scores[0]
    assert score.slice_dice == (1.0, 0.0, 0.0, 1.0)
    assert score.worst_slice == 2


def test_slices_are_those_of_the_acquisition():
    reference = box((6, 5, 4), slice(1, 5), slice(1, 4), slice(0, 4))
    prediction = reference.copy()
    prediction[:, 3] = 0
    spacing = (1.0, 8.0, 1.0)
    comparison = compare(segmentation(prediction, spacing=spacing), segmentation(reference, spacing=spacing))
    assert comparison.slice_axis == 1
    assert comparison.scores[0].slice_dice == (None, 1.0, 1.0, 0.0, None)
    assert comparison.scores[0].worst_slice == 3


def test_the_json_report_has_every_number_and_no_nan():
    text = json.dumps(comparison_to_json(compare(*empty_cases())), allow_nan=False)
    data = json.loads(text)
    assert [item["state"] for item in data["structures"]] == ["both", "false alarm", "missed", "absent"]
    assert data["mean"]["dice"] == pytest.approx(1 / 3)
    assert data["structures"][3]["dice"] is None
    assert data["unit"] == "mm"
