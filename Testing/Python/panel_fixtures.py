"""Fixtures for tests of the panel: a store with one tiny model, an engine, a real scan, and the panel on them."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest
from panel_driver import PanelDriver
from untrained_model import write_untrained_model


@contextmanager
def store_of_one_model(home, **facts):
    """A store with one tiny model, of which these facts are known; the worker finds it by the environment variable."""
    from HSAMSegmentLib.weights.catalog import Catalog
    from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store

    (home / "models").mkdir()
    write_untrained_model(home / "models" / "tiny.safetensors", **facts)
    before = os.environ.get(HOME_VARIABLE)
    os.environ[HOME_VARIABLE] = str(home)
    yield Store(catalog=Catalog(()), builtin=home / "none")
    os.environ.pop(HOME_VARIABLE)
    if before is not None:
        os.environ[HOME_VARIABLE] = before


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The store that the panel looks into."""
    with store_of_one_model(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module")
def engine(host, store):
    """One engine for all tests, so that its worker loads torch once."""
    from HSAMSegmentLib.slicer.panels.engine import Engine

    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture
def ct_scan(scene, data_folder):
    """A real scan in the scene."""
    import slicer

    path = data_folder / "ct_totalsegmentator" / "images" / "ct_example_30.nii.gz"
    return slicer.util.loadVolume(str(path), {})


@pytest.fixture
def driver(host, engine, store, ct_scan):
    """The panel, with the scan chosen."""
    driver = PanelDriver(host, engine, store)
    yield driver
    if engine.is_busy:
        engine.cancel()
        driver.wait()
    driver.close()
