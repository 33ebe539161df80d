"""Training cases: a volume with its labels on one grid, from files or copied arrays, and checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from HSAMSegmentLib.errors import TrainingError, VolumeError
from HSAMSegmentLib.images.orientation import slice_axis
from HSAMSegmentLib.images.volume import Volume, VolumeInput, guess_modality
from HSAMSegmentLib.labels.grids import resample_labels, same_grid
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.layered_segmentation import LayerInput, painted
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.training.request import FinetuneCase, OrganInput

UNLABELED = 255
"""Value of unlabeled pixels, which are ignored in every loss and Dice."""
_FEW_SLICES = 5
_LARGE_PART = 0.25
_LEAST_PART_WITHIN = 0.5


@dataclass(frozen=True)
class Case:
    """A labeled volume.

    Attributes:
        volume: the scan.
        labels: uint8 label values (k, j, i) on the volume's grid.
        label_set: meaning of the values that occur.
        labeled: bool for each slice along `labeled_axis`, or None if every slice is labeled.
        labeled_axis: array axis of `labeled`.
        notes: sentences on what was resampled, assumed or left out.
        hashes: SHA-256 of the arrays "volume" and "labels", and of "voxels", which ignores their order and type.
    """

    volume: Volume
    labels: np.ndarray
    label_set: LabelSet
    labeled: np.ndarray | None
    labeled_axis: int
    notes: tuple[str, ...]
    hashes: dict[str, str]


def read_case(image: Path | str, labels: Path | str, *, names: dict[int, str] | None = None) -> Case:
    """Read and check a case.

    Args:
        image: a volume file or DICOM folder.
        labels: a label map or segmentation file.
        names: names of label values, for label maps without names.

    Raises:
        VolumeError: if a file cannot be read.
        TrainingError: if the labels are empty or located elsewhere.
    """
    return open_case(FinetuneCase.of_files(Path(image), Path(labels)), names=names)


def open_case(source: FinetuneCase, labels: LabelSet | None = None, *, names: dict[int, str] | None = None) -> Case:
    """Read a case and map its organs to the values and names to learn.

    Args:
        source: locations of its scan and its labels.
        labels: the labels to learn; not needed if the case names no organs.
        names: names of label values, for label maps without names.

    Raises:
        VolumeError: if a file cannot be read.
        TrainingError: if its labels are empty or located elsewhere, or if a copy of the scene's arrays is gone.
    """
    from HSAMSegmentLib.labels.segmentation_files import read_segmentation

    volume = _volume(source.scan)
    named = {label.name: label for label in labels or ()}
    if source.label_file:
        found = read_segmentation(Path(source.label_file), names=names, grid=volume.geometry)
        found = _of_file(found, source.organs, named) if source.organs else found
    else:
        found = _of_layers(source, volume, named)
    return make_case(volume, found)


def _volume(scan: VolumeInput) -> Volume:
    from HSAMSegmentLib.io.volume_files import finite_array, read_volume

    if scan.path:
        return read_volume(Path(scan.path))
    array, notes = finite_array(_load(scan.array_file, scan.name))
    return Volume(array, scan.required_geometry, scan.name, scan.modality or guess_modality(array), notes=notes)


def _load(file: str, name: str) -> np.ndarray:
    try:
        array: np.ndarray = np.load(file, mmap_mode="r")
        return array
    except (OSError, ValueError) as error:
        raise TrainingError(f"The copy of '{name}' that was trained on is gone or damaged ({file}).") from error


def _of_file(found: Segmentation, organs: Sequence[OrganInput], named: dict[str, Label]) -> Segmentation:
    targets = {item.source: named[item.organ] for item in organs}
    table = np.zeros(256, dtype=np.uint8)
    for label in found.labels:
        if label.name in targets:
            table[label.value] = targets[label.name].value
    kept = tuple(label for label in named.values() if label in targets.values())
    return replace(found, array=table[found.array], labels=LabelSet(kept))


def _of_layers(source: FinetuneCase, volume: Volume, named: dict[str, Label]) -> Segmentation:
    """Merge all layers on the grid of the scan; where organs overlap, the smaller one stays visible."""
    parts: list[tuple[np.ndarray, int]] = []
    for number, layer in enumerate(source.layers):
        wanted = [item for item in source.organs if item.layer == number]
        array = _layer_on_grid(layer, volume, wanted, named)
        parts += [(array, int(value)) for value in np.unique(array) if value]

    def mask_of(index: int) -> np.ndarray:
        array, value = parts[index]
        mask: np.ndarray = array == value
        return mask

    merged, _overlapping = painted(volume.geometry.shape, mask_of, [value for _array, value in parts])
    kept = {item.organ for item in source.organs}
    labels = LabelSet(tuple(label for label in named.values() if label.name in kept))
    return Segmentation(merged, volume.geometry, labels, name=f"labels of {volume.name}")


def _layer_on_grid(
    layer: LayerInput, volume: Volume, wanted: Iterable[OrganInput], named: dict[str, Label]
) -> np.ndarray:
    """The selected organs of a layer, with the values to learn, on the grid of the scan."""
    values = _load(layer.array_file, volume.name)
    learned = np.zeros(values.shape, dtype=np.uint8)
    for item in wanted:
        learned[values == item.value] = named[item.organ].value
    found = Segmentation(learned, layer.geometry, LabelSet(tuple(named.values())), name=f"labels of {volume.name}")
    return resample_labels(found, volume.geometry).array


def make_case(volume: Volume, segmentation: Segmentation) -> Case:
    """Check labels against their volume and resample them to its grid.

    Labels on another grid are resampled by nearest neighbor. If there are unlabeled slices between labeled ones, or
    only a few neighboring slices are labeled, the other slices count as unlabeled, not as background.

    Raises:
        TrainingError: if the labels are empty or located elsewhere.
    """
    if not segmentation.array.any():
        raise TrainingError(
            f"The labels '{segmentation.name}' of '{volume.name}' are empty. Draw at least one structure in one slice."
        )
    array, grid_notes = _on_grid(segmentation, volume)
    notes = segmentation.notes + grid_notes + _outside_notes(segmentation, array, volume)
    present = np.flatnonzero(np.bincount(array.ravel(), minlength=256))
    kept = tuple(label for label in segmentation.labels if label.value in present)
    unnamed = [int(value) for value in present if value and value not in {label.value for label in kept}]
    if unnamed:
        raise TrainingError(
            f"The labels of '{volume.name}' have the value {unnamed[0]}, but nothing says what it means. "
            "Name it or remove it."
        )
    missing = [label.name for label in segmentation.labels if label.value not in present]
    if missing:
        notes += (f"{', '.join(missing)}: in the list of labels of '{volume.name}', but in no voxel; left out.",)
    axis = 2 - slice_axis(volume.geometry)
    labeled, sparse_notes = labeled_slices(array, axis, volume.name)
    return Case(
        volume=volume,
        labels=array,
        label_set=LabelSet(kept),
        labeled=labeled,
        labeled_axis=axis,
        notes=volume.notes + notes + sparse_notes,
        hashes={"volume": array_hash(volume.array), "labels": array_hash(array), "voxels": voxel_hash(volume)},
    )


def labeled_slices(labels: np.ndarray, axis: int, name: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Distinguish a sparsely labeled volume from a fully labeled one.

    Args:
        labels: (k, j, i).
        axis: array axis across the slices.
        name: name of the volume, for messages.

    Returns:
        Which slices count as labeled (None for all), and sentences about it.
    """
    others = tuple(other for other in range(3) if other != axis)
    filled = (labels != 0).any(axis=others)
    indices = np.flatnonzero(filled)
    count, span = len(indices), int(indices[-1] - indices[0]) + 1
    if span == count and (count >= _FEW_SLICES or count >= _LARGE_PART * len(filled)):
        return None, ()
    return filled, (
        f"'{name}' is labeled sparsely ({count} of {len(filled)} slices): the other slices are not taken for "
        "background, they are not used.",
    )


