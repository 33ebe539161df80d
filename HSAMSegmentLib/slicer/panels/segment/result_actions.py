"""Where a result can go: statistics, files, a DICOM Segmentation, a report, other scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.report.segmentation_report import write_report
from HSAMSegmentLib.slicer.nodes.result_exports import (
    dicom_problem,
    export_dicom_segmentation,
    export_file,
    segment_statistics,
)
from HSAMSegmentLib.slicer.nodes.segment_session import Written, is_in_scene
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.workflows.events import ending_of

_KINDS = "Segmentation (*.seg.nrrd);;Label map (*.nii.gz *.nrrd *.mha);;Surfaces (*.stl *.obj)"


class ResultActions:
    """The buttons below a result."""

    def __init__(
        self, ui, dialogs: Dialogs, status: StatusLine, more_scans: Callable[[Written], None] | None = None
    ) -> None:
        """Take over the buttons; `more_scans` takes model and organs of a result over to the Batch tab."""
        self._ui, self._dialogs, self._status, self._more_scans = ui, dialogs, status, more_scans
        self._written: Written | None = None
        self.menu = qt.QMenu(ui.exportResultButton)
        self._actions = {
            "file": self._add(_("Files..."), self._export_file),
            "dicom": self._add(_("DICOM Segmentation..."), self._export_dicom),
            "report": self._add(_("Report..."), self._save_report),
        }
        self.menu.setToolTipsVisible(True)
        ui.exportResultButton.setMenu(self.menu)
        ui.statisticsButton.connect("clicked()", self._show_statistics)
        ui.moreScansButton.connect("clicked()", self._segment_more)
        ui.moreScansButton.setVisible(more_scans is not None)

    def show(self, written: Written) -> None:
        """The result that the buttons are about."""
        self._written = written
        problem = dicom_problem(self._scan)
        self._actions["dicom"].setEnabled(not problem)
        self._actions["dicom"].setToolTip(problem or _("With Slicer's own exporter, for a PACS."))
        self._actions["file"].setToolTip(_("Segmentation with names and codes, label map, or surfaces to print."))

    def trigger(self, name: str) -> None:
        """Choose an entry of the export menu: "file", "dicom" or "report"."""
        self._actions[name].trigger()

    def _add(self, text: str, function: Callable[[], None]):
        action = self.menu.addAction(text)
        action.connect("triggered()", lambda: self._try(function))
        return action

    @property
    def _scan(self):
        volume = self._written.volume_node
        return volume if is_in_scene(volume) else None

    def _try(self, function: Callable[[], None]) -> None:
        """Do it for a result whose segmentation is still there; a failure is a sentence."""
        if self._written is None:
            return
        if not is_in_scene(self._written.segmentation_node):
            self._status.say(_("The segmentation of this result is not in the scene any more."))
            return
        try:
            function()
        except (HSAMSegmentError, OSError) as error:
            self._status.fail(ending_of(error))

    def _show_statistics(self) -> None:
        def show() -> None:
            table = segment_statistics(self._written.segmentation_node, self._scan)
            self._status.say(_("The statistics are in the table '{name}'.").format(name=table.GetName()))

        self._try(show)

    def _export_file(self) -> None:
        path = self._dialogs.save_path(_("Export the result"), f"{self._name}.seg.nrrd", _KINDS)
        if path:
            written = export_file(self._written.segmentation_node, self._scan, path)
            self._status.say(_("The result was saved to {path}.").format(path=written))

    def _export_dicom(self) -> None:
        folder = self._dialogs.folder_path(_("Folder for the DICOM Segmentation"), "")
        if folder:
            written = export_dicom_segmentation(self._written.segmentation_node, self._scan, folder)
            self._status.say(_("The DICOM Segmentation was saved to {path}.").format(path=written))

    def _save_report(self) -> None:
        path = self._dialogs.save_path(_("Save report"), "report.json", "JSON (*.json)")
        if path:
            write_report(self._written.outcome.report, path, overwrite=True)
            self._status.say(_("The report was saved to {path}.").format(path=Path(path)))

    def _segment_more(self) -> None:
        if self._written is not None and self._more_scans is not None:
            self._more_scans(self._written)

    @property
    def _name(self) -> str:
        return self._written.segmentation_node.GetName()
