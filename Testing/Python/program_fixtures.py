"""Fixtures for tests of the program: it runs in an empty folder, with an empty store, a model and a scan."""

from __future__ import annotations

import pytest
from program_environment import Program


@pytest.fixture
def home(tmp_path):
    """An empty store of the user's."""
    return tmp_path / "store"


@pytest.fixture
def program(home, tmp_path):
    """The program in an empty folder with an empty store."""
    return Program(home, tmp_path / "work")


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A model with a tiny encoder and random weights."""
    from small_models import tiny_hsam_model

    from HSAMSegmentLib.weights.loading import save_model

    model = tiny_hsam_model()
    return save_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", model.network, model.manifest)


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """A small phantom, with its true labels beside it."""
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import image_of
    from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry

    volume, truth = abdomen_phantom(geometry=phantom_geometry((48, 48, 6), (6.0, 6.0, 30.0)))
    path = tmp_path_factory.mktemp("scan") / "phantom.nii.gz"
    sitk.WriteImage(image_of(volume.array, volume.geometry), str(path))
    sitk.WriteImage(image_of(truth.array, truth.geometry), str(path.parent / "phantom_labels.nii.gz"))
    return path
