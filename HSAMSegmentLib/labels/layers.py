"""Segments on one or several layers into one label map."""

from __future__ import annotations

import numpy as np

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.seg_nrrd import SegmentEntry
from HSAMSegmentLib.labels.terminology import unique_name

_MOST_SEGMENTS = 255


def merge_layers(
    array: np.ndarray, entries: list[SegmentEntry], file_name: str
) -> tuple[np.ndarray, LabelSet, tuple[str, ...]]:
    """One label map of all segments.

    Where segments overlap, the smaller one stays visible (a lesion in its organ). Values stay as they are where all
    segments have different ones, else segments are numbered from 1 in the order of the file.

    Args:
        array: [k, j, i] or, with several layers, [k, j, i, layer].
        entries: what the header says of the segments.
        file_name: for the sentences.

    Returns:
        uint8 [k, j, i], labels, notes.

    Raises:
        VolumeError: if there are too many segments or a layer is missing.
    """
    layers = array[..., np.newaxis] if array.ndim == 3 else array
    entries, background = [entry for entry in entries if entry.value], [entry for entry in entries if not entry.value]
    _check(layers, entries, file_name)
    values = _label_values(entries)
    if layers.shape[3] == 1 and layers.dtype == np.uint8 and values == [entry.value for entry in entries]:
        return _described_values(layers[..., 0], values), _labels(entries, values), _background_notes(background)
    masks = [layers[..., entry.layer] == entry.value for entry in entries]
    sizes = [int(np.count_nonzero(mask)) for mask in masks]
    merged = np.zeros(layers.shape[:3], dtype=np.uint8)
    overlapping = 0
    for index in sorted(range(len(entries)), key=lambda index: -sizes[index]):
        overlapping += int(np.count_nonzero(merged[masks[index]]))
        merged[masks[index]] = values[index]
    notes = _background_notes(background)
    if overlapping:
        notes += (f"Segments overlap in {overlapping} voxels; there the smaller segment was kept.",)
    return merged, _labels(entries, values), notes


def _background_notes(entries: list[SegmentEntry]) -> tuple[str, ...]:
    return tuple(
        f'The segment "{item.name}" has the value 0, which is the background; it was left out.' for item in entries
    )


def _described_values(layer: np.ndarray, values: list[int]) -> np.ndarray:
    """The layer without values that no segment has."""
    table = np.zeros(_MOST_SEGMENTS + 1, dtype=np.uint8)
    table[values] = values
    array: np.ndarray = table[layer]
    return array


def _check(layers: np.ndarray, entries: list[SegmentEntry], file_name: str) -> None:
    if len(entries) > _MOST_SEGMENTS:
        raise VolumeError(f'"{file_name}" has {len(entries)} segments; {_MOST_SEGMENTS} is the most that fits.')
    missing = [entry.name for entry in entries if not 0 <= entry.layer < layers.shape[3]]
    if missing:
        raise VolumeError(f'The voxels of the segment "{missing[0]}" are not in "{file_name}"; save it again.')


def _label_values(entries: list[SegmentEntry]) -> list[int]:
    values = [entry.value for entry in entries]
    if len(set(values)) == len(values) and all(0 < value <= _MOST_SEGMENTS for value in values):
        return values
    return list(range(1, len(entries) + 1))


def _labels(entries: list[SegmentEntry], values: list[int]) -> LabelSet:
    labels: list[Label] = []
    for value, entry in sorted(zip(values, entries), key=lambda pair: pair[0]):
        name = unique_name(entry.name or f"Segment {value}", [label.name for label in labels], value)
        labels.append(entry.label(value, name))
    return LabelSet(tuple(labels))
