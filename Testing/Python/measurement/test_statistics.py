"""The numbers are those of the geometry, of ITK, and the same however the scan is stored."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import SimpleITK as sitk
from grids_of_tests import array_and_geometry, oblique_geometry, reorientations

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_for, label_set_of
from HSAMSegmentLib.measurement.findings import BORDER, CONFIDENCE, MISSING, PARTS, RANGE, SIDES, find_unusual
from HSAMSegmentLib.measurement.scan import ScanMeasurements, measure_scan
from HSAMSegmentLib.measurement.statistics import measure
from HSAMSegmentLib.measurement.table import COLUMNS, Statistics, is_table, table_rows, write_table

GRID = Geometry(size=(50, 44, 30), spacing_mm=(1.2, 1.5, 3.0), origin_mm=(-30.0, -20.0, 100.0))
NAMES = {1: "liver", 2: "spleen", 4: "right kidney", 5: "left kidney", 6: "my thing"}


def scan(seed: int = 0) -> tuple[Segmentation, Volume]:
    """Structures with noise in them; the spleen is on the patient's left, where x of LPS is positive."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[5:25, 8:30, 4:22] = 1
    labels[10:20, 20:34, 34:44] = 2
    labels[8:14, 30:40, 10:18] = 4
    labels[8:14, 30:40, 30:33] = 5
    labels[8:14, 30:40, 30] = np.where(rng.random((6, 10)) > 0.5, 5, 0)
    array = (rng.normal(0, 20, GRID.shape) + 50 * (labels == 1) + 120 * (labels == 2)).astype(np.float32)
    return Segmentation(labels, GRID, label_set_of(NAMES)), Volume(array, GRID, name="scan", modality="CT")


def by_name(segmentation, volume=None, **more):
    return {item.structure: item for item in measure(segmentation, volume, **more)}


def test_the_numbers_are_those_of_itk():
    segmentation, volume = scan()
    shapes, values = sitk.LabelShapeStatisticsImageFilter(), sitk.LabelIntensityStatisticsImageFilter()
    values.SetNumberOfBins(4096)
    labels = image_of(segmentation.array, GRID)
    shapes.Execute(labels)
    values.Execute(labels, image_of(volume.array, GRID))
    for label in (label for label in segmentation.labels if label.name != "my thing"):
        mine, value = by_name(segmentation, volume)[label.name], label.value
        assert mine.voxels == shapes.GetNumberOfPixels(value)
        assert mine.volume_ml == pytest.approx(shapes.GetPhysicalSize(value) / 1000)
        assert mine.surface_cm2 == pytest.approx(shapes.GetPerimeter(value) / 100)
        x, y, z = shapes.GetCentroid(value)
        np.testing.assert_allclose((mine.centroid_r_mm, mine.centroid_a_mm, mine.centroid_s_mm), (-x, -y, z))
        wide, high, deep = shapes.GetBoundingBox(value)[3:]
        extent = (mine.extent_right_left_mm, mine.extent_front_back_mm, mine.extent_head_feet_mm)
        np.testing.assert_allclose(extent, np.array((wide, high, deep)) * GRID.spacing_mm)
        assert mine.mean == pytest.approx(values.GetMean(value))
        assert mine.sd == pytest.approx(values.GetStandardDeviation(value))
        assert (mine.min, mine.max) == (values.GetMinimum(value), values.GetMaximum(value))
        assert mine.median == pytest.approx(values.GetMedian(value), abs=0.1)


def test_percentiles_and_the_core_are_those_of_the_voxels():
    segmentation, volume = scan()
    mine = by_name(segmentation, volume)["liver"]
    inside = volume.array[segmentation.array == 1].astype(float)
    expected = np.percentile(inside, [5, 25, 50, 75, 95])
    np.testing.assert_allclose([mine.p05, mine.p25, mine.median, mine.p75, mine.p95], expected)
    assert mine.core_mean == pytest.approx(volume.array[6:24, 9:29, 5:21].mean(dtype=float))


