"""One scan of a segmented folder, brought into the scene with its result on demand."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.report.correction_slices import slices_to_correct
from HSAMSegmentLib.report.segmentation_report import REPORT_SUFFIX, read_report
from HSAMSegmentLib.runtime.serialization import to_plain
from HSAMSegmentLib.slicer.nodes.navigation import set_visible, show_scan
from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene
from HSAMSegmentLib.slicer.nodes.segmentations.segments import (
    DOUBTS_ATTRIBUTE,
    MODEL_ATTRIBUTE,
    OWN_SUFFIXES,
    SOURCE_ROLE,
    load_segmentation_file,
    place_in_hierarchy,
)
from HSAMSegmentLib.workflows.segment_folder.folder_request import BatchRow

logger = logging.getLogger(__name__)


class LoadedScan:
    """The nodes of one row; what was removed from the scene is loaded again."""

    def __init__(self) -> None:
        self._scan = None
        self._result = None

    def show(self, row: BatchRow) -> None:
        """Load what is not there, and bring it into the slice views.

        Raises:
            HSAMSegmentError: if a file cannot be read.
        """
        if not is_in_scene(self._scan):
            self._scan = _load_scan(row)
        show_scan(self._scan)
        if row.output and not is_in_scene(self._result):
            self._result = _load_result(row, self._scan)
        set_visible(self._result, True)

    def hide(self) -> None:
        """Take the result out of sight."""
        set_visible(self._result, False)


def _load_scan(row: BatchRow):
    """Read as it was read when it was segmented, so that both are on one grid."""
    from HSAMSegmentLib.io.volume_files import read_volume  # needs SimpleITK, which a panel opens without

    volume = read_volume(row.path, series=row.series or None)
    node = slicer.util.addVolumeFromArray(
        volume.array, volume.geometry.ijk_to_ras, slicer.mrmlScene.GenerateUniqueName(row.name)
    )
    if volume.modality:
        node.SetAttribute("DICOM.Modality", volume.modality)
    return node


def _load_result(row: BatchRow, scan):
    """The segmentation, tied to its scan and to what its report says, as if it had been made in the scene.

    Raises:
        VolumeError: if it cannot be read.
    """
    path = Path(row.output)
    node = load_segmentation_file(path, _("{scan} organs").format(scan=row.name))
    node.SetReferenceImageGeometryParameterFromVolumeNode(scan)
    node.SetNodeReferenceID(SOURCE_ROLE, scan.GetID())
    node.SetAttribute(MODEL_ATTRIBUTE, row.model)
    node.SetAttribute(DOUBTS_ATTRIBUTE, json.dumps(to_plain(slices_to_correct(_report_of(path)))))
    place_in_hierarchy(node, scan)
    return node


def _report_of(path: Path) -> dict[str, Any]:
    """What was said of a result when it was made; nothing where that is gone, since the result is worth more."""
    report = path.with_name(path.name[: -len(OWN_SUFFIXES[0])] + REPORT_SUFFIX)
    try:
        return read_report(report) if report.is_file() else {}
    except RequestError as error:
        logger.warning("%s", error)
        return {}
