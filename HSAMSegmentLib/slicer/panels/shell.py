"""The module's panel: a row of tabs, each built when it is opened first, and what they hear of the scene."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import qt
import slicer

from HSAMSegmentLib.slicer.panels.dependencies import Dependencies
from HSAMSegmentLib.slicer.panels.engine import Engine
from HSAMSegmentLib.slicer.panels.tabs import TABS, Tab, TabContext, TabEntry
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs, SlicerDialogs
from HSAMSegmentLib.slicer.panels.widgets.model_list import ModelSource, StoreModels

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


class Shell:
    """Owns the tabs, and tells them what happens to them and to the scene."""

    def __init__(
        self,
        engine: Engine,
        form_path: Callable[[str], str],
        parameter_node: Callable[[], Any],
        *,
        tabs: tuple[TabEntry, ...] = TABS,
        models: ModelSource | None = None,
        dialogs: Dialogs | None = None,
    ) -> None:
        """Make the tabs and build the first one; it shows the scene when the user enters the module.

        Args:
            engine: runs the jobs.
            form_path: path of a form, given its file name.
            parameter_node: the parameter node of the current scene.
            tabs: which tabs there are.
            models: where the list of models comes from.
            dialogs: asks the user.
        """
        self._form_path = form_path
        self._parameter_node = parameter_node
        self._entries = tabs
        self._built_tabs: dict[str, Tab] = {}
        dialogs = dialogs or SlicerDialogs()
        self._context = TabContext(
            engine=engine,
            models=models or StoreModels(),
            dialogs=dialogs,
            dependencies=Dependencies(dialogs),
            load_form=self._load_form,
            open_tab=self.open,
        )
        self.widget = qt.QTabWidget()
        self._pages = [self._add_page(entry) for entry in tabs]
        self._shown: Tab | None = None
        self._is_entered = False
        self.widget.connect("currentChanged(int)", self._on_tab)
        self._engine = engine
        self._on_tab(0)
        engine.when_idle = self._on_idle
        self._watch = SceneWatch(self._on_scene)

    def open(self, key: str) -> Tab:
        """Bring a tab into sight."""
        self.widget.setCurrentIndex([entry.key for entry in self._entries].index(key))
        return self._built_tabs[key]

    def enter(self) -> None:
        """The user came to the module."""
        self._is_entered = True
        self.show_scene()

    def show_scene(self) -> None:
        """The scene is a new one. Out of sight nothing is done: a parameter node would be made in every scene."""
        if self._is_entered and self._shown is not None:
            self._shown.show_parameters(self._parameter_node())

    def exit(self) -> None:
        """The user left the module."""
        self._is_entered = False
        if self._shown is not None:
            self._shown.exit()

    def leave_scene(self) -> None:
        """The scene is about to be closed."""
        for tab in self._built_tabs.values():
            tab.leave_scene()

    def close(self) -> None:
        """The panel goes away."""
        self._engine.when_idle = None
        self._watch.close()
        for tab in self._built_tabs.values():
            tab.close()
        self._built_tabs, self._shown = {}, None

    def _add_page(self, entry: TabEntry):
        page = qt.QWidget()
        layout = qt.QVBoxLayout(page)
        layout.setContentsMargins(0, 6, 0, 0)
        index = self.widget.addTab(page, entry.title)
        self.widget.setTabToolTip(index, entry.hint)
        return page

    def _on_tab(self, index: int) -> None:
        if self._shown is not None:
            self._shown.exit()
        self._shown = self._built(index)
        self._fit_height()
        self.show_scene()

    def _on_scene(self) -> None:
        if self._is_entered and self._shown is not None:
            self._shown.look_at_scene()

    def _on_idle(self) -> None:
        if self._shown is not None:
            self._shown.refresh()

    def _built(self, index: int) -> Tab:
        entry = self._entries[index]
        if entry.key not in self._built_tabs:
            module, function = entry.builder.split(":")
            tab = getattr(importlib.import_module(module), function)(self._context)
            self._pages[index].layout().addWidget(tab.widget)
            self._built_tabs[entry.key] = tab
        return self._built_tabs[entry.key]

    def _fit_height(self) -> None:
        """Hide the forms of the other pages: a stack asks every page for its height, whatever its size policy."""
        for tab in self._built_tabs.values():
            tab.widget.setVisible(tab is self._shown)

    def _load_form(self, name: str):
        widget = slicer.util.loadUI(self._form_path(name))
        widget.setMRMLScene(slicer.mrmlScene)
        return widget
