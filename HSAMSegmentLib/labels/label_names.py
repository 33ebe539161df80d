"""The names beside a label map: formats such as NIfTI have no place for them, so they go into a small JSON file."""

from __future__ import annotations

import json
import re
from pathlib import Path

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.image_files import name_without_suffix
from HSAMSegmentLib.labels.label_set import LabelSet

NAMES_SUFFIX = ".labels.json"

_GENERIC_NAME = re.compile(r"(label|segment|class|structure)?\s*\d*")


def names_path(path: Path) -> Path:
    """Where the names of a label map are: "scan.nii.gz" has them in "scan.labels.json"."""
    return path.with_name(name_without_suffix(path) + NAMES_SUFFIX)


def names_text(labels: LabelSet) -> str:
    """The content of such a file: values, names, colors and codes."""
    return json.dumps({"labels": labels.to_json()}, indent=2, ensure_ascii=False) + "\n"


def read_names(path: Path) -> LabelSet | None:
    """The labels in the file beside a label map, or None if there is no such file.

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


def is_generic_name(name: str) -> bool:
    """Whether a name says nothing but a number ("Label 3", "Segment_3", "3")."""
    words = " ".join(re.findall(r"[^\W\d_]+|\d+", name.casefold()))
    return _GENERIC_NAME.fullmatch(words) is not None
