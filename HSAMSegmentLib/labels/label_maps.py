"""Plain label maps: check values, renumber them to 8 bits, name them, and read and write their JSON sidecar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.image_files import name_without_suffix
from HSAMSegmentLib.labels.label_set import LARGEST_VALUE, LabelSet
from HSAMSegmentLib.labels.terminology import label_set_of

_MOST_VALUES_OF_LABELS = 1000
_ROUNDED_APART = 1e-3

NAMES_SUFFIX = ".labels.json"


def labels_of_values(
    array: np.ndarray, file: str, *, names: Mapping[int, str] | None = None, known: LabelSet | None = None
) -> tuple[np.ndarray, LabelSet, tuple[str, ...]]:
    """uint8 label values of a label map, their labels, and notes on changes.

    Args:
        array: label values in any numeric type.
        file: name of the label map, for errors.
        names: names of values, chosen by the user; named values that do not occur become labels, too.
        known: labels that came with the label map.

    Raises:
        VolumeError: if the values are not those of a label map.
    """
    array, notes = _whole_numbers(array, file)
    present = [int(value) for value in np.unique(array) if value != 0]
    _check_values(present, file)
    given = {} if names is None else {int(value): name for value, name in names.items()}
    beside = {} if known is None else {label.value: label.name for label in known}
    all_names = {value: f"Label {value}" for value in present}
    all_names.update(beside if names is None else {value: beside[value] for value in beside if value in present})
    all_names.update(given)
    numbers, number_notes = _new_numbers(sorted(value for value in all_names if value > 0))
    labels = label_set_of({numbers[value]: all_names[value] for value in numbers})
    if known is not None and not number_notes:
        labels = _with_known(labels, known)
    return _renumbered(array, numbers), labels, notes + number_notes


def _check_values(present: list[int], file: str) -> None:
    """Ensure that the values of a label map can be labels.

    Raises:
        VolumeError: naming those that cannot.
    """
    negative = [value for value in present if value < 0]
    if negative and len(present) > LARGEST_VALUE:
        raise VolumeError(f'"{file}" holds negative values, {min(negative)} and up; it is a scan, not a label map.')
    if negative:
        raise VolumeError(
            f'"{file}" holds the value {negative[0]}; label values are 0 (background) and above. Give what it '
            "marks another value, or 0."
        )
    if len(present) > _MOST_VALUES_OF_LABELS:
        raise VolumeError(f'"{file}" holds {len(present)} different values; it is a scan, not a label map.')
    if len(present) > LARGEST_VALUE:
        raise VolumeError(
            f'"{file}" holds {len(present)} different label values; {LARGEST_VALUE} is the most. Leave out some.'
        )


def _whole_numbers(array: np.ndarray, file: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Round label values to integers; scaled storage leaves small errors, which are repaired with a note."""
    if array.dtype.kind != "f":
        return array, ()
    if not np.isfinite(array).all():
        raise VolumeError(f'"{file}" holds values that are not finite; label values are whole numbers.')
    rounded = np.rint(array)
    apart = np.abs(rounded - array)
    largest = float(apart.max(initial=0.0))
    if largest > _ROUNDED_APART:
        example = float(array.flat[int(apart.argmax())])
        raise VolumeError(
            f'"{file}" holds {example:.6g}, which is not a whole number; it is a scan or a probability map, not a '
            "label map."
        )
    note = f"Label values were up to {largest:.1g} beside whole numbers, and were rounded."
    return rounded.astype(np.int64), (note,) if largest > 0 else ()


def _new_numbers(values: list[int]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Values unchanged if all fit into 8 bits, else numbered from 1, with a note."""
    if not values or values[-1] <= LARGEST_VALUE:
        return {value: value for value in values}, ()
    numbers = {value: number for number, value in enumerate(values, start=1)}
    pairs = ", ".join(f"{value} as {number}" for value, number in numbers.items())
    return numbers, (f"Label values above 255 were numbered anew ({pairs}).",)


def _renumbered(array: np.ndarray, numbers: Mapping[int, int]) -> np.ndarray:
    result = array.astype(np.uint8)
    for value, number in numbers.items():
        if value != number:
            result[array == value] = number
    return result


def _with_known(labels: LabelSet, known: LabelSet) -> LabelSet:
    """Colors and codes from the sidecar, for labels with the same value and name."""
    stored = {(label.value, label.name): label for label in known}
    return LabelSet(tuple(stored.get((label.value, label.name), label) for label in labels))


def names_path(path: Path) -> Path:
    """Path of the sidecar with the names of a label map: "scan.labels.json" for "scan.nii.gz"."""
    return path.with_name(name_without_suffix(path) + NAMES_SUFFIX)


def names_text(labels: LabelSet) -> str:
    """Content of the sidecar: values, names, colors and codes."""
    return json.dumps({"labels": labels.to_json()}, indent=2, ensure_ascii=False) + "\n"


def read_names(path: Path) -> LabelSet | None:
    """Read the labels from the sidecar of a label map; None if there is none.

    Raises:
        VolumeError: if the file is damaged.
    """
    beside = names_path(path)
    if not beside.is_file():
        return None
    try:
        return LabelSet.from_json(json.loads(beside.read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error if isinstance(error, ValueError) else repr(error)
        raise VolumeError(f'The names in "{beside}" cannot be read ({reason}); mend or remove that file.') from error