def common_labels(cases: Sequence[Case]) -> tuple[list[Case], LabelSet, tuple[str, ...]]:
    """Give each label the same value, 1 to K, in all cases, matching labels by name.

    Returns:
        The cases with new values, the labels of all, and sentences on labels that have no name or that some cases lack.

    Raises:
        TrainingError: if there are no cases.
    """
    if not cases:
        raise TrainingError("There are no training cases: give at least one volume with its labels.")
    merged: list[Label] = []
    for case in cases:
        known = {_key(label.name) for label in merged}
        merged += [label for label in case.label_set if _key(label.name) not in known]
    label_set = LabelSet(tuple(replace(label, value=number) for number, label in enumerate(merged, start=1)))
    values = {_key(label.name): label.value for label in label_set}
    notes = _unnamed(label_set)
    for case in cases:
        own = {_key(label.name) for label in case.label_set}
        lacking = [label.name for label in label_set if _key(label.name) not in own]
        if lacking:
            notes.append(f"'{case.volume.name}' has no {', '.join(lacking)}: it counts as absent there.")
    return [_renumbered(case, values) for case in cases], label_set, tuple(notes)


def _unnamed(labels: LabelSet) -> list[str]:
    """A sentence on labels of a plain label map that nobody has named."""
    numbers = [label.name for label in labels if re.fullmatch(r"Label \d+", label.name)]
    if not numbers:
        return []
    return [
        f"The label map gives no names for {', '.join(numbers)}. With names (--names 1=liver,2=spleen, or the segments "
        "of a .seg.nrrd) training starts from what a model knows of these organs, and results are called by them."
    ]


