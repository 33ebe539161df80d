"""Several views of a slice: turned and scaled, read back in place, and averaged only where they show something."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from model_files import manifest
from predictor_fixtures import segment
from scipy import ndimage
from small_cases import small_case
from small_models import brightness_model, tiny_hsam_model
from small_scans import bright_boxes

from HSAMSegmentLib.errors import CheckpointError, RequestError
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.test_time_augmentation import mean_over_augmentations, seen_from, view_of
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.preprocess.rules import PLAIN_VIEW, PredictionRule, SliceRule
from HSAMSegmentLib.report.segmentation_report import make_report
from HSAMSegmentLib.runtime.progress import CancelledError, CancelToken
from HSAMSegmentLib.training.data.slice_bank import build_slice_bank
from HSAMSegmentLib.training.loop.validator import predict_slices
from HSAMSegmentLib.weights.loading import load_model
from HSAMSegmentLib.weights.manifest import Manifest
from HSAMSegmentLib.weights.resources import builtin_models_folder

TURNED = PredictionRule(views=((12.0, 1.0), PLAIN_VIEW, (-12.0, 1.0)))
LARGER_AND_TURNED = PredictionRule(stages="last", views=((25.0, 1.1), (-10.0, 0.9)))


def smooth_field(side: int) -> torch.Tensor:
    noise = np.random.default_rng(3).standard_normal((2, 3, side, side))
    field = ndimage.gaussian_filter(noise, (0, 0, side / 8, side / 8), mode="wrap")
    return torch.from_numpy((field / field.std()).astype(np.float32))


@pytest.mark.parametrize("view", [(30.0, 1.0), (-12.0, 1.2), (180.0, 1.0), (7.0, 0.8)])
@pytest.mark.parametrize("side", [64, 97])
def test_what_is_read_back_from_a_view_lies_where_it_was(view, side):
    field = smooth_field(side)
    back, weight = seen_from(view_of(field, view), view)
    inner = ndimage.binary_erosion((weight == 1.0).numpy(), iterations=2)
    assert inner.mean() > 0.5
    difference = (back - field).abs()[..., torch.from_numpy(inner)]
    assert difference.max() < 0.06
    assert difference.mean() < 0.01


def test_a_view_turns_counterclockwise_and_enlarges_around_the_center():
    image = torch.zeros(1, 1, 33, 33)
    image[0, 0, 16, 24] = 1.0
    turned = view_of(image, (90.0, 1.0))[0, 0]
    assert divmod(int(turned.argmax()), 33) == (8, 16)
    larger = view_of(image, (0.0, 2.0))[0, 0]
    assert divmod(int(larger.argmax()), 33) == (16, 32)


def test_logits_of_another_resolution_lie_over_the_same_places():
    image = smooth_field(64)
    coarse = torch.nn.functional.avg_pool2d
    back, weight = seen_from(coarse(view_of(image, (20.0, 1.1)), 4), (20.0, 1.1))
    seen = (weight == 1.0)[2:-2, 2:-2]
    difference = (back - coarse(image, 4)).abs()[..., 2:-2, 2:-2][..., seen]
    assert difference.mean() < 0.1


def test_the_plain_view_alone_is_handed_through_untouched():
    images, seen = smooth_field(16), []

    def forward(view):
        seen.append(view)
        return (view,)

    (stage,) = mean_over_augmentations(forward, images, (PLAIN_VIEW,))
    assert stage is images
    assert seen[0] is images


def test_places_outside_of_a_view_do_not_count_there():
    images = torch.ones(1, 1, 32, 32)
    (stage,) = mean_over_augmentations(lambda view: (view * 2.0,), images, (PLAIN_VIEW, (45.0, 1.5)))
    assert torch.allclose(stage, torch.full_like(stage, 2.0), atol=1e-3)


def test_without_views_nothing_changes_and_a_user_can_leave_views_out():
    plain = segment(bright_boxes(), tiny_hsam_model())
    single = segment(bright_boxes(), tiny_hsam_model(prediction=TURNED), view_averaging=False)
    averaged = segment(bright_boxes(), tiny_hsam_model(prediction=TURNED))
    np.testing.assert_array_equal(plain.segmentation.array, single.segmentation.array)
    assert [item.confidence for item in plain.labels] == [item.confidence for item in single.labels]
    assert np.any(plain.segmentation.array != averaged.segmentation.array)


@pytest.mark.parametrize(
    "slices",
    [SliceRule(), SliceRule(framing="spacing", pixel_spacing_mm=1.2), SliceRule(context="adjacent", context_mm=3.0)],
    ids=["stretched", "spaced", "with neighbors"],
)
@pytest.mark.parametrize("options", [{}, {"flip_averaging": True, "organs": ("gray",)}], ids=["plain", "mirrored"])
def test_averaged_labels_lie_where_the_plain_ones_do(slices, options):
    expected = segment(bright_boxes(), brightness_model(slices=slices), **options).segmentation.array
    turned = brightness_model(slices=slices, prediction=LARGER_AND_TURNED)
    found = segment(bright_boxes(), turned, **options).segmentation.array
    for value in np.unique(expected[expected > 0]):
        first, second = expected == value, found == value
        assert 2 * np.sum(first & second) / (first.sum() + second.sum()) > 0.9


def test_tiles_are_turned_each_around_its_own_center():
    rule = SliceRule(framing="spacing", pixel_spacing_mm=0.5)
    options = {"organs": ("gray",), "batch_size": 3}
    expected = segment(bright_boxes(), brightness_model(slices=rule), **options).segmentation.array == 5
    found = segment(bright_boxes(), brightness_model(slices=rule, prediction=TURNED), **options).segmentation.array == 5
    assert 2 * np.sum(expected & found) / (expected.sum() + found.sum()) > 0.95


def test_a_region_gets_the_voxels_of_the_whole_scan_also_with_views():
    whole = segment(bright_boxes(), brightness_model(prediction=TURNED)).segmentation.array
    part = segment(bright_boxes(), brightness_model(prediction=TURNED), roi=(5, 40, 8, 50, 2, 9)).segmentation.array
    np.testing.assert_array_equal(part[2:9, 8:50, 5:40], whole[2:9, 8:50, 5:40])


def test_the_model_says_which_stages_are_read_and_a_user_may_say_otherwise():
    volume, usual, last = bright_boxes(), tiny_hsam_model(), tiny_hsam_model(prediction=PredictionRule(stages="last"))
    found = [
        segment(volume, model, stages=stages).segmentation.array
        for model, stages in [(usual, "both"), (usual, "auto"), (last, "both"), (usual, "last"), (last, "auto")]
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[3], found[4])
    assert np.any(found[0] != found[3])
    with pytest.raises(RequestError, match="auto, both, last"):
        SegmentOptions(stages="first")


def test_a_cancel_is_answered_between_views():
    from HSAMSegmentLib.inference.predictor import Segmenter

    model, cancel, seen = brightness_model(prediction=TURNED), CancelToken(), []

    def count_and_cancel(module, inputs):
        seen.append(inputs[0].shape[0])
        if len(seen) == 2:
            cancel.cancel()

    model.network.register_forward_pre_hook(count_and_cancel)
    with pytest.raises(CancelledError):
        Segmenter(model, device="cpu", options=SegmentOptions(threads=1, batch_size=1)).segment(
            bright_boxes(), cancel=cancel
        )
    assert len(seen) <= len(TURNED.views)


def test_the_report_says_how_the_outputs_were_read():
    model = brightness_model(prediction=LARGER_AND_TURNED)
    result = segment(bright_boxes(), model)
    report = make_report(result, volume=bright_boxes(), manifest=model.manifest, options=SegmentOptions())
    assert report["model"]["prediction"] == LARGER_AND_TURNED.to_json()
    assert LARGER_AND_TURNED.to_json() == {"stages": "last", "views": [[25.0, 1.1], [-10.0, 0.9]], "neighbors_mm": 0.0}
    assert (report["options"]["stages"], report["options"]["view_averaging"]) == ("auto", True)


def test_the_rule_travels_in_the_manifest_and_old_manifests_have_the_usual_one():
    described = manifest(prediction=LARGER_AND_TURNED)
    assert Manifest.from_json(described.to_json()).prediction == LARGER_AND_TURNED
    data = json.loads(manifest().to_json())
    del data["prediction"]
    assert Manifest.from_json(json.dumps(data)).prediction == PredictionRule()


@pytest.mark.parametrize(
    "prediction",
    [
        {"stages": "first"},
        {"views": []},
        {"views": [[0.0, 1.0]] * 17},
        {"views": [[0.0]]},
        {"views": [["a", 1.0]]},
        {"views": [[float("nan"), 1.0]]},
        {"views": [[0.0, 0.0]]},
        {"views": 3},
        ["both"],
        None,
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_one_sentence(prediction):
    data = json.loads(manifest().to_json())
    data["prediction"] = prediction
    with pytest.raises(CheckpointError, match="manifest is not a model description"):
        Manifest.from_json(json.dumps(data))


def test_validation_reads_the_outputs_as_segmenting_does(data_folder):
    case = small_case(data_folder)
    model = tiny_hsam_model(prediction=LARGER_AND_TURNED)
    rules = model.manifest
    bank = build_slice_bank(case, slices=rules.slices, intensity=rules.intensity, image_size=64)
    slices = range(len(bank))
    expected = segment(case.volume, model).segmentation.array
    values = np.array([0, *(label.value for label in model.manifest.labels)], np.uint8)
    network = model.network.eval()
    found = values[predict_slices(network, bank, slices, rule=model.manifest.prediction)]
    assert np.mean(found == expected) > 0.99
    usual = predict_slices(network, bank, slices)
    np.testing.assert_array_equal(usual, predict_slices(network, bank, slices, rule=PredictionRule()))
    assert np.any(values[usual] != found)


@pytest.mark.slow
def test_a_builtin_model_finds_the_same_organs_in_turned_views(data_folder):
    from dataclasses import replace

    path = builtin_models_folder() / "abdomen-mr.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not trained yet")
    volume = read_volume(data_folder / "chaos_t2" / "images" / "chaos_t2_02.nii.gz")
    model = load_model(path)
    columns, rows, _ = volume.geometry.size
    roi = (0, columns, 0, rows, 12, 17)
    plain = replace(model, manifest=replace(model.manifest, prediction=PredictionRule()))
    turned = replace(model, manifest=replace(model.manifest, prediction=TURNED))
    first, second = (segment(volume, item, roi=roi).segmentation.array for item in (plain, turned))
    for value in (1, 2, 3):
        one, other = first == value, second == value
        assert 2 * np.sum(one & other) / (one.sum() + other.sum()) > 0.95
