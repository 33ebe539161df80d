"""The slices of a task on the device that trains: read from the scans of a data set, or from one packed file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.preprocess.network_input import context_indices
from HSAMSegmentLib.training.data.cases import Case, make_case
from HSAMSegmentLib.training.data.label_crop import label_box
from HSAMSegmentLib.training.data.sampling import BalancedSampler, Item
from HSAMSegmentLib.training.data.slice_bank import SliceBank, build_slice_bank
from HSAMSegmentLib.training.data.validation_sets import ValidationSet, whole_case
from recipes.builtin_tasks import BuiltinTask, DatasetCase, dataset_cases


class SlicesOnDevice:
    """All training slices of a task in one tensor on one device."""

    def __init__(self, banks: Sequence[SliceBank], device: torch.device) -> None:
        """
        Args:
            banks: the training scans, each slice one network input.
            device: that trains.
        """
        firsts, neighbors, first = [], [], 0
        for bank in banks:
            firsts.append(first)
            neighbors.append(
                torch.from_numpy(context_indices(np.arange(len(bank)), len(bank), bank.context_step)) + first
            )
            first += len(bank)
        self.device = device
        self._firsts = firsts
        self._neighbors = torch.cat(neighbors).long().to(device)
        self._images = torch.cat([bank.images[:, 0] for bank in banks]).to(device)
        self._labels = torch.cat([bank.labels[:, 0] for bank in banks]).to(device)
        self.centers_px = torch.tensor([_center(bank) for bank in banks])

    def gather(self, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Inputs float32 [B, 3, S, S] in [0, 1] and labels uint8 [B, S, S] of drawn items."""
        rows = torch.tensor([self._firsts[item.bank] + item.slice_index for item in items], device=self.device)
        images = self._images[self._neighbors[rows]].float()
        return (images / 255.0 if self._images.dtype == torch.uint8 else images), self._labels[rows]


def _center(bank: SliceBank) -> tuple[float, float]:
    """Center (column, row) of the labels of a scan, or of its slices without labels."""
    box = label_box(bank.labels[:, 0])
    if box is None:
        return (bank.images.shape[-1] - 1) / 2, (bank.images.shape[-2] - 1) / 2
    rows, columns = box
    return sum(columns) / 2, sum(rows) / 2


@dataclass(frozen=True)
class TaskData:
    """The data of one task.

    Attributes:
        task: the task.
        scans: names of the training scans.
        slices: their slices.
        sampler: draws from them.
        validation: the validation scans.
    """

    task: BuiltinTask
    scans: tuple[str, ...]
    slices: SlicesOnDevice
    sampler: BalancedSampler
    validation: tuple[ValidationSet, ...]


def task_data(task: BuiltinTask, banks: Sequence[SliceBank], device: torch.device) -> TaskData:
    """Split the scans of a task, and move the training slices to a device.

    Raises:
        TrainingError: if a validation scan is missing, or if there is no training scan.
    """
    by_name = {bank.name: bank for bank in banks}
    missing = sorted(set(task.validation) - set(by_name))
    training = [bank for bank in banks if bank.name not in task.validation]
    if missing or not training:
        what = f"the validation scans {', '.join(missing)}" if missing else "training scans"
        raise TrainingError(f"The data of {task.id} lack {what}.")
    return TaskData(
        task=task,
        scans=tuple(bank.name for bank in training),
        slices=SlicesOnDevice(training, device),
        sampler=BalancedSampler(training, num_classes=len(task.labels)),
        validation=tuple(whole_case(by_name[name]) for name in task.validation),
    )


def read_banks(task: BuiltinTask, data_folder: Path) -> tuple[SliceBank, ...]:
    """Read and preprocess all scans of a task.

    Args:
        task: the task.
        data_folder: holds a folder for each data set.

    Raises:
        TrainingError: if the data set is missing.
    """
    return tuple(
        build_slice_bank(
            dataset_case(entry, task), slices=task.slices, intensity=task.intensity, image_size=task.image_size
        )
        for entry in dataset_cases(data_folder / task.folder)
    )


def dataset_case(entry: DatasetCase, task: BuiltinTask) -> Case:
    """Read one scan of a data set; all its slices count as labeled."""
    drawn = read_volume(entry.label)
    labels = LabelSet(tuple(Label(value, name, (1.0, 1.0, 1.0)) for value, name in enumerate(task.labels, start=1)))
    segmentation = Segmentation(drawn.array.astype("uint8"), drawn.geometry, labels, entry.id)
    case = make_case(read_volume(entry.image), segmentation)
    return replace(case, labeled=None, volume=replace(case.volume, name=entry.id))
