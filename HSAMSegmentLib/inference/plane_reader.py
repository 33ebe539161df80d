"""One plane of a volume, ready to be read by a network batch after batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from HSAMSegmentLib.images.orientation import SliceFrame
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.slice_predictor import BatchRules, CancellableOperations, SlicePredictor
from HSAMSegmentLib.inference.through_plane_smoothing import ThroughPlaneSmoothing
from HSAMSegmentLib.preprocess.intensity import intensity_scaler
from HSAMSegmentLib.preprocess.network_input import NetworkInput, SliceFraming, StackRegion
from HSAMSegmentLib.runtime.progress import CancelToken, ProgressTracker

if TYPE_CHECKING:
    from HSAMSegmentLib.images.volume import Volume
    from HSAMSegmentLib.models.interface import SegmentationNetwork
    from HSAMSegmentLib.weights.manifest import Manifest

Batch = TypeVar("Batch", bound=Sized)
Read = Callable[[NetworkInput, SliceFraming, BatchRules, int, int], Batch]
"""`SlicePredictor.predict` or `SlicePredictor.logits`."""

_SLOW_BATCH_SECONDS = 0.4
"""Batches that take longer are cancelled inside; looking between faster ones is enough and costs nothing."""


@dataclass(frozen=True)
class PlaneReading:
    """What reading along one plane needs.

    Attributes:
        predictor: with the plane's network.
        frame: how the slices lie in the volume.
        region: the part that is wanted.
        source: their network input.
        framing: back from the network's output to the slices.
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
        """Read batch after batch: the index of its first slice, and what was read.

        Args:
            read: one of the predictor's methods.
            rules: for every batch.
            cancel: looked at between batches, and inside of slow ones.
            tracker: told about every batch once its user is done with it.
            called: "slice" in the sentence about progress.

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
    """Lay out a volume for a network.

    Args:
        network: moved to the device, in evaluation mode afterwards.
        manifest: of its model; the plane of its rule does not matter here, the frame's does.
        volume: what to read.
        frame: of the plane.
        region: of the plane.
        device: a device that works.
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
