"""A CT of 512 x 512 x 300 from array to labels with the built-in model, and where its time goes."""

from __future__ import annotations

import time
from unittest import mock

import numpy as np
import torch
from device_tools import Row, Setting, gib, peak_bytes

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.inference.result import SegmentationResult
from HSAMSegmentLib.inference.slice_predictor import SlicePredictor
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.runtime.devices import synchronize
from HSAMSegmentLib.weights.loading import load_model

_MODEL = "abdomen-ct"


def rows(setting: Setting) -> list[Row]:
    """Seconds of the whole and of its parts, memory, and agreement with the CPU."""
    volume = ct_phantom((96, 96, 6) if setting.quick else (512, 512, 300))
    segmenter = Segmenter(load_model(_MODEL), device=str(setting.device))
    segmenter.segment(_some_slices(volume, 2))
    results: list[SegmentationResult] = []
    clock = _ForwardClock(setting)
    with mock.patch.object(SlicePredictor, "_forward", clock.wrap(SlicePredictor._forward)):
        peak = peak_bytes(setting, lambda: results.append(segmenter.segment(volume)))
    result = results[0]
    size = " x ".join(str(count) for count in volume.geometry.size)
    parts = ", ".join(f"{name} {value:.2f} s" for name, value in result.timings_s.items() if name != "total")
    network = f"{clock.seconds:.2f} s of that inside of the network ({result.precision}, batch {result.batch_size})"
    return [
        Row("volume", f"CT {size}, {_MODEL}, end to end", f"{result.timings_s['total']:.2f} s"),
        Row("volume", "where the time goes", f"{parts}; {network}"),
        Row("volume", "peak memory on the device", gib(peak)),
        _agreement(setting, volume),
    ]


def _agreement(setting: Setting, volume: Volume) -> Row:
    """Some slices in the device's default precision against the CPU in float32."""
    part = _some_slices(volume, 4 if setting.quick else 12)
    exact = _labels(part, "cpu", "full")
    found = _labels(part, str(setting.device), "auto")
    share = float(np.mean(exact != found))
    what = f"labels of {part.array.shape[0]} slices against the CPU in float32"
    return Row("volume", what, f"{share:.3%} of the voxels differ", share > 0.01)


def _labels(volume: Volume, device: str, precision: str) -> np.ndarray:
    from HSAMSegmentLib.inference.options import SegmentOptions

    options = SegmentOptions(precision=precision)
    return Segmenter(load_model(_MODEL), device=device, options=options).segment(volume).segmentation.array


class _ForwardClock:
    """Seconds inside of the network, the device's work waited for."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.seconds = setting, 0.0

    def wrap(self, forward):
        """The method, timed."""

        def timed(predictor: SlicePredictor, images: torch.Tensor) -> list[torch.Tensor]:
            synchronize(str(self.setting.device))
            started = time.perf_counter()
            stages = forward(predictor, images)
            synchronize(str(self.setting.device))
            self.seconds += time.perf_counter() - started
            return stages

        return timed


def ct_phantom(size: tuple[int, int, int]) -> Volume:
    """The phantom on a grid of this size over the same body, its gray values as if they were Hounsfield units."""
    spacing = (320.0 / size[0], 320.0 / size[1], 240.0 / size[2])
    few = (size[0], size[1], min(size[2], 12))
    volume, _ = abdomen_phantom(geometry=phantom_geometry(few, (*spacing[:2], 240.0 / few[2])))
    # Making 300 slices of the phantom takes longer than segmenting them on a card.
    slices = np.repeat(volume.array, -(-size[2] // few[2]), axis=0)[: size[2]] - 150
    return Volume(slices.astype(np.int16), Geometry(size, spacing, volume.geometry.origin_mm))


def _some_slices(volume: Volume, count: int) -> Volume:
    columns, rows_, _ = volume.geometry.size
    geometry = Geometry((columns, rows_, count), volume.geometry.spacing_mm, volume.geometry.origin_mm)
    first = (volume.array.shape[0] - count) // 2
    return Volume(volume.array[first : first + count].copy(), geometry)
