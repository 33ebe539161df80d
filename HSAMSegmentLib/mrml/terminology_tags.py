"""Slicer's text form of what a segment is: written into the segment's tag, kept by every file format."""

from __future__ import annotations

from HSAMSegmentLib.volumes.labels import Code, Terminology

CATEGORY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
ANATOMIC_CONTEXT = "Anatomic codes - DICOM master list"
_EMPTY = "^^"


def terminology_tag(terminology: Terminology) -> str:
    """The seven parts of the tag, separated by '~': context, category, type, modifier, and no anatomic region."""
    parts = (
        CATEGORY_CONTEXT,
        _code(terminology.category),
        _code(terminology.type),
        _code(terminology.modifier),
        ANATOMIC_CONTEXT,
        _EMPTY,
        _EMPTY,
    )
    return "~".join(parts)


def _code(code: Code | None) -> str:
    return _EMPTY if code is None else f"{code.scheme}^{code.value}^{code.meaning}"
