"""Resample between one axis of a slice and one axis of the network's input: sample positions and weights.

All resampling here is linear in the intensities and separable, so it is one small matrix per axis. The matrices are
built once per slice size, on the CPU in float64; applying them takes two matrix products on any device. This way the
cubic spline of the official pipeline runs on the device and yields the same numbers (largest difference to
`scipy.ndimage.zoom` on the golden input of the volume pipeline: 6e-7).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_KEYS = -0.5
"""Parameter of Keys' cubic kernel (IEEE Trans. ASSP 29, 1981); -0.5 reproduces quadratic functions."""


@dataclass(frozen=True)
class AxisPlacement:
    """Positions of the network's samples on one axis of a slice.

    Attributes:
        length: pixels of the slice on this axis.
        samples: samples of the network input on this axis (S).
        start: slice coordinate (in pixels, 0 = center of the first) of sample 0.
        step: distance between samples in pixels.
        corner_aligned: the outermost samples coincide with the outermost pixels ("stretch").
    """

    length: int
    samples: int
    start: float
    step: float
    corner_aligned: bool = False

    @property
    def sample_positions(self) -> np.ndarray:
        """Slice coordinate of every sample, float64 [samples]."""
        return self.start + self.step * np.arange(self.samples)

    @property
    def pixel_positions(self) -> np.ndarray:
        """Network coordinate (0 = first sample) of every pixel, float64 [length]."""
        if self.length == 1 and self.corner_aligned:
            return np.full(1, (self.samples - 1) / 2.0)
        if self.corner_aligned:
            return np.arange(self.length) * (self.samples - 1) / (self.length - 1)
        return (np.arange(self.length) - self.start) / self.step


def stretched(length: int, samples: int) -> AxisPlacement:
    """Stretch the axis over all samples, first on first and last on last, as in H-SAM, SAMed and AutoSAM."""
    return AxisPlacement(length, samples, 0.0, (length - 1) / (samples - 1), corner_aligned=True)


def spaced(length: int, samples: int, step: float, *, overlap: float = 0.25) -> tuple[AxisPlacement, ...]:
    """Place samples `step` pixels apart: centered if the axis fits, otherwise overlapping from edge to edge.

    Args:
        length: pixels of the axis.
        samples: samples of the network input.
        step: distance between samples in pixels.
        overlap: minimum overlap of neighboring placements, as a fraction of `samples`.
    """
    extent = length / step
    first_center = -0.5 + step / 2.0
    if extent <= samples + 1e-6:
        start = (length - 1) / 2.0 - step * (samples - 1) / 2.0
        return (AxisPlacement(length, samples, start, step),)
    surplus = extent - samples
    count = int(np.ceil(surplus / (samples * (1.0 - overlap)))) + 1
    offsets = np.linspace(0.0, surplus, count)
    return tuple(AxisPlacement(length, samples, float(first_center + step * offset), step) for offset in offsets)


def image_matrix(placement: AxisPlacement) -> np.ndarray:
    """Weights [samples, length] that turn pixels into samples.

    "stretch" uses the cubic spline of the official pipeline (`scipy.ndimage.zoom` with its defaults, overshoot kept).
    Otherwise Keys' cubic, widened by the step when downsampling (against aliasing), zero outside the slice.
    """
    if placement.corner_aligned:
        return _spline_matrix(placement.length, placement.samples)
    return _keys_matrix(placement)


def nearest_pixels(placement: AxisPlacement) -> np.ndarray:
    """Index of the pixel nearest to each sample, int64 [samples]; -1 outside the slice."""
    index = np.floor(placement.sample_positions + 0.5).astype(np.int64)
    return np.where((index >= 0) & (index < placement.length), index, -1)


def pixel_cells(placement: AxisPlacement, resolution: int) -> np.ndarray:
    """Position of each pixel on a map of `resolution` cells that covers the network input: float64 [length].

    0 is the center of the first cell. The cells of a coarser map are centered in their share of the samples (half-pixel
    centers), as in the networks; positions are clamped to the outermost centers. Where "stretch" has samples at least
    as dense as the pixels, a pixel takes the nearest sample, as in the official pipeline; where it has fewer,
    interpolated logits give smoother edges than enlarged labels.
    """
    positions = placement.pixel_positions
    if placement.corner_aligned and placement.length <= placement.samples:
        positions = np.floor(positions + 0.5)
    cells = (positions + 0.5) * (resolution / placement.samples) - 0.5
    return np.clip(np.round(cells, 9), 0.0, resolution - 1.0)


def blend_weights(placements: tuple[AxisPlacement, ...]) -> np.ndarray:
    """Blending weight of each placement at each pixel, float32 [placements, length]; the weights of a pixel sum to 1.

    Within a placement the weight falls linearly from the middle to the edge, where the network has the least context.
    """
    length, samples = placements[0].length, placements[0].samples
    weights = np.zeros((len(placements), length))
    for row, placement in zip(weights, placements):
        position = placement.pixel_positions
        inside = (position > -0.5 - 1e-6) & (position < samples - 0.5 + 1e-6)
        ramp = np.minimum(position + 1.0, samples - position) / samples
        row[:] = np.where(inside, np.maximum(ramp, 1e-3), 0.0)
    total = weights.sum(axis=0)
    return (weights / np.where(total > 0.0, total, 1.0)).astype(np.float32)


def _spline_matrix(length: int, samples: int) -> np.ndarray:
    if length == samples:
        return np.eye(length)
    array: np.ndarray = ndimage.zoom(np.eye(length), (samples / length, 1.0), order=3)
    return array


def _keys_matrix(placement: AxisPlacement) -> np.ndarray:
    positions = placement.sample_positions[:, None]
    width = max(1.0, placement.step)
    weights = _keys_kernel((np.arange(placement.length)[None, :] - positions) / width)
    total = weights.sum(axis=1, keepdims=True)
    inside = (positions >= -0.5) & (positions <= placement.length - 0.5)
    return np.where(inside, weights / np.where(total == 0.0, 1.0, total), 0.0)


def _keys_kernel(distance: np.ndarray) -> np.ndarray:
    x = np.abs(distance)
    near = ((_KEYS + 2.0) * x - (_KEYS + 3.0)) * x * x + 1.0
    far = _KEYS * (((x - 5.0) * x + 8.0) * x - 4.0)
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))
