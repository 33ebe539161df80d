"""The slices of a task on the training device, from the scans of a data set or from one packed file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.preprocess.network_input import context_indices
from HSAMSegmentLib.training.data.batches import gather, label_box
from HSAMSegmentLib.training.data.cases import UNLABELED, Case, make_case
from HSAMSegmentLib.training.data.sampling import BalancedSampler, Item, ValidationSet, whole_case
from HSAMSegmentLib.training.data.slice_bank import ArrayStore, SliceBank, build_slice_bank
from recipes.builtin_tasks import BuiltinTask, DatasetCase, DataSource, dataset_cases
from recipes.synthetic_contrast import ContrastRule, tissue_maps, tissue_means

_NO_TISSUES = "Random contrast needs tissue maps; read the scans of the task instead of packed slices."


@dataclass(frozen=True)
class Tissues:
    """The tissues of one scan, see `synthetic_contrast`.

    Attributes:
        maps: uint8 [n, S, S].
        means: mean intensity of each tissue.
    """

    maps: Tensor
    means: Tensor


class SlicesOnDevice:
    """All training slices of a task in one tensor on one device."""

    def __init__(self, banks: Sequence[SliceBank], device: torch.device, tissues: Sequence[Tissues] = ()) -> None:
        """
        Args:
            banks: the training scans, each slice one network input.
            device: training device.
            tissues: tissues of the scans, in order, for random contrast.
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
        self._tissues = torch.cat([item.maps for item in tissues]).to(device) if tissues else None
        self._means = _mean_table(tissues)

    def gather_tissues(self, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Tissue maps uint8 [B, 3, S, S] of drawn items, and the mean intensities [B, T] of the tissues.

        Raises:
            TrainingError: if there are no tissue maps.
        """
        if self._tissues is None:
            raise TrainingError(_NO_TISSUES)
        rows = torch.tensor([self._firsts[item.bank] + item.slice_index for item in items], device=self.device)
        return self._tissues[self._neighbors[rows]], self._means[[item.bank for item in items]]

    def gather(self, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Inputs float32 [B, 3, S, S] in [0, 1] and labels uint8 [B, S, S] of drawn items."""
        rows = torch.tensor([self._firsts[item.bank] + item.slice_index for item in items], device=self.device)
        images = self._images[self._neighbors[rows]].float()
        return (images / 255.0 if self._images.dtype == torch.uint8 else images), self._labels[rows]


class SlicesOnDisk:
    """Training slices that stay in their banks; each batch is read and moved to a device."""

    def __init__(self, banks: Sequence[SliceBank], device: torch.device, tissues: Sequence[Tissues] = ()) -> None:
        """
        Args:
            banks: the training scans, in an `ArrayStore`.
            device: training device.
            tissues: tissues of the scans, in order, with maps in the `ArrayStore`, for random contrast.
        """
        self._banks, self._tissues, self.device = tuple(banks), tuple(tissues), device
        self.centers_px = torch.tensor([_center(bank) for bank in banks])
        self._means = _mean_table(tissues)

    def gather(self, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Inputs float32 [B, 3, S, S] in [0, 1] and labels uint8 [B, S, S] of drawn items."""
        images, labels = gather(self._banks, items)
        return images.to(self.device), labels.to(self.device)

    def gather_tissues(self, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Tissue maps uint8 [B, 3, S, S] of drawn items, and the mean intensities [B, T] of the tissues.

        Raises:
            TrainingError: if there are no tissue maps.
        """
        if not self._tissues:
            raise TrainingError(_NO_TISSUES)
        maps = torch.stack([self._maps_of(item) for item in items])
        return maps.to(self.device), self._means[[item.bank for item in items]]

    def _maps_of(self, item: Item) -> Tensor:
        bank, maps = self._banks[item.bank], self._tissues[item.bank].maps
        (rows,) = context_indices(np.array([item.slice_index]), len(bank), bank.context_step)
        return maps[torch.from_numpy(rows).long()]


def _mean_table(tissues: Sequence[Tissues]) -> Tensor:
    """Mean intensities [scans, T]; 0 for tissues that a scan lacks."""
    count = max((len(item.means) for item in tissues), default=0)
    rows = [F.pad(item.means, (0, count - len(item.means))) for item in tissues]
    return torch.stack(rows) if rows else torch.zeros(0, 0)


def _center(bank: SliceBank) -> tuple[float, float]:
    """Center (column, row) of the labels of a scan, or of its slices without labels."""
    box = label_box(bank.labels[:, 0])
    if box is None:
        return (bank.images.shape[-1] - 1) / 2, (bank.images.shape[-2] - 1) / 2
    rows, columns = box
    return sum(columns) / 2, sum(rows) / 2


class GroupSampler:
    """Draws the same number of slices from each data set, regardless of size."""

    def __init__(self, groups: Sequence[Sequence[int]], banks: Sequence[SliceBank], num_classes: int) -> None:
        """
        Args:
            groups: indices of the banks of each data set.
            banks: all training scans.
            num_classes: foreground classes K.
        """
        whole = BalancedSampler(banks, num_classes=num_classes)
        self._samplers = [
            whole.only([item for item in whole.items if item.bank in group]) for group in map(set, groups)
        ]

    def draw(self, count: int, generator: torch.Generator) -> list[Item]:
        """Draw `count` items, with replacement."""
        number = len(self._samplers)
        shares = [count // number + (index < count % number) for index in range(number)]
        return [item for sampler, share in zip(self._samplers, shares) for item in sampler.draw(share, generator)]


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
    slices: SlicesOnDevice | SlicesOnDisk
    sampler: BalancedSampler | GroupSampler
    validation: tuple[ValidationSet, ...]


def task_data(
    task: BuiltinTask,
    banks: Sequence[SliceBank],
    device: torch.device,
    *,
    is_streamed: bool = False,
    tissues: Sequence[Tissues] = (),
) -> TaskData:
    """Split the scans of a task, and move the training slices to a device, per batch if streamed.

    Args:
        task: the task.
        banks: its scans.
        device: training device.
        is_streamed: whether the banks have their slices in files, which are read for each batch.
        tissues: tissues of the training scans, in order, for random contrast.

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
        slices=(SlicesOnDisk if is_streamed else SlicesOnDevice)(training, device, tissues),
        sampler=BalancedSampler(training, num_classes=len(task.labels)),
        validation=tuple(whole_case(by_name[name]) for name in task.validation),
    )


def read_task(task: BuiltinTask, data_folder: Path, device: torch.device, store: ArrayStore | None = None) -> TaskData:
    """Read all scans of a task from their data sets, with tissue maps if it uses random contrast.

    Args:
        task: the task.
        data_folder: contains a folder per data set.
        device: training device.
        store: keeps slices and tissue maps on disk, scan by scan; None to keep all on the device.

    Raises:
        TrainingError: if a data set or a validation scan is missing.
        OutputError: if the disk of the store is full.
    """
    banks: list[SliceBank] = []
    tissues: list[Tissues] = []
    groups: list[list[int]] = []
    trained = 0
    for part in parts_of(task):
        part = replace(part, image_size=task.slice_size or task.image_size)
        groups.append([])
        for bank in _banks_of(part, data_folder):
            if bank.name not in task.validation:
                groups[-1].append(trained)
                trained += 1
                if task.contrast is not None:
                    tissues.append(_tissues(bank, part, task.contrast, store))
            bank = _with_labels_of(bank, part.labels, task.labels) if task.sources else bank
            banks.append(bank if store is None else store.bank(bank))
    data = task_data(task, banks, device, is_streamed=store is not None, tissues=tissues)
    if not task.sources:
        return data
    training = [bank for bank in banks if bank.name not in task.validation]
    return replace(data, sampler=GroupSampler(groups, training, len(task.labels)))


def _tissues(bank: SliceBank, task: BuiltinTask, rule: ContrastRule, store: ArrayStore | None) -> Tissues:
    """Tissue maps of a scan, with all labels of its data set."""
    images, labels = bank.images[:, 0].float(), bank.labels[:, 0]
    maps = tissue_maps(images, labels, clusters=rule.clusters)
    means = tissue_means(images, maps, rule.clusters + len(task.labels))
    return Tissues(maps if store is None else store.tensor(maps), means)


def parts_of(task: BuiltinTask) -> tuple[BuiltinTask, ...]:
    """One task for each data set, with the labels of that data set."""
    sources = (DataSource(task.folder, task.labels), *task.sources)
    return tuple(replace(task, folder=source.folder, labels=source.labels) for source in sources)


def case_of_part(entry: DatasetCase, part: BuiltinTask, task: BuiltinTask) -> Case:
    """Read a scan of a part with the label values of the task."""
    case = dataset_case(entry, part)
    labels = label_table(part.labels, task.labels).numpy()[case.labels]
    return replace(case, labels=labels, label_set=_label_set(task))


def label_table(names: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Map label values of a data set to those of the task, uint8 [256]; other structures become background."""
    table = torch.zeros(256, dtype=torch.uint8)
    table[UNLABELED] = UNLABELED
    for value, name in enumerate(names, start=1):
        table[value] = wanted.index(name) + 1 if name in wanted else 0
    return table


def _with_labels_of(bank: SliceBank, names: Sequence[str], wanted: Sequence[str]) -> SliceBank:
    """A bank with the label values of the task."""
    table = label_table(names, wanted)
    return replace(bank, labels=table[bank.labels.long()], reference=table[bank.reference.long()])


def _banks_of(task: BuiltinTask, data_folder: Path) -> Iterator[SliceBank]:
    """Read and preprocess the scans of a data set, one after the other."""
    for entry in dataset_cases(data_folder / task.folder):
        yield build_slice_bank(
            dataset_case(entry, task), slices=task.slices, intensity=task.intensity, image_size=task.image_size
        )


def dataset_case(entry: DatasetCase, task: BuiltinTask) -> Case:
    """Read one scan of a data set; all its slices count as labeled."""
    drawn = read_volume(entry.label)
    segmentation = Segmentation(drawn.array.astype("uint8"), drawn.geometry, _label_set(task), entry.id)
    case = make_case(read_volume(entry.image), segmentation)
    return replace(case, labeled=None, volume=replace(case.volume, name=entry.id))


def _label_set(task: BuiltinTask) -> LabelSet:
    return LabelSet(tuple(Label(value, name, (1.0, 1.0, 1.0)) for value, name in enumerate(task.labels, start=1)))
