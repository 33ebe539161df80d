"""Label sets from files are taken only where every value, name, color and code makes sense."""

from __future__ import annotations

import json

import numpy as np
import pytest
from model_files import KIDNEY, LIVER, manifest

from HSAMSegmentLib.errors import CheckpointError, VolumeError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.segmentation_files import read_segmentation, write_segmentation
from HSAMSegmentLib.weights.manifest import Manifest


def _stored(**changes) -> list[dict]:
    """The two labels as JSON, the second one with changes."""
    data = json.loads(json.dumps(LabelSet((LIVER, KIDNEY)).to_json()))
    data[1].update(changes)
    return data


NONSENSE = {
    "zero": ({"value": 0}, "not a value"),
    "too large": ({"value": 256}, "not a value"),
    "a fraction": ({"value": 1.5}, "not a value"),
    "a truth": ({"value": True}, "not a value"),
    "a text": ({"value": "2"}, "not a value"),
    "twice the same": ({"value": 1}, "differ and ascend"),
    "empty name": ({"name": "  "}, "not a name"),
    "no text as name": ({"name": 7}, "not a name"),
    "the same name": ({"name": LIVER.name}, 'called "Liver"'),
    "two parts of a color": ({"color": [0.1, 0.2]}, "not a color"),
    "a color in bytes": ({"color": [255, 0, 0]}, "not a color"),
    "a color that is not a number": ({"color": [float("nan"), 0, 0]}, "not a color"),
    "a code without texts": ({"terminology": {"category": None, "type": None}}, "no category"),
    "a code in numbers": (
        {"terminology": {"category": {"scheme": "SCT", "value": 123037004, "meaning": "A"}, "type": None}},
        "are texts",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), NONSENSE.values(), ids=NONSENSE)
def test_labels_that_make_no_sense_are_refused_with_a_reason(changes, reason):
    with pytest.raises(ValueError, match=reason):
        LabelSet.from_json(_stored(**changes))


def test_labels_in_another_order_are_refused():
    with pytest.raises(ValueError, match="ascend"):
        LabelSet.from_json(_stored()[::-1])


@pytest.mark.parametrize("data", [[1], ["liver"], [None], [{}], 5])
def test_what_is_no_list_of_labels_is_refused(data):
    with pytest.raises((TypeError, KeyError)):
        LabelSet.from_json(data)


def test_a_manifest_says_what_is_wrong_with_its_labels():
    data = json.loads(manifest().to_json())
    data["labels"] = _stored(name="Liver")
    with pytest.raises(CheckpointError, match='more than one label is called "Liver"'):
        Manifest.from_json(json.dumps(data))


def test_names_beside_a_label_map_say_what_is_wrong_with_them(tmp_path):
    array = np.array([[[0, 1, 2]]], dtype=np.uint8)
    segmentation = Segmentation(array, Geometry((3, 1, 1)), LabelSet((LIVER, KIDNEY)))
    path, beside = write_segmentation(segmentation, tmp_path / "organs.nii.gz")
    beside.write_text(json.dumps({"labels": _stored(value=300)}))
    with pytest.raises(VolumeError, match="300 is not a value of a label"):
        read_segmentation(path)
