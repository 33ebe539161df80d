"""The preprocessed slices of one case with their labels, in memory or in files.

They are made by `preprocess.network_input`, like the inputs of inference. The slices of a cohort are stored in
memory-mapped files, so that a batch reads only what it shows, the operating system caches what fits, and the ranks of
one computer share one copy. Every rank stores the same arrays in the same order.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from HSAMSegmentLib.images.orientation import to_slices
from HSAMSegmentLib.preprocess.intensity import scale_intensity
from HSAMSegmentLib.preprocess.network_input import SliceFraming, context_indices, context_step
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.runtime.atomic_files import explain_write_error, make_folder
from HSAMSegmentLib.runtime.disk import require_free_space
from HSAMSegmentLib.runtime.owned_folders import PREFIX
from HSAMSegmentLib.runtime.tensors import to_tensor
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.cases import UNLABELED, Case

_CHUNK = 16


@dataclass(frozen=True)
class SliceBank:
    """Framed slices of a case.

    Attributes:
        name: name of the case.
        images: float16 [n, tiles, S, S] in [0, 1], or uint8 in 0..255.
        labels: uint8 [n, tiles, S, S]; `UNLABELED` in slices without labels.
        reference: uint8 [n, rows, cols], labels on the grid of the slices, for validation.
        framing: maps network output back to the slices.
        context_step: distance in slices of the outer channels, 0 for none.
        labeled: bool [n], which slices are labeled (background counts).
        slice_spacing_mm: distance between slices.
        pixel_spacing_mm: spacing of the rows and columns of `reference`.
    """

    name: str
    images: Tensor
    labels: Tensor
    reference: Tensor
    framing: SliceFraming
    context_step: int
    labeled: np.ndarray
    slice_spacing_mm: float
    pixel_spacing_mm: tuple[float, float]

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def tile_count(self) -> int:
        """Network inputs per slice."""
        return self.images.shape[1]

    def inputs(self, slices: Sequence[int], tiles: Sequence[int] | None = None) -> Tensor:
        """Network input float32 [n, 3, S, S] of the given slices; tile 0 by default."""
        index = context_indices(np.asarray(slices), len(self), self.context_step)
        tile = np.zeros(len(index), dtype=np.int64) if tiles is None else np.asarray(tiles)
        found = self.images[to_tensor(index.astype(np.int64)), to_tensor(tile.astype(np.int64))[:, None]].float()
        return found / 255.0 if self.images.dtype == torch.uint8 else found

    def all_tiles(self, slices: Sequence[int]) -> Tensor:
        """Network input float32 [n * tiles, 3, S, S], tiles of a slice adjacent, as `framing` expects."""
        tiles = range(self.tile_count)
        return self.inputs([index for index in slices for _ in tiles], [tile for _ in slices for tile in tiles])

    def targets(self, slices: Sequence[int], tiles: Sequence[int] | None = None) -> Tensor:
        """Labels uint8 [n, S, S] of `inputs` with the same arguments."""
        tile = np.zeros(len(slices), dtype=np.int64) if tiles is None else np.asarray(tiles)
        return self.labels[
            to_tensor(np.asarray(slices).astype(np.int64)),
            to_tensor(tile.astype(np.int64)),
        ]


def build_slice_bank(case: Case, *, slices: SliceRule, intensity: IntensityRule, image_size: int) -> SliceBank:
    """Slice, scale and frame a case.

    Args:
        case: volume and labels on one grid.
        slices: the model's rule for slicing and framing.
        intensity: the model's rule for scaling intensities.
        image_size: side S of the network input.
    """
    stack, frame = to_slices(case.volume.array, case.volume.geometry, slices.plane)
    labels = np.ascontiguousarray(frame.to_stack(case.labels))
    labeled = _labeled_slices(case, frame.axes[0], frame.reversed_axes[0])
    framing = SliceFraming(
        slices,
        image_size=image_size,
        slice_shape=stack.shape[1:],
        pixel_spacing_mm=frame.pixel_spacing_mm,
    )
    scaled = frame.to_stack(scale_intensity(case.volume, intensity))
    framed_labels = [framing.labels(to_tensor(labels[n : n + _CHUNK])) for n in range(0, len(labels), _CHUNK)]
    targets = torch.cat(framed_labels).contiguous()
    targets[to_tensor((~labeled).astype(np.uint8)).bool()] = UNLABELED
    return SliceBank(
        name=case.volume.name,
        images=torch.cat([_framed(framing, scaled[n : n + _CHUNK]) for n in range(0, len(stack), _CHUNK)]),
        labels=targets,
        reference=to_tensor(labels),
        framing=framing,
        context_step=context_step(slices, frame.slice_spacing_mm),
        labeled=labeled,
        slice_spacing_mm=frame.slice_spacing_mm,
        pixel_spacing_mm=frame.pixel_spacing_mm,
    )


def _framed(framing: SliceFraming, slices: np.ndarray) -> Tensor:
    return framing.images(to_tensor(np.ascontiguousarray(slices, dtype=np.float32))).half()


def _labeled_slices(case: Case, axis: int, backwards: bool) -> np.ndarray:
    """Which slices of the stack are labeled: those of the case if it was labeled along this axis, else all."""
    count = case.labels.shape[axis]
    if case.labeled is None or case.labeled_axis != axis:
        return np.ones(count, dtype=bool)
    return np.array(case.labeled[::-1] if backwards else case.labeled)


class ArrayStore:
    """Stores arrays in files of a private folder."""

    def __init__(self, parent: Path) -> None:
        """Create the folder.

        Args:
            parent: on a fast disk, under the same path on all computers.

        Raises:
            OutputError: if the folder cannot be created.
        """
        make_folder(parent)
        # The process ID in the name lets a later start remove what a killed process left.
        name = ranks.from_first(lambda: tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-slices-", dir=parent))
        self.folder = make_folder(Path(name))
        self._numbers = itertools.count()

    def array(self, array: np.ndarray) -> np.ndarray:
        """The same array, memory-mapped from a file; mapped arrays are returned unchanged.

        Raises:
            OutputError: if the disk is full.
        """
        if isinstance(array, np.memmap):
            return array
        path = self.folder / f"{next(self._numbers)}.npy"
        ranks.in_turn_of_computer(lambda: _write(path, array))
        # Copy-on-write: torch wants writable arrays, and writes never reach the file.
        mapped: np.ndarray = np.load(path, mmap_mode="c")
        return mapped

    def case(self, case: Case) -> Case:
        """The same case with its arrays in files."""
        volume = replace(case.volume, array=self.array(case.volume.array))
        return replace(case, volume=volume, labels=self.array(case.labels))

    def bank(self, bank: SliceBank) -> SliceBank:
        """The same slices with their arrays in files."""
        return replace(
            bank,
            images=self.tensor(bank.images),
            labels=self.tensor(bank.labels),
            reference=self.tensor(bank.reference),
        )

    def tensor(self, tensor: Tensor) -> Tensor:
        """The same tensor, memory-mapped from a file."""
        return torch.from_numpy(self.array(tensor.contiguous().numpy()))

    def close(self) -> None:
        """Delete the files; tensors stay readable on systems that keep open files."""
        if ranks.local_rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, array: np.ndarray) -> None:
    require_free_space(path.parent, array.nbytes, "Keeping slices on the disk")
    try:
        np.save(path, array)
    except OSError as error:
        raise explain_write_error(error, path) from error
