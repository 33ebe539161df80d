"""The public Python API, used as its documentation says."""

from __future__ import annotations

import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import REPOSITORY
from small_models import brightness_model, write_bundle
from small_scans import bright_boxes, write_dicom_series, write_scan

import HSAMSegmentLib as hsam

OBLIQUE = ((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, -1.0))


@pytest.fixture(scope="module")
def model():
    return brightness_model()


@pytest.fixture
def expected(model, tmp_path):
    return hsam.segment(write_scan(tmp_path / "expected.nii.gz"), model, device="cpu")


def test_importing_the_package_is_quick_and_without_heavy_packages():
    script = (
        "import sys, HSAMSegmentLib; "
        "print(sorted({'torch', 'numpy', 'SimpleITK', 'scipy', 'nibabel', 'pydicom'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_segmenting_does_not_import_pytorchs_compiler(tmp_path):
    """It takes a second, and its Triton crashes in a process whose display driver brought an LLVM of its own."""
    scan = write_scan(tmp_path / "scan.nii.gz")
    script = (
        "import sys, HSAMSegmentLib as hsam; "
        f"hsam.segment({str(scan)!r}, 'abdomen-ct', device='cpu'); "
        "print({'torch', 'torch._dynamo', 'triton'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "{'torch'}"


def test_every_public_name_is_there_and_nothing_else_is():
    assert {name for name in hsam.__all__ if getattr(hsam, name) is None} == set()
    with pytest.raises(AttributeError, match="segmnt"):
        hsam.segmnt  # noqa: B018
    assert set(hsam.__all__) <= set(dir(hsam))


def test_structures_are_measured_with_and_without_the_scan(model, expected, tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    found = hsam.measure(expected, scan)
    assert [row["structure"] for row in found] == ["bright left", "bright right", "gray"]
    assert found["gray"]["mean"] == pytest.approx(90.0)
    assert found["gray"]["confidence"] == pytest.approx(expected["gray"].confidence, rel=1e-6)
    path = expected.save(tmp_path / "organs.seg.nrrd")
    corrected = hsam.measure(path, bright_boxes())
    assert corrected["gray"]["volume_ml"] == found["gray"]["volume_ml"]
    assert hsam.measure(path)["gray"]["mean"] is None
    found.to_csv(tmp_path / "table.csv")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 4


def test_a_result_is_saved_in_formats_of_other_programs(model, tmp_path):
    pytest.importorskip("highdicom", reason="highdicom writes DICOM Segmentations: pip install highdicom")
    result = hsam.segment(write_dicom_series(tmp_path / "series"), model, device="cpu")
    for name, format_name in (("a.dcm", ""), ("b.dcm", "rtstruct")):
        path = result.save(tmp_path / name, format=format_name)
        read = hsam.evaluate(path, result)
        assert {score.dice for score in read.comparison.scores if score.dice is not None} == {1.0}
    from_file = hsam.segment(write_scan(tmp_path / "scan.nii.gz"), model, device="cpu")
    with pytest.raises(hsam.HSAMSegmentError, match="the scan is not a DICOM series"):
        from_file.save(tmp_path / "c.dcm")


@pytest.mark.parametrize("kind", ["path", "text", "dicom", "sitk", "volume", "array"])
def test_every_kind_of_scan_gives_the_same_labels(kind, model, expected, tmp_path):
    volume = bright_boxes()
    image = sitk.ReadImage(str(write_scan(tmp_path / "scan.nrrd")))
    scan = {
        "path": lambda: write_scan(tmp_path / "scan.nii.gz"),
        "text": lambda: str(write_scan(tmp_path / "scan.nii.gz")),
        "dicom": lambda: write_dicom_series(tmp_path / "series"),
        "sitk": lambda: image,
        "volume": lambda: volume,
        "array": lambda: (volume.array, volume.geometry),
    }[kind]()
    result = hsam.segment(scan, model, device="cpu")
    np.testing.assert_array_equal(result.segmentation.array, expected.segmentation.array)


def test_a_nibabel_image_lies_where_its_file_says(model, tmp_path):
    image = sitk.ReadImage(str(write_scan(tmp_path / "scan.nii.gz")))
    image.SetDirection(np.array(OBLIQUE).ravel().tolist())
    image.SetOrigin((10.0, -20.0, 30.0))
    sitk.WriteImage(image, str(tmp_path / "oblique.nii.gz"))
    by_file = hsam.segment(tmp_path / "oblique.nii.gz", model, device="cpu")
    by_image = hsam.segment(nibabel.load(tmp_path / "oblique.nii.gz"), model, device="cpu")
    theirs, ours = by_file.segmentation, by_image.segmentation
    np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_allclose(ours.geometry.ijk_to_lps, theirs.geometry.ijk_to_lps, atol=1e-4)


def test_a_result_answers_by_name_and_is_saved_with_its_names(model, expected, tmp_path):
    organ = expected["Bright Left"]
    assert organ.volume_ml > 0
    assert 0 < organ.confidence <= 1
    assert expected.to_sitk().GetSize() == expected.segmentation.geometry.size
    again = hsam.read_segmentation(expected.save(tmp_path / "organs.seg.nrrd"))
    assert [label.name for label in again.labels] == [item.label.name for item in expected.labels]
    np.testing.assert_array_equal(again.array, expected.segmentation.array)
    with pytest.raises(hsam.HSAMSegmentError, match="exists"):
        expected.save(tmp_path / "organs.seg.nrrd")
    with pytest.raises(KeyError, match="bright right"):
        expected["heart"]


def test_options_reach_the_engine(model, tmp_path):
    scan, seen = write_scan(tmp_path / "scan.nii.gz"), []
    result = hsam.segment(
        scan, model, organs=["gray"], roi=(0, 30, 0, 50, 0, 12), device="cpu", on_progress=seen.append
    )
    assert [item.label.name for item in result.labels] == ["gray"]
    assert not result.segmentation.array[:, :, 30:].any()
    assert seen[-1].fraction == 1.0


def test_a_model_is_loaded_once_and_used_by_file(tmp_path):
    loaded = hsam.load_model(write_bundle(tmp_path, "mine"))
    scan = write_scan(tmp_path / "scan.nii.gz")
    assert hsam.segment(scan, loaded, device="cpu").model_id == "mine"
    assert hsam.segment(scan, tmp_path / "mine.safetensors", device="cpu").model_id == "mine"
    assert "abdomen-mr" in {entry.id for entry in hsam.list_models()}


def test_an_evaluation_has_numbers_a_table_and_plain_values(expected, tmp_path):
    reference = expected.save(tmp_path / "reference.nii.gz")
    found = hsam.evaluate(expected, reference)
    assert found["gray"].dice == 1.0
    assert found.mean() == 1.0
    assert found.to_dict()["mean"]["dice"] == 1.0
    with pytest.raises(KeyError):
        found["heart"]


def test_an_evaluation_becomes_a_data_frame(expected, tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is optional")
    frame = hsam.evaluate(expected, expected.save(tmp_path / "reference.nii.gz")).to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc["gray", "dice"] == 1.0


@pytest.fixture(scope="module")
def pair():
    """A scan with a bright box, and the box as labels."""
    volume = bright_boxes()
    return volume, (volume.array > 150).astype(np.uint8) + 2 * (volume.array == 90).astype(np.uint8)


@pytest.fixture(scope="module")
def finetuned(pair, one_thread):
    volume, array = pair
    seen = []
    model = hsam.finetune(
        [(volume, (array, volume.geometry))],
        epochs=2,
        start_from="scratch",
        names={1: "bright", 2: "gray"},
        title="Boxes",
        device="cpu",
        on_progress=seen.append,
        on_validation=seen.append,
    )
    return model, seen


def test_a_finetuned_model_says_what_it_finds_and_how_well(finetuned):
    model, seen = finetuned
    assert [label.name for label in model.labels] == ["bright", "gray"]
    assert set(model.metrics) == {"bright", "gray"}
    assert all(0 <= dice <= 1 for dice in model.metrics.values())
    assert model.validated_on == "held-out slices of the same scan"
    assert model.steps > 0
    assert model.history[-1] in seen
    assert any(isinstance(item, hsam.Progress) for item in seen)


def test_a_finetuned_model_segments_the_same_in_memory_and_from_its_file(finetuned, pair, tmp_path):
    model, _ = finetuned
    path = model.save(tmp_path / "boxes.safetensors")
    here, there = (hsam.segment(pair[0], item, device="cpu") for item in (model, path))
    np.testing.assert_array_equal(here.segmentation.array, there.segmentation.array)
    assert (there.model_id, there.model_title) == ("boxes", "Boxes")
    with pytest.raises(hsam.HSAMSegmentError, match="exists"):
        model.save(path)
    with pytest.raises(hsam.HSAMSegmentError, match="safetensors"):
        model.save(tmp_path / "boxes.pth")


def test_the_same_pair_from_files_and_from_memory_gives_the_same_weights(pair, tmp_path):
    volume, array = pair
    scan = write_scan(tmp_path / "scan.nii.gz", volume)
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(sitk.ReadImage(str(scan)))
    sitk.WriteImage(image, str(tmp_path / "labels.nii.gz"))
    pairs = [(scan, tmp_path / "labels.nii.gz"), (sitk.ReadImage(str(scan)), image)]
    settings = {"epochs": 1, "start_from": "scratch", "names": {1: "bright", 2: "gray"}, "device": "cpu"}
    first, second = (hsam.finetune([item], **settings).model.network.state_dict() for item in pairs)
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_labels_that_are_of_no_known_kind_are_refused_in_a_sentence(pair):
    with pytest.raises(hsam.HSAMSegmentError, match="Labels are"):
        hsam.finetune([(pair[0], 7)], epochs=1)


def test_label_maps_in_memory_are_evaluated(expected):
    image = expected.to_sitk()
    assert hsam.evaluate(image, expected).mean() == 1.0
    names = {item.label.value: item.label.name for item in expected.labels}
    assert hsam.evaluate(expected, image, names=names)["gray"].dice == 1.0


@pytest.mark.parametrize("scan", [7, None, ("a", "b", "c"), sitk.Image([4, 4], sitk.sitkInt16)])
def test_what_is_not_a_scan_is_refused_in_a_sentence(scan, model):
    with pytest.raises(hsam.HSAMSegmentError, match="scan"):
        hsam.segment(scan, model, device="cpu")


def test_an_array_of_another_shape_than_its_geometry_is_refused(model):
    volume = bright_boxes()
    with pytest.raises(hsam.HSAMSegmentError, match="shape"):
        hsam.segment((volume.array.transpose(2, 1, 0), volume.geometry), model, device="cpu")
