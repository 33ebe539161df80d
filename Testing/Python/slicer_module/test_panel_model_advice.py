"""The scan chooses the model, until the user does."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.host


class FakeDatabase:
    """What `slicer.dicomDatabase` says of the images of a scan."""

    def __init__(self, values):
        self._values = values

    def instanceValue(self, instance, tag):  # noqa: N802 - as Slicer calls it
        return self._values.get(tag, "")


@pytest.fixture
def built_in_driver(host, scene):
    """The panel with the models of the repository."""
    from panel_driver import PanelDriver

    from HSAMSegmentLib.slicer.panels.engine import Engine
    from HSAMSegmentLib.weights.store import Store

    engine = Engine()
    driver = PanelDriver(host, engine, Store())
    yield driver
    driver.close()
    engine.close()


def add_abdominal_scan(name, modality):
    import slicer

    node = slicer.util.addVolumeFromArray(np.zeros((20, 256, 256), np.int16), np.diag([-1.4, -1.4, 6.0, 1.0]), name)
    node.SetAttribute("DICOM.Modality", modality)
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    return node


def test_the_scan_chooses_the_model_until_the_user_does(built_in_driver, monkeypatch):
    import slicer

    driver, ui = built_in_driver, built_in_driver.ui
    database = FakeDatabase({"0018,0015": "ABDOMEN"})
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    ct, mr = add_abdominal_scan("One", "CT"), add_abdominal_scan("Two", "MR")
    ui.scanSelector.setCurrentNode(mr)
    assert driver.panel.model.id == "abdomen-mr"
    assert "Chosen for this scan (MR, abdomen)." in ui.modelInfoLabel.text
    ui.scanSelector.setCurrentNode(ct)
    assert driver.panel.model.id == "abdomen-ct"
    ui.modelCombo.setCurrentIndex(ui.modelCombo.findData("abdomen-mr"))
    assert "Does not seem to fit this scan: made for MR, not for CT." in ui.modelInfoLabel.text
    database._values["0018,0015"] = "HEART"
    ui.scanSelector.setCurrentNode(mr)
    assert driver.panel.model.id == "abdomen-mr", "the user has the last word"
    driver.panel.show_parameters(driver.node)
    ui.scanSelector.setCurrentNode(ct)
    assert driver.panel.model.id == "abdomen-mr", "also after the tab was left"
