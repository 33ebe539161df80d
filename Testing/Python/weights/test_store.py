"""The store: lists, finds, downloads, imports, exports and removes, and survives whatever lies in its folder."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest
import torch
from fake_server import fake_server
from model_files import KIDNEY, LIVER, manifest
from official_layouts import listed, save, tiny_adapters, with_classes
from stored_models import adapter_file, catalog, encoder_entry, encoder_file, model_entry, with_url

from HSAMSegmentLib.errors import (
    CancelledError,
    CheckpointError,
    DownloadError,
    ModelNotFoundError,
    OutputError,
    RequestError,
)
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.runtime.disk import sha256_of
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.weights.bundle import read_manifest, read_tensors, save_bundle
from HSAMSegmentLib.weights.exporting import export_model
from HSAMSegmentLib.weights.manifest import EncoderSource
from HSAMSegmentLib.weights.store import Store, default_folder
from HSAMSegmentLib.workflows.segment.model_cache import ModelCache

TENSORS = {"head.weight": torch.ones(3)}


@pytest.fixture(scope="module")
def files(parity_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {"encoder": encoder_file(parity_folder, folder), "adapter": adapter_file(parity_folder, folder)}


@pytest.fixture
def builtin(tmp_path) -> Path:
    folder = tmp_path / "embedded"
    folder.mkdir()
    save_bundle(folder / "comes-along.safetensors", TENSORS, manifest("comes-along"))
    return folder


@pytest.fixture
def store(tmp_path, files, builtin) -> Store:
    known = catalog(encoder_entry(files["encoder"]), model_entry())
    return Store(tmp_path / "store", catalog=known, builtin=builtin)


def bundle(folder: Path, model_id: str = "mine") -> Path:
    return save_bundle(folder / f"from-a-colleague-{model_id}.safetensors", TENSORS, manifest(model_id))


def statuses(store: Store) -> dict[str, str]:
    return {entry.id: entry.status for entry in store.models()}


def stored_files(store: Store) -> list[str]:
    return sorted(path.name for path in store.models_folder.iterdir()) if store.models_folder.is_dir() else []


def test_a_new_store_lists_what_comes_along_and_what_could_be_had_and_creates_nothing(store):
    assert statuses(store) == {"comes-along": "embedded", "custom": "available", "tiny_model": "available"}
    assert not store.folder.exists()


def test_an_entry_tells_what_a_user_wants_to_know(store, files):
    entry = store.find("comes-along")
    assert (entry.title, entry.organs, entry.modality) == ("Tiny model - für Tests", ("Liver", "Right kidney"), "CT")
    assert entry.license.name == "CC-BY-4.0"
    assert entry.size_bytes == entry.path.stat().st_size
    assert store.find("custom").size_bytes == files["encoder"].stat().st_size
    assert [item.id for item in store.models("encoder")] == ["custom"]


def test_an_unknown_id_is_answered_with_similar_ones(store):
    with pytest.raises(ModelNotFoundError, match="Did you mean comes-along"):
        store.find("comes-alone")


def test_the_folder_follows_the_setting_then_the_environment_then_the_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("HSAMSEGMENT_HOME", str(tmp_path / "home"))
    assert Store().folder == tmp_path / "home"
    assert Store(tmp_path / "setting").folder == tmp_path / "setting"
    monkeypatch.delenv("HSAMSEGMENT_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_folder() == tmp_path / "data" / "HSAMSegment"


def test_a_bundle_is_imported_under_its_own_id(store, tmp_path):
    source = bundle(tmp_path)
    entry = store.import_file(source)
    assert (entry.id, entry.status, entry.path.name) == ("mine", "stored", "mine.safetensors")
    assert entry.path.read_bytes() == source.read_bytes()


def test_the_same_file_again_is_no_error_another_one_is_not_lost(store, tmp_path):
    source = bundle(tmp_path)
    store.import_file(source)
    assert store.import_file(source).id == "mine"
    other = save_bundle(tmp_path / "other.safetensors", {"head.weight": torch.zeros(3)}, manifest("mine"))
    with pytest.raises(OutputError, match="exists already"):
        store.import_file(other)
    assert store.find("mine").path.read_bytes() == source.read_bytes()
    assert store.import_file(other, overwrite=True).path.read_bytes() == other.read_bytes()


def test_a_bundle_can_be_imported_under_another_id(store, tmp_path):
    store.import_file(bundle(tmp_path))
    other = save_bundle(tmp_path / "other.safetensors", {"head.weight": torch.zeros(3)}, manifest("mine"))
    entry = store.import_file(other, model_id="from Anna")
    assert (entry.id, entry.path.name) == ("from-Anna", "from-Anna.safetensors")
    assert read_manifest(entry.path) == manifest("from-Anna")
    assert torch.equal(read_tensors(entry.path)["head.weight"], torch.zeros(3))
    assert store.sha256(entry.path) == sha256_of(entry.path)
    assert store.find("mine").is_present


def test_an_id_that_comes_along_cannot_be_taken(store, tmp_path):
    with pytest.raises(OutputError, match="There is a model 'comes-along' already"):
        store.import_file(bundle(tmp_path, "comes-along"), overwrite=True)


def test_an_official_encoder_is_recognized_by_its_hash_whatever_its_name(store, files):
    entry = store.import_file(files["encoder"])
    assert (entry.id, entry.status, entry.path.name) == ("custom", "stored", "tiny_encoder.pth")
    assert store.path_of("custom") == entry.path


def test_another_encoder_is_not_taken_for_the_official_one(store, files, tmp_path):
    state = torch.load(files["encoder"], weights_only=True)
    state["image_encoder.pos_embed"] += 1
    other = tmp_path / "finetuned.pth"
    torch.save(state, other)
    with pytest.raises(CheckpointError) as caught:
        store.import_file(other, model_id="custom")
    assert "is not Tiny encoder" in str(caught.value)
    assert sha256_of(other) in str(caught.value)
    assert sha256_of(files["encoder"]) in str(caught.value)
    assert store.import_file(other).id == "finetuned"
    assert store.find("finetuned").kind == "encoder"
    assert not store.find("custom").is_present


def test_a_model_without_a_known_hash_is_recognized_by_its_layout_and_says_so(store, files):
    entry = store.import_file(files["adapter"])
    assert (entry.id, entry.status) == ("tiny_model", "stored")
    assert "recognized by its layout only" in entry.notes[0]


def test_an_own_model_of_a_known_layout_keeps_its_own_id_and_labels(store, parity_folder, tmp_path):
    shapes = with_classes(tiny_adapters(listed(parity_folder, "keys_samed_vit_b_512")), 2)
    source = save(tmp_path / "run 7.pth", shapes)
    entry = store.import_file(source, labels=LabelSet((LIVER, KIDNEY)), image_size=224)
    assert (entry.id, entry.organs) == ("run-7", ("Liver", "Right kidney"))
    assert entry.manifest.architecture.encoder.image_size == 224
    assert store.import_file(source, model_id="better-name").id == "better-name"
    assert store.find("better-name").organs == ("class 1", "class 2")
    assert any("class 1" in note for note in store.find("better-name").notes)


def test_a_file_that_is_not_what_the_user_says_is_refused(store, files, parity_folder, tmp_path):
    shapes = with_classes(tiny_adapters(listed(parity_folder, "keys_samed_vit_b_512")), 2)
    with pytest.raises(CheckpointError, match=r"2 classes instead of 8 classes"):
        store.import_file(save(tmp_path / "other.pth", shapes), model_id="tiny_model")
    with pytest.raises(CheckpointError, match=r"is not Tiny encoder"):
        store.import_file(files["adapter"], model_id="custom")
    assert stored_files(store) == []


def test_a_broken_file_is_refused_and_leaves_nothing(store, files, tmp_path):
    cut = tmp_path / "cut.pth"
    cut.write_bytes(files["adapter"].read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="truncated"):
        store.import_file(cut)
    assert stored_files(store) == []


def test_an_import_can_be_cancelled_and_leaves_nothing(store, files):
    cancel = CancelToken()

    def stop_half_way(progress: Progress) -> None:
        if progress.fraction > 0.5:
            cancel.cancel()

    with pytest.raises(CancelledError):
        store.import_file(files["adapter"], model_id="own", progress=stop_half_way, cancel=cancel)
    assert stored_files(store) == []


def test_broken_files_in_the_folder_are_reported_and_harm_nobody(store, tmp_path):
    store.import_file(bundle(tmp_path))
    folder = store.models_folder
    (folder / "page.pth").write_text("<!DOCTYPE html><html>")
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "tiny_encoder.pth").write_bytes(b"PK\x03\x04 too short")
    (folder / "notes.txt").write_text("ignored")
    (folder / ".mine.safetensors.abc.writing").write_bytes(b"of a running program")
    problems = {entry.id: entry.problem for entry in store.models() if entry.status == "broken"}
    assert set(problems) == {"page", "empty", "custom"}
    assert "web page" in problems["page"]
    assert "is empty" in problems["empty"]
    assert "incomplete or another file" in problems["custom"]
    assert store.find("mine").is_present
    with pytest.raises(CheckpointError, match="incomplete or another file"):
        store.path_of("custom")


def test_an_import_repairs_a_broken_file(store, files):
    store.models_folder.mkdir(parents=True)
    (store.models_folder / "tiny_encoder.pth").write_bytes(b"PK\x03\x04 too short")
    assert store.import_file(files["encoder"]).is_present


def test_two_files_with_one_id_are_told_apart(store, tmp_path):
    store.import_file(bundle(tmp_path))
    copy = store.models_folder / "copy.safetensors"
    copy.write_bytes(store.find("mine").path.read_bytes())
    assert store.find("mine").path.name == "mine.safetensors"
    assert "has the id 'mine', which belongs to" in store.find("copy").problem
    store.remove("copy")
    assert stored_files(store) == ["mine.safetensors", "verified.json"]


def test_an_official_model_put_there_by_hand_says_to_import_it(store, files):
    store.models_folder.mkdir(parents=True)
    (store.models_folder / "by-hand.pth").write_bytes(files["adapter"].read_bytes())
    assert "import it" in store.find("by-hand").problem


def test_a_bundle_is_exported_byte_for_byte_and_nothing_is_overwritten(store, tmp_path):
    source = bundle(tmp_path)
    store.import_file(source)
    target = export_model(store, "mine", tmp_path / "shared")
    assert target == tmp_path / "shared.safetensors"
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        export_model(store, "mine", target)
    export_model(store, "comes-along", target, overwrite=True)
    assert read_manifest(target).id == "comes-along"


def test_what_is_removed_leaves_no_trace(store, files, tmp_path):
    for name in (store.import_file(bundle(tmp_path)).id, store.import_file(files["adapter"], model_id="own").id):
        store.remove(name)
    assert not store.models_folder.exists()
    assert "mine" not in statuses(store)


def test_what_comes_along_or_is_not_there_cannot_be_removed(store):
    with pytest.raises(RequestError, match="comes with the program"):
        store.remove("comes-along")
    with pytest.raises(ModelNotFoundError, match="nothing to remove"):
        store.remove("custom")


def test_a_missing_file_is_told_with_name_size_and_how_to_get_it(store, files):
    with pytest.raises(ModelNotFoundError) as caught:
        store.path_of("custom", needed_by="Tiny model")
    text = str(caught.value)
    assert "Tiny model needs Tiny encoder, which is not on this computer (tiny_encoder.pth, " in text
    assert "hsam-segment models download custom" in text
    assert "https://example.org/tiny.pth" in text


def test_the_requirements_of_a_model_are_what_is_missing(store, files):
    assert [entry.id for entry in store.requirements("tiny_model")] == ["tiny_model", "custom"]
    store.import_file(files["adapter"])
    assert [entry.id for entry in store.requirements("tiny_model")] == ["custom"]
    store.import_file(files["encoder"])
    assert store.requirements("tiny_model") == []


@pytest.fixture
def orphan(store, tmp_path) -> str:
    """A stored model whose encoder is neither here nor in the catalog."""
    needs = EncoderSource(included=False, model_id="gone")
    path = save_bundle(tmp_path / "orphan.safetensors", TENSORS, manifest("orphan", encoder_source=needs))
    return store.import_file(path).id


def test_a_model_whose_encoder_nobody_knows_is_named_and_harms_no_other(store, orphan):
    assert [entry.id for entry in ModelCache(store).available()] == ["comes-along"]
    (missing,) = store.requirements(orphan)
    assert (missing.id, missing.kind, missing.is_present) == ("gone", "encoder", False)
    problems = {entry.id: entry.problem for entry in store.models() if entry.problem}
    assert list(problems) == [orphan]
    assert "needs the encoder 'gone', which is unknown here" in problems[orphan]
    assert store.how_to_get(missing) == problems[orphan]


def test_an_export_can_be_cancelled_and_leaves_nothing(store, tmp_path):
    store.import_file(bundle(tmp_path))
    cancel = CancelToken()
    cancel.cancel()
    (tmp_path / "shared").mkdir()
    with pytest.raises(CancelledError):
        export_model(store, "mine", tmp_path / "shared" / "mine.safetensors", cancel=cancel)
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_file_that_changes_in_the_store_is_noticed(store, files):
    path = store.import_file(files["encoder"]).path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"was changed or damaged \(SHA-256 "):
        store.path_of("custom")


def test_a_hash_is_computed_once_and_again_when_the_file_changes(store, tmp_path, monkeypatch):
    path = store.import_file(bundle(tmp_path)).path
    hashed = []

    def counting(file, between_chunks=None):
        hashed.append(file.name)
        return hashlib.sha256(file.read_bytes()).hexdigest()

    monkeypatch.setattr("HSAMSegmentLib.weights.importing.sha256_of", counting)
    first = store.sha256(path)
    assert Store(store.folder).sha256(path) == first
    assert hashed == []
    os.utime(path, ns=(1, 1))
    assert store.sha256(path) == first
    assert hashed == ["mine.safetensors"]


def test_unreadable_notes_of_hashes_are_made_again(store, tmp_path):
    path = store.import_file(bundle(tmp_path)).path
    (store.models_folder / "verified.json").write_text("{broken")
    assert store.sha256(path) == sha256_of(path)


def test_a_download_arrives_in_the_store(files, tmp_path, builtin):
    with fake_server() as server:
        url = server.serve("/e", files["encoder"].read_bytes())
        known = catalog(with_url(encoder_entry(files["encoder"]), url))
        store = Store(tmp_path / "store", catalog=known, builtin=builtin)
        path = store.download("custom")
        assert path == store.path_of("custom")
        assert store.download("custom") == path
        assert len(server.seen) == 1
    assert store.find("custom").status == "stored"
    assert stored_files(store) == ["tiny_encoder.pth", "verified.json"]


def test_a_download_without_a_known_hash_is_checked_by_its_content(files, tmp_path, builtin):
    with fake_server() as server:
        wrong = server.serve("/m", files["encoder"].read_bytes())
        store = Store(tmp_path / "store", catalog=catalog(with_url(model_entry(), wrong)), builtin=builtin)
        with pytest.raises(DownloadError, match="the catalog's entry 'tiny_model' expects other weights"):
            store.download("tiny_model")
        assert not store.models_folder.exists()
        server.serve("/m", files["adapter"].read_bytes())
        assert store.download("tiny_model").read_bytes() == files["adapter"].read_bytes()


def test_an_unfinished_download_is_shown_and_can_be_removed(files, tmp_path, builtin):
    with fake_server() as server:
        url = server.serve("/e", files["encoder"].read_bytes(), drop_after=100_000, drops=99)
        known = catalog(with_url(encoder_entry(files["encoder"]), url))
        store = Store(tmp_path / "store", catalog=known, builtin=builtin)
        cancel = CancelToken()

        def stop_when_some_is_there(_: Progress) -> None:
            if store.find("custom").partial_bytes:
                cancel.cancel()

        with pytest.raises(CancelledError):
            store.download("custom", stop_when_some_is_there, cancel)
    entry = store.find("custom")
    assert entry.status == "available"
    assert 0 < entry.partial_bytes < entry.size_bytes
    store.remove("custom")
    assert not store.models_folder.exists()