def test_the_edge_draws_the_mean_and_not_the_core():
    labels = np.zeros(GRID.shape, np.uint8)
    labels[5:25, 8:30, 4:22] = 1
    array = np.where(labels == 1, 100.0, 0.0).astype(np.float32)
    blurred = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image_of(array, GRID), 1.0))
    mine = by_name(Segmentation(labels, GRID, label_set_of({1: "liver"})), Volume(blurred, GRID))["liver"]
    assert mine.mean < 97
    assert abs(mine.core_mean - 100) < abs(mine.mean - 100) / 2


@pytest.mark.parametrize("radius_mm", [8.0, 15.0])
def test_the_surface_of_a_ball_is_that_of_the_formula(radius_mm):
    k, j, i = np.meshgrid(*(np.arange(40) - 20,) * 3, indexing="ij")
    ball = (np.sqrt(i**2 + j**2 + k**2) <= radius_mm).astype(np.uint8)
    (mine,) = measure(Segmentation(ball, Geometry((40, 40, 40)), label_set_of({1: "liver"})))
    assert mine.surface_cm2 == pytest.approx(4 * np.pi * radius_mm**2 / 100, rel=0.02)
    assert mine.volume_ml == pytest.approx(4 / 3 * np.pi * radius_mm**3 / 1000, rel=0.02)


def test_they_do_not_depend_on_how_the_scan_is_stored():
    segmentation, volume = scan()
    expected = measure(segmentation, volume)
    both = zip(reorientations(image_of(segmentation.array, GRID)), reorientations(image_of(volume.array, GRID)))
    for labels, image in both:
        array, geometry = array_and_geometry(labels)
        found = measure(
            Segmentation(array, geometry, segmentation.labels), Volume(array_and_geometry(image)[0], geometry)
        )
        for mine, other in zip(expected, found):
            numbers = {name: value for name, value in mine.to_json().items() if isinstance(value, float)}
            assert len(numbers) > 15 or not mine.found
            for name, value in numbers.items():
                assert getattr(other, name) == pytest.approx(value, rel=1e-5, abs=1e-4), (mine.structure, name)
            assert (other.structure, other.side, other.voxels) == (mine.structure, mine.side, mine.voxels)


def test_sheared_slices_have_their_true_volume_and_place():
    geometry = oblique_geometry(size=(10, 10, 6))
    direction = geometry.direction_matrix.copy()
    direction[:, 2] = direction[:, 2] * np.cos(0.3) + direction[:, 1] * np.sin(0.3)
    sheared = Geometry(geometry.size, geometry.spacing_mm, geometry.origin_mm, tuple(direction.ravel().tolist()))
    labels = np.zeros(sheared.shape, np.uint8)
    labels[2:4, 3:7, 3:7] = 1
    (mine,) = measure(Segmentation(labels, sheared, label_set_of({1: "liver"})))
    assert mine.volume_ml == pytest.approx(32 * 0.7 * 1.1 * 5.3 * np.cos(0.3) / 1000)
    center = (sheared.ijk_to_ras @ [4.5, 4.5, 2.5, 1.0])[:3]
    np.testing.assert_allclose((mine.centroid_r_mm, mine.centroid_a_mm, mine.centroid_s_mm), center)


def test_a_structure_that_was_not_found_and_one_of_a_single_voxel_have_rows():
    segmentation, volume = scan()
    segmentation.array[segmentation.array == 2] = 0
    segmentation.array[2, 2, 40] = 2
    found = by_name(segmentation, volume)
    assert (found["my thing"].voxels, found["my thing"].mean, found["my thing"].parts) == (0, None, 0)
    assert (found["spleen"].voxels, found["spleen"].sd, found["spleen"].core_mean) == (1, None, None)
    assert found["spleen"].mean == pytest.approx(float(volume.array[2, 2, 40]))


def test_a_scan_on_another_grid_is_refused():
    segmentation, _ = scan()
    other = Geometry((50, 44, 30))
    with pytest.raises(RequestError, match="different grids"):
        measure(segmentation, Volume(np.zeros(other.shape, np.int16), other))


def kinds(segmentation, **more) -> set[tuple[str, str]]:
    found = measure_scan(segmentation, **more).findings
    return {(item.kind, item.structure) for item in found}


