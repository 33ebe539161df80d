"""Where a segmentation comes from, as DICOM objects have to tell it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Origin:
    """The scan and the model behind a segmentation.

    Attributes:
        dicom_files: DICOM files of the scan in the order of its slices (k); one file may hold all of them. None for a
            scan in another format.
        model_id: id of the model, "" for labels that no model made.
        model_title: its title.
    """

    dicom_files: tuple[Path, ...] = ()
    model_id: str = ""
    model_title: str = ""
