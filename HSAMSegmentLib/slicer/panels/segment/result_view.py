"""The result section: the table, the way to each organ, 3D, the report and undo."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.nodes.navigation import jump_to_voxel
from HSAMSegmentLib.slicer.nodes.segment_session import Written, is_in_scene
from HSAMSegmentLib.slicer.nodes.undo import SegmentationHistory
from HSAMSegmentLib.slicer.panels.segment.result_actions import ResultActions
from HSAMSegmentLib.slicer.panels.segment.result_table import ResultTable
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.long_words import show_text
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.workflows.segment.outcome import SegmentOutcome
from HSAMSegmentLib.workflows.segment.review import summary


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
