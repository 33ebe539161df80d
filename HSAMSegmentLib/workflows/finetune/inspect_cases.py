"""Cases of a background fine-tuning: read and checked in the worker, summarized for users. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import slice_axis
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.layered_segmentation import LayerInput
from HSAMSegmentLib.labels.segmentation_files import read_segmentation
from HSAMSegmentLib.labels.terminology import find_structure
from HSAMSegmentLib.preprocess.rules import SliceRule, other_plane
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.training.data.cases import Case, make_case
from HSAMSegmentLib.training.request import FinetuneCase, OrganInput
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.finetune.finetune_request import InspectRequest

_COMPARED_VALUES = 8
"""Up to this label value, comparing each value is faster than counting all, as needed in response to a click."""

FEWEST_TO_HOLD_OUT = 6
"""With fewer labeled slices nothing is held out, so the quality of the model is unknown."""


@dataclass(frozen=True)
class OrganSummary:
    """One organ of a case.

    Attributes:
        label: name, color, code.
        slices: number of slices with it.
    """

    label: Label
    slices: int


@dataclass(frozen=True)
class CaseSummary:
    """Summary of a case.

    Attributes:
        name: name of the scan.
        organs: organs with at least one voxel.
        slices: number of slices of the scan.
        labeled_slices: number of slices with at least one label.
        problem: a sentence on why it cannot be used for training; empty if it can.
        notes: sentences on what was assumed.
        shape: shape of the scan (k, j, i).
        modality: "CT", "MR" or "".
        slices_across: slices for a second network along another plane; 0 if slices are too thick for that.
    """

    name: str
    organs: tuple[OrganSummary, ...] = ()
    slices: int = 0
    labeled_slices: int = 0
    problem: str = ""
    notes: tuple[str, ...] = ()
    shape: tuple[int, int, int] = (0, 0, 0)
    modality: str = ""
    slices_across: int = 0


def run(request: InspectRequest, context: Context) -> CaseSummary:
    """Read and summarize a scan and its label file; problems are part of the summary."""
    context.emit(Progress(0.0, "Reading the scan"))
    name = Path(request.image).name
    try:
        volume = read_volume(Path(request.image))
        context.cancel.raise_if_cancelled()
        context.emit(Progress(0.5, "Reading the labels"))
        case = make_case(volume, read_segmentation(Path(request.labels), grid=volume.geometry))
    except HSAMSegmentError as error:
        return CaseSummary(name, problem=str(error))
    return summarize(case)


def summarize(case: Case) -> CaseSummary:
    """Summarize a case that was read."""
    axis = case.labeled_axis
    per_slice = present_values(case.labels, axis)
    organs = tuple(OrganSummary(label, int(per_slice[:, label.value].sum())) for label in case.label_set)
    return CaseSummary(
        name=case.volume.name,
        organs=organs,
        slices=case.labels.shape[axis],
        labeled_slices=int(per_slice[:, 1:].any(axis=1).sum()),
        notes=case.notes,
        shape=case.labels.shape,
        modality=case.volume.modality,
        slices_across=slices_across(case.volume.geometry) if case.labeled is None else 0,
    )


def slices_across(geometry: Geometry) -> int:
    """Number of slices for a second network along another plane; 0 without one."""
    plane = other_plane([geometry], SliceRule())
    return geometry.size[slice_axis(geometry, plane)] if plane else 0


def present_values(labels: np.ndarray, axis: int) -> np.ndarray:
    """Which values occur in which slice: bool [slices, 256] of an array (k, j, i) sliced along an axis."""
    found = np.zeros((labels.shape[axis], 256), dtype=bool)
    highest = int(labels.max(initial=0))
    for index in range(labels.shape[axis]):
        piece = np.ascontiguousarray(labels.take(index, axis=axis))
        if highest <= _COMPARED_VALUES:
            found[index, : highest + 1] = [bool((piece == value).any()) for value in range(highest + 1)]
        else:
            found[index] = np.bincount(piece.ravel(), minlength=256)[:256] > 0
    return found


def keep_copy(case: Case, folder: Path, number: int) -> FinetuneCase:
    """Copy a case into a folder, so that a fine-tuning can continue without its files.

    Returns:
        The source of the copy, which `open_case` reads as the same case.

    Raises:
        OSError: if it cannot be written.
    """
    scan_file, label_file = folder / f"case-{number}-scan.npy", folder / f"case-{number}-labels.npy"
    np.save(scan_file, case.volume.array)
    np.save(label_file, case.labels)
    volume = case.volume
    return FinetuneCase(
        scan=VolumeInput(
            array_file=str(scan_file), geometry=volume.geometry, name=volume.name, modality=volume.modality
        ),
        organs=tuple(OrganInput(label.name, label.name, 0, label.value) for label in case.label_set),
        layers=(LayerInput(str(label_file), volume.geometry),),
    )


def same_organ(first: Label, second: Label) -> bool:
    """Whether two labels mean the same organ: by code if both have one, else by name."""
    if first.terminology is not None and second.terminology is not None and first.terminology == second.terminology:
        return True
    known = find_structure(first.name)
    if known is not None and known is find_structure(second.name):
        return True
    return _words(first.name) == _words(second.name)


def join_organs(summaries: Iterable[CaseSummary]) -> dict[str, str]:
    """Propose a learned name for each organ name: names for the same organ map to the first of them."""
    leaders: list[Label] = []
    names: dict[str, str] = {}
    for summary in summaries:
        for organ in summary.organs:
            if organ.label.name in names:
                continue
            leader = next((item for item in leaders if same_organ(item, organ.label)), None)
            if leader is None:
                leaders.append(organ.label)
            names[organ.label.name] = organ.label.name if leader is None else leader.name
    return names


def finetune_labels(summaries: Iterable[CaseSummary], names: dict[str, str], left_out: Iterable[str]) -> LabelSet:
    """The labels to learn: one per included name, numbered from 1, with color and code of its first organ.

    Args:
        summaries: all cases.
        names: name in a case to learned name.
        left_out: learned names to leave out.
    """
    excluded = set(left_out)
    chosen: dict[str, Label] = {}
    for summary in summaries:
        for organ in summary.organs:
            target = names.get(organ.label.name, organ.label.name)
            if target not in excluded and target not in chosen:
                chosen[target] = replace(organ.label, name=target, value=len(chosen) + 1)
    return LabelSet(tuple(chosen.values()))


def slice_count_note(labeled_slices: int) -> str:
    """A note on what this number of labeled slices means for a fine-tuning; empty without one."""
    if labeled_slices >= FEWEST_TO_HOLD_OUT:
        return ""
    return _(
        "Only {count} labeled slice(s): too few to hold some out, so the quality of the model will be unknown."
    ).format(count=labeled_slices)


def _words(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
