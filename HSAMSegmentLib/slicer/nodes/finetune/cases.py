"""Cases to train on: pairs of a scan and a segmentation in the scene or in files, and their export."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import slice_axis
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.labels.layered_segmentation import LayeredSegmentation, LayeredStructure, LayerInput
from HSAMSegmentLib.runtime.atomic_files import make_folder
from HSAMSegmentLib.runtime.disk import require_free_space
from HSAMSegmentLib.runtime.serialization import from_plain
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene
from HSAMSegmentLib.slicer.nodes.segmentations.node_layers import layers_on_scan
from HSAMSegmentLib.slicer.nodes.volumes import volume_array, volume_geometry, volume_problem
from HSAMSegmentLib.training.request import FinetuneCase, FinetuneRequest, OrganInput
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.worker.array_export import ArrayExport, Export, ExportChain
from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneOutcome
from HSAMSegmentLib.workflows.finetune.inspect_cases import (
    CaseSummary,
    OrganSummary,
    finetune_labels,
    join_organs,
    present_values,
    slice_count_note,
    slices_across,
)
from HSAMSegmentLib.workflows.finetune.training_run import TrainingRun


class LabeledPair(Protocol):
    """A case as the panel lists it.

    Attributes:
        summary: what is in it, as far as is known.
        export_bytes: size of its copy in the folder of a training run.
    """

    summary: CaseSummary | None
    export_bytes: int

    def summarize(self) -> CaseSummary:
        """What is in it now."""

    def export(
        self, folder: Path, number: int, names: dict[str, str]
    ) -> tuple[FinetuneCase, list[Callable[[], Export]]]:
        """The case of a request, and what has to be written into the folder of the training run for it."""


@dataclass(eq=False)
class NodePair:
    """A scan and a segmentation of the scene."""

    volume_node: Any
    segmentation_node: Any
    summary: CaseSummary | None = None

    def summarize(self) -> CaseSummary:
        """What is in it now."""
        self.summary = summarize_nodes(self.volume_node, self.segmentation_node)
        return self.summary

    def export(
        self, folder: Path, number: int, names: dict[str, str]
    ) -> tuple[FinetuneCase, list[Callable[[], Export]]]:
        """Copies of the scan and of each label image; nothing in the scene is changed.

        Raises:
            RequestError: if one of the nodes cannot be used.
        """
        volume = self.volume_node
        labels = layers_on_scan(self.segmentation_node, volume)
        scan_file = folder / f"case-{number}-scan.npy"
        files = [folder / f"case-{number}-labels-{index}.npy" for index in range(1, len(labels.layers) + 1)]
        scan = VolumeInput(
            array_file=str(scan_file),
            geometry=volume_geometry(volume),
            name=volume.GetName(),
            modality=volume.GetAttribute("DICOM.Modality") or "",
        )
        case = FinetuneCase(
            scan=scan,
            organs=tuple(_organs(labels.structures, names)),
            layers=tuple(LayerInput(str(file), grid) for file, (_array, grid) in zip(files, labels.layers)),
        )
        arrays = [volume_array(volume), *(array for array, _grid in labels.layers)]
        writers = [_writer(array, file) for array, file in zip(arrays, [scan_file, *files])]
        return case, writers

    @property
    def export_bytes(self) -> int:
        """Size of the copies."""
        if summarize_problem(self.volume_node, self.segmentation_node):
            return 0
        labels = layers_on_scan(self.segmentation_node, self.volume_node)
        return volume_array(self.volume_node).nbytes + sum(array.nbytes for array, _grid in labels.layers)


@dataclass(eq=False)
class FilePair:
    """A scan and a label file; a job looks into them, since reading may take long."""

    image: str
    labels: str
    summary: CaseSummary | None = None

    def summarize(self) -> CaseSummary:
        """What the job found, or that the files have not been read yet."""
        name = Path(self.image).name
        return self.summary or CaseSummary(name, problem=_("These files have not been read yet."))

    def export(
        self, folder: Path, number: int, names: dict[str, str]
    ) -> tuple[FinetuneCase, list[Callable[[], Export]]]:
        """Only the paths: the worker reads the files themselves."""
        found = self.summarize()
        sources = [organ.label.name for organ in found.organs]
        organs = tuple(OrganInput(names[source], source) for source in sources if source in names)
        scan = VolumeInput(path=self.image, name=found.name, modality=found.modality)
        return FinetuneCase(scan, organs, label_file=self.labels), []

    @property
    def export_bytes(self) -> int:
        """Size of the copy that the worker makes: scan and labels, as far as is known."""
        return 0 if self.summary is None else 5 * int(np.prod(self.summary.shape))


@dataclass(frozen=True)
class FinetunePlan:
    """What the user chose.

    Attributes:
        pairs: the cases.
        names: name of an organ in a case to the name that is learned; proposals for what is missing here.
        left_out: names (that are learned) to leave out.
        model_id: id for the model.
        title: of the model.
        start_from: model to start from.
        encoder: SAM encoder to learn on, "" for that of the starting model.
        head: network head, "" for that of the starting model.
        minutes: length.
        device: where it runs.
        scratch: folder in which the training run gets its folder.
        store: where the model goes.
    """

    pairs: tuple[LabeledPair, ...]
    names: dict[str, str]
    left_out: tuple[str, ...]
    model_id: str
    title: str
    start_from: str
    encoder: str
    head: str
    minutes: float
    device: str
    scratch: Path
    store: Store


class FinetuneTask:
    """A new training run: its cases are copied out of the scene, then the worker fine-tunes (see `session.Task`).

    Attributes:
        training_run: where it is kept; None until it is prepared.
        labels: what is learned; empty until it is prepared.
    """

    def __init__(self, plan: FinetunePlan) -> None:
        self._plan = plan
        self.training_run: TrainingRun | None = None
        self.labels = LabelSet(())

    def prepare(self, folder: Path) -> tuple[FinetuneRequest, Export]:
        """Make the training run; it outlives the job's own folder.

        Raises:
            RequestError: if a case cannot be used or nothing is to be learned.
            OutputError: if the scratch folder cannot be used or is too full.
        """
        plan = self._plan
        summaries = usable_summaries(plan.pairs)
        self.labels = labels = finetune_labels(summaries, plan.names, plan.left_out)
        if not len(labels):
            raise RequestError(_("There is nothing to learn: choose at least one organ."))
        names = {name: target for name, target in all_names(summaries, plan.names).items() if _is_in(labels, target)}
        needed = sum(pair.export_bytes for pair in plan.pairs)
        require_free_space(make_folder(plan.scratch), needed, _("Copying the scans to train on"))
        self.training_run = TrainingRun.create(plan.scratch, plan.model_id)
        try:
            cases, writers = self._export(self.training_run.folder, names)
        except (RequestError, OSError):
            self.training_run.remove()
            raise
        request = FinetuneRequest(
            output=self.training_run.model_file(plan.model_id),
            cases=tuple(cases),
            labels=labels,
            title=plan.title,
            start_from=plan.start_from,
            encoder=plan.encoder,
            head=plan.head,
            minutes=plan.minutes,
            device=plan.device,
            store_folder=str(plan.store.folder),
        )
        return request, ExportChain([*writers, lambda: _RequestWriter(self.training_run, request)])

    def _export(self, folder: Path, names: dict[str, str]) -> tuple[list[FinetuneCase], list[Callable[[], Export]]]:
        """All cases with an organ that is learned, and what has to be written for them."""
        cases, writers = [], []
        for number, pair in enumerate(self._plan.pairs, start=1):
            case, own = pair.export(folder, number, names)
            if case.organs:
                cases.append(case)
                writers += own
        return cases, writers

    def finish(self, values: dict[str, Any]) -> FinetuneOutcome:
        """What came out."""
        return from_plain(FinetuneOutcome, values)


class ResumeTask:
    """A training run that is on the disk goes on, or is made a model as it stands."""

    def __init__(self, request: FinetuneRequest, *, finish_now: bool = False) -> None:
        self._request = replace(request, resume=True, finish=finish_now)
        self.training_run = TrainingRun(request.folder)

    def prepare(self, folder: Path) -> tuple[FinetuneRequest, Export]:
        """Nothing has to be handed over."""
        return self._request, ExportChain([])

    def finish(self, values: dict[str, Any]) -> FinetuneOutcome:
        """What came out."""
        return from_plain(FinetuneOutcome, values)


class _RequestWriter:
    """Writes the request once the copies are complete: from then on the training run can go on without the scene."""

    def __init__(self, training_run: TrainingRun, request: FinetuneRequest) -> None:
        self._training_run, self._request = training_run, request

    def step(self) -> bool:
        """Write; raises OutputError if that is not possible."""
        self._training_run.write_request(self._request)
        return True


def usable_summaries(pairs: Sequence[LabeledPair]) -> list[CaseSummary]:
    """What is in all cases.

    Raises:
        RequestError: if there is none, or if one cannot be used.
    """
    if not pairs:
        raise RequestError(_("There is nothing to train on: add a scan with its segmentation."))
    summaries = [pair.summarize() for pair in pairs]
    for summary in summaries:
        if summary.problem:
            raise RequestError(f"{summary.name}: {summary.problem}")
    return summaries


def all_names(summaries: Sequence[CaseSummary], chosen: dict[str, str]) -> dict[str, str]:
    """Name in a case to name that is learned: what the user chose, else the proposal."""
    return {name: chosen.get(name, target) for name, target in join_organs(summaries).items()}


def summarize_problem(volume_node, segmentation_node) -> str:
    """Why two nodes cannot be a case, before looking into the labels; empty if they can."""
    if not is_in_scene(volume_node) or not is_in_scene(segmentation_node):
        return _("The scan or its segmentation was removed from the scene. Remove this row.")
    problem = volume_problem(volume_node)
    if problem:
        return problem
    if segmentation_node.GetSegmentation().GetNumberOfSegments() == 0:
        text = _("'{name}' has no segments. Segment or draw at least one organ.")
        return text.format(name=segmentation_node.GetName())
    return ""


def summarize_nodes(volume_node, segmentation_node) -> CaseSummary:
    """What is in a scan and its segmentation; a problem is part of the answer."""
    problem = summarize_problem(volume_node, segmentation_node)
    if problem:
        return CaseSummary(volume_node.GetName() if volume_node is not None else "?", problem=problem)
    name, geometry = volume_node.GetName(), volume_geometry(volume_node)
    try:
        labels = layers_on_scan(segmentation_node, volume_node)
    except RequestError as error:
        return CaseSummary(name, problem=str(error))
    axis = 2 - slice_axis(geometry)
    organs, labeled = _inspect_layers(labels, geometry, axis)
    if not organs:
        problem = _("'{name}' has no labeled voxel on this scan. Draw at least one organ on it.").format(
            name=segmentation_node.GetName()
        )
    note = slice_count_note(len(labeled)) if organs else ""
    return CaseSummary(
        name=name,
        organs=tuple(organs),
        slices=geometry.shape[axis],
        labeled_slices=len(labeled),
        problem=problem,
        notes=(note,) if note else (),
        shape=geometry.shape,
        modality=volume_node.GetAttribute("DICOM.Modality") or "",
        slices_across=slices_across(geometry),
    )


def _inspect_layers(labels: LayeredSegmentation, geometry: Geometry, axis: int) -> tuple[list[OrganSummary], set[int]]:
    """Organs with voxels on the scan, and the slices of the scan that have any label."""
    organs, labeled = [], set()
    for layer, (array, grid) in enumerate(labels.layers):
        numbers = _slice_numbers(grid, geometry, axis)
        inside = np.array([number is not None for number in numbers])
        present = present_values(array, axis) & inside[:, np.newaxis]
        for structure in (item for item in labels.structures if item.layer == layer):
            slices = np.flatnonzero(present[:, structure.value])
            labeled |= {numbers[index] for index in slices}
            if slices.size:
                organs.append(OrganSummary(structure.label, int(slices.size)))
    return organs, labeled


def _slice_numbers(layer: Geometry, scan: Geometry, axis: int) -> list[int | None]:
    """For each slice of a label image the slice of the scan that its center lies in, None if it lies outside."""
    to_scan = np.linalg.solve(scan.ijk_to_lps, layer.ijk_to_lps)
    if not _touches(to_scan, layer, scan):
        return [None] * layer.shape[axis]
    center = np.array([(size - 1) / 2.0 for size in layer.size] + [1.0])
    numbers: list[int | None] = []
    for index in range(layer.shape[axis]):
        center[2 - axis] = index
        number = int(np.rint((to_scan @ center)[2 - axis]))
        numbers.append(number if 0 <= number < scan.shape[axis] else None)
    return numbers


def _touches(to_scan: np.ndarray, layer: Geometry, scan: Geometry) -> bool:
    """Whether the box of a label image and that of a scan have anything in common."""
    corners = np.array([[*corner, 1.0] for corner in itertools.product(*((0.0, size - 1.0) for size in layer.size))])
    places = corners @ to_scan.T
    low, high = places.min(axis=0)[:3], places.max(axis=0)[:3]
    return bool((high >= 0).all() and (low <= np.asarray(scan.size) - 1).all())


def _organs(structures: Sequence[LayeredStructure], names: dict[str, str]) -> Iterator[OrganInput]:
    for item in structures:
        if item.layer is not None and item.name in names:
            yield OrganInput(names[item.name], item.name, item.layer, item.value)


def _writer(array: np.ndarray, file: Path) -> Callable[[], Export]:
    return lambda: ArrayExport(array, file)


def _is_in(labels, name: str) -> bool:
    return any(label.name == name for label in labels)


def is_same_pair(first: LabeledPair, second: LabeledPair) -> bool:
    """Whether two cases are the same nodes or the same files."""
    if isinstance(first, NodePair) and isinstance(second, NodePair):
        return first.volume_node is second.volume_node and first.segmentation_node is second.segmentation_node
    if isinstance(first, FilePair) and isinstance(second, FilePair):
        return (first.image, first.labels) == (second.image, second.labels)
    return False
