"""The result section: the table with its traffic light, the way to each organ, 3D, undo, and where a result can go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.report.segmentation_report import write_report
from HSAMSegmentLib.slicer.nodes.navigation import jump_to_voxel
from HSAMSegmentLib.slicer.nodes.result_exports import (
    dicom_problem,
    export_dicom_segmentation,
    export_file,
    segment_statistics,
)
from HSAMSegmentLib.slicer.nodes.segment_session import Written, is_in_scene
from HSAMSegmentLib.slicer.nodes.undo import SegmentationHistory
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.long_words import show_text
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.slicer.panels.widgets.tables import Column, ColumnTable
from HSAMSegmentLib.slicer.panels.widgets.theme import (
    check_ground,
    level_color,
    link_color,
    quiet_color,
    tip_of,
)
from HSAMSegmentLib.workflows.events import ending_of
from HSAMSegmentLib.workflows.segment.review import Level, review, summary
from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome

UNCERTAIN = 3
_MOST_ROWS = 13
GoTo = Callable[["tuple[int, int, int]"], None]

_KINDS = "Segmentation (*.seg.nrrd);;Label map (*.nii.gz *.nrrd *.mha);;Surfaces (*.stl *.obj)"


class ResultTable(ColumnTable):
    """One row per organ. A click goes to the organ; in the last column, to its least certain slice."""

    def __init__(self, widget, go_to: GoTo) -> None:
        self._go_to = go_to
        certain = _(
            "How certain the model is, to compare structures of one model. It is not a probability of being right."
        )
        doubt = _("Goes to the slice in which the model is least certain.")
        super().__init__(
            widget,
            Column(_("Organ"), _name, _tip, _color, swatch=lambda organ: organ.label.color, is_stretched=True),
            Column(_("Volume"), _volume, _tip, _color, is_number=True),
            Column(_("Confidence"), _light, _tip, lambda organ: level_color(review(organ).level), header_tip=certain),
            Column(_("Doubt"), _lead, _tip, lambda _row: link_color(), header_tip=doubt),
            most=_MOST_ROWS,
            wraps=True,
        )
        widget.connect("cellClicked(int,int)", self._on_click)

    def show(self, outcome: SegmentOutcome) -> None:
        """List the organs of an outcome, those that were found first."""
        super().show(sorted(outcome.organs, key=lambda organ: not organ.found))

    def _show_row(self, number: int) -> None:
        super()._show_row(number)
        if review(self.rows[number]).level is Level.CHECK:  # told by weight and brightness in a gray print, too
            self._stress(number, check_ground())

    def _on_click(self, row: int, column: int) -> None:
        organ = self.rows[row]
        target = organ.uncertain_ijk if column == UNCERTAIN else organ.center_ijk
        if target is not None:
            self._go_to(target)


def _name(organ: OrganOutcome) -> str:
    return organ.label.name


def _volume(organ: OrganOutcome) -> str:
    if not organ.found:
        return ""
    return f"{organ.volume_ml:.0f} mL" if organ.volume_ml >= 1000 else f"{organ.volume_ml:.1f} mL"


def _light(organ: OrganOutcome) -> str:
    """Sign, word and number."""
    text = review(organ).text
    return text if not organ.found or organ.confidence is None else f"{text} {100 * organ.confidence:.0f} %"


def _lead(organ: OrganOutcome) -> str:
    return "" if organ.uncertain_ijk is None else _("show")


def _tip(organ: OrganOutcome) -> str:
    return tip_of(review(organ).reasons)


def _color(organ: OrganOutcome) -> str:
    return "" if organ.found else quiet_color()


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


class ResultView:
    """Shows what the last job wrote."""

    def __init__(
        self,
        ui,
        history: SegmentationHistory,
        dialogs: Dialogs,
        status: StatusLine,
        learn_from: Callable[[Written], None] | None = None,
        more_scans: Callable[[Written], None] | None = None,
    ) -> None:
        self._ui = ui
        self._learn_from = learn_from
        self._status = status
        self._history = history
        self._written: Written | None = None
        self._table = ResultTable(ui.resultTable, self._go_to)
        self.actions = ResultActions(ui, dialogs, status, more_scans)
        ui.undoButton.connect("clicked()", self._undo)
        ui.learnFromButton.connect("clicked()", self._learn)
        self.clear()

    def show(self, written: Written, *, show_3d: bool) -> None:
        """Show a result."""
        self._written = written
        self._table.show(written.outcome)
        self.actions.show(written)
        self._ui.reviewLabel.setText("\n".join(summary(written.outcome)))
        self._ui.reviewLabel.visible = bool(summary(written.outcome))
        node = written.segmentation_node
        if show_3d and written.outcome.found:
            node.CreateClosedSurfaceRepresentation()  # keeps the surfaces that the worker computed
        self._ui.show3DButton.setSegmentationNode(node)
        notes = "\n".join(note for note in (written.note, *written.outcome.warnings) if note)
        show_text(self._ui.warningLabel, notes)
        self._ui.warningLabel.visible = bool(notes)
        self._ui.resultDetailsLabel.setText(_details(written.outcome))
        self._ui.undoButton.enabled = self._history.can_undo
        self._ui.learnFromButton.visible = self._learn_from is not None and written.volume_node is not None
        self._ui.resultSection.visible = True

    @property
    def is_shown(self) -> bool:
        """Whether there is a result."""
        return self._written is not None

    def clear(self) -> None:
        """Show nothing."""
        self._written = None
        self._ui.resultSection.visible = False
        self._ui.show3DButton.setSegmentationNode(None)

    @staticmethod
    def sentence(written: Written) -> str:
        """The result in one sentence; if nothing was found, why that may be."""
        outcome = written.outcome
        if not outcome.found:
            return _(
                "Nothing was found. The scan may not show these organs, or may not be what '{model}' was made for "
                "(modality, orientation, field of view); see the notes below the table."
            ).format(model=outcome.model_title)
        return _("{count} of {total} organs found in {seconds:.0f} s by '{model}' on {device}.").format(
            count=len(outcome.found),
            total=len(outcome.organs),
            seconds=outcome.seconds,
            model=outcome.model_title,
            device=_device(outcome),
        )

    def _go_to(self, ijk: tuple[int, int, int]) -> None:
        if self._written is not None and is_in_scene(self._written.volume_node):
            jump_to_voxel(self._written.volume_node, ijk)

    def _learn(self) -> None:
        if self._written is not None and is_in_scene(self._written.segmentation_node):
            self._learn_from(self._written)

    def _undo(self) -> None:
        self._history.undo()
        self.clear()
        self._status.say(_("The last result was taken back."))


def _device(outcome: SegmentOutcome) -> str:
    return _("the processor") if outcome.device == "cpu" else outcome.device


def _details(outcome: SegmentOutcome) -> str:
    """Where and in which precision the result was computed, and why so; as in the report."""
    text = _("Computed on {device}. {precision}")
    return text.format(device=_device(outcome), precision=outcome.precision_reason).strip()
