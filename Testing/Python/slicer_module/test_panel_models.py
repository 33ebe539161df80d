"""A model that has to be downloaded, the devices of the panel, and a computer that starts no worker."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from fake_server import fake_server
from panel_driver import PanelDriver
from stored_models import LICENSE
from untrained_model import write_untrained_model

pytestmark = pytest.mark.host
DOWNLOADED = "from_server"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with one tiny model; workers find it by the environment variable."""
    from HSAMSegmentLib.weights.catalog import Catalog
    from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store

    home = tmp_path / "store"
    (home / "models").mkdir(parents=True)
    write_untrained_model(home / "models" / "tiny.safetensors", modality="")
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    return Store(catalog=Catalog(()), builtin=home / "none")


@pytest.fixture
def driver(host, scene, store):
    import slicer

    from HSAMSegmentLib.slicer.panels.engine import Engine

    array = np.random.default_rng(0).normal(50, 100, (12, 48, 48)).astype(np.int16)
    slicer.util.addVolumeFromArray(array, np.diag([-3.0, -3.0, 3.0, 1.0]), "Noise")
    driver = PanelDriver(host, Engine(), store)
    yield driver
    driver.close()
    driver.engine.close()


@pytest.fixture
def server():
    with fake_server() as server:
        yield server


def offer(driver, store, server, folder, **behavior):
    """Let a server hold a model, and a catalog know it; returns the bytes of the model."""
    from HSAMSegmentLib.runtime.disk import sha256_of
    from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels
    from HSAMSegmentLib.weights.catalog import CatalogEntry, load_catalog
    from HSAMSegmentLib.weights.store import Store

    source = write_untrained_model(folder / "source.safetensors", DOWNLOADED, title="From a server", modality="")
    size = source.stat().st_size
    entry = CatalogEntry(
        id=DOWNLOADED,
        title="From a server",
        kind="model",
        file_name=f"{DOWNLOADED}.safetensors",
        urls=(server.serve("/model", source.read_bytes(), **behavior),),
        page="https://example.org/",
        size_bytes=size,
        approximate_bytes=size,
        sha256=sha256_of(source),
        license=LICENSE,
        organs=("Liver", "Right kidney"),
    )
    file = folder / "catalog.json"
    file.write_text(json.dumps({"schema_version": 1, "entries": [asdict(entry)]}), encoding="utf-8")
    other = Store(store.folder, catalog=load_catalog(file), builtin=folder / "none")
    driver.panel._models = StoreModels(other, catalog_file=str(file))
    driver.panel.show_parameters(driver.node)
    driver.ui.modelCombo.setCurrentIndex(driver.ui.modelCombo.findData(DOWNLOADED))
    return source.read_bytes()


@pytest.mark.slow
def test_a_click_downloads_the_model_after_a_yes_and_goes_on_to_the_organs(driver, store, server, tmp_path):
    content = offer(driver, store, server, tmp_path)
    assert "will be downloaded" in driver.ui.modelInfoLabel.text
    driver.segment()
    assert len(driver.answers.questions) == 1
    assert (store.models_folder / f"{DOWNLOADED}.safetensors").read_bytes() == content
    assert "on this computer" in driver.ui.modelInfoLabel.text
    assert "2 of 2 organs found" in driver.status
    report = driver.panel.result._written.outcome.report
    assert driver.ui.resultDetailsLabel.text == f"Computed on the processor. {report['precision_reason']}"


@pytest.mark.slow
def test_a_download_shows_progress_and_a_second_click_cancels_it(driver, store, server, tmp_path):
    offer(driver, store, server, tmp_path, bytes_per_second=20_000.0)
    driver.click(driver.ui.applyButton)
    driver.wait(lambda: driver.ui.progressBar.value > 0)
    driver.click(driver.ui.applyButton)
    driver.wait(seconds=10.0)
    assert driver.status == "Cancelled. Nothing in the scene changed."
    assert not (store.models_folder / f"{DOWNLOADED}.safetensors").exists()
    assert driver.ui.applyButton.enabled


@pytest.mark.slow
def test_a_server_that_refuses_is_said_in_a_sentence_with_details_to_copy(driver, store, server, tmp_path):
    offer(driver, store, server, tmp_path, status=403)
    driver.segment()
    assert "403" in driver.status
    driver.click(driver.ui.copyDetailsButton)
    assert "DownloadError" in driver.answers.clipboard


@pytest.mark.slow
def test_devices_are_tried_in_the_background_when_the_section_is_opened_and_only_once(driver, monkeypatch):
    from HSAMSegmentLib.slicer.panels.widgets.device_list import DeviceList

    monkeypatch.setattr(DeviceList, "_probed", [])
    combo, section = driver.ui.deviceCombo, driver.ui.advancedSection
    assert [combo.itemData(row) for row in range(combo.count)] == ["auto", "cpu"]
    section.collapsed = False
    assert driver.ui.applyButton.enabled, "the probe runs beside the panel's own jobs"
    driver.wait(lambda: DeviceList._probed)
    assert DeviceList._probed[-1]["name"] == "cpu"
    assert DeviceList._probed[-1]["works"]
    working = [device["name"] for device in DeviceList._probed if device["works"] and device["name"] != "cpu"]
    assert [combo.itemData(row) for row in range(combo.count)] == ["auto", "cpu", *working]
    section.collapsed = True
    section.collapsed = False
    assert driver.panel.devices._engine is None


def test_a_device_of_another_computer_comes_with_the_scene_and_is_kept(driver):
    from HSAMSegmentLib.slicer.nodes.parameter_node import PanelSettings, ParameterNode

    ParameterNode(driver.node).settings = PanelSettings(device="cuda:3")
    driver.panel.show_parameters(driver.node)
    assert driver.ui.deviceCombo.currentText == "cuda:3 (not tested)"
    assert ParameterNode(driver.node).settings.device == "cuda:3"


@pytest.mark.slow
def test_where_no_process_can_be_started_the_job_runs_in_a_thread_and_the_panel_says_so(driver, tmp_path, monkeypatch):
    from HSAMSegmentLib.worker import process_runner

    not_a_program = tmp_path / "python"
    not_a_program.write_text("no program")
    monkeypatch.setattr(process_runner, "worker_python", lambda: str(not_a_program))
    driver.segment()
    assert "2 of 2 organs found" in driver.status
    assert "No worker process could be started" in driver.ui.warningLabel.text
    assert driver.engine._session._runner.worker_pid is None
