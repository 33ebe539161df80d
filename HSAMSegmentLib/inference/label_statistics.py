"""Per-label results from a label map and the confidence counts of its slices."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import SliceFrame
from HSAMSegmentLib.inference.confidence import ConfidenceCounts, combined_confidence
from HSAMSegmentLib.inference.result import LabelResult, SliceConfidence
from HSAMSegmentLib.labels.label_set import Label, LabelSet

_SUBSTANTIAL_PART = 0.1
"""Slices below this fraction of the largest slice's area are not reported as least certain."""


def label_results(
    labels: np.ndarray,
    label_set: LabelSet,
    *,
    geometry: Geometry,
    frame: SliceFrame,
    counts: ConfidenceCounts,
    channels: dict[int, int],
) -> tuple[LabelResult, ...]:
    """Volume, extent and confidence of every label.

    Args:
        labels: uint8 label map (k, j, i) after post-processing.
        label_set: the labels to report.
        geometry: grid of the label map.
        frame: the slice frame that the volume was cut with.
        counts: confidence counts by slice of the stack.
        channels: network channel of each label value.
    """
    boxes = ndimage.find_objects(labels, max_label=max((label.value for label in label_set), default=0))
    return tuple(
        _label_result(labels, boxes[label.value - 1], label, channels[label.value], geometry, frame, counts)
        for label in label_set
    )


def _label_result(
    labels: np.ndarray,
    box: tuple[slice, ...] | None,
    label: Label,
    channel: int,
    geometry: Geometry,
    frame: SliceFrame,
    counts: ConfidenceCounts,
) -> LabelResult:
    if box is None:
        return LabelResult(label, voxels=0, volume_ml=0.0)
    axis = frame.axes[0]
    planes = np.moveaxis(labels[box], axis, 0)
    slices = []
    for offset, plane in enumerate(planes):
        points = np.argwhere(plane == label.value)
        if len(points):
            position = _central_voxel(points, box, axis, box[axis].start + offset)
            slices.append(_slice_confidence(position[2 - axis], position, len(points), channel, frame, counts))
    voxels = sum(item.voxels for item in slices)
    indices = [item.index for item in slices]
    everywhere = np.array([frame.volume_slice_index(index) for index in indices])
    agreement = counts.agreement(channel, everywhere)
    margin = counts.margin(channel, everywhere)
    return LabelResult(
        label,
        voxels=voxels,
        volume_ml=voxels * geometry.voxel_volume_ml,
        agreement=agreement,
        margin=margin,
        confidence=combined_confidence(agreement, margin),
        slices=tuple(slices),
        least_certain=_least_certain(slices),
        bounding_box=tuple(bound for part in reversed(box) for bound in (part.start, part.stop)),
    )


def _slice_confidence(
    index: int,
    position: tuple[int, int, int],
    area: int,
    channel: int,
    frame: SliceFrame,
    counts: ConfidenceCounts,
) -> SliceConfidence:
    stack_index = frame.volume_slice_index(index)
    agreement = counts.agreement(channel, stack_index)
    margin = counts.margin(channel, stack_index)
    return SliceConfidence(index, position, area, agreement, margin, combined_confidence(agreement, margin))


def _least_certain(slices: list[SliceConfidence]) -> SliceConfidence:
    enough = _SUBSTANTIAL_PART * max(item.voxels for item in slices)
    return min((item for item in slices if item.voxels >= enough), key=lambda item: item.confidence)


def _central_voxel(points: np.ndarray, box: tuple[slice, ...], axis: int, index: int) -> tuple[int, int, int]:
    """(i, j, k) of the point nearest to the center of mass of a slice's points."""
    nearest = points[np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1))]
    in_plane = [other for other in range(3) if other != axis]
    position = {axis: index}
    position.update({other: int(box[other].start + offset) for other, offset in zip(in_plane, nearest)})
    return (position[2], position[1], position[0])