def matched_labels(cases: Sequence[Case], label_set: LabelSet) -> tuple[list[Case], tuple[str, ...]]:
    """Map the labels of validation cases to those of the training; other labels become background.

    Raises:
        TrainingError: if a case has none of the labels.
    """
    values = {_key(label.name): label.value for label in label_set}
    notes = []
    for case in cases:
        strange = [label.name for label in case.label_set if _key(label.name) not in values]
        if len(strange) == len(case.label_set):
            raise TrainingError(
                f"'{case.volume.name}' cannot be used for validation: it has none of the trained labels "
                f"({', '.join(label.name for label in label_set)})."
            )
        if strange:
            notes.append(f"'{case.volume.name}' also has {', '.join(strange)}, which is not trained: ignored.")
    return [_renumbered(case, values) for case in cases], tuple(notes)


def array_hash(array: np.ndarray) -> str:
    """SHA-256 over type, shape and values of an array."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def voxel_hash(volume: Volume) -> str:
    """SHA-256 over the values of a scan in LPS order: the same for all its copies, flips and file formats."""
    direction = volume.geometry.direction_matrix
    axes = [int(axis) for axis in np.abs(direction).argmax(axis=1)]
    if sorted(axes) != [0, 1, 2]:
        return array_hash(volume.array.astype(np.float32))
    ordered = volume.array.transpose([2 - axis for axis in axes])
    for place, axis in enumerate(axes):
        if direction[place, axis] < 0:
            ordered = np.flip(ordered, place)
    return array_hash(ordered.astype(np.float32))


def distinct_cases(cases: Sequence[Case]) -> tuple[list[Case], tuple[str, ...]]:
    """Remove pairs that were given twice, with a sentence on each of them."""
    kept: dict[tuple[str, str], Case] = {}
    notes = []
    for case in cases:
        key = (case.hashes["voxels"], case.hashes["labels"])
        if key in kept:
            notes.append(f"'{case.volume.name}' was given twice with the same labels; it counts once.")
        kept.setdefault(key, case)
    return list(kept.values()), tuple(notes)


def refuse_training_scans(training: Sequence[Case], validation: Sequence[Case]) -> None:
    """Ensure that no scan is used for both training and validation, comparing voxels rather than paths.

    Raises:
        TrainingError: naming the scan.
    """
    learned = {case.hashes["voxels"] for case in training}
    for case in validation:
        if case.hashes["voxels"] in learned:
            raise TrainingError(
                f"'{case.volume.name}' is given for validation and for training, so its Dice would say nothing about "
                "other scans. Validate on another scan, or on none: slices of the training scans are then held out."
            )


def _key(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _renumbered(case: Case, values: dict[str, int]) -> Case:
    table = np.zeros(256, dtype=np.uint8)
    for label in case.label_set:
        table[label.value] = values.get(_key(label.name), 0)
    kept = [label for label in case.label_set if _key(label.name) in values]
    renamed = sorted((replace(label, value=values[_key(label.name)]) for label in kept), key=lambda label: label.value)
    return replace(case, labels=table[case.labels], label_set=LabelSet(tuple(renamed)))


def _on_grid(segmentation: Segmentation, volume: Volume) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels on the volume's grid, and a sentence if they had to be resampled."""
    try:
        resampled = resample_labels(segmentation, volume.geometry).array.astype(np.uint8, copy=False)
    except VolumeError as error:
        raise TrainingError(
            f"The labels '{segmentation.name}' do not overlap with the volume '{volume.name}': they lie elsewhere in "
            "space. Check that they belong together."
        ) from error
    if same_grid(segmentation.geometry, volume.geometry):
        return resampled, ()
    before = np.count_nonzero(segmentation.array) * segmentation.geometry.voxel_volume_ml
    after = np.count_nonzero(resampled) * volume.geometry.voxel_volume_ml
    note = f"The labels of '{volume.name}' are on another grid and were resampled to the volume's by nearest neighbor."
    if after < 0.9 * before:
        note += f" {100 * (1 - after / before):.0f} % of the labeled volume lies outside of the scan and was left out."
    return resampled, (note,)


def _outside_notes(segmentation: Segmentation, array: np.ndarray, volume: Volume) -> tuple[str, ...]:
    """A sentence on structures with less than half inside the scan, usually because their position was lost."""
    if same_grid(segmentation.geometry, volume.geometry):
        return ()
    before = np.bincount(segmentation.array.ravel(), minlength=256) * segmentation.geometry.voxel_volume_ml
    after = np.bincount(array.ravel(), minlength=256) * volume.geometry.voxel_volume_ml
    outside = [
        f"{100 * after[label.value] / before[label.value]:.0f} % of {label.name}"
        for label in segmentation.labels
        if before[label.value] > 0 and after[label.value] < _LEAST_PART_WITHIN * before[label.value]
    ]
    if not outside:
        return ()
    return (
        f"Only {', '.join(outside)} lie within '{volume.name}'. Check that scan and labels belong together and that "
        "the labels did not lose their place.",
    )
