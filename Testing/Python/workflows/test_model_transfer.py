"""The jobs that import and export a model: progress, cancel, and nothing lost whatever happens."""

from __future__ import annotations

import sys

import pytest
from large_models import write_large_model
from model_files import manifest
from stored_models import adapter_file, catalog, encoder_entry, encoder_file, model_entry

from HSAMSegmentLib.errors import CancelledError, CheckpointError, OutputError, RequestError
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.weights.bundle import read_manifest, save_bundle
from HSAMSegmentLib.weights.exporting import export_model
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.requests import ExportModelRequest, ImportModelRequest
from HSAMSegmentLib.workflows.run import run


@pytest.fixture
def store(tmp_path):
    """A store folder of its own; the jobs find it by its name."""
    return Store(tmp_path / "store")


@pytest.fixture
def bundle(tmp_path):
    import numpy as np

    return save_bundle(tmp_path / "mine.safetensors", {"head.weight": np.ones(3 << 20, np.uint8)}, manifest("mine"))


def cancelled_when(reached):
    """Surroundings whose job is cancelled as soon as a progress report fulfills a condition."""
    cancel = CancelToken()
    return Context(emit=lambda event: cancel.cancel() if reached(event) else None, cancel=cancel)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_is_imported_and_exported_with_progress_to_the_end(store, bundle, tmp_path):
    events = []
    context = Context(emit=events.append)
    imported = run(ImportModelRequest(str(bundle), folder=str(store.folder)), context)
    assert (imported.id, imported.kind, imported.missing) == ("mine", "model", ())
    assert events[-1].fraction > 0.9
    events.clear()
    exported = run(ExportModelRequest("mine", str(tmp_path / "shared"), folder=str(store.folder)), context)
    assert exported.path == str(tmp_path / "shared.safetensors")
    assert exported.bytes == bundle.stat().st_size
    assert (tmp_path / "shared.safetensors").read_bytes() == bundle.read_bytes()
    assert [event.fraction for event in events] == sorted(event.fraction for event in events)
    assert events[-1].fraction == pytest.approx(1.0)


def test_a_large_file_is_reported_on_a_bounded_number_of_times():
    from HSAMSegmentLib.runtime.disk import CHUNK_BYTES, chunk_watcher

    events = []
    watch = chunk_watcher(events.append, CancelToken(), stage="Importing", total_bytes=5000 * CHUNK_BYTES)
    for _chunk in range(5000):
        watch()
    assert len(events) == 1001
    assert events[-1].fraction == 1.0


def test_an_import_under_another_id_notes_the_hash_of_what_was_written(store, bundle):
    run(ImportModelRequest(str(bundle), model_id="other", folder=str(store.folder)))
    from HSAMSegmentLib.runtime.disk import sha256_of

    path = store.path_of("other")
    assert read_manifest(path).id == "other"
    assert store.sha256(path) == sha256_of(path)


def test_a_file_that_is_not_there_is_said(store):
    with pytest.raises(RequestError, match="There is no file"):
        run(ImportModelRequest("nowhere.pth", folder=str(store.folder)))


def test_an_import_of_a_large_file_is_cancelled_in_the_middle_and_leaves_nothing(store, tmp_path):
    large = write_large_model(tmp_path / "large.safetensors")
    with pytest.raises(CancelledError):
        run(ImportModelRequest(str(large), folder=str(store.folder)), cancelled_when(lambda event: event.fraction > 0))
    assert not store.folder.exists()


def test_a_cancelled_replacement_loses_nothing(store, bundle, tmp_path):
    import numpy as np

    run(ImportModelRequest(str(bundle), folder=str(store.folder)))
    before = files(store.folder)
    other = save_bundle(tmp_path / "other.safetensors", {"head.weight": np.zeros(5 << 20, np.uint8)}, manifest("mine"))
    request = ImportModelRequest(str(other), overwrite=True, folder=str(store.folder))
    with pytest.raises(CancelledError):
        run(request, cancelled_when(lambda event: event.fraction > 0.6))  # in the second half it is copied
    assert files(store.folder) == before
    run(request)
    assert store.path_of("mine").read_bytes() == other.read_bytes()


