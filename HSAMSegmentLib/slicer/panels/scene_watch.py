"""Notices that nodes came into the scene or left it."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer

DELAY_MS = 100


class SceneWatch:
    """Tells a moment later that nodes came or went: often they come many at once, and without content at first."""

    def __init__(self, tell: Callable[[], None]) -> None:
        """Watch the scene of the application until `close`; `tell` is called on the main thread."""
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.connect("timeout()", tell)
        events = (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent)
        self._observations = [slicer.mrmlScene.AddObserver(event, self._on_scene) for event in events]

    def close(self) -> None:
        """Watch no longer."""
        for tag in self._observations:
            slicer.mrmlScene.RemoveObserver(tag)
        self._observations = []
        self._timer.stop()

    def _on_scene(self, _caller, _event) -> None:
        self._timer.start()
