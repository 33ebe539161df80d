"""The list of the scans of a folder that are most useful to correct, and the button that makes it."""

from __future__ import annotations

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.serialization import from_plain
from HSAMSegmentLib.slicer.nodes.folder_results import LoadedScan
from HSAMSegmentLib.slicer.nodes.segment_session import SessionEvent
from HSAMSegmentLib.slicer.panels.tabs import TabContext
from HSAMSegmentLib.slicer.panels.widgets.long_words import one_line
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.slicer.panels.widgets.theme import tip_of
from HSAMSegmentLib.workflows.events import Cancelled, Failed, Result, ending_of
from HSAMSegmentLib.workflows.segment_folder.folder_request import BatchRow
from HSAMSegmentLib.workflows.suggest.suggest_request import SuggestedScan, Suggestions, SuggestRequest

SUGGESTED = 10
_LEAST_PIXELS, _MOST_PIXELS = 40, 300


class UsefulScans:
    """Asks for suggestions on the engine that all tabs share, lists them, and shows the one that is clicked.

    Args:
        ui: the form, with `usefulButton` and `usefulList`.
        context: engine and what else tabs share.
        status: the line below the button.
        request: what to ask for now.
        row_of: what the batch knows of a scan, its result included.
        on_change: told when it starts or ends.
    """

    def __init__(
        self,
        ui,
        context: TabContext,
        status: StatusLine,
        request: Callable[[], SuggestRequest],
        row_of: Callable[[SuggestedScan], BatchRow],
        on_change: Callable[[], None],
    ) -> None:
        self._ui = ui
        self._context = context
        self._status = status
        self._request = request
        self._row_of = row_of
        self._on_change = on_change
        self._scans: tuple[SuggestedScan, ...] = ()
        self._loaded: dict[int, LoadedScan] = {}
        self.is_running = False
        ui.usefulList.visible = False
        ui.usefulList.setWordWrap(True)
        ui.usefulList.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        ui.usefulList.setAlternatingRowColors(True)
        ui.usefulButton.connect("clicked()", self._on_click)
        ui.usefulList.connect("currentRowChanged(int)", self._on_row)

    def refresh(self, problem: str) -> None:
        """Turn the button on or off; `problem` says what is in the way."""
        button = self._ui.usefulButton
        if self.is_running:
            button.text, button.enabled = _("Cancel"), True
            return
        button.text, button.enabled = _("Most useful to correct"), not problem
        button.toolTip = problem or _(
            "List the scans from which the model would learn most: those it is uncertain of, and that differ from the "
            "others. Correct these first, and fine-tune with them."
        )

    def forget(self) -> None:
        """The scene or the panel is closed: nothing that comes later is shown."""
        if self.is_running:
            self._context.engine.cancel()
        self.is_running = False
        self._scans, self._loaded = (), {}
        self._ui.usefulList.clear()
        self._ui.usefulList.visible = False

    def _on_click(self) -> None:
        if self.is_running:
            self._context.engine.cancel()
            self._ui.usefulButton.enabled = False
            return
        try:
            self._context.dependencies.ensure()
            self._context.engine.start_request(self._request(), self._on_event)
            self.is_running = True
        except (HSAMSegmentError, OSError) as error:
            self._status.fail(ending_of(error))
        self._on_change()

    def _on_event(self, event: SessionEvent) -> None:
        if not self.is_running:
            return
        if isinstance(event, Progress):
            self._status.show_progress(event)
        elif isinstance(event, (Result, Failed, Cancelled)):
            self.is_running = False
            self._on_end(event)
            self._on_change()

    def _on_end(self, event: SessionEvent) -> None:
        if isinstance(event, Failed):
            self._status.fail(event)
        elif isinstance(event, Result):
            self._show(from_plain(Suggestions, event.values))
        else:
            self._status.say(_("Cancelled."))

    def _show(self, found: Suggestions) -> None:
        self._scans, self._loaded = (), {}
        scans_list = self._ui.usefulList
        scans_list.clear()
        for item in found.scans:
            name = one_line(f"{item.rank}. {item.name}", scans_list)
            scans_list.addItem("\n".join((name, " ".join(item.reasons))))
            scans_list.item(scans_list.count - 1).setToolTip(tip_of((item.name, *item.reasons)))
        scans_list.visible = True
        self._fit()
        self._scans = found.scans
        text = _("{count} scans compared; the most useful to correct come first.").format(count=found.looked_at)
        if found.failed:
            text += " " + _("{count} could not be read.").format(count=len(found.failed))
        self._status.say(text)

    def _fit(self) -> None:
        """As high as its first rows; reasons take as many lines as they need."""
        scans_list = self._ui.usefulList
        scans_list.doItemsLayout()
        rows = [scans_list.visualItemRect(scans_list.item(row)).height() for row in range(scans_list.count)]
        scans_list.setFixedHeight(min(max(sum(rows), _LEAST_PIXELS), _MOST_PIXELS) + 2 * scans_list.frameWidth)

    def _on_row(self, number: int) -> None:
        """Show the scan that was clicked, with its result if the batch has one."""
        if not 0 <= number < len(self._scans):
            return
        for loaded in self._loaded.values():
            loaded.hide()
        try:
            self._loaded.setdefault(number, LoadedScan()).show(self._row_of(self._scans[number]))
        except HSAMSegmentError as error:
            self._status.fail(ending_of(error))