def test_a_cancelled_replacement_of_an_official_file_keeps_its_labels(store, parity_folder, tmp_path):
    import torch

    source = adapter_file(parity_folder, tmp_path)
    names = tuple((value, f"Old {value}") for value in range(1, 9))
    first = ImportModelRequest(str(source), model_id="own", names=names, image_size=224, folder=str(store.folder))
    run(first)
    before = files(store.folder)
    other = tmp_path / "other.pth"
    torch.save({name: tensor + 1 for name, tensor in torch.load(source).items()}, other)
    renamed = tuple((value, f"New {value}") for value in range(1, 9))
    request = ImportModelRequest(
        str(other), model_id="own", names=renamed, image_size=224, overwrite=True, folder=str(store.folder)
    )
    with pytest.raises(CancelledError):
        run(request, cancelled_when(lambda event: event.fraction > 0.6))
    assert files(store.folder) == before
    assert store.find("own").organs[0] == "Old 1"
    run(request)
    assert store.find("own").organs[0] == "New 1"


def test_a_cancelled_export_keeps_what_was_under_the_name(store, bundle, tmp_path):
    run(ImportModelRequest(str(bundle), folder=str(store.folder)))
    target = tmp_path / "out" / "mine.safetensors"
    target.parent.mkdir()
    target.write_bytes(b"an older copy")
    request = ExportModelRequest("mine", str(target), overwrite=True, folder=str(store.folder))
    with pytest.raises(CancelledError):
        run(request, cancelled_when(lambda event: event.fraction > 0))
    assert files(target.parent) == {"mine.safetensors": b"an older copy"}


def test_nothing_is_overwritten_unless_it_was_allowed(store, bundle, tmp_path):
    run(ImportModelRequest(str(bundle), folder=str(store.folder)))
    (tmp_path / "shared.safetensors").write_bytes(b"somebody's")
    with pytest.raises(OutputError, match="exists already"):
        run(ExportModelRequest("mine", str(tmp_path / "shared.safetensors"), folder=str(store.folder)))
    with pytest.raises(OutputError, match="does not exist"):
        run(ExportModelRequest("mine", str(tmp_path / "none" / "m.safetensors"), folder=str(store.folder)))
    assert (tmp_path / "shared.safetensors").read_bytes() == b"somebody's"


def test_a_broken_file_in_the_store_is_not_exported(store, bundle, tmp_path):
    run(ImportModelRequest(str(bundle), folder=str(store.folder)))
    path = store.path_of("mine")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        run(ExportModelRequest("mine", str(tmp_path / "shared"), folder=str(store.folder)))
    assert not (tmp_path / "shared.safetensors").exists()


@pytest.fixture
def official(parity_folder, tmp_path):
    """A store with an official model on a tiny encoder."""
    sources = tmp_path / "sources"
    sources.mkdir()
    encoder = encoder_file(parity_folder, sources)
    known = catalog(encoder_entry(encoder), model_entry())
    store = Store(tmp_path / "official", catalog=known)
    store.import_file(encoder)
    store.import_file(adapter_file(parity_folder, sources))
    return store


@pytest.mark.parametrize("stage", ["Checking", "Loading", "Exporting"])
def test_the_export_of_an_official_model_is_cancelled_at_each_stage_and_leaves_nothing(official, tmp_path, stage):
    folder = tmp_path / "out"
    folder.mkdir()
    context = cancelled_when(lambda event: isinstance(event, Progress) and event.stage.startswith(stage))
    with pytest.raises(CancelledError):
        export_model(official, "tiny_model", folder / "m", progress=context.progress, cancel=context.cancel)
    assert list(folder.iterdir()) == []


def test_the_store_and_the_jobs_of_bundles_do_without_torch(bundle, tmp_path):
    import subprocess

    script = (
        "import sys\n"
        "from HSAMSegmentLib.workflows.requests import *\n"
        "from HSAMSegmentLib.workflows.run import run\n"
        "source, folder, target = sys.argv[1:]\n"
        "run(ImportModelRequest(source, folder=folder))\n"
        "run(ExportModelRequest('mine', target, folder=folder))\n"
        "assert 'torch' not in sys.modules\n"
    )
    target = tmp_path / "copy.safetensors"
    command = [sys.executable, "-c", script, str(bundle), str(tmp_path / "store"), str(target)]
    subprocess.run(command, check=True)
    assert target.read_bytes() == bundle.read_bytes()
