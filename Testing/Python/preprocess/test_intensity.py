"""Gray values are scaled as the model's rule says, the same for every copy of a scan, and odd scans are told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import SimpleITK as sitk
from grids_of_tests import array_and_geometry, oblique_geometry, reorientations

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.preprocess.intensity import (
    foreground_percentiles,
    intensity_scaler,
    plausibility_warnings,
    scale_intensity,
)
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule

WINDOW = IntensityRule("window", window_hu=(-125.0, 275.0))
PERCENTILE = IntensityRule("percentile", percentiles=(0.5, 99.5))
SLICES = IntensityRule("slice_minmax")


@dataclass
class Expectations:
    """What a manifest says of the input, as far as it matters here."""

    modality: str = "MR"
    intensity: IntensityRule = field(default_factory=IntensityRule)
    slices: SliceRule = field(default_factory=SliceRule)
    field_of_view_mm: tuple[float, float] | None = None


CT_MODEL = Expectations("CT", WINDOW)
MR_MODEL = Expectations("MR", PERCENTILE)


def _random(shape=(7, 20, 30), dtype=np.float32) -> np.ndarray:
    return (np.random.default_rng(5).normal(size=shape) * 300).astype(dtype)


def test_a_window_clips_and_scales():
    scaled = scale_intensity(np.array([[[-2000, -125, 75, 275, 3000]]], dtype=np.int16), WINDOW)
    np.testing.assert_array_equal(scaled, np.array([[[0, 0, 0.5, 1, 1]]], dtype=np.float32))
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("percentiles", [(0.5, 99.5), (0.0, 100.0), (33.3, 50.0)])
def test_percentiles_are_those_of_the_values_above_the_lowest(dtype, percentiles):
    array = _random() if np.dtype(dtype).kind == "f" else _random().clip(-100, 100)
    array = array.clip(0, None).astype(dtype) if np.dtype(dtype).kind == "u" else array.astype(dtype)
    above = array[array > array.min()].astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(
        foreground_percentiles(array, percentiles), np.percentile(above, percentiles), rtol=1e-12
    )


def test_percentiles_need_no_contiguous_array_and_see_more_than_one_block():
    array = _random((5, 1500, 1400), np.int16)
    above = array[array > array.min()]
    assert foreground_percentiles(array.transpose(2, 0, 1), (2.0, 98.0)) == pytest.approx(np.percentile(above, (2, 98)))


def test_percentiles_tell_huge_tiny_and_negative_numbers_apart():
    array = np.array([[[-1e30, -2.5, -1e-30, -0.0, 0.0, 1e-30, 2.5, 1e30]]], dtype=np.float32)
    ordered = foreground_percentiles(array, tuple(100 * rank / 6 for rank in range(7)))
    np.testing.assert_allclose(ordered, array.ravel()[1:].astype(float), rtol=1e-5)


def test_padding_changes_nothing():
    scan = np.abs(_random((8, 40, 40), np.int16)) + 1
    padded = np.zeros((8, 90, 100), np.int16)
    padded[:, 20:60, 30:70] = scan
    again = np.zeros((8, 60, 60), np.int16)
    again[:, 10:50, 10:50] = scan
    np.testing.assert_array_equal(
        scale_intensity(padded, PERCENTILE)[:, 20:60, 30:70], scale_intensity(again, PERCENTILE)[:, 10:50, 10:50]
    )


@pytest.mark.parametrize("rule", [WINDOW, PERCENTILE, SLICES], ids=lambda rule: rule.kind)
def test_all_48_copies_of_a_scan_are_scaled_alike(rule):
    geometry = oblique_geometry()
    scan = image_of(_random(geometry.shape), geometry)
    scaled = image_of(scale_intensity(Volume(*array_and_geometry(scan)), rule), geometry)
    for copy, expected in zip(reorientations(scan), reorientations(scaled)):
        found = scale_intensity(Volume(*array_and_geometry(copy)), rule)
        np.testing.assert_array_equal(found, sitk.GetArrayFromImage(expected))


def test_parts_are_scaled_as_in_the_whole():
    array = _random()
    scaler = intensity_scaler(array, PERCENTILE)
    np.testing.assert_array_equal(scaler(array[2:4]), scale_intensity(array, PERCENTILE)[2:4])


def test_each_slice_has_its_own_range_where_the_rule_says_so():
    scaled = scale_intensity(_random(), SLICES)
    assert scaled.min(axis=(1, 2)).tolist() == [0.0] * 7
    assert scaled.max(axis=(1, 2)).tolist() == [1.0] * 7


@pytest.mark.parametrize("rule", [WINDOW, PERCENTILE, SLICES], ids=lambda rule: rule.kind)
@pytest.mark.parametrize("value", [0, 5, -1000])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5)])
def test_constant_and_tiny_volumes_give_finite_values_between_0_and_1(rule, value, shape):
    scaled = scale_intensity(np.full(shape, value, np.int16), rule)
    assert scaled.shape == shape
    assert np.isfinite(scaled).all()
    assert 0.0 <= scaled.min() <= scaled.max() <= 1.0


def test_an_unknown_rule_is_refused():
    with pytest.raises(RequestError, match="histogram"):
        scale_intensity(_random(), IntensityRule("histogram"))


def _volume(array, modality="", spacing_mm=(1.25, 1.25, 5.0)) -> Volume:
    return Volume(array, Geometry(array.shape[::-1], spacing_mm), modality=modality)


def _ct_like() -> np.ndarray:
    return np.random.default_rng(0).choice([-1000, -80, 0, 40, 60, 300], size=(9, 32, 32)).astype(np.int16)


def test_nothing_is_said_of_real_scans_that_fit(data_folder):
    mr = read_volume(data_folder / "chaos_t2" / "images" / "chaos_t2_02.nii.gz")
    assert plausibility_warnings(mr, replace(MR_MODEL, field_of_view_mm=(250.0, 450.0))) == ()
    ct = read_volume(data_folder / "ct_totalsegmentator" / "images" / "ct_example_30.nii.gz")
    assert plausibility_warnings(ct, CT_MODEL) == ()


def test_a_ct_for_an_mr_model_and_the_other_way_round_is_told(data_folder):
    ct = read_volume(data_folder / "ct_totalsegmentator" / "images" / "ct_example_30.nii.gz")
    assert "CT scan" in " ".join(plausibility_warnings(ct, MR_MODEL))
    assert "MR scan" in " ".join(plausibility_warnings(_volume(_ct_like(), "MR"), CT_MODEL))


def test_values_that_are_no_hounsfield_units_are_told(data_folder):
    mr = read_volume(data_folder / "cmr_bssfp" / "images" / "cmr_bssfp_01.nii.gz")
    assert "Hounsfield" in " ".join(plausibility_warnings(mr, CT_MODEL))
    assert plausibility_warnings(_volume(_ct_like(), "CT"), CT_MODEL) == ()
    assert "Hounsfield" in " ".join(plausibility_warnings(_volume(_ct_like() + np.int16(1024), "CT"), CT_MODEL))
    assert "window" in " ".join(plausibility_warnings(_volume((_ct_like() * 30).clip(None, -3000), "CT"), CT_MODEL))


def test_a_field_of_view_far_off_one_slice_and_thick_slices_are_told():
    model = replace(MR_MODEL, field_of_view_mm=(250.0, 450.0))
    array = np.abs(_random((9, 256, 256), np.int16))
    assert plausibility_warnings(_volume(array), model) == ()
    assert "80 x 80 mm" in " ".join(plausibility_warnings(_volume(array[:, :64, :64]), model))
    assert "one slice" in " ".join(plausibility_warnings(_volume(array[:1]), model))
    thick = _volume(array, spacing_mm=(1.25, 1.25, 20.0))
    assert "20.0 mm apart" in " ".join(plausibility_warnings(thick, model))


def test_a_constant_volume_is_told_once():
    warnings = plausibility_warnings(_volume(np.full((3, 4, 5), 7)), CT_MODEL)
    assert len(warnings) == 1
    assert "same value" in warnings[0]
