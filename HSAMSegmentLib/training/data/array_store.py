"""Scans and slices of a cohort in files instead of in memory: a batch reads the slices that it shows, no more.

The files are mapped into memory, so that the system keeps what fits and drops the rest, and ranks of one computer share
one copy. Every rank puts the same arrays in the same order.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from HSAMSegmentLib.runtime.atomic_files import explain_write_error, make_folder
from HSAMSegmentLib.runtime.disk import require_free_space
from HSAMSegmentLib.runtime.owned_folders import PREFIX
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.data.slice_bank import SliceBank


class ArrayStore:
    """Arrays in files of a folder of its own."""

    def __init__(self, parent: Path) -> None:
        """Make the folder.

        Args:
            parent: on a fast disk, of the same name on all computers.

        Raises:
            OutputError: if the folder cannot be made.
        """
        make_folder(parent)
        # The number of the process lets a later start remove what a killed one left.
        name = ranks.from_first(lambda: tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-slices-", dir=parent))
        self.folder = make_folder(Path(name))
        self._numbers = itertools.count()

    def array(self, array: np.ndarray) -> np.ndarray:
        """The same array, mapped from a file; an array that is mapped already comes back as it is.

        Raises:
            OutputError: if the disk is full.
        """
        if isinstance(array, np.memmap):
            return array
        path = self.folder / f"{next(self._numbers)}.npy"
        ranks.in_turn_of_computer(lambda: _write(path, array))
        # Copy-on-write: torch wants arrays that can be written to, and nothing that is written reaches the file.
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
        """The same tensor, mapped from a file."""
        return torch.from_numpy(self.array(tensor.contiguous().numpy()))

    def close(self) -> None:
        """Remove the files; tensors of them can still be read where the system keeps open files."""
        if ranks.local_rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, array: np.ndarray) -> None:
    require_free_space(path.parent, array.nbytes, "Keeping slices on the disk")
    try:
        np.save(path, array)
    except OSError as error:
        raise explain_write_error(error, path) from error
