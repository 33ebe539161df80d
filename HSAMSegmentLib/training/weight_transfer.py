"""Copy weights between networks: tensors of the same name and shape, and classes by the names of their labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from HSAMSegmentLib.labels.label_set import LabelSet

_PER_CLASS_ENTRY = re.compile(r"(hypernetworks\w*)\.(\d+)\.")


@dataclass(frozen=True)
class TransferReport:
    """The origin of every tensor of the new network.

    Attributes:
        taken: names of tensors copied whole.
        by_class: names of tensors of which only the common classes were copied.
        new: names of tensors that keep their initial values.
        common_labels: names of the classes of both networks.
    """

    taken: tuple[str, ...]
    by_class: tuple[str, ...]
    new: tuple[str, ...]
    common_labels: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The report in words."""
        total = len(self.taken) + len(self.by_class) + len(self.new)
        known = f" Structures it already knew: {', '.join(self.common_labels)}." if self.common_labels else ""
        return (
            f"Taken from the starting model: {len(self.taken)} of {total} tensors, {len(self.by_class)} for the common "
            f"structures only; {len(self.new)} are newly initialized.{known}"
        )


def class_map(old: LabelSet | None, new: LabelSet) -> dict[int, int]:
    """Channel of the new network -> channel of the old one, for the background and labels of the same name."""
    pairs = {0: 0}
    if old is not None:
        channels = {label.name.lower(): number for number, label in enumerate(old, start=1)}
        for number, label in enumerate(new, start=1):
            if label.name.lower() in channels:
                pairs[number] = channels[label.name.lower()]
    return pairs


@torch.no_grad()
def transfer(
    source: Mapping[str, Tensor],
    target: nn.Module,
    *,
    old_labels: LabelSet | None,
    new_labels: LabelSet,
) -> TransferReport:
    """Copy the matching tensors of another network.

    A tensor of the same name and shape is copied, unless it belongs to classes (one row or one perceptron per channel):
    those follow the names of the labels.

    Args:
        source: tensors of the old network by name.
        target: the new network, changed in place.
        old_labels: labels of the old network's channels 1.., None if unknown.
        new_labels: labels of the new network's channels 1...
    """
    channels = class_map(old_labels, new_labels)
    old_count, new_count = (0 if labels is None else len(labels) + 1 for labels in (old_labels, new_labels))
    taken: list[str] = []
    by_class: list[str] = []
    new: list[str] = []
    for name, tensor in target.state_dict().items():
        origin = _origin(name, channels)
        found = source.get(origin) if origin is not None else None
        if found is not None and _is_per_row(found, tensor, old_count, new_count):
            for channel, old in channels.items():
                tensor[channel] = found[old].to(tensor.dtype)
            by_class.append(name)
        elif found is not None and found.shape == tensor.shape:
            tensor.copy_(found)
            (taken if origin == name and _PER_CLASS_ENTRY.search(name) is None else by_class).append(name)
        else:
            new.append(name)
    known = tuple(label.name for number, label in enumerate(new_labels, start=1) if number in channels)
    return TransferReport(tuple(taken), tuple(by_class), tuple(new), known)


def _origin(name: str, channels: Mapping[int, int]) -> str | None:
    """Name of the old tensor that a new one comes from; None where a class is new."""
    match = _PER_CLASS_ENTRY.search(name)
    if match is None:
        return name
    channel = channels.get(int(match.group(2)))
    if channel is None:
        return None
    return f"{name[: match.start(2)]}{channel}{name[match.end(2) :]}"


def _is_per_row(found: Tensor, tensor: Tensor, old_count: int, new_count: int) -> bool:
    """Whether the first axis counts classes on both sides and the rest agrees."""
    return (
        tensor.ndim > 0
        and found.ndim == tensor.ndim
        and found.shape[0] == old_count
        and tensor.shape[0] == new_count
        and found.shape[1:] == tensor.shape[1:]
        and tensor.shape[0] <= 256
    )
