"""Convert between NumPy arrays and torch tensors; the only module that does.

The last torch for Slicer on macOS is 2.2.2, which was built for NumPy 1: with NumPy 2 both `torch.from_numpy` and
`Tensor.numpy` fail with "Numpy is not available". Buffers are then passed without NumPy's C interface.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor

_DTYPES: dict[np.dtype[Any], torch.dtype] = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.int16): torch.int16,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.float64): torch.float64,
}
_DTYPES_BACK: dict[torch.dtype, np.dtype[Any]] = {value: key for key, value in _DTYPES.items()}


def to_tensor(array: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Copy an array to a tensor on `device`; supports uint8, int16 to int64, float32 and float64."""
    contiguous = np.array(array, order="C", copy=True)
    try:
        tensor = torch.from_numpy(contiguous)
    except RuntimeError:
        flat = torch.frombuffer(contiguous, dtype=_DTYPES[contiguous.dtype])
        tensor = flat.reshape(contiguous.shape).clone()
    return tensor.to(device)


def to_array(tensor: Tensor) -> np.ndarray:
    """Convert a tensor on any device to an array."""
    local = tensor.detach().cpu().contiguous()
    try:
        return local.numpy()
    except RuntimeError:
        dtype = _DTYPES_BACK[local.dtype]
        count = local.numel() * dtype.itemsize
        if count == 0:
            return np.zeros(tuple(local.shape), dtype)
        raw = (ctypes.c_uint8 * count).from_address(local.data_ptr())
        return np.frombuffer(bytearray(raw), dtype).reshape(tuple(local.shape))
