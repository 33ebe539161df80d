"""Radiomics features by MIRP: the right numbers for a known body, and clear refusals."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from grids_of_tests import oblique_geometry

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.measurement import radiomics
from HSAMSegmentLib.measurement.radiomics import radiomics_features

needs_mirp = pytest.mark.skipif(find_spec("mirp") is None, reason="radiomics features need MIRP: pip install mirp")


def scan(geometry: Geometry) -> tuple[Segmentation, Volume]:
    labels = np.zeros(geometry.shape, np.uint8)
    labels[4:12, 5:17, 6:16] = 1
    labels[0:2, 0:3, 0:3] = 2
    array = np.random.default_rng(0).normal(40, 15, geometry.shape).astype(np.float32)
    names = {1: "liver", 2: "spleen", 3: "stomach"}
    return Segmentation(labels, geometry, label_set_of(names)), Volume(array, geometry, modality="CT")


@needs_mirp
@pytest.mark.parametrize("geometry", [Geometry((24, 22, 16), (1.5, 1.5, 2.0)), oblique_geometry(size=(24, 22, 16))])
def test_volume_and_mean_are_those_of_the_structure(geometry):
    segmentation, volume = scan(geometry)
    table = radiomics_features(segmentation, volume, ["liver"])
    assert list(table["structure"]) == ["liver"]
    assert len(table.columns) > 100
    inside = volume.array[segmentation.array == 1]
    assert table["morph_vol_approx"][0] == pytest.approx(inside.size * 1000 * geometry.voxel_volume_ml, rel=1e-3)
    assert table["stat_mean"][0] == pytest.approx(float(inside.mean()), rel=1e-3)


def test_what_makes_no_sense_is_refused(monkeypatch):
    segmentation, volume = scan(Geometry((24, 22, 16)))
    monkeypatch.setattr(radiomics, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"need MIRP; install it with: pip install 'hsamsegment\[radiomics\]'"):
        radiomics_features(segmentation, volume)
    monkeypatch.setattr(radiomics, "find_spec", lambda name: name)
    with pytest.raises(RequestError, match="There is no structure lung; there are liver, spleen, stomach"):
        radiomics_features(segmentation, volume, ["lung"])
    other = Geometry((24, 22, 16), (2.0, 2.0, 2.0))
    with pytest.raises(RequestError, match="different grids"):
        radiomics_features(segmentation, Volume(volume.array, other))
    tilted = Geometry((24, 22, 16), direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.3, 0.0, 0.0, float(np.sqrt(0.91))))
    with pytest.raises(RequestError, match="sheared"):
        radiomics_features(Segmentation(segmentation.array, tilted, segmentation.labels), Volume(volume.array, tilted))
