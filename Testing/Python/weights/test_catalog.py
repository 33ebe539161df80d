"""The catalog: the shipped one is right, and a wrong one is refused with the entry and the field."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.weights.catalog import load_catalog, parse_catalog
from HSAMSegmentLib.weights.resources import builtin_models_folder, resource_folder

REPOSITORY = Path(__file__).resolve().parents[3]
SHIPPED = json.loads((builtin_models_folder() / "catalog.json").read_text(encoding="utf-8"))


def changed(entry_id: str, **changes: object) -> str:
    """The shipped catalog as text, with fields of one entry changed (None under `...` removes the field)."""
    data = copy.deepcopy(SHIPPED)
    entry = next(item for item in data["entries"] if item["id"] == entry_id)
    for key, value in changes.items():
        if value is ...:
            del entry[key]
        else:
            entry[key] = value
    return json.dumps(data)


def test_the_shipped_catalog_knows_the_official_encoders_by_size_and_hash():
    encoders = {entry.id: entry for entry in load_catalog() if entry.kind == "encoder"}
    assert {name: (entry.size_bytes, entry.sha256[:8]) for name, entry in encoders.items()} == {
        "sam_vit_b": (375_042_383, "ec2df627"),
        "sam_vit_l": (1_249_524_607, "3adcc431"),
        "sam_vit_h": (2_564_550_879, "a7bf3b02"),
        "mobile_sam": (40_728_226, "6dbb9052"),
    }


def test_every_download_of_the_shipped_catalog_is_encrypted_and_has_terms_and_a_citation():
    for entry in load_catalog():
        assert all(url.startswith("https://") for url in (*entry.urls, entry.page, entry.license.url)), entry.id
        assert entry.license.terms, entry.id
        assert entry.citation, entry.id
        assert entry.description, entry.id


def test_every_file_without_a_known_hash_is_described_well_enough_to_be_recognized():
    assert all(entry.sha256 or entry.manifest is not None for entry in load_catalog())


def test_models_of_the_shipped_catalog_stand_on_encoders_of_the_same_catalog():
    catalog = load_catalog()
    for entry in catalog:
        if entry.kind == "model":
            encoder = catalog.find(entry.encoder)
            assert entry.manifest.encoder_source.sha256 == encoder.sha256


def test_the_released_hsam_model_is_described_as_its_authors_trained_it():
    manifest = load_catalog().find("hsam_synapse_10").manifest
    assert [label.name for label in manifest.labels] == [
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "liver",
        "stomach",
        "aorta",
        "pancreas",
    ]
    architecture = manifest.architecture
    assert (architecture.head, architecture.form, architecture.lora_rank) == ("hsam", "released", 5)
    assert (architecture.encoder.name, architecture.encoder.image_size) == ("sam_vit_b", 512)
    assert (manifest.intensity.kind, manifest.intensity.window_hu) == ("window", (-125.0, 275.0))


def test_labels_of_the_shipped_catalog_are_those_of_the_terminology():
    for entry in load_catalog():
        if entry.manifest is not None:
            assert entry.manifest.labels == label_set_of(dict(enumerate(entry.organs, start=1)))
            assert all(label.terminology is not None for label in entry.manifest.labels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "a b"}, "characters other than"),
        ({"kind": "decoder"}, "not 'encoder' or 'model'"),
        ({"file_name": "../../etc/passwd"}, "no plain file name"),
        ({"file_name": "weights.exe"}, "no plain file name"),
        ({"file_name": "sam_vit_l_0b3195.pth"}, "more than one entry with the file_name"),
        ({"id": "sam_vit_l"}, "more than one entry with the id 'sam_vit_l'"),
        ({"sha256": "EC2DF627"}, "not 64 lowercase hexadecimal digits"),
        ({"size_bytes": "375 MB"}, "size_bytes is neither null nor a positive number"),
        ({"size_bytes": -1}, "size_bytes is neither null nor a positive number"),
        ({"approximate_bytes": 0}, "approximate_bytes"),
        ({"urls": ["ftp://example.org/x"]}, "is not a web address"),
        ({"urls": [], "page": ""}, "neither a download address nor a page"),
        ({"title": 3}, "a text is not a text"),
        ({"title": ...}, "incomplete or has an unknown field"),
        ({"license": {"terms": "?"}}, "incomplete or has an unknown field"),
        ({"size": 3}, "incomplete or has an unknown field"),
        ({"kind": "model"}, "a model names no organs"),
    ],
)
def test_a_wrong_entry_is_refused_by_its_name_and_field(changes, words):
    with pytest.raises(CheckpointError) as caught:
        parse_catalog(changed("sam_vit_b", **changes))
    assert words in str(caught.value)
    assert str(changes.get("id", "sam_vit_b")) in str(caught.value) or "more than one" in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"organs": ["spleen"]}, "are not the labels of its manifest"),
        ({"encoder": "sam_vit_l"}, "its encoder is 'sam_vit_l' here and 'sam_vit_b' in its manifest"),
        ({"manifest": {"schema_version": 1}}, "not a model description"),
    ],
)
def test_an_entry_that_contradicts_its_manifest_is_refused(changes, words):
    with pytest.raises(CheckpointError, match=words):
        parse_catalog(changed("hsam_synapse_10", **changes))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 1, "entries": [3]}'])
def test_what_is_no_catalog_is_refused(text):
    with pytest.raises(CheckpointError, match="cannot be read"):
        parse_catalog(text)


def test_a_catalog_of_a_newer_version_says_to_update():
    with pytest.raises(CheckpointError, match="Update HSAMSegment"):
        parse_catalog(json.dumps({**SHIPPED, "schema_version": 2}))


def test_an_unknown_id_is_answered_with_the_known_ones():
    with pytest.raises(ModelNotFoundError, match=r"no 'sam_vit_x'; it has sam_vit_b, sam_vit_l"):
        load_catalog().find("sam_vit_x")


def test_the_resources_are_found_in_the_source_tree():
    assert resource_folder() == REPOSITORY / "Resources"


def test_models_are_listed_with_what_a_fresh_slicer_brings():
    """Neither torch nor any other package that is installed later is needed for the catalog, the store and bundles."""
    code = (
        "import sys; from HSAMSegmentLib.weights.store import Store; Store().models(); "
        "import HSAMSegmentLib.weights.bundle, HSAMSegmentLib.weights.download.downloader; "
        "print([name for name in ('torch', 'monai', 'safetensors', 'filelock', 'slicer') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
