"""The phantom is a plausible abdomen with a true label map, the same for the same seed, on any grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import to_slices
from HSAMSegmentLib.labels.grids import resample_labels
from HSAMSegmentLib.phantom import PHANTOM_LABELS, abdomen_phantom, phantom_geometry

SMALL = phantom_geometry((64, 64, 24), (5.0, 5.0, 11.5))


@pytest.fixture(scope="module")
def phantom():
    return abdomen_phantom(seed=1, geometry=SMALL)


def _volumes_ml(truth) -> dict[str, float]:
    counts = np.bincount(truth.array.ravel(), minlength=5)
    return {label.name: counts[label.value] * truth.geometry.voxel_volume_ml for label in PHANTOM_LABELS}


def test_the_same_seed_gives_the_same_scan_and_another_seed_another(phantom):
    volume, truth = abdomen_phantom(seed=1, geometry=SMALL)
    np.testing.assert_array_equal(volume.array, phantom[0].array)
    np.testing.assert_array_equal(truth.array, phantom[1].array)
    _, other = abdomen_phantom(seed=2, geometry=SMALL)
    assert np.count_nonzero(other.array != truth.array) > 100


@pytest.mark.parametrize("seed", range(4))
def test_organs_have_the_size_of_organs_and_are_in_one_piece(seed):
    _, truth = abdomen_phantom(seed=seed, geometry=SMALL)
    ranges = {"liver": (1200, 2400), "right kidney": (100, 300), "left kidney": (100, 300), "spleen": (130, 450)}
    for name, volume_ml in _volumes_ml(truth).items():
        assert ranges[name][0] < volume_ml < ranges[name][1], name
    for label in PHANTOM_LABELS:
        pieces, count = ndimage.label(truth.array == label.value)
        assert np.bincount(pieces.ravel())[1:].max() > 0.97 * np.count_nonzero(pieces), (label.name, count)


def test_organs_are_where_organs_are(phantom):
    stack, _ = to_slices(phantom[1].array, phantom[1].geometry)
    liver, right, left, spleen = (ndimage.center_of_mass(stack == value) for value in (1, 2, 3, 4))
    assert liver[2] < stack.shape[2] / 2 < spleen[2]
    assert right[2] < left[2]
    assert right[0] < liver[0]
    assert right[1] > liver[1]


def test_contrast_is_that_of_fat_suppressed_t2(phantom):
    volume, truth = phantom
    liver, right, left, spleen = (float(np.median(volume.array[truth.array == value])) for value in (1, 2, 3, 4))
    assert liver < 0.6 * spleen
    assert spleen < 1.1 * min(right, left)
    assert np.median(volume.array[:, :3]) < 0.1 * liver
    assert volume.modality == "MR"


def test_the_truth_is_the_same_body_on_every_grid(phantom):
    for options in ({"oblique_degrees": 25.0}, {"left_handed": True}, {"oblique_degrees": 15.0, "left_handed": True}):
        grid = phantom_geometry((80, 72, 40), (5.0, 5.0, 9.0), **options)
        assert np.sign(np.linalg.det(grid.direction_matrix)) == (-1 if options.get("left_handed") else 1)
        _, truth = abdomen_phantom(seed=1, geometry=grid)
        moved = resample_labels(truth, SMALL).array
        for label in PHANTOM_LABELS:
            ours, theirs = moved == label.value, phantom[1].array == label.value
            dice = 2 * np.count_nonzero(ours & theirs) / (np.count_nonzero(ours) + np.count_nonzero(theirs))
            assert dice > 0.75, (label.name, options)


def test_a_left_handed_grid_shows_the_same_canonical_slices():
    grid = phantom_geometry((48, 48, 10), (7.0, 7.0, 25.0))
    mirrored = phantom_geometry((48, 48, 10), (7.0, 7.0, 25.0), left_handed=True)
    expected, _ = to_slices(abdomen_phantom(geometry=grid)[1].array, grid)
    found, _ = to_slices(abdomen_phantom(geometry=mirrored)[1].array, mirrored)
    np.testing.assert_array_equal(found, expected)


def test_the_default_is_a_usual_scan_with_thick_slices():
    volume, truth = abdomen_phantom()
    assert volume.geometry.spacing_mm == (1.25, 1.25, 7.7)
    assert volume.array.shape == truth.array.shape == (36, 256, 256)
    assert volume.array.dtype == np.int16
    assert not truth.array[0].any()
    assert not truth.array[-1].any()


def test_a_grid_beside_the_body_is_refused():
    with pytest.raises(RequestError, match="nothing of the phantom"):
        abdomen_phantom(geometry=Geometry((8, 8, 8), origin_mm=(5000.0, 0.0, 0.0)))
