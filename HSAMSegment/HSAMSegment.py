"""HSAMSegment, the scripted module: what Slicer needs to know of it; everything else is in `HSAMSegmentLib`."""

from __future__ import annotations

import os
import sys

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

DOCUMENTATION = "https://github.com/HSAMSegment/HSAMSegment/blob/main/Docs"


def _make_library_importable() -> None:
    """Installed, the library lies beside this file; in a source tree it lies one folder up."""
    here = os.path.dirname(os.path.abspath(__file__))
    for folder in (here, os.path.dirname(here)):
        if os.path.isdir(os.path.join(folder, "HSAMSegmentLib")):
            if folder not in sys.path:
                sys.path.append(folder)
            return


_make_library_importable()

from HSAMSegmentLib.slicer.scripting.logic import ScriptingLogic  # noqa: E402 - the library is found only now


class HSAMSegment(ScriptedLoadableModule):
    """Name, place and help of the module."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("HSAM Segment")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations"]
        parent.contributors = ["HSAMSegment maintainers"]
        parent.helpText = _(
            "Segments organs in CT and MR scans with one click and no prompt. Choose a scan and a model, click "
            "<b>Segment organs</b>. For research only, not for clinical decisions.<br>"
            '<a href="{pages}/tutorial.md">Tutorial</a> · <a href="{pages}/troubleshooting.md">Troubleshooting</a>'
        ).format(pages=DOCUMENTATION)
        parent.acknowledgementText = _(
            "Methods: H-SAM (Cheng et al., CVPR 2024, arXiv 2403.18271), AutoSAM (Hu et al., arXiv 2306.13731) and "
            "Segment Anything (Kirillov et al., ICCV 2023). Please cite them, and the model that you used."
        )
        slicer.app.connect("startupCompleted()", self._after_startup)

    def _after_startup(self):
        from HSAMSegmentLib.slicer.nodes.startup import register_sample_data, register_terminology

        register_terminology()
        register_sample_data(self.resourcePath("Icons/HSAMSegment.png"))


class HSAMSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Puts the panel into the application and tells it what happens to the scene."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.shell = None

    def setup(self):
        """Build the panel at the first visit: its tabs, and what is on the first one."""
        super().setup()
        from HSAMSegmentLib.slicer.panels.shell import Shell

        self.logic = HSAMSegmentLogic()
        self.shell = Shell(
            self.logic.engine, lambda name: self.resourcePath(f"UI/{name}"), lambda: self.logic.getParameterNode()
        )
        self.layout.addWidget(self.shell.widget)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._on_scene_start_close)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._on_scene_end_close)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._on_scene_end_close)
        if self._is_in_sight():  # made anew by a reload, after which the application does not enter the module again
            self.enter()

    def enter(self):
        """The user switched to the module."""
        if self.shell is not None:
            self.shell.enter()

    def exit(self):
        """The user switched to another module; a running job goes on."""
        if self.shell is not None:
            self.shell.exit()

    def cleanup(self):
        """The application ends, or the module is reloaded."""
        self.removeObservers()
        if self.shell is not None:
            self.shell.close()
        if self.logic is not None:
            self.logic.close()

    def onReload(self):
        """Reload the library with the module, which developers expect."""
        for name in [name for name in sys.modules if name.split(".")[0] == "HSAMSegmentLib"]:
            del sys.modules[name]
        super().onReload()

    def _is_in_sight(self) -> bool:
        entered = getattr(self.parent, "isEntered", False)
        return bool(entered() if callable(entered) else entered)

    def _on_scene_start_close(self, caller, event):
        self.shell.leave_scene()

    def _on_scene_end_close(self, caller, event):
        self.shell.show_scene()


class HSAMSegmentLogic(ScriptedLoadableModuleLogic, ScriptingLogic):
    """All that the panel can do, for scripts (see Docs/scripting.md); the panel uses the same engine.

    Example::

        logic = HSAMSegmentLogic()
        finished = logic.segmentAndWait(volumeNode, model="abdomen-mr")
        print(finished.segmentation_node.GetName(), [organ.volume_ml for organ in finished.outcome.found])
        logic.close()
    """

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        ScriptingLogic.__init__(self)


class HSAMSegmentTest(ScriptedLoadableModuleTest):
    """The self test, the same code in Slicer and in the headless host; a test that cannot run is skipped with why."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def tearDown(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        """Run all tests, for the reload panel and the list of self tests; unittest itself runs them one by one."""
        from HSAMSegmentLib.slicer.self_test import run_all

        run_all(self, self.delayDisplay)

    def test_the_module_is_there(self):
        assert hasattr(slicer.modules, "hsamsegment")
        assert not HSAMSegmentLogic().isBusy()

    def test_the_engine_is_imported_without_torch(self):
        from HSAMSegmentLib.slicer.self_test import check_engine_imports_without_torch

        check_engine_imports_without_torch()

    def test_the_geometry_of_a_scan_is_read_exactly(self):
        from HSAMSegmentLib.slicer.self_test import check_geometry

        check_geometry()

    def test_a_phantom_is_segmented(self):
        from HSAMSegmentLib.slicer.panels.dependencies import Dependencies
        from HSAMSegmentLib.slicer.panels.widgets.dialogs import SlicerDialogs
        from HSAMSegmentLib.slicer.self_test import check_segmentation

        missing = Dependencies(SlicerDialogs()).missing()
        if missing:
            self.skipTest(f"not installed: {', '.join(missing)}")
        check_segmentation(HSAMSegmentLogic(), self.delayDisplay)
