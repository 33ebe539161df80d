"""Write Resources/Terminologies: our known structures as a terminology for Slicer's Segment Editor.

Run it after changing `HSAMSegmentLib/labels/structures.py`; a test compares both.
"""

from __future__ import annotations

import json
from pathlib import Path

from HSAMSegmentLib.labels.label_set import Code
from HSAMSegmentLib.labels.structures import ANATOMICAL_STRUCTURE, KNOWN_STRUCTURES, Structure

TARGET = (
    Path(__file__).resolve().parents[1]
    / "Resources"
    / "Terminologies"
    / "SegmentationCategoryTypeModifier-HSAMSegment.term.json"
)
CONTEXT = "Segmentation category and type - HSAM Segment"
SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/segment-context-schema.json#"


def terminology() -> dict:
    """The content of the file."""
    by_type: dict[str, list[Structure]] = {}
    for structure in KNOWN_STRUCTURES:
        by_type.setdefault(structure.terminology.type.value, []).append(structure)
    types = sorted((_type(group) for group in by_type.values()), key=lambda item: item["CodeMeaning"])
    category = {**_code(ANATOMICAL_STRUCTURE), "showAnatomy": "false", "Type": types}
    return {
        "SegmentationCategoryTypeContextName": CONTEXT,
        "@schema": SCHEMA,
        "SegmentationCodes": {"Category": [category]},
    }


def _type(group: list[Structure]) -> dict:
    entry = {**_code(group[0].terminology.type), "recommendedDisplayRGBValue": _rgb(group[0])}
    sided = [structure for structure in group if structure.terminology.modifier is not None]
    if sided:
        entry["Modifier"] = [
            {**_code(structure.terminology.modifier), "recommendedDisplayRGBValue": _rgb(structure)}
            for structure in sided
        ]
    return entry


def _code(code: Code) -> dict:
    return {"CodeMeaning": code.meaning, "CodingSchemeDesignator": code.scheme, "CodeValue": code.value}


def _rgb(structure: Structure) -> list[int]:
    return [round(255 * part) for part in structure.color]


def terminology_text() -> str:
    """The file as text."""
    return json.dumps(terminology(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(terminology_text(), encoding="utf-8")
