"""Export a model of the store to one file for another computer. Only official models need torch for that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from HSAMSegmentLib.runtime.atomic_files import atomic_output, check_output
from HSAMSegmentLib.runtime.disk import chunk_watcher, copy_stream, require_free_space
from HSAMSegmentLib.runtime.progress import (
    CancelToken,
    Progress,
    ProgressCallback,
    ProgressTracker,
    ignore_progress,
    interruptible,
)
from HSAMSegmentLib.weights.bundle import BUNDLE_SUFFIX, save_bundle
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.weights.store_entries import ModelEntry

if TYPE_CHECKING:
    from HSAMSegmentLib.weights.loading import LoadedModel
    from HSAMSegmentLib.weights.manifest import Manifest

_LOADING_FRACTION = 0.5


def export_model(
    store: Store,
    model_id: str,
    path: Path | str,
    *,
    overwrite: bool = False,
    progress: ProgressCallback = ignore_progress,
    cancel: CancelToken | None = None,
) -> Path:
    """Write a model or encoder to a file: bundles are copied, official models converted to a bundle.

    Args:
        store: store with the model.
        model_id: ID of the model.
        path: output file; the suffix is appended if there is none.
        overwrite: replace an existing file.
        progress: called with the written fraction.
        cancel: takes effect within a second, leaving any existing file unchanged.

    Returns:
        The path of the file.

    Raises:
        ModelNotFoundError: if the model or the encoder that it needs is not on this computer.
        CheckpointError: if the file of the model is damaged.
        OutputError: if the target exists and may not be overwritten, or cannot be written.
        CancelledError: on cancel.
    """
    cancel = cancel or CancelToken()
    entry = store.find(model_id)
    target = Path(path).expanduser()
    if not target.suffix:
        is_plain_copy = entry.is_bundle or entry.manifest is None
        target = target.with_suffix(entry.path.suffix if is_plain_copy and entry.path is not None else BUNDLE_SUFFIX)
    check_output(target, overwrite=overwrite)
    progress(Progress(0.0, f"Checking {entry.title}"))
    source = interruptible(lambda: store.path_of(model_id), cancel)  # verifies a hash, which takes seconds
    if entry.manifest is not None and not entry.is_bundle:
        return _export_official(store, entry, target, overwrite, progress, cancel)
    _copy(source, target, entry.title, overwrite, progress, cancel)
    return target


def _copy(
    source: Path, target: Path, title: str, overwrite: bool, progress: ProgressCallback, cancel: CancelToken
) -> None:
    size = source.stat().st_size
    require_free_space(target.absolute().parent, size, f"Exporting {title}")
    watch = chunk_watcher(progress, cancel, stage=f"Exporting {title}", total_bytes=size)
    with open(source, "rb") as stream, atomic_output(target, overwrite=overwrite) as output:
        copy_stream(stream, output, watch)
        cancel.raise_if_cancelled()


def _export_official(
    store: Store, entry: ModelEntry, target: Path, overwrite: bool, progress: ProgressCallback, cancel: CancelToken
) -> Path:
    """Write an official model as a bundle that refers to its encoder by hash."""
    progress(Progress(0.0, "Loading the model"))
    loaded, manifest = interruptible(lambda: _loaded(store, entry.id), cancel)
    from HSAMSegmentLib.weights.loading import bundle_tensors  # already loaded

    tensors = bundle_tensors(loaded.network, manifest)
    tracker = ProgressTracker(
        progress,
        stage=f"Exporting {entry.title}",
        steps=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        start_fraction=_LOADING_FRACTION,
    )

    def between_pieces(written_bytes: int) -> None:
        cancel.raise_if_cancelled()
        tracker.advance(written_bytes)

    return save_bundle(target, tensors, manifest, overwrite, between_pieces=between_pieces)


def _loaded(store: Store, model_id: str) -> tuple[LoadedModel, Manifest]:
    """The network, and its manifest with the hash of the encoder file. Imports torch, which takes seconds."""
    from HSAMSegmentLib.weights.loading import load_model

    loaded = load_model(model_id, store=store)
    source = loaded.manifest.encoder_source
    if not source.included and not source.sha256:
        source = replace(source, sha256=store.sha256(store.path_of(source.model_id)))
    return loaded, replace(loaded.manifest, encoder_source=source)
