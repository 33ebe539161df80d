"""Small files in place of Slicer's own terminologies, which are not part of slicer-core: the right names, few codes."""

from __future__ import annotations

import json
from pathlib import Path

_SCHEMAS = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas"
_CATEGORY = {
    "CodeMeaning": "Anatomical Structure",
    "CodingSchemeDesignator": "SCT",
    "CodeValue": "123037004",
    "showAnatomy": "false",
    "Type": [
        {
            "CodeMeaning": "Liver",
            "CodingSchemeDesignator": "SCT",
            "CodeValue": "10200004",
            "recommendedDisplayRGBValue": [221, 130, 101],
        }
    ],
}
_REGION = {"CodeMeaning": "Abdomen", "CodingSchemeDesignator": "SCT", "CodeValue": "818983003"}


def write_terminologies(folder: Path) -> None:
    """Write the three files that the terminologies logic reads at its start."""
    for file_part, name in (
        ("SlicerGeneralAnatomy", "Segmentation category and type - 3D Slicer General Anatomy list"),
        ("DICOM-Master", "Segmentation category and type - DICOM master list"),
    ):
        data = {
            "SegmentationCategoryTypeContextName": name,
            "@schema": f"{_SCHEMAS}/segment-context-schema.json#",
            "SegmentationCodes": {"Category": [_CATEGORY]},
        }
        _write(folder / f"SegmentationCategoryTypeModifier-{file_part}.term.json", data)
    data = {
        "AnatomicContextName": "Anatomic codes - DICOM master list",
        "@schema": f"{_SCHEMAS}/anatomic-context-schema.json#",
        "AnatomicCodes": {"AnatomicRegion": [_REGION]},
    }
    _write(folder / "AnatomicRegionAndModifier-DICOM-Master.term.json", data)


def _write(path: Path, data: dict) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")
