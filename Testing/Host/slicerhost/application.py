"""Stand-in for the application: `slicer.app`, `slicer.modules`, and the way modules are loaded and opened."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import types

import qt  # before slicer.util, which imports it by name
import slicer
from PySide6.QtCore import qInstallMessageHandler

from slicerhost import HOST_FOLDER
from slicerhost.io_manager import IOManager
from slicerhost.layout import LayoutManager
from slicerhost.looks import LIGHT, SlicerStyle, palette
from slicerhost.scene import LOGICS, SceneHost
from slicerhost.signals import TextSignals

# a .ui file's connections between C++ signals that the stand-ins make in Python; a platform without windows
_HARMLESS = ("No such signal", "No such slot", "sender name", "receiver name", "propagateSizeHints")


class CoreModule:
    """What `slicer.modules.<name>` is for a module written in C++: its logic, no panel."""

    def __init__(self, name, logic):
        self.name = self.title = name
        self._logic = logic

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return None


class ScriptedModule:
    """What `slicer.modules.<name>` is for a module written in Python."""

    def __init__(self, name, path):
        self.name, self.path = name, path
        self.title = name
        self.icon, self.hidden = None, False
        self.parent_widget = None

    def logic(self):
        return None

    def widgetRepresentation(self):
        return self.parent_widget

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(self.path), "Resources", filename)


class ModuleManager(TextSignals):
    """Finds modules by name."""

    def module(self, name):
        return getattr(slicer.modules, name.lower(), None)

    def factoryManager(self):
        return self

    def loadedModuleNames(self):
        return [item.name for item in vars(slicer.modules).values() if hasattr(item, "widgetRepresentation")]

    def isLoaded(self, name):
        return name in self.loadedModuleNames()


class Application(TextSignals):
    """The part of `slicer.app` that scripted modules use."""

    applicationName = "Slicer"
    majorVersion, minorVersion, revision = 5, 12, "0"
    slicerHome = ""
    os = "linux"

    def __init__(self, host):
        super().__init__()
        self._host = host
        self._modules = ModuleManager()
        self._io = IOManager(host.scene_host)
        self._layout = LayoutManager(host.scene_host)
        self.temporaryPath = tempfile.gettempdir()

    def coreIOManager(self):
        return self._io

    ioManager = coreIOManager

    def moduleManager(self):
        return self._modules

    def applicationLogic(self):
        return self._host.scene_host.application_logic

    def mrmlScene(self):
        return self._host.scene_host.scene

    def layoutManager(self):
        return self._layout

    def testingEnabled(self):
        return True

    def topLevelWidgets(self):
        return []

    def userSettings(self):
        return qt.QSettings(os.path.join(self._host.scene_host.temporary_folder.name, "s.ini"), qt.QSettings.IniFormat)

    settings = revisionUserSettings = userSettings

    def processEvents(self, *_):
        self._host.qt_application.processEvents()

    def pauseRender(self):
        """Views render only when they are grabbed."""

    resumeRender = restoreOverrideCursor = pauseRender

    def setOverrideCursor(self, *_):
        """There is no cursor."""


class Host:
    """The running stand-in: fills `slicer` and opens modules."""

    def __init__(self):
        self.qt_application = qt.QApplication.instance() or qt.QApplication(["slicerhost"])
        qInstallMessageHandler(self._filter_messages)
        self._style = SlicerStyle()
        self.qt_application.setStyle(self._style)
        self.qt_application.setPalette(palette(LIGHT))
        slicer.__path__.append(str(HOST_FOLDER / "standin"))
        self.scene_host = SceneHost()
        slicer.mrmlScene = self.scene_host.scene
        slicer.qSlicerScriptedLoadableModule = ScriptedModule
        slicer.selfTests, slicer.moduleNames = {}, types.SimpleNamespace()
        slicer.modules = types.SimpleNamespace(
            **{key: CoreModule(name, self.scene_host.logics[key]) for key, (name, _) in LOGICS.items()}
        )
        slicer.app = Application(self)
        importlib.import_module("slicer.util")
        importlib.import_module("ctk")
        importlib.import_module("qmrml")
        slicer.qSlicerScriptedLoadableModuleWidget = importlib.import_module("slicerhost.module_widget").ModuleWidget

    @staticmethod
    def _filter_messages(kind, context, message):
        if not any(part in message for part in _HARMLESS):
            sys.stderr.write(f"Qt: {message}\n")

    @property
    def scene(self):
        return self.scene_host.scene

    def load_module(self, path):
        """Import the scripted module at `path` and register it; returns the Python module."""
        name = os.path.splitext(os.path.basename(path))[0]
        sys.path.insert(0, os.path.dirname(path))
        handle = ScriptedModule(name, str(path))
        setattr(slicer.modules, name.lower(), handle)
        setattr(slicer.moduleNames, name, name)
        module = importlib.import_module(name)
        setattr(slicer.modules, f"{name}Instance", getattr(module, name)(handle))
        slicer.app.emit("startupCompleted()")
        slicer.app.disconnect("startupCompleted()")  # an application starts once; a module loaded later hears its own
        self.process_events()
        return module

    def open_module(self, name, size=(480, 900)):
        """Create the panel of a loaded module as the first visit does; returns the widget object of the module."""
        parent = slicer.qSlicerScriptedLoadableModuleWidget(name)
        getattr(slicer.modules, name.lower()).parent_widget = parent
        parent.resize(*size)
        parent.reload()
        parent.enter()
        parent.show()
        self.process_events()
        return parent.self()

    def close_module(self, name):
        """End the panel of a module as the end of the application does; without this it goes on watching the scene."""
        parent = getattr(slicer.modules, name.lower()).parent_widget
        parent.self().cleanup()
        parent.setMRMLScene(None)
        parent.hide()
        parent.deleteLater()
        self.process_events()

    def show_in_panel(self, widget, width=510, height=720, colors=LIGHT):
        """Put a module's widget into a module panel as the application has it; returns the panel.

        Args:
            widget: what `open_module` returned.
            width: of the dock in pixels.
            height: of the dock in pixels; 720 is a small screen.
            colors: `LIGHT` or `DARK`, for the whole application.
        """
        from slicerhost.module_panel import ModulePanel

        self.use_colors(colors)
        panel = ModulePanel(widget.parent, width, height)
        panel.show()
        self.process_events()
        return panel

    def use_colors(self, colors):
        """Take the light or the dark palette, for all widgets that are there and those to come."""
        self.qt_application.setPalette(palette(colors))

    def process_events(self):
        """Let Qt do what is waiting."""
        self.qt_application.processEvents()

    def load_scene(self, filename):
        """Replace the scene by that of a file."""
        return slicer.app.coreIOManager().load_scene(str(filename), True)

    def save_scene(self, filename):
        """Save the scene to a `.mrb` or `.mrml` file."""
        return slicer.app.coreIOManager().save_scene(str(filename))
