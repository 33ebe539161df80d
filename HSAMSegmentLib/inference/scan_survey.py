"""Quick survey of a scan with a model: its uncertainty, and its place among other scans in feature space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.confidence import ConfidenceCounts, combined_confidence, read_logits, slice_evidence
from HSAMSegmentLib.inference.multi_planar import PlaneReading, plane_reading
from HSAMSegmentLib.inference.options import SegmentOptions, check_roi
from HSAMSegmentLib.models.interface import Features
from HSAMSegmentLib.preprocess.network_input import stack_region
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.runtime.tensors import to_array
from HSAMSegmentLib.weights.loading import LoadedModel

SLICES = 24


@dataclass(frozen=True)
class Survey:
    """Summary of a model's output on some slices of a scan.

    Attributes:
        features: [2 C] mean and standard deviation of the encoder's channels over the slices.
        entropy: entropy of the class probabilities as a fraction of the maximum, averaged over voxels weighted by the
            foreground probability: 0 to 1.
        confidence: name and confidence (see `confidence`) of each structure found.
    """

    features: np.ndarray
    entropy: float
    confidence: tuple[tuple[str, float], ...]


def survey(volume: Volume, model: LoadedModel, *, device: str, cancel: CancelToken, slices: int = SLICES) -> Survey:
    """Survey slices spread evenly over a scan.

    Args:
        volume: the scan.
        model: its network is moved to the device.
        device: a working device.
        cancel: checked between slices.
        slices: maximum number of slices.

    Raises:
        CancelledError: on cancel.
        DeviceError: if one slice does not fit in memory.
    """
    manifest, network = model.manifest, model.network
    frame = slice_frame(volume.geometry, manifest.slices.plane)
    region = stack_region(check_roi(None, volume.geometry), frame)
    options = SegmentOptions(precision="full", view_averaging=False)
    reading = plane_reading(network, manifest, volume, frame, region, device=device, options=options)
    last_only = manifest.prediction.stages == "last"
    counts = ConfidenceCounts(len(reading), len(manifest.labels) + 1)
    vectors, entropy, weight = [], 0.0, 0.0
    for index in _spread(len(reading), slices):
        cancel.raise_if_cancelled()
        with torch.inference_mode():
            features, stages = _one_slice(reading, model, index, device)
            read = read_logits(stages, last_only=last_only)
            counts.add(index, slice_evidence(stages, read=read))
            part, part_weight = _entropy(read)
        vectors.append(_pooled(features))
        entropy, weight = entropy + part, weight + part_weight
    stacked = np.stack(vectors)
    everything = slice(None)
    confidence = tuple(
        (label.name, combined_confidence(counts.agreement(channel, everything), counts.margin(channel, everything)))
        for channel, label in enumerate(manifest.labels, start=1)
        if counts.margin(channel, everything) > 0
    )
    return Survey(np.concatenate([stacked.mean(axis=0), stacked.std(axis=0)]), entropy / max(weight, 1e-9), confidence)


def _spread(count: int, wanted: int) -> list[int]:
    """Indices at the middle of `wanted` equal parts, without repeats."""
    parts = min(count, wanted)
    return [int((2 * part + 1) * count / (2 * parts)) for part in range(parts)]


def _one_slice(reading: PlaneReading, model: LoadedModel, index: int, device: str) -> tuple[Features, list[Tensor]]:
    """Encoder features of a slice, and its logits [1, K + 1, rows, columns] of each stage."""
    images = reading.source.batch(index, index + 1, device)
    features = model.network.encode(images)
    stages = model.network.decode(features).stages
    return features, [reading.framing.logits(stage.float(), reading.region.window) for stage in stages]


def _pooled(features: Features) -> np.ndarray:
    return to_array(features.embedding.float().mean(dim=(0, 2, 3)))


def _entropy(logits: Tensor) -> tuple[float, float]:
    """Sum of entropies weighted by each voxel's foreground probability, and the sum of the weights."""
    logs = torch.log_softmax(logits.double(), dim=1)
    probabilities = logs.exp()
    entropies = -(probabilities * logs).sum(dim=1) / np.log(logits.shape[1])
    weights = 1.0 - probabilities[:, 0]
    return float((entropies * weights).sum()), float(weights.sum())
