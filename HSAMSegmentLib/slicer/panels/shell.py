"""The module's panel: a row of tabs, each built when it is opened for the first time."""

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
        """Make the tabs and build the first tab.

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
        self.widget.connect("currentChanged(int)", self._on_tab)
        self._engine = engine
        self._on_tab(0)
        engine.when_idle = self._on_idle

    def open(self, key: str) -> Tab:
        """Bring a tab into sight."""
        self.widget.setCurrentIndex([entry.key for entry in self._entries].index(key))
        return self._built_tabs[key]

    def enter(self) -> None:
        """The user came back to the module, or the scene is a new one."""
        if self._shown is not None:
            self._shown.show_parameters(self._parameter_node())

    def exit(self) -> None:
        """The user left the module."""
        if self._shown is not None:
            self._shown.exit()

    def leave_scene(self) -> None:
        """The scene is about to be closed."""
        for tab in self._built_tabs.values():
            tab.leave_scene()

    def close(self) -> None:
        """The panel goes away."""
        self._engine.when_idle = None
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
        self._fit_height(index)
        self._shown = self._built(index)
        self._shown.show_parameters(self._parameter_node())

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

    def _fit_height(self, shown: int) -> None:
        """Let only the page in sight ask for room: a stack is otherwise as high as its highest page."""
        for index, page in enumerate(self._pages):
            policy = qt.QSizePolicy.Preferred if index == shown else qt.QSizePolicy.Ignored
            page.setSizePolicy(qt.QSizePolicy.Preferred, policy)

    def _load_form(self, name: str):
        widget = slicer.util.loadUI(self._form_path(name))
        widget.setMRMLScene(slicer.mrmlScene)
        return widget
