"""Import a weights file into the store: recognize, verify, copy atomically. No torch here.

Hashes are cached by size and modification time of a file, so that large ones are not read again at every start.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import CheckpointError, OutputError
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.runtime.atomic_files import atomic_output, make_folder, refuse_existing, sweep_leftovers
from HSAMSegmentLib.runtime.disk import chunk_watcher, copy_stream, require_free_space, sha256_of
from HSAMSegmentLib.runtime.progress import CancelToken, ProgressCallback
from HSAMSegmentLib.weights.bundle import BUNDLE_SUFFIX, copy_with_manifest, read_manifest
from HSAMSegmentLib.weights.catalog import Catalog, CatalogEntry
from HSAMSegmentLib.weights.convert.official_manifest import manifest_for, safe_id
from HSAMSegmentLib.weights.convert.recognition import OfficialFile
from HSAMSegmentLib.weights.manifest import Manifest
from HSAMSegmentLib.weights.store_entries import BROKEN, ModelEntry, recognize_file, require_known

_log = logging.getLogger(__name__)


class VerifiedHashes:
    """Cache of SHA-256 by file name, valid while the file's size and modification time are unchanged.

    Args:
        folder: folder of the files; the cache is stored in it as `verified.json`.
    """

    FILE = "verified.json"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / self.FILE

    def sha256(self, path: Path, between_chunks: Callable[[], None] = lambda: None) -> str:
        """Hash of a file in the folder, computed only if the file changed since the last time."""
        stamp = _stamp(path)
        noted = self._read().get(path.name)
        if isinstance(noted, dict) and {key: noted.get(key) for key in stamp} == stamp:
            return str(noted["sha256"])
        sha256 = sha256_of(path, between_chunks)
        self.remember(path, sha256)
        return sha256

    def remember(self, path: Path, sha256: str) -> None:
        """Store a hash that was computed while writing the file."""
        self._write({**self._read(), path.name: {**_stamp(path), "sha256": sha256}})

    def forget(self, name: str) -> None:
        """Drop the entry of a deleted file; with the last entry the cache file is deleted."""
        notes = self._read()
        if name in notes:
            del notes[name]
            self._write(notes)
        if not notes:
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            notes = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("%s is unreadable (%s); hashes are computed again.", self._path, error)
            return {}
        return notes if isinstance(notes, dict) else {}

    def _write(self, notes: dict[str, Any]) -> None:
        try:
            with atomic_output(self._path, overwrite=True) as stream:
                stream.write(json.dumps(notes, indent=1).encode())
        except OutputError as error:
            _log.warning("The hash is not kept for the next time: %s", error)


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def sidecar_path(path: Path) -> Path:
    """Path of the manifest of a stored official file."""
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path) -> Manifest | None:
    """The manifest next to a stored official file; None if it is missing or unreadable."""
    if not sidecar_path(path).is_file():
        return None
    try:
        return Manifest.from_json(sidecar_path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, CheckpointError) as error:
        _log.warning("%s cannot be read: %s", sidecar_path(path), error)
        return None


@dataclass(frozen=True)
class _Incoming:
    """A file being imported.

    Attributes:
        source: the given file.
        sha256: its hash.
        id: ID in the store.
        target: path in the store.
        sidecar: manifest to write next to an official file.
        renamed: manifest to write into a bundle whose ID changes.
    """

    source: Path
    sha256: str
    id: str
    target: Path
    sidecar: Manifest | None = None
    renamed: Manifest | None = None


class Importer:
    """One import; the store passes its parts.

    Args:
        catalog: known files.
        folder: destination; created when needed.
        hashes: cache of hashes.
        entries: lists the current content of the store.
    """

    def __init__(
        self, catalog: Catalog, folder: Path, hashes: VerifiedHashes, entries: Callable[[], list[ModelEntry]]
    ) -> None:
        self._catalog = catalog
        self._folder = folder
        self._hashes = hashes
        self._entries = entries

    def run(
        self,
        path: Path,
        *,
        model_id: str | None,
        labels: LabelSet | None,
        image_size: int | None,
        overwrite: bool,
        progress: ProgressCallback,
        cancel: CancelToken,
    ) -> str:
        """Check and copy; return the ID under which the file is stored (see `Store.import_file`)."""
        recognize_file(path)
        # Read twice: once to identify it, and once to copy it.
        watch = chunk_watcher(progress, cancel, stage=f"Importing {path.name}", total_bytes=2 * path.stat().st_size)
        incoming = self._incoming(path, sha256_of(path, watch), model_id, labels, image_size)
        self._take(incoming, overwrite, watch)
        return incoming.id

    def _incoming(
        self, path: Path, sha256: str, model_id: str | None, labels: LabelSet | None, image_size: int | None
    ) -> _Incoming:
        """The destination of a file, and the manifest to write next to or into it."""
        found = recognize_file(path)
        known = self._catalog_entry(found, sha256, model_id, path)
        if known is None and found is not None and model_id is None and labels is None:
            known = self._awaited(found)
        if known is not None:
            return _Incoming(path, sha256, known.id, self._folder / known.file_name)
        if found is None:
            manifest = read_manifest(path)
            own_id = safe_id(model_id or manifest.id)
            renamed = None if own_id == manifest.id else replace(manifest, id=own_id)
            return _Incoming(path, sha256, own_id, self._folder / f"{own_id}{BUNDLE_SUFFIX}", renamed=renamed)
        own_id = safe_id(model_id or path.stem)
        sidecar = self._manifest(found, own_id, labels, image_size) if found.head else None
        return _Incoming(path, sha256, own_id, self._folder / f"{own_id}.pth", sidecar=sidecar)

    def _awaited(self, found: OfficialFile) -> CatalogEntry | None:
        """The only catalog model with this layout that has no known hash and is not here yet."""
        present = {entry.id for entry in self._entries() if entry.is_present}
        fitting = [
            entry
            for entry in self._catalog
            if entry.manifest is not None
            and not entry.sha256
            and entry.id not in present
            and not found.differences(entry.manifest.architecture)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _manifest(self, found: OfficialFile, own_id: str, labels: LabelSet | None, image_size: int | None) -> Manifest:
        manifest = manifest_for(found, self._catalog, name=own_id, image_size=image_size, labels=labels)
        return replace(manifest, id=own_id)

    def _catalog_entry(
        self, found: OfficialFile | None, sha256: str, model_id: str | None, path: Path
    ) -> CatalogEntry | None:
        """The catalog entry of the file: by its hash, or because the user says so and nothing contradicts it.

        Raises:
            CheckpointError: if the file is not the entry that the user names.
        """
        if model_id is None or model_id not in self._catalog:
            return self._catalog.with_sha256(sha256)
        wanted = self._catalog.find(model_id)
        if wanted.sha256 and wanted.sha256 != sha256:
            raise CheckpointError(
                f"{path.name} is not {wanted.title}: its SHA-256 is {sha256}, expected {wanted.sha256}."
            )
        require_known(wanted, path, path.name)
        return wanted

    def _take(self, incoming: _Incoming, overwrite: bool, between_chunks: Callable[[], None]) -> None:
        """Copy atomically, together with the manifest, if any; importing the same file again is not an error."""
        target = incoming.target
        overwrite |= self._may_take(incoming.id, target)
        same = incoming.renamed is None and self._is_there(incoming, between_chunks)
        make_folder(self._folder)
        sweep_leftovers(self._folder)
        if not same:
            refuse_existing(target, overwrite)
            require_free_space(self._folder, incoming.source.stat().st_size, f"Importing {incoming.source.name}")
        with _sidecar_beside(target, incoming.sidecar):
            if not same:
                self._hashes.remember(target, _copy_file(incoming, overwrite, between_chunks))

    def _is_there(self, incoming: _Incoming, between_chunks: Callable[[], None]) -> bool:
        """Whether the store has exactly this file under its name."""
        target = incoming.target
        if not target.is_file() or target.stat().st_size != incoming.source.stat().st_size:
            return False
        return self._hashes.sha256(target, between_chunks) == incoming.sha256

    def _may_take(self, model_id: str, target: Path) -> bool:
        """Whether the target may be replaced anyway, because the existing file is damaged.

        Raises:
            OutputError: if another file has this id.
        """
        broken = False
        for entry in self._entries():
            if entry.path == target:
                broken = entry.status == BROKEN
            elif entry.id == model_id and entry.path is not None:
                raise OutputError(
                    f"There is a model '{model_id}' already ({entry.title}). Give another id, or remove that one first."
                )
        return broken


@contextmanager
def _sidecar_beside(target: Path, manifest: Manifest | None) -> Iterator[None]:
    """Write the manifest of an official file; it appears, like the file, if the block ends without an error.

    After an error the manifest of a previous file is restored; an outdated one is deleted.
    """
    if manifest is None:
        yield
        sidecar_path(target).unlink(missing_ok=True)
        return
    with atomic_output(sidecar_path(target), overwrite=True) as stream:
        stream.write(manifest.to_json().encode())
        yield


def _copy_file(incoming: _Incoming, overwrite: bool, between_chunks: Callable[[], None]) -> str:
    """Copy to the final name; return the SHA-256 of the copy."""
    source = incoming.source
    if incoming.renamed is not None:
        return copy_with_manifest(source, incoming.target, incoming.renamed, overwrite, between_chunks)
    with open(source, "rb") as stream, atomic_output(incoming.target, overwrite=overwrite) as output:
        if copy_stream(stream, output, between_chunks) != incoming.sha256:
            raise CheckpointError(f"{source.name} changed while it was copied. Try again.")
    return incoming.sha256
