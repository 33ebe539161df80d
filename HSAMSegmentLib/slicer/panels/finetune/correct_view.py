"""Correct and learn: the slices that pay a correction most, the way to the Segment Editor, and the click after it."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.slicer.nodes.navigation import jump_to_voxel, open_in_segment_editor
from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene
from HSAMSegmentLib.slicer.nodes.segmentations.segments import doubts_of, model_of
from HSAMSegmentLib.slicer.panels.widgets.long_words import show_text
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.slicer.panels.widgets.tables import Column, ColumnTable
from HSAMSegmentLib.slicer.panels.widgets.theme import link_color
from HSAMSegmentLib.workflows.events import ending_of


class CorrectView:
    """About the chosen pair of scan and segmentation."""

    def __init__(self, ui, status: StatusLine, learn: Callable[[str], None]) -> None:
        """Take over the widgets; `learn` is called with the id of the model to go on from."""
        self._ui, self._status, self._learn = ui, status, learn
        self._volume = self._segmentation = None
        self._table = ColumnTable(
            ui.doubtTable,
            Column(_("Slice"), lambda doubt: str(doubt.index), color=lambda _row: link_color()),
            Column(_("Organ in doubt"), lambda doubt: doubt.organ, color=lambda _row: link_color(), is_stretched=True),
            Column(_("Confidence"), lambda doubt: f"{100 * doubt.confidence:.0f} %"),
            most=6,
        )
        ui.doubtTable.connect("cellClicked(int,int)", self._on_click)
        ui.correctButton.connect("clicked()", self._correct)
        ui.learnButton.connect("clicked()", lambda: self._learn(model_of(self._segmentation)))

    def show(self, volume_node, segmentation_node, title_of: Callable[[str], str]) -> None:
        """Show what is worth correcting in this pair.

        Args:
            volume_node: the scan.
            segmentation_node: its segmentation.
            title_of: title of a model by its id.
        """
        self._volume, self._segmentation = volume_node, segmentation_node
        model = model_of(segmentation_node)
        self._ui.correctSection.visible = bool(model) and volume_node is not None
        self._table.show(doubts_of(segmentation_node))
        self._ui.doubtTable.visible = bool(self._table.rows)
        if model:
            sentence = _("'{name}' was made by '{model}'.").format(
                name=segmentation_node.GetName(), model=title_of(model)
            )
            if self._table.rows:
                sentence += " " + _("A correction of these slices helps it most:")
            show_text(self._ui.correctLabel, sentence)

    def _on_click(self, row: int, _column: int) -> None:
        if is_in_scene(self._volume):
            jump_to_voxel(self._volume, self._table.rows[row].position_ijk)

    def _correct(self) -> None:
        try:
            open_in_segment_editor(self._segmentation, self._volume)
        except HSAMSegmentError as error:
            self._status.fail(ending_of(error))
