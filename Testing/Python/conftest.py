"""Fixtures shared by all tests: where the golden files and the real scans are, and small real things."""

from __future__ import annotations

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
