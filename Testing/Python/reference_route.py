"""The straightforward volume route of H-SAM's own test script, slice by slice on the CPU.

It exists to be compared with: the parity tests reproduce the authors' labels with it, and the benchmark measures the
`Segmenter` against it. Cubic spline zoom in (corner to corner, overshoot kept), one slice at a time through the
network, arg max, nearest-neighbor zoom back (the evaluation of Cheng et al., CVPR 2024).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from HSAMSegmentLib.models.interface import SegmentationNetwork, StageLogits, merged_logits
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.runtime.tensors import to_array, to_tensor


def segment_stack(
    network: SegmentationNetwork,
    stack: np.ndarray,
    *,
    input_size: int | None = None,
    stages: str = "both",
    cancel: CancelToken | None = None,
) -> np.ndarray:
    """Segment slices one at a time, in full precision, where the network is.

    Args:
        network: in evaluation mode.
        stack: slices [n, rows, cols] with values in [0, 1].
        input_size: slices are first brought to this size and then to the network's; None for the network's. (The
            authors' script has 224 as its default even where the network's size is 512.)
        stages: "both" for the mean of all stages, "last" for the last one.
        cancel: looked at between two slices.

    Returns:
        Channels as uint8 [n, rows, cols].

    Raises:
        CancelledError: on cancel.
    """
    device = next(network.parameters()).device
    result = np.zeros(stack.shape, np.uint8)
    for index, image in enumerate(stack):
        if cancel is not None:
            cancel.raise_if_cancelled()
        framed = network_image(image, network.image_size, input_size)
        with torch.inference_mode():
            logits = network(to_tensor(framed, device)[None, None].repeat(1, 3, 1, 1))
            chosen = logits if stages == "both" else StageLogits(logits.stages[-1:])
            merged = merged_logits(chosen, (network.image_size, network.image_size))
        channels = to_array(merged.argmax(dim=1)[0]).astype(np.uint8)
        result[index] = zoom_to(channels, image.shape, order=0)
    return result


def network_image(image: np.ndarray, image_size: int, input_size: int | None = None) -> np.ndarray:
    """A slice [rows, cols] as the float32 network input [image_size, image_size], by way of `input_size`."""
    first = input_size or image_size
    framed = zoom_to(image.astype(np.float32), (first, first), order=3)
    return zoom_to(framed, (image_size, image_size), order=3)


def zoom_to(image: np.ndarray, shape: tuple[int, int], order: int) -> np.ndarray:
    """`scipy.ndimage.zoom` with its defaults to an exact shape; the image itself if it has that shape."""
    if image.shape == tuple(shape):
        return image
    array: np.ndarray = ndimage.zoom(
        image, [target / source for target, source in zip(shape, image.shape)], order=order
    )
    return array
