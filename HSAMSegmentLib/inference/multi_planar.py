"""Multi-planar inference: predict along several planes, batch by batch, and average the logits.

A network for sagittal slices sees what one for axial slices misses and vice versa, so the mean of their logits beats
either alone. Docs/finetuning.md has the figures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from torch import Tensor

from HSAMSegmentLib.images.orientation import SliceFrame
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.slice_predictor import BatchRules, CancellableOperations, SlicePredictor
from HSAMSegmentLib.inference.through_plane_smoothing import ThroughPlaneSmoothing
from HSAMSegmentLib.preprocess.intensity import intensity_scaler
from HSAMSegmentLib.preprocess.network_input import NetworkInput, SliceFraming, StackRegion
from HSAMSegmentLib.runtime.devices import free_memory
from HSAMSegmentLib.runtime.disk import format_bytes
from HSAMSegmentLib.runtime.progress import CancelToken, ProgressTracker
from HSAMSegmentLib.runtime.tensors import to_array, to_tensor

if TYPE_CHECKING:
    from HSAMSegmentLib.images.volume import Volume
    from HSAMSegmentLib.models.interface import SegmentationNetwork
    from HSAMSegmentLib.weights.manifest import Manifest


_LARGEST_LEAD = 1e4
"""Clamp on relative logits: far beyond what changes a label, and sums of several still fit in half precision."""

_MEMORY_PART = 0.5
"""Fraction of the free memory that the sum of logits may use."""

Batch = TypeVar("Batch", bound=Sized)
Read = Callable[[NetworkInput, SliceFraming, BatchRules, int, int], Batch]
"""`SlicePredictor.predict` or `SlicePredictor.logits`."""

_SLOW_BATCH_SECONDS = 0.4
"""Slower batches check for a cancel inside; between faster ones a check is enough and costs nothing."""


def too_large(roi: tuple[int, int, int, int, int, int], num_classes: int) -> str:
    """Return a warning if the logits of a region would not fit in memory, else "".

    Args:
        roi: voxel box (i0, i1, j0, j1, k0, k1), upper bounds excluded.
        num_classes: foreground classes K.
    """
    needed = 2 * num_classes * prod(roi[2 * axis + 1] - roi[2 * axis] for axis in range(3))
    free = free_memory("cpu")
    if needed <= _MEMORY_PART * free:
        return ""
    return (
        f"Reading this volume along several planes, as this model does, takes {format_bytes(needed)} of memory, and "
        f"{format_bytes(free)} are free: it was read along one plane only. Choose a region, or close other programs."
    )


class PlaneLogits:
    """Sum of the logits of the other planes, on the voxels of the volume.

    Stored in half precision and relative to the background, so each voxel takes two bytes per structure; only the
    region is allocated.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Start without planes.

        Args:
            shape: (k, j, i) of the volume's array.
            num_classes: foreground classes K.
        """
        self._sums = np.zeros((num_classes, *shape), dtype=np.float16)
        self.planes = 0

    def add(self, logits: Tensor, frame: SliceFrame, region: StackRegion, first: int) -> None:
        """Add the logits of one plane.

        Args:
            logits: [n, K + 1, rows, cols] of consecutive slices, cut to the region's window.
            frame: slice frame of the plane.
            region: region of the plane.
            first: index of the first of these slices.
        """
        lead = to_array((logits[:, 1:] - logits[:, :1]).float().clamp(-_LARGEST_LEAD, _LARGEST_LEAD))
        for sums, values in zip(self._sums, lead.swapaxes(0, 1)):
            _cut(sums, frame, region, first, len(lead))[...] += values

    def mean_with(self, logits: Tensor, frame: SliceFrame, region: StackRegion, first: int) -> Tensor:
        """Average the first plane's logits [n, K + 1, rows, cols] with those of all others; arguments as in `add`.

        All channels of a voxel may be shifted alike, which changes neither labels nor probabilities.
        """
        others = np.stack([_cut(sums, frame, region, first, len(logits)) for sums in self._sums], axis=1)
        mean = logits.clone()
        mean[:, 1:] += to_tensor(others.astype(np.float32), logits.device)
        return mean / (1 + self.planes)


def _cut(sums: np.ndarray, frame: SliceFrame, region: StackRegion, first: int, count: int) -> np.ndarray:
    window = region.window
    return frame.to_stack(sums)[
        first : first + count, window.row_start : window.row_stop, window.column_start : window.column_stop
    ]


@dataclass(frozen=True)
class PlaneReading:
    """Everything needed to predict along one plane.

    Attributes:
        predictor: predictor with the plane's network.
        frame: how the slices lie in the volume.
        region: the part to predict.
        source: network input of the slices.
        framing: maps network output back to the slices.
    """

    predictor: SlicePredictor
    frame: SliceFrame
    region: StackRegion
    source: NetworkInput
    framing: SliceFraming

    def __len__(self) -> int:
        return self.region.last - self.region.first

    def batches(
        self, read: Read[Batch], rules: BatchRules, *, cancel: CancelToken, tracker: ProgressTracker, called: str
    ) -> Iterator[tuple[int, Batch]]:
        """Iterate over batches: yield the index of the first slice and what `read` returned.

        Args:
            read: one of the predictor's methods.
            rules: rules for every batch.
            cancel: checked between batches, and inside slow ones.
            tracker: updated after the caller has processed a batch.
            called: what progress messages call a slice.

        Raises:
            CancelledError: on cancel.
            DeviceError, CheckpointError: as the predictor's methods.
        """
        first, last = self.region.first, self.region.last
        position, seconds = first, math.inf
        while position < last:
            cancel.raise_if_cancelled()
            started = time.perf_counter()
            with CancellableOperations(cancel) if seconds > _SLOW_BATCH_SECONDS else nullcontext():
                batch = read(self.source, self.framing, rules, position, last)
            seconds = time.perf_counter() - started
            yield position, batch
            position += len(batch)
            tracker.advance(len(batch) * rules.passes, f"{called} {position - first} of {last - first}")


def plane_reading(
    network: SegmentationNetwork,
    manifest: Manifest,
    volume: Volume,
    frame: SliceFrame,
    region: StackRegion,
    *,
    device: str,
    options: SegmentOptions,
) -> PlaneReading:
    """Prepare a volume for a network.

    Args:
        network: moved to the device and put into evaluation mode.
        manifest: manifest of its model; `frame` takes precedence over the plane in its rule.
        volume: the volume to predict.
        frame: slice frame of the plane.
        region: region of the plane.
        device: a working device.
        options: batch size and precision.
    """
    stack = frame.to_stack(volume.array)
    framing = SliceFraming(
        manifest.slices,
        image_size=network.image_size,
        slice_shape=stack.shape[1:],
        pixel_spacing_mm=frame.pixel_spacing_mm,
    )
    source = NetworkInput(
        stack,
        rule=manifest.slices,
        framing=framing,
        slice_spacing_mm=frame.slice_spacing_mm,
        scale=intensity_scaler(stack, manifest.intensity),
    )
    predictor = SlicePredictor(
        network,
        device=device,
        precision=options.precision,
        batch_size=options.batch_size,
        smoothing=ThroughPlaneSmoothing(
            sigma_mm=manifest.prediction.neighbors_mm, slice_spacing_mm=frame.slice_spacing_mm, count=len(source)
        ),
    )
    return PlaneReading(predictor, frame, region, source, framing)
