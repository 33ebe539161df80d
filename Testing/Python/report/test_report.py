"""The JSON report of a segmentation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_models import brightness_model
from small_scans import bright_boxes

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.report.segmentation_report import make_report, read_report, write_report


@pytest.fixture(scope="module")
def report() -> dict:
    model = brightness_model(labels=label_set_of({1: "right kidney", 2: "left kidney", 3: "spleen"}))
    options = SegmentOptions(organs=("right kidney", "spleen"), threads=1)
    volume = bright_boxes()
    result = Segmenter(model, device="cpu", options=options).segment(volume)
    return make_report(result, volume=volume, manifest=model.manifest, options=options)


def test_a_report_survives_the_file(report, tmp_path):
    path = write_report(report, tmp_path / "scan.json")
    assert read_report(path) == json.loads(json.dumps(report))


def test_it_tells_where_the_volume_is_and_what_made_it(report):
    assert report["schema_version"] == 1
    assert report["input"]["size"] == [60, 50, 12]
    assert report["input"]["spacing_mm"] == [1.0, 1.5, 4.0]
    assert report["input"]["origin_lps_mm"] == [-30.0, 10.0, 5.0]
    assert report["model"]["id"] == "brightness"
    assert report["device"] == "cpu"
    assert report["precision"] in ("full", "mixed (bfloat16)")
    dtype = "bfloat16" if "bfloat16" in report["precision"] else "float32"
    assert report["precision_reason"].startswith(f"{dtype}: ")
    assert report["timings_s"]["total"] > 0.0
    assert report["software"]["torch"] != "unknown"
    assert report["options"]["organs"] == ("right kidney", "spleen")


def test_it_says_that_it_is_for_research(report):
    assert "research only" in report["statement"]
    assert "no medical device" in report["statement"]


def test_every_wanted_label_has_volume_code_confidence_and_its_least_certain_slice(report):
    assert [item["name"] for item in report["labels"]] == ["right kidney", "spleen"]
    for item in report["labels"]:
        assert item["volume_ml"] == pytest.approx(item["voxels"] * 0.006)
        assert item["code"]["type"]["scheme"] == "SCT"
        assert 0.0 <= item["confidence"] <= 1.0
        assert len(item["bounding_box_ijk"]) == 6
        confidences = {entry["index"]: entry["confidence"] for entry in item["slices"]}
        worst = item["least_certain_slice"]
        assert confidences[worst["index"]] == worst["confidence"]
        assert worst["position_ijk"][2] == worst["index"]
    assert sum(entry["voxels"] for entry in report["labels"][0]["slices"]) == report["labels"][0]["voxels"]


def test_a_label_that_was_not_found_is_reported_as_such():
    volume = bright_boxes()
    volume.array[:] = np.where(volume.array == 90, 10, volume.array)
    model = brightness_model()
    result = Segmenter(model, device="cpu", options=SegmentOptions(threads=1)).segment(volume)
    content = make_report(result, volume=volume, manifest=model.manifest, options=SegmentOptions())
    gray = content["labels"][2]
    assert (gray["voxels"], gray["confidence"], gray["least_certain_slice"], gray["slices"]) == (0, None, None, [])


def test_an_existing_report_is_kept_unless_told_otherwise(report, tmp_path):
    path = write_report(report, tmp_path / "scan.json")
    with pytest.raises(OutputError, match="exists already"):
        write_report(report, path)
    write_report(report, path, overwrite=True)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": "other"}', '{"schema": "hsamsegment-report", "schema_version": 9}']
)
def test_what_is_no_report_is_refused(tmp_path, text):
    path = tmp_path / "scan.json"
    path.write_text(text)
    with pytest.raises(RequestError, match=r"not a report|newer version"):
        read_report(path)
