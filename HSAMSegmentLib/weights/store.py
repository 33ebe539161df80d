"""The store: the user's folder with all weights files, and the operations on it. No torch here."""

from __future__ import annotations

import difflib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.errors import CheckpointError, ModelNotFoundError, RequestError
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.runtime.atomic_files import sweep_leftovers
from HSAMSegmentLib.runtime.disk import format_bytes, sha256_of
from HSAMSegmentLib.runtime.progress import CancelToken, ProgressCallback, ignore_progress
from HSAMSegmentLib.weights.bundle import BUNDLE_SUFFIX
from HSAMSegmentLib.weights.catalog import RENAMED_MODELS, Catalog, CatalogEntry, load_catalog
from HSAMSegmentLib.weights.download.partial_file import PartialFile
from HSAMSegmentLib.weights.importing import Importer, VerifiedHashes, read_sidecar, sidecar_path
from HSAMSegmentLib.weights.resources import builtin_models_folder
from HSAMSegmentLib.weights.store_entries import (
    BROKEN,
    BUILT_IN,
    STORED,
    ModelEntry,
    entry_from_catalog,
    entry_from_file,
    require_known,
    unknown_encoder,
    with_unknown_encoders_named,
    without_repetitions,
)

SETTLED_SECONDS = 2.0
"""A younger file may change again within one tick of its file system's clock (FAT: 2 s) without a new timestamp."""

_Stamp = tuple[int, ...]

HOME_VARIABLE = "HSAMSEGMENT_HOME"
WEIGHT_SUFFIXES = (BUNDLE_SUFFIX, ".pth", ".pt")


@dataclass(frozen=True)
class _Kept:
    """An entry, and the state of the files it was made from."""

    stamps: tuple[_Stamp | None, _Stamp | None]
    known: CatalogEntry | None
    entry: ModelEntry


class FileListing:
    """Caches entries by file, valid while the file, its sidecar and its catalog entry are unchanged.

    Thread-safe, also while other programs add, replace and delete files.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, str], _Kept] = {}
        self._lock = threading.Lock()

    def entry(self, path: Path, status: str, known: CatalogEntry | None = None) -> ModelEntry | None:
        """The entry of a file; None if it is gone.

        Args:
            path: the file.
            status: `BUILT_IN` or `STORED`, for a file that is not damaged.
            known: the catalog entry with this file name, if any.
        """
        stamps = _stamps(path)
        if stamps[0] is None:
            self._forget(path, status)
            return None
        with self._lock:
            kept = self._kept.get((path, status))
        if kept is not None and kept.stamps == stamps and kept.known == known:
            return kept.entry
        try:
            entry = _read(path, status, known)
        except FileNotFoundError:
            self._forget(path, status)
            return None
        # A file that changed while being read, or is damaged (possibly by the disk), is read again.
        if entry.status != BROKEN and _are_settled(stamps) and _stamps(path) == stamps:
            with self._lock:
                self._kept[path, status] = _Kept(stamps, known, entry)
        return entry

    def _forget(self, path: Path, status: str) -> None:
        with self._lock:
            self._kept.pop((path, status), None)


FILES = FileListing()
"""Shared by all stores of this process."""


def _read(path: Path, status: str, known: CatalogEntry | None) -> ModelEntry:
    if known is not None:
        return entry_from_catalog(known, path)
    return entry_from_file(path, status, read_sidecar(path))


def _stamps(path: Path) -> tuple[_Stamp | None, _Stamp | None]:
    return _stamp(path), _stamp(sidecar_path(path))


def _stamp(path: Path) -> _Stamp | None:
    """A value that changes whenever a file is written or replaced; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


def _are_settled(stamps: tuple[_Stamp | None, _Stamp | None], clock: Callable[[], int] = time.time_ns) -> bool:
    return all(stamp is None or abs(clock() - stamp[0]) > SETTLED_SECONDS * 1e9 for stamp in stamps)


def default_folder() -> Path:
    """Location of the store: `HSAMSEGMENT_HOME`, else the platform's folder for user data."""
    override = os.environ.get(HOME_VARIABLE)
    if override:
        return Path(override).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "HSAMSegment"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "HSAMSegment"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "HSAMSegment"


