"""What a scan of the scene tells of itself: modality, grid, and texts that may name the body part."""

from __future__ import annotations

import slicer

from HSAMSegmentLib.images.volume import Volume, guess_modality
from HSAMSegmentLib.slicer.nodes.volumes import volume_array, volume_geometry

_SAMPLES_PER_AXIS = 64
_BODY_PART, _SERIES, _STUDY, _PROTOCOL = "0018,0015", "0008,103e", "0008,1030", "0018,1030"


def sampled_volume(volume_node) -> Volume:
    """A scan with its true grid and a sample of its voxels, of which the modality is told if nothing else tells it.

    Raises:
        RequestError: if the node cannot be segmented.
    """
    array = volume_array(volume_node)
    steps = tuple(slice(None, None, max(1, size // _SAMPLES_PER_AXIS)) for size in array.shape)
    sample = array[steps]
    modality = volume_node.GetAttribute("DICOM.Modality") or _dicom_value(volume_node, "0008,0060")
    return Volume(sample, volume_geometry(volume_node), volume_node.GetName(), modality or guess_modality(sample))


def descriptions(volume_node) -> tuple[str, ...]:
    """Texts that may name the body part: what DICOM says first, then the name of the node."""
    tags = (_dicom_value(volume_node, tag) for tag in (_BODY_PART, _SERIES, _STUDY, _PROTOCOL))
    return tuple(text for text in (*tags, volume_node.GetName()) if text)


def _dicom_value(volume_node, tag: str) -> str:
    """A value of the first image that a scan was loaded from; empty if it is not from the DICOM database."""
    instances = (volume_node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None:
        return ""
    return database.instanceValue(instances[0], tag) or ""
