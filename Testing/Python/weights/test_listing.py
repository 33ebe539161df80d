"""The listing of the store: each file is read once per change, whatever changes it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from model_files import manifest
from stored_models import adapter_file, catalog, encoder_entry, encoder_file, model_entry

from HSAMSegmentLib.weights import store as store_module
from HSAMSegmentLib.weights.bundle import save_bundle
from HSAMSegmentLib.weights.store import FileListing, Store
from HSAMSegmentLib.weights.store_entries import STORED

_opened: list[str] = []
_counting = threading.Event()


def _note(event, arguments):
    if _counting.is_set() and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        _opened.append(os.fspath(arguments[0]))


sys.addaudithook(_note)  # cannot be taken back, so it is switched


@pytest.fixture
def reads():
    """Counts how often files below a folder are opened by something."""

    def count(folder, action):
        _opened.clear()
        _counting.set()
        try:
            action()
        finally:
            _counting.clear()
        return sorted(Path(name).name for name in _opened if str(name).startswith(str(folder)))

    return count


def bundle(folder: Path, model_id: str, title: str = "One") -> Path:
    path = folder / f"{model_id}.safetensors"
    return save_bundle(path, {"head.weight": np.ones(3, np.uint8)}, manifest(model_id, title=title), overwrite=True)


def settle(folder: Path, seconds: float = 100.0) -> None:
    """Date all files back, as if they had been there for a while."""
    for path in folder.rglob("*"):
        if path.is_file():
            stamp = path.stat().st_mtime - seconds
            os.utime(path, (stamp, stamp))


@pytest.fixture
def store(tmp_path):
    builtin = tmp_path / "embedded"
    store = Store(tmp_path / "store", catalog=catalog(), builtin=builtin)
    for folder, names in ((builtin, ["a"]), (store.models_folder, ["b", "c"])):
        folder.mkdir(parents=True)
        for name in names:
            bundle(folder, name)
    settle(tmp_path)
    return store


def test_files_are_read_once_however_often_and_by_whomever_is_asked(store, tmp_path, reads):
    names = ["a.safetensors", "b.safetensors", "c.safetensors"]
    assert sorted(set(reads(tmp_path, store.models))) == names

    def ask():
        other = Store(store.folder, catalog=catalog(), builtin=tmp_path / "embedded")
        for entry in other.models():
            other.find(entry.id)
            other.requirements(entry.id)

    assert reads(tmp_path, ask) == []


def test_a_changed_file_is_read_again_and_only_that(store, tmp_path, reads):
    store.models()
    bundle(store.models_folder, "b", title="Two")
    found = reads(tmp_path, lambda: store.find("b"))
    assert set(found) == {"b.safetensors"}
    assert store.find("b").title == "Two"


def test_a_file_of_the_same_size_and_date_in_the_place_of_another_is_seen(store):
    assert store.find("b").title == "One"
    path = store.models_folder / "b.safetensors"
    status = path.stat()
    other = bundle(store.folder, "b", title="Two")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    os.replace(other, path)
    assert store.find("b").title == "Two"


def test_a_file_that_was_written_just_now_is_not_taken_for_settled(store):
    path = bundle(store.models_folder, "b", title="Two")
    content = path.read_bytes()
    assert store.find("b").title == "Two"
    stamp = path.stat()
    with path.open("r+b") as stream:  # in place: the same file, size and, as far as its clock can tell, time
        stream.write(content.replace(b"Two", b"Six"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert store.find("b").title == "Six"


def test_files_come_and_go(store, tmp_path):
    assert {entry.id for entry in store.models()} == {"a", "b", "c"}
    (store.models_folder / "c.safetensors").unlink()
    bundle(store.models_folder, "d")
    assert {entry.id for entry in store.models()} == {"a", "b", "d"}
    shutil.rmtree(store.models_folder)
    assert {entry.id for entry in store.models()} == {"a"}


def test_a_file_that_vanishes_while_the_folder_is_read_is_left_out(store, monkeypatch):
    gone = store.models_folder / "gone.safetensors"
    monkeypatch.setattr(store, "_stored_files", lambda: [gone, store.models_folder / "b.safetensors"])
    assert {entry.id for entry in store.models()} == {"a", "b"}


def test_a_file_that_changes_while_it_is_read_is_read_again(store, monkeypatch):
    path, real = store.models_folder / "b.safetensors", store_module._read

    def change_meanwhile(*arguments):
        entry = real(*arguments)
        bundle(store.models_folder, "b", title="Two")
        settle(store.models_folder)
        return entry

    files = FileListing()
    monkeypatch.setattr(store_module, "_read", change_meanwhile)
    assert files.entry(path, STORED).title == "One"
    monkeypatch.setattr(store_module, "_read", real)
    assert files.entry(path, STORED).title == "Two"


def test_a_broken_file_is_seen_when_it_is_whole_again(store):
    path = store.models_folder / "b.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    settle(store.models_folder)
    assert not store.find("b").is_present
    path.write_bytes(whole)
    assert store.find("b").is_present


def test_a_changed_description_beside_an_official_file_is_seen(parity_folder, tmp_path, reads):
    source = tmp_path / "source"
    source.mkdir()
    encoder = encoder_file(parity_folder, source)
    store = Store(tmp_path / "store", catalog=catalog(encoder_entry(encoder), model_entry()), builtin=tmp_path / "none")
    store.import_file(encoder)
    store.import_file(adapter_file(parity_folder, source), model_id="own")
    settle(store.folder)
    store.models()
    assert reads(store.folder, store.models) == []
    sidecar = store.models_folder / "own.pth.json"
    sidecar.write_text(sidecar.read_text().replace('"title": "', '"title": "New '))
    assert store.find("own").title.startswith("New ")


def test_many_threads_may_ask_while_files_are_replaced(store):
    wrong, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            wrong.extend(entry for entry in store.models() if entry.title not in ("One", "Two") or not entry.is_present)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(40):
        bundle(store.models_folder, "b", title=("One", "Two")[turn % 2])
        settle(store.models_folder)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.find("b").title == "Two"
