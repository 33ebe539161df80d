"""Fixtures shared by all tests: where the golden files and the real scans are, and small real things."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from tested_and_not import (  # noqa: F401 (hooks of pytest)
    pytest_configure,
    pytest_deselected,
    pytest_sessionfinish,
    pytest_testnodedown,
    pytest_unconfigure,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"
TEST_DATA = REPOSITORY / "Testing" / "Data"


def _use_phantoms() -> bool:
    """Whether the development scans are absent, or shall not be looked at."""
    return os.environ.get("HSAMSEGMENT_TEST_DATA") == "phantom" or not (SHARED / "data").is_dir()


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """Golden outputs of the official models."""
    return TEST_DATA / "parity"


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """Labeled scans: the development scans beside the project, or phantoms in their layout."""
    if not _use_phantoms():
        return SHARED / "data"
    from filelock import FileLock
    from phantom_data import write_phantom_data

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all processes of this run: one writes, the others wait and read
    with FileLock(folder / "data.lock"):
        if not (folder / "data").is_dir():
            half = tmp_path_factory.mktemp("half")
            write_phantom_data(half, TEST_DATA / "ct_totalsegmentator").rename(folder / "data")
    return folder / "data"


@pytest.fixture(scope="session")
def real_data_folder() -> Path:
    """Labeled scans of patients, for what phantoms cannot show."""
    if _use_phantoms():
        pytest.skip("needs scans of patients, which may not be passed on with the project")
    return SHARED / "data"


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
            pytest.skip(f"{package} is not installed; it comes with the extra 'host', where it has builds")
    if ctypes.util.find_library("EGL") is None:
        pytest.skip("libEGL is not installed; the views of the host need it")
    # Triton, a part of PyTorch for CUDA, crashes if it is loaded after the LLVM of Mesa, which the views load.
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton")
    sys.path.insert(0, str(REPOSITORY / "Testing" / "Host"))
    from slicerhost import start_host

    return start_host()


@pytest.fixture
def scene(host):
    """The empty scene of the host."""
    host.scene.Clear(0)
    yield host.scene
    host.scene.Clear(0)