def test_nothing_is_unusual_about_a_usual_scan_but_what_is_missing():
    segmentation, _ = scan()
    assert kinds(segmentation) == {(MISSING, "my thing")}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_exchanged_sides_are_told_also_of_liver_and_spleen(axis):
    segmentation, _ = scan()
    flipped = Segmentation(np.flip(segmentation.array, axis).copy(), GRID, segmentation.labels)
    told = {structure for kind, structure in kinds(flipped) if kind == SIDES}
    assert told == ({"liver", "spleen", "right kidney", "left kidney"} if axis == 2 else set())


def test_pieces_doubt_range_and_border_are_told():
    segmentation, _ = scan()
    segmentation.array[0:4, 0:7, 0:8] = 1
    segmentation.array[15:20, 36:40, 46:49] = 2
    found = kinds(
        segmentation,
        confidences={"left kidney": 0.3, "right kidney": 0.9},
        ranges_ml={"right kidney": (50.0, 300.0), "liver": (1.0, 2.0), "spleen": (1.0, 400.0)},
    )
    assert found >= {
        (PARTS, "liver"),
        (BORDER, "liver"),
        (RANGE, "liver"),
        (CONFIDENCE, "left kidney"),
        (PARTS, "spleen"),
    }
    assert {(RANGE, "right kidney")} <= found
    assert not {(RANGE, "spleen"), (CONFIDENCE, "right kidney")} & found


def test_a_structure_at_the_border_is_never_too_small():
    segmentation, _ = scan()
    segmentation.array[0, 30, 10:12] = 4
    found = kinds(segmentation, ranges_ml={"right kidney": (50.0, 300.0)})
    assert (RANGE, "right kidney") not in found
    assert (BORDER, "right kidney") in found


def test_sides_by_name_count_for_structures_without_a_code():
    labels = LabelSet((label_for(1, "tumor_R"), label_for(2, "tumor L"), label_for(3, "left right thing")))
    array = np.zeros(GRID.shape, np.uint8)
    array[5:9, 5:9, 40:45], array[5:9, 5:9, 5:9], array[1, 1, 1] = 1, 2, 3
    statistics = measure(Segmentation(array, GRID, labels))
    assert [item.side for item in statistics] == ["right", "left", ""]
    told = [item for item in find_unusual(labels, statistics) if item.kind == SIDES]
    assert [item.text for item in told] == ["lies left of tumor L", "lies right of tumor_R"]


def test_the_table_has_a_row_per_structure_and_survives_odd_names(tmp_path):
    segmentation, volume = scan()
    labels = LabelSet((*segmentation.labels, label_for(9, '=cmd|"x",1\n2')))
    measured = measure_scan(Segmentation(segmentation.array, GRID, labels), volume, ranges_ml={"liver": (1.0, 2.0)})
    write_table(table_rows("=a,b", measured, model="m", output="o.nii"), tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [row["structure"] for row in rows] == [*NAMES.values(), '\'=cmd|"x",1\n2']
    assert {row["scan"] for row in rows} == {"'=a,b"}
    liver = rows[0]
    assert (liver["intensity_unit"], liver["training_high_ml"], liver["side"]) == ("HU", "2.0", "")
    assert float(liver["volume_ml"]) == pytest.approx(measured.statistics[0].volume_ml, rel=1e-6)
    assert "in the training scans" in liver["remarks"]
    assert rows[4]["mean"] == rows[4]["centroid_r_mm"] == ""
    assert is_table(tmp_path / "t.csv")
    with pytest.raises(OutputError, match="exists already"):
        write_table([], tmp_path / "t.csv")


def test_measurements_survive_json():
    segmentation, volume = scan()
    measured = measure_scan(segmentation, volume, ranges_ml={"liver": (1.0, 2.0)}, confidences={"liver": 0.25})
    again = ScanMeasurements.from_json(measured.to_json())
    assert again.to_json() == measured.to_json()
    assert again.findings == measured.findings


def test_a_data_frame_has_the_columns():
    pytest.importorskip("pandas", reason="a data frame needs pandas: pip install pandas")
    segmentation, volume = scan()
    found = Statistics(tuple(table_rows("a", measure_scan(segmentation, volume))))
    frame = found.to_dataframe()
    assert list(frame.columns) == list(COLUMNS)
    assert frame.set_index("structure").loc["liver", "volume_ml"] == found["Liver"]["volume_ml"]
    with pytest.raises(KeyError, match="there are liver, spleen"):
        found["lung"]
