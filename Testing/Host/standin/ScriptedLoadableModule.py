"""Stand-in for `slicer.ScriptedLoadableModule`: the four base classes of scripted modules, without developer tools."""

from __future__ import annotations

import importlib
import logging
import os
import unittest

import qt
import slicer

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


def _module_name(instance, suffix=""):
    name = type(instance).__name__
    return name[: -len(suffix)] if suffix and name.endswith(suffix) else name


class ScriptedLoadableModule:
    """What the application knows of a module."""

    def __init__(self, parent):
        self.parent = parent
        self.moduleName = _module_name(self)
        parent.title = parent.helpText = parent.acknowledgementText = ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage=None):
        return ""

    def runTest(self, msec=100, **options):
        module = importlib.import_module(self.__module__)
        test = getattr(module, self.moduleName + "Test")()
        test.messageDelay = msec
        test.runTest(**options)


class ScriptedLoadableModuleWidget:
    """The panel of a module."""

    def __init__(self, parent=None):
        self.moduleName = _module_name(self, "Widget")
        self.developerMode = False
        makes_own_parent = parent is None
        if makes_own_parent:
            parent = slicer.qMRMLWidget()
            parent.setLayout(qt.QVBoxLayout())
            parent.setMRMLScene(slicer.mrmlScene)
        self.parent = parent
        self.layout = parent.layout()
        if makes_own_parent:
            self.setup()
            parent.show()

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self):
        """For the module to fill."""

    def cleanup(self):
        """For the module to fill."""

    def enter(self):
        """For the module to fill."""

    def exit(self):
        """For the module to fill."""


class ScriptedLoadableModuleLogic:
    """What a module does."""

    def __init__(self, parent=None):
        self.moduleName = _module_name(self, "Logic")
        self.isSingletonParameterNode = True

    def createParameterNode(self):
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node

    def getAllParameterNodes(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def getParameterNode(self):
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        else:
            node = next(iter(self.getAllParameterNodes()), None)
        return node if node is not None else slicer.mrmlScene.AddNode(self.createParameterNode())


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The self test of a module."""

    messageDelay = 0

    def __init__(self, *arguments, **options):
        super().__init__(*(arguments or ("runTest",)), **options)

    def delayDisplay(self, message, *arguments, **options):
        logging.info(message)
        slicer.app.processEvents()

    def runTest(self):
        for name in sorted(dir(self)):
            if name.startswith("test") and callable(getattr(self, name)):
                self.setUp()
                getattr(self, name)()
                self.tearDown()
