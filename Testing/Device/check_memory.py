"""What happens when a real card has too little memory."""

from __future__ import annotations

import numpy as np
import torch
from check_volume import ct_phantom
from device_tools import Row, Setting

from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.inference.result import SegmentationResult
from HSAMSegmentLib.weights.loading import load_model

_MODEL = "abdomen-ct"
_TIGHT, _NOTHING = 400 * 2**20, 48 * 2**20
"""Bytes that the process may take: too few for the batch asked for, too few for a single slice."""


def rows(setting: Setting) -> list[Row]:
    """With little memory the batch shrinks, with next to none the CPU takes over; the labels stay."""
    if not setting.is_cuda:
        return [Row("memory", "out of memory on a real card", "left out: it needs CUDA")]
    volume = ct_phantom((256, 256, 12))
    exact = _segment(volume, setting).segmentation.array
    return [
        _row(setting, volume, exact, _TIGHT, "a batch too large"),
        _row(setting, volume, exact, _NOTHING, "a single slice too large"),
    ]


def _row(setting: Setting, volume: Volume, exact: np.ndarray, allowed: int, what: str) -> Row:
    total = torch.cuda.get_device_properties(setting.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), setting.device)
    try:
        result = _segment(volume, setting, batch_size=32)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, setting.device)
    said = [text for text in result.warnings if "Memory ran out" in text]
    differs = float(np.mean(result.segmentation.array != exact))
    text = f"{' '.join(said) or 'no warning'} Ended on {result.device}; {differs:.3%} of the voxels differ."
    return Row("memory", what, text, not said or differs > 0.01)


def _segment(volume: Volume, setting: Setting, batch_size: int | None = None) -> SegmentationResult:
    options = SegmentOptions(batch_size=batch_size)
    return Segmenter(load_model(_MODEL), device=str(setting.device), options=options).segment(volume)