class Store:
    """All models and encoders: built-in ones, those in the user's folder, and those that the catalog can provide.

    Nothing is created on disk until something is stored.

    Args:
        folder: the user's folder; None for `default_folder()`.
        catalog: known files; None for the catalog of the program.
        builtin: folder with the built-in bundles; None for the installed one.
    """

    def __init__(
        self, folder: Path | str | None = None, *, catalog: Catalog | None = None, builtin: Path | None = None
    ) -> None:
        self.folder = Path(folder).expanduser() if folder is not None else default_folder()
        self.catalog = catalog if catalog is not None else load_catalog()
        self._builtin = builtin if builtin is not None else builtin_models_folder()
        self._hashes = VerifiedHashes(self.models_folder)

    @property
    def models_folder(self) -> Path:
        """Folder of the files themselves; it may not exist yet."""
        return self.folder / "models"

    def models(self, kind: str | None = None) -> list[ModelEntry]:
        """List everything that exists or can be downloaded: built-in first, then stored, then available.

        A file is read only if it is new or changed; further calls check its date and size.

        Damaged files, and models with an unknown encoder, are listed with their problem; they never make the list fail.

        Args:
            kind: "model" or "encoder" to list only those.
        """
        # Of two files with the same ID, the one named after it is the original.
        stored = sorted(
            self._stored_entries(), key=lambda entry: entry.path is not None and entry.path.stem != entry.id
        )
        entries = without_repetitions([*self._builtin_entries(), *stored, *self._available_entries()])
        entries = with_unknown_encoders_named(entries)
        return [entry for entry in entries if kind is None or entry.kind == kind]

    def _builtin_entries(self) -> Iterator[ModelEntry]:
        found = (FILES.entry(path, BUILT_IN) for path in sorted(self._builtin.glob(f"*{BUNDLE_SUFFIX}")))
        yield from (entry for entry in found if entry is not None)

    def _stored_files(self) -> list[Path]:
        if not self.models_folder.is_dir():
            return []
        files = [path for path in sorted(self.models_folder.iterdir()) if path.suffix in WEIGHT_SUFFIXES]
        return [path for path in files if path.is_file() and not path.name.startswith(".")]

    def _stored_entries(self) -> Iterator[ModelEntry]:
        known = {entry.file_name: entry for entry in self.catalog}
        found = (FILES.entry(path, STORED, known.get(path.name)) for path in self._stored_files())
        yield from (entry for entry in found if entry is not None)

    def _available_entries(self) -> Iterator[ModelEntry]:
        for known in self.catalog:
            target = self.models_folder / known.file_name
            if not target.is_file():
                part = PartialFile(target).path
                yield entry_from_catalog(known, None, part.stat().st_size if part.is_file() else 0)

    def find(self, model_id: str) -> ModelEntry:
        """The entry with this ID, or of the model that replaced it, whether its file exists or not.

        Raises:
            ModelNotFoundError: if it is unknown; suggests similar IDs.
        """
        entries = self.models()
        for wanted in (model_id, RENAMED_MODELS.get(model_id)):
            for entry in entries:
                if entry.id == wanted:
                    return entry
        ids = [entry.id for entry in entries]
        similar = difflib.get_close_matches(model_id, ids, n=3) or ids
        raise ModelNotFoundError(f"There is no model '{model_id}'. Did you mean {' or '.join(similar)}?")

    def path_of(self, model_id: str, needed_by: str = "") -> Path:
        """The usable file of a model or encoder; files in the catalog are verified by hash (once).

        Args:
            model_id: ID of the model or encoder.
            needed_by: title of the model that needs it, for messages.

        Raises:
            ModelNotFoundError: if it is not on this computer; gives its name, size and how to get it.
            CheckpointError: if the file is damaged or not the one in the catalog.
        """
        entry = self.find(model_id)
        if entry.status == BROKEN:
            raise CheckpointError(entry.problem)
        if entry.path is None:
            raise ModelNotFoundError(self.how_to_get(entry, needed_by))
        if entry.catalog is not None and entry.catalog.sha256:
            found = self.sha256(entry.path)
            if found != entry.catalog.sha256:
                raise CheckpointError(
                    f"{entry.path.name} was changed or damaged (SHA-256 {found}, expected {entry.catalog.sha256}). "
                    f"Remove '{model_id}' and download or import it again."
                )
        return entry.path

    def how_to_get(self, entry: ModelEntry, needed_by: str = "") -> str:
        """The message for a model or encoder that is not on this computer."""
        known = entry.catalog
        if known is None or entry.status == BROKEN:
            return entry.problem or f"{entry.title} is not on this computer."
        file = f"{known.file_name}, {format_bytes(known.expected_bytes)}"
        purpose = f"{needed_by} needs {entry.title}, which" if needed_by else entry.title
        page = f" or get it from {known.urls[0] if known.urls else known.page} and import the file"
        command = f"hsam-segment models download {entry.id}"
        return f"{purpose} is not on this computer ({file}). Download it ('{command}'){page}."

    def requirements(self, model_id: str) -> list[ModelEntry]:
        """What is missing to use a model: itself, its encoder (known or not), both or nothing.

        Raises:
            ModelNotFoundError: if the ID is unknown.
        """
        entry = self.find(model_id)
        needed = [entry]
        if entry.encoder:
            unknown = unknown_encoder(entry.encoder, entry.title)
            needed.append(next((other for other in self.models() if other.id == entry.encoder), unknown))
        return [item for item in needed if not item.is_present]

    def sha256(self, path: Path) -> str:
        """Hash of a stored or built-in file; cached for files in the store."""
        return self._hashes.sha256(path) if path.parent == self.models_folder else sha256_of(path)

    def download(
        self, model_id: str, progress: ProgressCallback = ignore_progress, cancel: CancelToken | None = None
    ) -> Path:
        """Download a model or encoder of the catalog, or resume; return the file.

        Raises:
            ModelNotFoundError: if the catalog does not have it.
            CheckpointError: if a damaged file is in the way.
            DownloadError, OutputError, CancelledError: as `download_file`.
        """
        # The HTTP library takes a tenth of a second to import; opening the panel lists models without downloading.

        from HSAMSegmentLib.weights.download.downloader import RemoteFile, download_file

        entry = self.find(model_id)
        if entry.status == BROKEN:
            raise CheckpointError(entry.problem)
        if entry.path is not None:
            return entry.path
        known = self.catalog.find(model_id)
        target = self.models_folder / known.file_name
        remote = RemoteFile(
            known.title, known.urls, known.sha256, known.size_bytes, known.approximate_bytes, known.page
        )
        try:
            download_file(
                remote,
                target,
                progress=progress,
                cancel=cancel,
                check=lambda path: require_known(known, path, "the downloaded file"),
            )
        finally:
            self._remove_if_empty()
        if known.sha256:
            self._hashes.remember(target, known.sha256)
        return target

    def import_file(
        self,
        path: Path | str,
        *,
        model_id: str | None = None,
        labels: LabelSet | None = None,
        image_size: int | None = None,
        overwrite: bool = False,
        progress: ProgressCallback = ignore_progress,
        cancel: CancelToken | None = None,
    ) -> ModelEntry:
        """Copy a weights file into the store, after the same checks as for a download.

        Args:
            path: a bundle, or an official file of SAM, MobileSAM, H-SAM, SAMed or AutoSAM.
            model_id: ID of the catalog model that it is, or a custom ID for an official file; None to recognize it.
            labels: classes of an official file, if the user knows them.
            image_size: for an official file that does not determine it.
            overwrite: replace a stored model with the same ID.
            progress: called with the copied fraction.
            cancel: checked every megabyte.

        Raises:
            CheckpointError: if the file is damaged, unsafe, unknown, or not the requested one.
            OutputError: if the model already exists, or the file cannot be written.
        """
        importer = Importer(self.catalog, self.models_folder, self._hashes, self.models)
        name = importer.run(
            Path(path).expanduser(),
            model_id=model_id,
            labels=labels,
            image_size=image_size,
            overwrite=overwrite,
            progress=progress,
            cancel=cancel or CancelToken(),
        )
        return self.find(name)

    def remove(self, model_id: str) -> None:
        """Delete a stored model or encoder, a damaged file, or an unfinished download.

        Raises:
            ModelNotFoundError: if the ID is unknown, or nothing of it is on this computer.
            RequestError: if it is built in.
        """
        entry = self.find(model_id)
        if entry.status == BUILT_IN:
            raise RequestError(f"{entry.title} comes with the program and cannot be removed.")
        if not entry.is_removable:
            raise ModelNotFoundError(f"{entry.title} is not on this computer; there is nothing to remove.")
        path = entry.path
        if path is None:
            path = self.models_folder / self.catalog.find(model_id).file_name
        PartialFile(path).remove()
        for file in (path, sidecar_path(path), path.with_name(path.name + ".lock")):
            file.unlink(missing_ok=True)
        self._hashes.forget(path.name)
        sweep_leftovers(self.models_folder)
        self._remove_if_empty()

    def _remove_if_empty(self) -> None:
        """Delete empty folders, except one that the user chose."""
        folders = [self.models_folder] + ([self.folder] if self.folder == default_folder() else [])
        for folder in folders:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
