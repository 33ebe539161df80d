"""Importing and exporting models from the panel: a worker hashes and copies, the application goes on."""

from __future__ import annotations

import numpy as np
import pytest
from finetune_panel_driver import FinetunePanelDriver
from large_models import write_large_model
from panel_driver import PanelDriver
from stored_models import adapter_file, catalog, encoder_entry, encoder_file, model_entry
from untrained_model import write_untrained_model

pytestmark = [pytest.mark.host, pytest.mark.slow]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store; workers find it by the environment variable, too."""
    from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store

    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "store"))
    return Store()


@pytest.fixture
def finetune(host, scene, store):
    driver = FinetunePanelDriver(host, store)
    yield driver
    driver.close()


@pytest.fixture
def segment(host, scene, store):
    import slicer

    from HSAMSegmentLib.slicer.panels.engine import Engine

    slicer.util.addVolumeFromArray(np.zeros((4, 8, 8), np.int16), np.eye(4), "Scan")
    driver = PanelDriver(host, Engine(), store)
    yield driver
    driver.close()
    driver.engine.close()


@pytest.fixture
def not_in_this_process(monkeypatch):
    """Hashing and copying fail in this process; the worker does not know of it."""
    from HSAMSegmentLib.weights import exporting, importing

    def refuse(*arguments, **options):
        raise AssertionError("done in the process of the panel")

    monkeypatch.setattr(importing, "sha256_of", refuse)
    monkeypatch.setattr(importing, "copy_stream", refuse)
    monkeypatch.setattr(exporting, "copy_stream", refuse)


def wait(driver):
    driver.wait(lambda: not driver.tab.models.is_busy, seconds=60.0)


def test_a_worker_imports_and_exports(finetune, store, tmp_path, not_in_this_process):
    source = write_untrained_model(tmp_path / "source.safetensors", title="From Anna")
    finetune.answers.path = str(source)
    finetune.click(finetune.ui.importButton)
    assert finetune.tab.models.is_busy
    wait(finetune)
    assert "'From Anna' was imported" in finetune.status
    assert finetune.ui.myModelCombo.currentText == "From Anna"
    assert finetune.ui.startCombo.findData("tiny") >= 0
    finetune.answers.path = str(tmp_path / "copy.safetensors")
    finetune.click(finetune.ui.exportButton)
    wait(finetune)
    assert "one file is all" in finetune.status
    assert (tmp_path / "copy.safetensors").read_bytes() == source.read_bytes()
    assert finetune.ui.exportButton.text == "Export..."


def test_a_second_click_cancels_an_import_and_nothing_is_kept(finetune, store, tmp_path):
    finetune.answers.path = str(write_large_model(tmp_path / "large.safetensors"))
    finetune.click(finetune.ui.importButton)
    finetune.wait(lambda: finetune.ui.finetuneProgressBar.visible, seconds=60.0)
    assert finetune.ui.importButton.text == "Cancel"
    assert not finetune.ui.exportButton.enabled
    finetune.click(finetune.ui.importButton)
    finetune.wait(lambda: not finetune.tab.models.is_busy, seconds=10.0)
    assert finetune.status == "Cancelled. The list of models is as it was."
    assert finetune.ui.importButton.text == "Import..."
    assert finetune.ui.importButton.enabled
    assert not store.folder.exists()


def test_closing_the_panel_ends_a_running_import(finetune, store, tmp_path):
    finetune.answers.path = str(write_large_model(tmp_path / "large.safetensors"))
    finetune.click(finetune.ui.importButton)
    finetune.wait(lambda: finetune.ui.finetuneProgressBar.visible, seconds=60.0)
    finetune.tab.close()
    assert not finetune.tab.models.is_busy
    assert not store.folder.exists()


def test_an_official_model_is_exported_by_the_worker(host, scene, store, parity_folder, tmp_path, monkeypatch):
    import json
    from dataclasses import asdict

    from HSAMSegmentLib.slicer.panels.widgets.model_list import StoreModels
    from HSAMSegmentLib.weights import loading
    from HSAMSegmentLib.weights.bundle import read_manifest
    from HSAMSegmentLib.weights.store import Store

    encoder = encoder_file(parity_folder, tmp_path)
    known = catalog(encoder_entry(encoder), model_entry())
    own = Store(catalog=known)
    own.import_file(encoder)
    own.import_file(adapter_file(parity_folder, tmp_path))
    entries = [
        {**asdict(entry), "manifest": None if entry.manifest is None else json.loads(entry.manifest.to_json())}
        for entry in known
    ]
    file = tmp_path / "catalog.json"
    file.write_text(json.dumps({"schema_version": 1, "entries": entries}), encoding="utf-8")

    def refuse(*arguments, **options):
        raise AssertionError("loaded in the process of the panel")

    monkeypatch.setattr(loading, "load_model", refuse)
    driver = FinetunePanelDriver(host, own)
    try:
        driver.tab.models._models = StoreModels(own, catalog_file=str(file))
        driver.tab.models.show("tiny_model")
        driver.answers.path = str(tmp_path / "shared.safetensors")
        driver.click(driver.ui.exportButton)
        wait(driver)
        assert "also needs the encoder 'custom'" in driver.status
        assert read_manifest(tmp_path / "shared.safetensors").id == "tiny_model"
    finally:
        driver.close()


def test_the_segment_tab_imports_in_the_worker_and_selects_the_model(segment, store, tmp_path, not_in_this_process):
    segment.answers.path = str(write_untrained_model(tmp_path / "source.safetensors", title="From Anna"))
    segment.click(segment.ui.importModelButton)
    assert not segment.ui.importModelButton.enabled
    segment.wait()
    assert "'From Anna' was imported." in segment.status
    assert segment.ui.modelCombo.currentText == "From Anna"
    assert segment.ui.importModelButton.enabled


def test_the_segment_tab_says_why_a_file_is_refused_and_cancels(segment, store, tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"nothing of use")
    segment.answers.path = str(tmp_path / "broken.pth")
    segment.click(segment.ui.importModelButton)
    segment.wait()
    assert "broken.pth" in segment.status
    segment.answers.path = str(write_large_model(tmp_path / "large.safetensors"))
    segment.click(segment.ui.importModelButton)
    segment.wait(lambda: segment.ui.progressBar.visible)
    segment.click(segment.ui.applyButton)
    segment.wait(seconds=10.0)
    assert segment.status == "Cancelled. Nothing in the scene changed."
    assert not store.folder.exists()


def test_where_no_process_can_be_started_the_import_runs_in_a_thread(finetune, store, tmp_path, monkeypatch):
    from HSAMSegmentLib.worker import process_runner

    not_a_program = tmp_path / "python"
    not_a_program.write_text("no program")
    monkeypatch.setattr(process_runner, "worker_python", lambda: str(not_a_program))
    finetune.answers.path = str(write_untrained_model(tmp_path / "source.safetensors", title="From Anna"))
    finetune.click(finetune.ui.importButton)
    wait(finetune)
    assert "'From Anna' was imported" in finetune.status
    assert store.find("tiny").is_present
