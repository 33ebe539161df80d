"""What tests of segmenting share: requests and contexts from a few keywords."""

from __future__ import annotations

from pathlib import Path

from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.workflows.context import Context, ignore_event
from HSAMSegmentLib.workflows.segment.model_cache import ModelCache
from HSAMSegmentLib.workflows.segment.segment_request import OutputFiles, SegmentRequest
from HSAMSegmentLib.workflows.segment.segment_scan import segment_scan
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment_folder.segment_folder import segment_folder


def context_for(model=None, store=None, progress=ignore_event, cancel=None) -> Context:
    """A context with a loaded model, or with a store of its own."""
    loaded = model if isinstance(model, LoadedModel) else None
    return Context(progress, cancel or CancelToken(), shared={"models": ModelCache(store, model=loaded)})


def reference_of(model) -> str:
    return "" if model is None or isinstance(model, LoadedModel) else str(model)


def segment_to(
    source,
    output,
    *,
    model=None,
    store=None,
    device="cpu",
    options=None,
    series=None,
    progress=ignore_event,
    cancel=None,
    **files,
):
    """Segment a file or DICOM folder into a file."""
    request = SegmentRequest(
        input=VolumeInput(path=str(source), series=series or ""),
        model=reference_of(model),
        device=device,
        options=options or SegmentOptions(),
        files=OutputFiles(Path(output), **files),
    )
    return segment_scan(request, context_for(model, store, progress, cancel))


def segment_all_to(
    source,
    output,
    *,
    model=None,
    store=None,
    device="cpu",
    options=None,
    progress=ignore_event,
    cancel=None,
    on_scan=None,
    **wishes,
):
    """Segment every scan of a folder into another one."""
    request = FolderRequest(
        str(source), str(output), reference_of(model), device, options or SegmentOptions(), **wishes
    )
    return segment_folder(request, context_for(model, store, progress, cancel), on_scan)
