"""The combo box of devices: what every computer has at first, later those that passed a small run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.nodes.segment_session import SessionEvent
from HSAMSegmentLib.slicer.panels.engine import Engine, is_last
from HSAMSegmentLib.slicer.panels.widgets.combo_entries import DEVICES, fill_combo, select_data
from HSAMSegmentLib.slicer.panels.widgets.theme import tip_of
from HSAMSegmentLib.workflows.events import Result
from HSAMSegmentLib.workflows.requests import ProbeRequest


class DeviceList:
    """Probes when its section is opened for the first time, in a worker of its own, once per application."""

    _probed: ClassVar[list[dict[str, Any]]] = []

    def __init__(
        self, combo, section, can_probe: Callable[[], bool], make_engine: Callable[[], Engine] = Engine
    ) -> None:
        """Fill the combo box.

        Args:
            combo: the combo box.
            section: the collapsible section around it.
            can_probe: whether what the probe needs is installed.
            make_engine: makes what runs the probe.
        """
        self._combo = combo
        self._can_probe = can_probe
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._help = combo.toolTip
        self._show("auto")
        section.connect("contentsCollapsed(bool)", self._on_collapsed)

    def select(self, device: str) -> None:
        """Select a device; one that was not tried here (it comes with a scene) is added and kept."""
        if self._combo.findData(device) < 0:
            self._combo.addItem(_("{device} (not tested)").format(device=device), device)
        select_data(self._combo, device)

    def close(self) -> None:
        """End a probe that still runs."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _on_collapsed(self, collapsed: bool) -> None:
        if collapsed or self._probed or self._engine is not None or not self._can_probe():
            return
        self._combo.toolTip = _("Trying the graphics cards of this computer...")
        self._engine = self._make_engine()
        self._engine.start_request(ProbeRequest(), self._on_event)

    def _on_event(self, event: SessionEvent) -> None:
        if not is_last(event):
            return
        if isinstance(event, Result):
            self._probed.extend(event.values["devices"])
        self.close()
        self._show(self._combo.currentData)

    def _show(self, selected: str) -> None:
        """List what works; the others are named, with their reason, in the tooltip."""
        others = [device for device in self._probed if device["name"] != "cpu"]
        working = [(f"{device['title']} ({device['name']})", device["name"]) for device in others if device["works"]]
        was_blocked = self._combo.blockSignals(True)
        fill_combo(self._combo, [*DEVICES, *working])
        self.select(selected)
        self._combo.blockSignals(was_blocked)
        self._combo.toolTip = tip_of([self._help, *(item["sentence"] for item in others if not item["works"])])
