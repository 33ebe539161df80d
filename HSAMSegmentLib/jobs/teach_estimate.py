"""What a teaching will need, said before it starts: memory, disk and time. No torch here.

Estimates, rounded up. The parts that grow with the data are counted; the base and the factors are what runs of the
embedded encoder and of SAM's took.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.checkpoints.files import format_bytes
from HSAMSegmentLib.wording import tr as _

BASE_BYTES = 600e6
"""Python with PyTorch and this program."""
COPIES_IN_MEMORY = 7
"""Of the weights, in 4 bytes: network, average, gradients, two moments, best state, and the one being written."""
COPIES_ON_DISK = 11
"""Of the weights, in 4 bytes: a training state has five, a second one exists while it is written; and the model."""
ACTIVATION_BYTES_PER_PIXEL = 1100
"""Of one view in a step, for networks with the embedded encoder."""
FEATURE_BYTES = 4 << 30
LARGE_ENCODER_BYTES = 2.5e9
"""More for a SAM encoder: its own weights and its activations."""


@dataclass(frozen=True)
class TeachEstimate:
    """What will be needed.

    Attributes:
        memory_bytes: of the computer, or of the graphics card where it computes.
        disk_bytes: in the scratch folder.
        minutes: as asked for; reading and preparing come on top.
        free_memory_bytes: that the computer has now, None if that is not known.
        free_disk_bytes: that the disk of the scratch folder has now.
    """

    memory_bytes: float
    disk_bytes: float
    minutes: float
    free_memory_bytes: float | None
    free_disk_bytes: float

    @property
    def problem(self) -> str:
        """What will not fit, as a sentence; empty if all does."""
        if self.disk_bytes > self.free_disk_bytes:
            return _(
                "The scratch folder's disk has only {free} free, about {needed} are needed. Free some space, or choose "
                "another folder (Advanced)."
            ).format(free=format_bytes(self.free_disk_bytes), needed=format_bytes(self.disk_bytes))
        return ""

    @property
    def sentence(self) -> str:
        """One line for the user."""
        memory = format_bytes(self.memory_bytes)
        if self.free_memory_bytes is not None:
            memory = _("{needed} of memory ({free} free)").format(
                needed=memory, free=format_bytes(self.free_memory_bytes)
            )
        else:
            memory = _("{needed} of memory").format(needed=memory)
        text = _("Needs about {memory}, {disk} of disk, and {minutes:g} min.").format(
            memory=memory, disk=format_bytes(self.disk_bytes), minutes=self.minutes
        )
        if self.free_memory_bytes is not None and self.memory_bytes > self.free_memory_bytes:
            text += " " + _("The memory is tight: close other programs, or use fewer scans.")
        return text


def estimate(
    shapes: Sequence[tuple[int, int, int]],
    *,
    copied_bytes: int,
    weight_count: int,
    image_size: int,
    keeps_features: bool,
    minutes: float,
    scratch: Path,
    batch_size: int = 4,
) -> TeachEstimate:
    """Estimate.

    Args:
        shapes: of the scans (k, j, i), the slices being their first axis.
        copied_bytes: what is copied out of the scene.
        weight_count: numbers in the network that learn.
        image_size: side of the network's input.
        keeps_features: whether a frozen encoder's features are kept on the disk.
        minutes: length.
        scratch: folder for the scratch data; it need not exist yet.
        batch_size: views per step.
    """
    pixels = float(image_size**2)
    slices = sum(shape[0] for shape in shapes)
    bank = slices * pixels * 3 + 2.0 * copied_bytes
    memory = BASE_BYTES + bank + COPIES_IN_MEMORY * 4.0 * weight_count
    memory += batch_size * pixels * ACTIVATION_BYTES_PER_PIXEL + (LARGE_ENCODER_BYTES if keeps_features else 0.0)
    disk = copied_bytes + COPIES_ON_DISK * 4.0 * weight_count + (FEATURE_BYTES if keeps_features else 0.0)
    return TeachEstimate(
        memory_bytes=memory,
        disk_bytes=disk,
        minutes=minutes,
        free_memory_bytes=_free_memory(),
        free_disk_bytes=float(shutil.disk_usage(_existing(scratch)).free),
    )


def _free_memory() -> float | None:
    """Memory that is free now; None without psutil, which is installed before the first job only."""
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    return float(psutil.virtual_memory().available)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
