"""Fixtures of the tests of the service: models, scans, and one service that the tests of a module share."""

from __future__ import annotations

import numpy as np
import pytest
from service_program import running_service, zip_of
from small_models import write_bundle
from small_scans import bright_boxes, write_dicom_series, write_scan

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    for package in ("fastapi", "fastapi_offline", "uvicorn", "python_multipart"):
        pytest.importorskip(package, reason="the service needs the extra 'serve'")
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory, models):
    with running_service(tmp_path_factory.mktemp("service"), models, "--model", "tiny") as running:
        yield running


@pytest.fixture(scope="session")
def nifti(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("scan") / "scan.nii.gz").read_bytes()


@pytest.fixture(scope="session")
def long_scan(tmp_path_factory):
    """A scan of so many slices that its job can be watched, canceled and killed."""
    geometry = Geometry(size=(64, 64, 1300), spacing_mm=(4.0, 4.0, 1.0))
    array = np.zeros(geometry.shape, np.int16)
    array[:, 16:48, 16:48] = 200
    return write_scan(tmp_path_factory.mktemp("scan") / "long.nrrd", Volume(array, geometry)).read_bytes()


@pytest.fixture(scope="session")
def dicom_zip(tmp_path_factory):
    folder = write_dicom_series(tmp_path_factory.mktemp("dicom") / "series", bright_boxes())
    return zip_of({f"../study/{file.name}": file.read_bytes() for file in sorted(folder.iterdir())})
