"""Fixtures shared by all tests: where the golden files and the real scans are, and small real things."""

from __future__ import annotations

import ctypes.util
import importlib.util
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"


def _shared_folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the folder ../shared/{name} is not beside the project; it holds the data of this test")
    return folder


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """Golden outputs of the official models."""
    return _shared_folder("parity")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real labelled scans."""
    return _shared_folder("data")


@pytest.fixture(scope="module")
def one_thread():
    """Torch on one thread, so that the same training gives the same weights on every machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def host():
    """The headless Slicer of this process."""
    for package in ("slicer_core", "PySide6"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it comes with the extra 'host'")
    if ctypes.util.find_library("EGL") is None:
        pytest.skip("libEGL is not installed; the views of the host need it")
    sys.path.insert(0, str(REPOSITORY / "Testing" / "Host"))
    from slicerhost import start_host

    return start_host()


@pytest.fixture
def scene(host):
    """The empty scene of the host."""
    host.scene.Clear(0)
    yield host.scene
    host.scene.Clear(0)
